//! `aquifer topic delete-records`: moves the log start offset of partitions up.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        Usage, about_change,
        client::{ANY, Client, ClientError, Topic, no_leader},
        failures,
        output::{Format, Output},
    },
    wire::messages::{
        DeleteRecordsRequest, DeleteRecordsRequestTopics, DeleteRecordsRequestTopicsPartitions,
        DeleteRecordsResponse,
    },
};

/// Up to where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The next offset of the partition as its leader sees it: everything goes.
    End,
    /// The first offset that stays.
    Offset(i64),
}

impl Before {
    /// As the request has it.
    const fn offset(self) -> i64 {
        match self {
            Self::End => -1,
            Self::Offset(offset) => offset,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("end", _) => Ok(Self::End),
            (_, Ok(offset @ 0..)) => Ok(Self::Offset(offset)),
            _ => Err("write an offset from 0, or end".to_owned()),
        }
    }
}

/// Arguments.
#[derive(Debug, Args)]
pub struct DeleteRecordsArgs {
    /// Its name.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// The first offset that stays, or `end` for none.
    #[arg(long, value_name = "OFFSET|end", value_parser = Before::parse)]
    before: Before,
    /// Only in these partitions, such as 0 or 0,2.
    #[arg(short, long = "partition", value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
}

#[derive(Serialize)]
struct Document<'a> {
    topic: &'a str,
    partitions: Vec<Trimmed>,
}

/// Where a partition begins now.
#[derive(Serialize)]
struct Trimmed {
    partition: i32,
    earliest: i64,
}

/// Deletes records.
///
/// # Errors
/// The topic or a partition is not there, the offset is beyond a partition's end, or it is not
/// known what happened. The other partitions are done all the same.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    args: &DeleteRecordsArgs,
) -> anyhow::Result<()> {
    let topic = client.topic(&args.name).await?;
    if args.partitions.is_empty() && args.before != Before::End && 1 < topic.partitions.len() {
        let (name, count) = (&args.name, topic.partitions.len());
        let text =
            format!("{name} has {count} partitions, each with offsets of its own: add --partition");
        return Err(Usage::new(text).into());
    }
    let mut indexes = args.partitions.clone();
    if indexes.is_empty() {
        indexes.extend(topic.partitions.keys());
    }
    indexes.sort_unstable();
    indexes.dedup();
    let (mut trimmed, mut errors) = (BTreeMap::new(), Vec::new());
    for index in indexes {
        match trim(client, &topic, index, args.before).await {
            Ok(earliest) => drop(trimmed.insert(index, earliest)),
            Err(error) => {
                errors.push(about_change(error, &format!("topic describe {}", args.name)));
            }
        }
    }
    if format == Format::Json {
        let rows = trimmed.iter().map(|(&partition, &earliest)| Trimmed { partition, earliest });
        output.document(&Document { topic: &args.name, partitions: rows.collect() })?;
        return failures(errors);
    }
    for (index, earliest) in trimmed {
        output.text(&format!("{} partition {index} begins at {earliest} now\n", args.name))?;
    }
    failures(errors)
}

/// The log start offset of a partition afterwards.
async fn trim(
    client: &mut Client,
    topic: &Topic,
    index: i32,
    before: Before,
) -> Result<i64, ClientError> {
    let partition =
        DeleteRecordsRequestTopicsPartitions { partition_index: index, offset: before.offset() };
    let rows = DeleteRecordsRequestTopics { name: topic.name.clone(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![rows], timeout_ms: client.patience_ms() };
    let subject = || format!("records of {}/{index}", topic.name);
    client
        .changing(async |client| {
            // Asked each time: only the leader deletes, and it may be another one now.
            let topic = client.topic(&topic.name).await?;
            let leader = topic.partitions.get(&index).and_then(|partition| partition.leader);
            let broker = client.broker(leader.ok_or_else(|| no_leader(&topic, index))?).await?;
            let answer: DeleteRecordsResponse =
                client.call_at(&broker, ANY, &request, Duration::ZERO).await?;
            let row = answer.topics.first().and_then(|topic| topic.partitions.first());
            let row = row.ok_or_else(|| ClientError::Missing("no answer".to_owned()))?;
            ClientError::check(subject, row.error_code)?;
            Ok(row.low_watermark)
        })
        .await
}
