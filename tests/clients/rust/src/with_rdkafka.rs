//! The crate rdkafka: librdkafka, built by cargo.

use anyhow::{Context, anyhow, bail};
use futures::{StreamExt, future::join_all};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
};

use crate::common::{
    DELETE_BEFORE, KEEP_LONGER_MS, KEEP_MS, PATIENCE, Record, read, show, step, until,
};

/// Sends the records of a file and prints their offsets.
pub async fn produce(
    bootstrap: &str,
    topic: &str,
    codec: &str,
    path: &str,
    idempotent: bool,
) -> anyhow::Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", codec)
        .set("message.max.bytes", "2000000")
        .set("enable.idempotence", idempotent.to_string())
        .create()?;
    let records = read(path)?;
    let mut acks = Vec::new();
    for record in &records {
        let mut out = FutureRecord::<[u8], [u8]>::to(topic).partition(0);
        out = out.timestamp(record.timestamp);
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        (out.key, out.payload) = (record.key.as_deref(), record.value.as_deref());
        out.headers = Some(headers);
        acks.push(producer.send_result(out).map_err(|(error, _)| error)?);
    }
    for ack in join_all(acks).await {
        println!("{}", ack?.map_err(|(error, _)| error)?.offset);
    }
    Ok(())
}

/// Reads `count` records as a member of `group` and prints them.
pub async fn consume(
    bootstrap: &str,
    topic: &str,
    group: &str,
    count: usize,
) -> anyhow::Result<()> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut stream = consumer.stream();
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await.context("60 s are over")?;
        let message = next.context("the stream ended")??;
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let header =
            |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        let record = Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(header).collect(),
            timestamp: message.timestamp().to_millis().context("a timestamp")?,
        };
        show(record, message.offset())?;
    }
    drop(stream);
    consumer.commit_consumer_state(CommitMode::Sync)?;
    Ok(())
}

struct Calls<'a> {
    admin: AdminClient<DefaultClientContext>,
    reader: BaseConsumer,
    options: AdminOptions,
    topic: &'a str,
    old: &'a str,
    group: &'a str,
    time_ms: i64,
}

/// Takes the admin steps of README.md.
pub async fn administrate(
    bootstrap: &str,
    topic: &str,
    old: &str,
    group: &str,
    time_ms: i64,
) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", group);
    let (admin, reader) = (config.create()?, config.create()?);
    let calls = Calls { admin, reader, options: AdminOptions::new(), topic, old, group, time_ms };
    step("create-topic", calls.create()).await;
    step("create-again", calls.create()).await;
    step("list-topics", until(true, async || calls.known())).await;
    step("describe-topic", async { calls.partitions() }).await;
    step("create-partitions", calls.more_partitions()).await;
    step("describe-configs", calls.retention()).await;
    step("alter-configs", calls.alter()).await;
    step("list-offsets", async { calls.offsets() }).await;
    step("delete-records", calls.delete_records()).await;
    step("list-groups", async { calls.listed() }).await;
    step("describe-group", async { calls.state() }).await;
    step("committed-offsets", async { calls.committed() }).await;
    step("delete-group", calls.delete_group()).await;
    step("delete-topic", calls.delete_topic()).await;
    Ok(())
}

/// The one answer of a call about one thing.
fn only<T>(answers: Vec<Result<T, (String, RDKafkaErrorCode)>>) -> anyhow::Result<T> {
    let answer = answers.into_iter().next().context("an answer")?;
    answer.map_err(|(name, code)| anyhow!("{name}: {code}"))
}

