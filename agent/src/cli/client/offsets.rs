//! ListOffsets: where partitions begin and end, and what was written when.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::{ANY, Client, ClientError, Topic};
use crate::wire::messages::{
    ListOffsetsRequest, ListOffsetsRequestTopics, ListOffsetsRequestTopicsPartitions,
    ListOffsetsResponse,
};

/// Which records of transactions a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Isolation {
    /// All.
    #[default]
    ReadUncommitted,
    /// Those that were committed, and none beyond a transaction that is still open.
    ReadCommitted,
}

impl Isolation {
    /// Its number on the wire.
    pub const fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// An offset to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is kept.
    Earliest,
    /// The one the next record gets, as far as the isolation level sees.
    Latest,
    /// The first whose record is not older, in milliseconds since 1970.
    AtTimestamp(i64),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` when no record is that young.
    pub offset: Option<i64>,
}

impl OffsetSpec {
    const fn timestamp(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
            Self::AtTimestamp(millis) => millis,
        }
    }
}

impl Client {
    /// An offset of each of the `partitions` of a topic, asked of their leaders.
    ///
    /// # Errors
    /// A leader does not say, or a partition has none for too long.
    pub async fn offsets(
        &mut self,
        topic: &Topic,
        partitions: &[i32],
        at: OffsetSpec,
        isolation: Isolation,
    ) -> Result<BTreeMap<i32, ListedOffset>, ClientError> {
        let mut topic = topic.clone();
        let mut found = BTreeMap::new();
        self.retrying(async |client| {
            if client.brokers.is_empty() {
                topic = client.topic(&topic.name).await?;
            }
            let mut by_leader = BTreeMap::<i32, Vec<i32>>::new();
            for index in partitions.iter().filter(|index| !found.contains_key(*index)) {
                let leader = topic.partitions.get(index).and_then(|partition| partition.leader);
                let leader = leader.ok_or_else(|| no_leader(&topic, *index))?;
                by_leader.entry(leader).or_default().push(*index);
            }
            for (leader, partitions) in by_leader {
                let broker = client.broker(leader).await?;
                let request = request(&topic, &partitions, at, isolation);
                let answer: ListOffsetsResponse =
                    client.call_at(&broker, ANY, &request, std::time::Duration::ZERO).await?;
                for row in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                    let index = row.partition_index;
                    let subject = || format!("offsets of {}/{index}", topic.name);
                    ClientError::check(subject, row.error_code)?;
                    let offset = Some(row.offset).filter(|offset| 0 <= *offset);
                    found.insert(index, ListedOffset { offset });
                }
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }
}

/// What to say of a partition that nobody serves, or that there is none of.
pub fn no_leader(topic: &Topic, index: i32) -> ClientError {
    let (name, count) = (&topic.name, topic.partitions.len());
    if topic.partitions.contains_key(&index) {
        let code = crate::wire::ErrorCode::LeaderNotAvailable.code();
        let subject = format!("{name}/{index}");
        return ClientError::Refused { subject, code, message: None };
    }
    ClientError::Missing(format!("topic {name} has no partition {index}: it has {count}, from 0"))
}

fn request(
    topic: &Topic,
    partitions: &[i32],
    at: OffsetSpec,
    isolation: Isolation,
) -> ListOffsetsRequest {
    let of = |partition: &i32| ListOffsetsRequestTopicsPartitions {
        partition_index: *partition,
        timestamp: at.timestamp(),
        ..ListOffsetsRequestTopicsPartitions::default()
    };
    let partitions = partitions.iter().map(of).collect();
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation.code(),
        topics: vec![ListOffsetsRequestTopics { name: topic.name.clone(), partitions }],
        timeout_ms: 30_000,
    }
}
