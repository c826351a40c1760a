//! `aquifer group lag`: how many records groups have not read yet.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::describe::{DescribedGroup, GroupOffset, described};
use crate::cli::{
    client::Client,
    failures,
    output::{Format, Output, Table},
};

/// Arguments.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// Their names; without any, all groups that committed something.
    #[arg(value_name = "GROUP")]
    names: Vec<String>,
    /// One line for each topic of a group instead of one for each partition.
    #[arg(short, long)]
    summary: bool,
}

#[derive(Serialize)]
struct Document {
    groups: Vec<GroupLag>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct GroupLag {
    group: String,
    /// Of all partitions whose lag is known.
    lag: i64,
    topics: Vec<TopicLag>,
    offsets: Vec<GroupOffset>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TopicLag {
    topic: String,
    /// How many partitions the group reads or has read.
    partitions: usize,
    lag: i64,
    /// The largest of one partition.
    lag_max: i64,
}

/// Tells the lag.
///
/// # Errors
/// A group is not there, or nobody says. The others are told all the same.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    args: &LagArgs,
) -> anyhow::Result<()> {
    let is_all = args.names.is_empty();
    let names = match is_all {
        true => super::groups(client).await?.into_iter().map(|group| group.group).collect(),
        false => args.names.clone(),
    };
    let (mut groups, mut errors) = (Vec::new(), Vec::new());
    for name in &names {
        match described(client, name).await {
            Ok(group) if is_all && group.offsets.is_empty() => {}
            Ok(group) => groups.push(totalled(group)),
            Err(error) => errors.push(error.into()),
        }
    }
    if format == Format::Json {
        output.document(&Document { groups })?;
        return failures(errors);
    }
    if groups.is_empty() && errors.is_empty() {
        eprintln!("no group has committed an offset");
    } else if args.summary && !groups.is_empty() {
        output.table(&summary(&groups))?;
    } else {
        for (at, group) in groups.iter().enumerate() {
            if 0 < at {
                output.text("\n")?;
            }
            output.title(&format!("{}  lag {}", group.group, group.lag))?;
            if !group.offsets.is_empty() {
                output.table(&by_partition(&group.offsets))?;
            }
        }
    }
    failures(errors)
}

fn totalled(group: DescribedGroup) -> GroupLag {
    let mut topics = BTreeMap::<&str, TopicLag>::new();
    for offset in &group.offsets {
        let nothing =
            || TopicLag { topic: offset.topic.clone(), partitions: 0, lag: 0, lag_max: 0 };
        let total = topics.entry(&offset.topic).or_insert_with(nothing);
        let lag = offset.lag.unwrap_or(0);
        total.partitions += 1;
        total.lag += lag;
        total.lag_max = total.lag_max.max(lag);
    }
    let topics: Vec<TopicLag> = topics.into_values().collect();
    let lag = topics.iter().map(|topic| topic.lag).sum();
    GroupLag { group: group.group, lag, topics, offsets: group.offsets }
}

fn by_partition(offsets: &[GroupOffset]) -> Table {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut table = Table::new(&["topic", "partition", "committed", "latest", "lag"]);
    for offset in offsets {
        table.row([
            offset.topic.clone(),
            offset.partition.to_string(),
            number(offset.committed),
            number(offset.latest),
            number(offset.lag),
        ]);
    }
    table
}

fn summary(groups: &[GroupLag]) -> Table {
    let mut table = Table::new(&["group", "topic", "partitions", "lag", "largest"]);
    for group in groups {
        for topic in &group.topics {
            table.row([
                group.group.clone(),
                topic.topic.clone(),
                topic.partitions.to_string(),
                topic.lag.to_string(),
                topic.lag_max.to_string(),
            ]);
        }
    }
    table
}
