//! The crate rskafka: a client without groups and without idempotence.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, bail};
use chrono::DateTime;
use futures::StreamExt;
use rskafka::{
    client::{
        Client, ClientBuilder,
        consumer::{StartOffset, StreamConsumerBuilder},
        controller::ControllerClient,
        error::{Error, ProtocolError},
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::Record,
};

use crate::common::{self, DELETE_BEFORE, PATIENCE, read, show, step, until};

/// The most bytes of values that are sent at once: what is sent at once is one batch.
const BATCH_BYTES_MAX: usize = 900_000;

async fn connect(bootstrap: &str) -> anyhow::Result<Client> {
    Ok(ClientBuilder::new(vec![bootstrap.to_owned()]).build().await?)
}

/// A client of partition 0 of `topic`, which it creates when there is none: it never asks for a
/// topic to be created by naming it.
async fn partition(client: &Client, topic: &str) -> anyhow::Result<PartitionClient> {
    if !client.list_topics().await?.iter().any(|known| known.name == topic) {
        client.controller_client()?.create_topic(topic, 1, 1, 10_000).await?;
    }
    Ok(client.partition_client(topic, 0, UnknownTopicHandling::Retry).await?)
}

/// Sends the records of a file and prints their offsets.
pub async fn produce(bootstrap: &str, topic: &str, codec: &str, path: &str) -> anyhow::Result<()> {
    let compression = match codec {
        "none" => Compression::NoCompression,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => bail!("no codec {codec}"),
    };
    let client = connect(bootstrap).await?;
    let partition = partition(&client, topic).await?;
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for record in read(path)? {
        let headers = record.headers.into_iter();
        let record = Record {
            key: record.key,
            value: record.value,
            headers: headers.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
            timestamp: DateTime::from_timestamp_millis(record.timestamp).context("a time")?,
        };
        bytes += record.approximate_size() + 100;
        if BATCH_BYTES_MAX < bytes {
            bytes = record.approximate_size();
            batches.push(Vec::new());
        }
        batches.last_mut().context("a batch")?.push(record);
    }
    for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        for offset in partition.produce(batch, compression).await? {
            println!("{offset}");
        }
    }
    Ok(())
}

/// Reads `count` records from the first on and prints them.
pub async fn consume(bootstrap: &str, topic: &str, count: usize) -> anyhow::Result<()> {
    let partition = Arc::new(partition(&connect(bootstrap).await?, topic).await?);
    let mut stream = StreamConsumerBuilder::new(partition, StartOffset::Earliest).build();
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await.context("60 s are over")?;
        let (read, _high_watermark) = next.context("the stream ended")??;
        let headers: BTreeMap<String, Vec<u8>> = read.record.headers;
        let record = common::Record {
            key: read.record.key,
            value: read.record.value,
            headers: headers.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            timestamp: read.record.timestamp.timestamp_millis(),
        };
        show(record, read.offset)?;
    }
    Ok(())
}

/// Takes those admin steps of README.md that this client has.
pub async fn administrate(
    bootstrap: &str,
    topic: &str,
    old: &str,
    time_ms: i64,
) -> anyhow::Result<()> {
    let client = &connect(bootstrap).await?;
    let controller = &client.controller_client()?;
    let partition = &partition(client, old).await?;
    let topics = async || {
        let topics = client.list_topics().await?;
        anyhow::Ok(topics.into_iter().find(|known| known.name == topic))
    };
    let known = async || anyhow::Ok(topics().await?.is_some());
    let earliest = async || anyhow::Ok(partition.get_offset(OffsetAt::Earliest).await?);
    step("create-topic", create(controller, topic)).await;
    step("create-again", create(controller, topic)).await;
    step("list-topics", until(true, known)).await;
    step("describe-topic", async {
        anyhow::Ok(topics().await?.context("the topic")?.partitions.len())
    })
    .await;
    step("list-offsets", async {
        let time = DateTime::from_timestamp_millis(time_ms).context("a time")?;
        let latest = partition.get_offset(OffsetAt::Latest).await?;
        let later = partition.get_offset(OffsetAt::Timestamp(time)).await?;
        anyhow::Ok(format!("{} {latest} {later}", earliest().await?))
    })
    .await;
    step("delete-records", async {
        partition.delete_records(DELETE_BEFORE, 10_000).await?;
        until(DELETE_BEFORE, earliest).await
    })
    .await;
    step("delete-topic", async {
        controller.delete_topic(topic, 10_000).await?;
        until(false, known).await
    })
    .await;
    Ok(())
}

async fn create(controller: &ControllerClient, topic: &str) -> anyhow::Result<String> {
    match controller.create_topic(topic, 3, 1, 10_000).await {
        Ok(()) => Ok("ok".to_owned()),
        Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => {
            Ok("36".to_owned())
        }
        Err(error) => Err(error.into()),
    }
}
