//! `aquifer topic describe`: partitions with their offsets, and settings that are not defaults.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::{
    client::{Client, ClientError, Isolation, OffsetSpec, Topic},
    config::{self, Kind, Setting},
    output::{Format, Output, Table},
};

#[derive(Serialize)]
struct Document {
    topics: Vec<DescribedTopic>,
}

#[derive(Serialize)]
struct DescribedTopic {
    name: String,
    id: Option<String>,
    internal: bool,
    partitions: Vec<DescribedPartition>,
    /// Those that are not at their default.
    configs: Vec<Setting>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    earliest: Option<i64>,
    /// The offset that the next record gets.
    latest: Option<i64>,
}

/// Describes the topics of `names`.
///
/// # Errors
/// One is not there, or its brokers do not answer.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    names: &[String],
) -> anyhow::Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut topics = Vec::new();
    for topic in client.topics(&names).await? {
        topics.push(described(client, &topic).await?);
    }
    if format == Format::Json {
        return Ok(output.document(&Document { topics })?);
    }
    for (at, topic) in topics.iter().enumerate() {
        if 0 < at {
            output.text("\n")?;
        }
        print(output, topic)?;
    }
    Ok(())
}

async fn described(client: &mut Client, topic: &Topic) -> Result<DescribedTopic, ClientError> {
    // Nobody can say the offsets of a partition without a leader, and the rest is wanted still.
    let led = topic.partitions.iter().filter(|(_, partition)| partition.leader.is_some());
    let led: Vec<i32> = led.map(|(index, _)| *index).collect();
    let isolation = Isolation::ReadUncommitted;
    let earliest = client.offsets(topic, &led, OffsetSpec::Earliest, isolation).await?;
    let latest = client.offsets(topic, &led, OffsetSpec::Latest, isolation).await?;
    let at = |found: &BTreeMap<i32, super::super::client::ListedOffset>, index: i32| {
        found.get(&index).and_then(|listed| listed.offset)
    };
    let partitions = topic.partitions.iter().map(|(index, partition)| DescribedPartition {
        partition: *index,
        leader: partition.leader,
        replicas: partition.replicas.clone(),
        in_sync: partition.in_sync.clone(),
        earliest: at(&earliest, *index),
        latest: at(&latest, *index),
    });
    let partitions = partitions.collect();
    let configs = config::settings(client, Kind::Topic, &topic.name, &[]).await?;
    Ok(DescribedTopic {
        name: topic.name.to_string(),
        id: topic.id.map(|id| id.to_string()),
        internal: topic.is_internal,
        partitions,
        configs: configs.into_iter().filter(Setting::is_changed).collect(),
    })
}

fn print(output: &mut Output, topic: &DescribedTopic) -> anyhow::Result<()> {
    let id = topic.id.as_ref().map_or_else(String::new, |id| format!("  id {id}"));
    output.title(&format!("{}{id}", topic.name))?;
    let headings = ["partition", "leader", "replicas", "in sync", "earliest", "latest", "records"];
    let mut table = Table::new(&headings);
    let text = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let list = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    for partition in &topic.partitions {
        let (earliest, latest) = (partition.earliest, partition.latest);
        let records = latest.zip(earliest).map(|(latest, earliest)| latest - earliest);
        table.row([
            partition.partition.to_string(),
            text(partition.leader.map(i64::from)),
            list(&partition.replicas),
            list(&partition.in_sync),
            text(earliest),
            text(latest),
            text(records),
        ]);
    }
    output.table(&table)?;
    if topic.configs.is_empty() {
        return Ok(output.text("all settings at their defaults\n")?);
    }
    output.text("\n")?;
    Ok(output.table(&config::table(&topic.configs))?)
}
