//! What is asked of a cluster before and beside the load: topics, leaders, offsets, producer ids.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};

use super::{Connection, check, error_name};
use crate::wire::{
    ErrorCode, Str, Uuid,
    client::address_of,
    messages::{
        CreateTopicsRequest, CreateTopicsRequestTopics, CreateTopicsResponse,
        InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
        ListOffsetsRequestTopics, ListOffsetsRequestTopicsPartitions, ListOffsetsResponse,
        MetadataRequest, MetadataRequestTopics, MetadataResponse,
    },
};

/// How long a new topic may take until every partition has a leader.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);

/// A topic to create unless it is there.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; an existing topic may have more.
    pub partitions: i32,
    /// -1 for the broker's default.
    pub replication_factor: i16,
}

/// A topic and where its partitions are led.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: Str,
    /// Its id; zero when the broker has none.
    pub id: Uuid,
    /// The leader of each partition, as `host:port`.
    pub leaders: BTreeMap<i32, String>,
}

impl Topic {
    /// The partitions of each leader.
    pub fn by_leader(&self) -> BTreeMap<&str, Vec<i32>> {
        let mut by_leader = BTreeMap::<&str, Vec<i32>>::new();
        for (partition, leader) in &self.leaders {
            by_leader.entry(leader).or_default().push(*partition);
        }
        by_leader
    }

    /// The last version with topic names, when there is no id to send.
    pub fn version_max(&self, last_with_names: i16) -> i16 {
        if self.id.is_zero() { last_with_names } else { i16::MAX }
    }
}

/// An offset to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OffsetAt {
    /// The first one that is kept.
    Earliest,
    /// The one that the next record gets.
    Latest,
}

/// An idempotent producer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLease {
    /// Its id, -1 for none.
    pub id: i64,
    /// Its epoch, -1 for none.
    pub epoch: i16,
}

impl ProducerLease {
    /// A producer that is not idempotent.
    pub const NONE: Self = Self { id: -1, epoch: -1 };
}

/// The brokers to ask first.
#[derive(Clone, Debug)]
pub struct Cluster {
    bootstrap: Vec<String>,
    is_pinned: bool,
}

impl Cluster {
    /// A cluster known by a comma-separated list of `host:port`.
    ///
    /// # Errors
    /// The list is empty.
    pub fn new(bootstrap: &str) -> anyhow::Result<Self> {
        let brokers = bootstrap.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let bootstrap: Vec<_> = brokers.map(str::to_owned).collect();
        ensure!(!bootstrap.is_empty(), "no bootstrap broker is given");
        Ok(Self { bootstrap, is_pinned: false })
    }

    /// Whether to take the brokers given, in turn, for the leaders of all partitions, whatever the
    /// cluster says: of brokers that serve every partition alike.
    #[must_use]
    pub fn pinned(self, is_pinned: bool) -> Self {
        Self { is_pinned, ..self }
    }