impl Calls<'_> {
    async fn create(&self) -> anyhow::Result<String> {
        let topic = NewTopic::new(self.topic, 3, TopicReplication::Fixed(1));
        let topic = topic.set("retention.ms", KEEP_MS);
        match &self.admin.create_topics(&[topic], &self.options).await?[..] {
            [Ok(_)] => Ok("ok".to_owned()),
            [Err((_, code))] => Ok((*code as i32).to_string()),
            answers => bail!("{answers:?}"),
        }
    }

    fn known(&self) -> anyhow::Result<bool> {
        let metadata = self.reader.fetch_metadata(None, PATIENCE)?;
        Ok(metadata.topics().iter().any(|topic| topic.name() == self.topic))
    }

    fn partitions(&self) -> anyhow::Result<usize> {
        let metadata = self.reader.fetch_metadata(Some(self.topic), PATIENCE)?;
        Ok(metadata.topics().first().context("the topic")?.partitions().len())
    }

    async fn more_partitions(&self) -> anyhow::Result<usize> {
        let more = NewPartitions::new(self.topic, 5);
        only(self.admin.create_partitions(&[more], &self.options).await?)?;
        until(5, async || self.partitions()).await
    }

    async fn retention(&self) -> anyhow::Result<String> {
        let resource = ResourceSpecifier::Topic(self.topic);
        let answers = self.admin.describe_configs([&resource], &self.options).await?;
        let config = answers.into_iter().next().context("an answer")??;
        let entry = config.get("retention.ms").context("retention.ms")?;
        entry.value.clone().context("a value")
    }

    async fn alter(&self) -> anyhow::Result<String> {
        let change = AlterConfig::new(ResourceSpecifier::Topic(self.topic));
        let change = change.set("retention.ms", KEEP_LONGER_MS);
        let answers = self.admin.alter_configs([&change], &self.options).await?;
        let answer = answers.into_iter().next().context("an answer")?;
        answer.map_err(|(name, code)| anyhow!("{name:?}: {code}"))?;
        until(KEEP_LONGER_MS.to_owned(), || self.retention()).await
    }

    fn earliest(&self) -> anyhow::Result<i64> {
        Ok(self.reader.fetch_watermarks(self.old, 0, PATIENCE)?.0)
    }

    fn first(&self, offset: i64) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.old, 0, Offset::Offset(offset))?;
        Ok(list)
    }

    fn offsets(&self) -> anyhow::Result<String> {
        let (low, high) = self.reader.fetch_watermarks(self.old, 0, PATIENCE)?;
        let later = self.reader.offsets_for_times(self.first(self.time_ms)?, PATIENCE)?;
        let later = later.find_partition(self.old, 0).context("the partition")?.offset();
        Ok(format!("{low} {high} {}", later.to_raw().context("an offset")?))
    }

    async fn delete_records(&self) -> anyhow::Result<i64> {
        let answers = self.admin.delete_records(&self.first(DELETE_BEFORE)?, &self.options).await?;
        answers.find_partition(self.old, 0).context("the partition")?.error()?;
        until(DELETE_BEFORE, async || self.earliest()).await
    }

    fn listed(&self) -> anyhow::Result<bool> {
        let groups = self.reader.fetch_group_list(None, PATIENCE)?;
        Ok(groups.groups().iter().any(|group| group.name() == self.group))
    }

    fn state(&self) -> anyhow::Result<String> {
        let groups = self.reader.fetch_group_list(Some(self.group), PATIENCE)?;
        Ok(groups.groups().first().context("the group")?.state().to_owned())
    }

    fn committed(&self) -> anyhow::Result<i64> {
        let offsets = self.reader.committed_offsets(self.first(0)?, PATIENCE)?;
        let offset = offsets.find_partition(self.old, 0).context("the partition")?.offset();
        offset.to_raw().context("an offset")
    }

    async fn delete_group(&self) -> anyhow::Result<bool> {
        only(self.admin.delete_groups(&[self.group], &self.options).await?)?;
        until(false, async || self.listed()).await
    }

    async fn delete_topic(&self) -> anyhow::Result<bool> {
        only(self.admin.delete_topics(&[self.topic], &self.options).await?)?;
        until(false, async || self.known()).await
    }
}
