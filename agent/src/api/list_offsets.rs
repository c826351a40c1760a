//! ListOffsets (2) v1-11: by special value and by timestamp, linearizable whichever agent answers.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_metadata::machine::query::TimeSpec;
use aquifer_storage::model::{Offset, Timestamp};
use futures::{StreamExt, stream};

use super::{Request, topics};
use crate::{
    broker::Broker,
    fetch::{FetchRefused, plan::Isolation},
    wire::{
        error_code::ErrorCode,
        messages::{
            ListOffsetsRequest, ListOffsetsRequestTopicsPartitions, ListOffsetsResponse,
            ListOffsetsResponseTopics, ListOffsetsResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

/// What a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OffsetSpec {
    /// The end, for the isolation level.
    Latest,
    /// The log start.
    Earliest,
    /// A record by its time.
    Time(TimeSpec),
    /// What only a topic with tiers has.
    Tiered,
}

impl OffsetSpec {
    /// What Kafka's `timestamp` means in this version; `None` where it means nothing yet.
    fn of(timestamp: i64, version: i16) -> Option<Self> {
        let (spec, since) = match timestamp {
            0.. => (Self::Time(TimeSpec::Since(Timestamp::from_millis(timestamp))), 0),
            -1 => (Self::Latest, 0),
            -2 => (Self::Earliest, 0),
            -3 => (Self::Time(TimeSpec::Newest), 7),
            // Earliest on local disks: everything is as near.
            -4 => (Self::Earliest, 8),
            // Last in the remote tier, and the first that is not there yet.
            -5 => (Self::Tiered, 9),
            -6 => (Self::Tiered, 11),
            _ => return None,
        };
        (since <= version).then_some(spec)
    }
}

/// What is answered: offset, timestamp, leader epoch. Kafka's -1 stand for "none".
type Listed = (i64, i64, i32);

const NOTHING: Listed = (-1, -1, -1);

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let isolation = if body.isolation_level == 1 {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    };
    // One linearizable look and one deadline for the whole request.
    let fresh = broker.view.fresh().await.is_ok();
    let deadline = broker.seams.clock.mono() + topics::ASKED_MAX;
    let mut answers = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let by_name = &TopicRef::Name(topic.name.clone());
        let mut times: BTreeMap<i32, usize> = BTreeMap::new();
        for asked in &topic.partitions {
            *times.entry(asked.partition_index).or_default() += 1;
        }
        // Each partition is answered once, as in Kafka.
        let mut seen = BTreeSet::new();
        let first = topic.partitions.into_iter().filter(|asked| seen.insert(asked.partition_index));
        let asking = first.map(|asked| {
            let once = times[&asked.partition_index] == 1;
            let spec = OffsetSpec::of(asked.timestamp, request.version);
            let fault = match (once, fresh) {
                (false, _) => Err(ErrorCode::InvalidRequest),
                (true, false) => Err(ErrorCode::LeaderNotAvailable),
                // As Kafka, before it looks whether there is such a partition.
                (true, true) => spec.ok_or(ErrorCode::UnsupportedVersion),
            };
            (asked, fault)
        });
        let rows = stream::iter(asking).map(|(asked, spec)| async move {
            let listed = match spec {
                Ok(spec) => {
                    let listing = list(broker, by_name, (&asked, spec), isolation);
                    topics::until(broker, deadline, listing).await
                }
                Err(code) => Err(code),
            };
            row(asked.partition_index, listed)
        });
        let partitions = rows.buffered(topics::PARTITIONS_AT_ONCE).collect().await;
        answers.push(ListOffsetsResponseTopics { name: topic.name, partitions });
    }
    ListOffsetsResponse { topics: answers, ..ListOffsetsResponse::default() }
}

fn row(index: i32, listed: Result<Listed, ErrorCode>) -> ListOffsetsResponseTopicsPartitions {
    let code = listed.err().unwrap_or(ErrorCode::None);
    let (offset, timestamp, leader_epoch) = listed.unwrap_or(NOTHING);
    ListOffsetsResponseTopicsPartitions {
        partition_index: index,
        error_code: code.code(),
        timestamp,
        offset,
        leader_epoch,
    }
}

async fn list(
    broker: &Broker,
    topic: &TopicRef,
    (asked, spec): (&ListOffsetsRequestTopicsPartitions, OffsetSpec),
    isolation: Isolation,
) -> Result<Listed, ErrorCode> {
    let place = (asked.partition_index, asked.current_leader_epoch);
    let state = topics::partition_state(broker, topic, place).await?;
    let epoch = state.pointers.leader_epoch.value();
    let at = |offset: Offset| (offset.value(), -1, epoch);
    match spec {
        OffsetSpec::Latest => Ok(at(isolation.bound(&state.pointers))),
        OffsetSpec::Earliest => Ok(at(state.pointers.log_start)),
        OffsetSpec::Tiered => Ok(NOTHING),
        OffsetSpec::Time(time) => {
            let found = broker.fetcher.find_by_time(state.partition, time, isolation).await;
            let found = found.map_err(unread)?;
            Ok(found.map_or(NOTHING, |(offset, time)| (offset.value(), time.millis(), epoch)))
        }
    }
}

fn unread(refused: FetchRefused) -> ErrorCode {
    match refused {
        FetchRefused::Unknown => ErrorCode::UnknownTopicOrPartition,
        FetchRefused::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        FetchRefused::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        FetchRefused::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        FetchRefused::Unavailable => ErrorCode::LeaderNotAvailable,
        FetchRefused::Corrupt => ErrorCode::KafkaStorageError,
        FetchRefused::Elsewhere => ErrorCode::NotLeaderOrFollower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_value_means_nothing_below_its_version() {
        let first =
            |timestamp| (1..=11).find(|version| OffsetSpec::of(timestamp, *version).is_some());
        let expected =
            [(0, 1), (i64::MAX, 1), (-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)];
        for (timestamp, version) in expected {
            assert_eq!(first(timestamp), Some(version), "{timestamp}");
        }
        assert_eq!([-7, i64::MIN].map(first), [None, None]);
    }
}