    /// A connection to the first broker that can be reached.
    ///
    /// # Errors
    /// None can; the message is that of the last.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        let mut refused = anyhow!("no bootstrap broker");
        for broker in &self.bootstrap {
            match Connection::open(broker) {
                Ok(connection) => return Ok(connection),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Creates the topic unless it is there, and waits for its leaders.
    ///
    /// # Errors
    /// It cannot be created, has too few partitions, or gets no leaders.
    pub fn ensure_topic(&self, new: &NewTopic) -> anyhow::Result<Topic> {
        let mut connection = self.connect()?;
        if fetch_topic(&mut connection, &new.name)?.is_none() {
            create(&mut connection, new)?;
        }
        let wanted = usize::try_from(new.partitions).unwrap_or(0);
        let mut topic = self.topic(&new.name)?;
        let there = topic.leaders.len();
        ensure!(wanted <= there, "topic {} has {there} partitions, not {wanted}", new.name);
        topic.leaders.retain(|partition, _| *partition < new.partitions);
        Ok(topic)
    }

    /// Waits until every leader serves its partitions: Kafka names a broker as one before it has
    /// made their logs, and refuses what comes earlier.
    ///
    /// # Errors
    /// A leader goes on refusing.
    pub fn await_leaders(&self, topic: &Topic) -> anyhow::Result<()> {
        let deadline = Instant::now() + LEADERS_WITHIN;
        while let Err(refused) = self.offsets(topic, OffsetAt::Latest) {
            let late = || format!("topic {} is not served after {LEADERS_WITHIN:?}", topic.name);
            ensure!(Instant::now() < deadline, refused.context(late()));
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The topic, once every partition of it has a leader.
    ///
    /// # Errors
    /// It is not there, or a partition stays without a leader.
    pub fn topic(&self, name: &str) -> anyhow::Result<Topic> {
        let deadline = Instant::now() + LEADERS_WITHIN;
        let mut connection = self.connect()?;
        loop {
            if let Some(mut topic) = fetch_topic(&mut connection, name)? {
                if self.is_pinned {
                    pin(&mut topic, &self.bootstrap);
                }
                return Ok(topic);
            }
            ensure!(Instant::now() < deadline, "topic {name} is not there, or has no leaders");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// An offset of each of the partitions, asked of their leaders.
    ///
    /// # Errors
    /// A leader does not say.
    pub fn offsets(&self, topic: &Topic, at: OffsetAt) -> anyhow::Result<BTreeMap<i32, i64>> {
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in topic.by_leader() {
            let mut connection = Connection::open(leader)?;
            offsets.extend(list_offsets(&mut connection, &topic.name, &partitions, at)?);
        }
        Ok(offsets)
    }

    /// A fresh producer id.
    ///
    /// # Errors
    /// The broker gives none.
    pub fn producer_lease(&self) -> anyhow::Result<ProducerLease> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let mut connection = self.connect()?;
        let deadline = Instant::now() + LEADERS_WITHIN;
        loop {
            let answer: InitProducerIdResponse = connection.call(&request)?;
            let code = ErrorCode::from_code(answer.error_code);
            // A new cluster first has to set its coordinator up.
            if code.is_some_and(ErrorCode::retriable) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            check(answer.error_code)
                .with_context(|| format!("{}: InitProducerId", connection.broker()))?;
            return Ok(ProducerLease { id: answer.producer_id, epoch: answer.producer_epoch });
        }
    }
}

fn pin(topic: &mut Topic, brokers: &[String]) {
    for (leader, broker) in topic.leaders.values_mut().zip(brokers.iter().cycle()) {
        broker.clone_into(leader);
    }
}

/// The topic; `None` while it or a leader is missing.
fn fetch_topic(connection: &mut Connection, name: &str) -> anyhow::Result<Option<Topic>> {
    let topic = MetadataRequestTopics { name: Some(Str::from(name)), topic_id: Uuid::ZERO };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    // From version 4 on an unknown topic can be asked for without creating it.
    let version = connection.version_of::<MetadataRequest>(4..=13)?;
    let answer: MetadataResponse = connection.call_version(version, &request)?;
    let brokers: BTreeMap<i32, String> = answer
        .brokers
        .iter()
        .map(|broker| (broker.node_id, address_of(&broker.host, broker.port)))
        .collect();
    let named = answer.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| *n == *name));
    let topic = named.ok_or_else(|| anyhow!("{}: no answer on {name}", connection.broker()))?;
    match ErrorCode::from_code(topic.error_code) {
        Some(ErrorCode::None) => {}
        Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable) => {
            return Ok(None);
        }
        _ => bail!("{}: topic {name}: {}", connection.broker(), error_name(topic.error_code)),
    }
    let leader = |partition: &crate::wire::messages::MetadataResponseTopicsPartitions| {
        Some((partition.partition_index, brokers.get(&partition.leader_id)?.clone()))
    };
    let leaders: Option<BTreeMap<_, _>> = topic.partitions.iter().map(leader).collect();
    let leaders = leaders.filter(|leaders| !leaders.is_empty());
    Ok(leaders.map(|leaders| Topic { name: Str::from(name), id: topic.topic_id, leaders }))
}

fn create(connection: &mut Connection, new: &NewTopic) -> anyhow::Result<()> {
    let topic = CreateTopicsRequestTopics {
        name: Str::from(new.name.as_str()),
        num_partitions: new.partitions,
        replication_factor: new.replication_factor,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let answer: CreateTopicsResponse = connection.call(&request)?;
    for topic in &answer.topics {
        if topic.error_code != ErrorCode::TopicAlreadyExists.code() {
            let why = topic.error_message.as_deref().unwrap_or_default();
            check(topic.error_code).with_context(|| format!("topic {}: {why}", new.name))?;
        }
    }
    Ok(())
}

fn list_offsets(
    connection: &mut Connection,
    topic: &Str,
    partitions: &[i32],
    at: OffsetAt,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let timestamp = match at {
        OffsetAt::Earliest => -2,
        OffsetAt::Latest => -1,
    };
    let of = |partition: &i32| ListOffsetsRequestTopicsPartitions {
        partition_index: *partition,
        timestamp,
        ..ListOffsetsRequestTopicsPartitions::default()
    };
    let partitions = partitions.iter().map(of).collect();
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 0,
        topics: vec![ListOffsetsRequestTopics { name: topic.clone(), partitions }],
        timeout_ms: 30_000,
    };
    let answer: ListOffsetsResponse = connection.call(&request)?;
    let mut offsets = BTreeMap::new();
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let (index, broker) = (partition.partition_index, connection.broker());
        check(partition.error_code)
            .with_context(|| format!("{broker}: ListOffsets of partition {index}"))?;
        offsets.insert(index, partition.offset);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_partitions_take_turns_over_the_brokers_given() {
        let led = |leaders: [&str; 4]| Topic {
            name: Str::from_static("t"),
            id: Uuid::ZERO,
            leaders: (0..).zip(leaders.map(str::to_owned)).collect(),
        };
        let mut topic = led(["a:1", "b:1", "c:1", "c:1"]);
        pin(&mut topic, &["x:1".to_owned(), "y:1".to_owned(), "z:1".to_owned()]);
        assert_eq!(topic.leaders, led(["x:1", "y:1", "z:1", "x:1"]).leaders);
    }
}
