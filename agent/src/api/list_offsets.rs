//! ListOffsets (2) v1-11: earliest and latest, linearizable whichever agent answers. Offsets by
//! timestamp are not served yet and say so per partition.

use std::{collections::BTreeMap, time::Duration};

use aquifer_metadata::machine::effect::Pointers;
use aquifer_storage::model::Offset;

use super::{Request, topics};
use crate::{
    broker::Broker,
    fetch::plan::Isolation,
    wire::{
        error_code::ErrorCode,
        messages::{
            ListOffsetsRequest, ListOffsetsRequestTopicsPartitions, ListOffsetsResponse,
            ListOffsetsResponseTopics, ListOffsetsResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

/// How long the answer waits for a partition that was not watched before.
pub(super) const FIRST_PUSH_MAX: Duration = Duration::from_secs(5);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Earliest on local disks, v8+: the same as earliest for a topic without tiers.
const EARLIEST_LOCAL: i64 = -4;
/// Last in the remote tier, v9+: none for a topic without tiers.
const LATEST_TIERED: i64 = -5;

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
    // One linearizable look for the whole request.
    let fresh = broker.view.fresh().await.is_ok();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let by_name = TopicRef::Name(topic.name.clone());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let mut times: BTreeMap<i32, usize> = BTreeMap::new();
        for asked in &topic.partitions {
            *times.entry(asked.partition_index).or_default() += 1;
        }
        for asked in &topic.partitions {
            let found = if !fresh {
                Err(ErrorCode::LeaderNotAvailable)
            } else if 1 < times[&asked.partition_index] {
                Err(ErrorCode::InvalidRequest)
            } else {
                list(broker, request.version, &by_name, asked, isolation).await
            };
            partitions.push(row(asked.partition_index, found));
        }
        topics.push(ListOffsetsResponseTopics { name: topic.name, partitions });
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

fn row(
    index: i32,
    found: Result<(Option<Offset>, i32), ErrorCode>,
) -> ListOffsetsResponseTopicsPartitions {
    let (code, offset, epoch) = match found {
        Ok((offset, epoch)) => (ErrorCode::None, offset.map_or(-1, Offset::value), epoch),
        Err(code) => (code, -1, -1),
    };
    ListOffsetsResponseTopicsPartitions {
        partition_index: index,
        error_code: code.code(),
        timestamp: -1,
        offset,
        leader_epoch: epoch,
    }
}

async fn list(
    broker: &Broker,
    version: i16,
    topic: &TopicRef,
    asked: &ListOffsetsRequestTopicsPartitions,
    isolation: Isolation,
) -> Result<(Option<Offset>, i32), ErrorCode> {
    let found = topics::resolve(broker, topic).await?;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let partition = topics::partition(&found, asked.partition_index).ok_or(unknown)?;
    let mut watch = broker.view.watch(partition);
    // A partition watched for the first time is told of at an index after our look.
    let first_push = broker.seams.timeout(FIRST_PUSH_MAX, watch.known()).await;
    let state = first_push.ok_or(ErrorCode::LeaderNotAvailable)?.ok_or(unknown)?;
    check_epoch(asked.current_leader_epoch, &state.pointers)?;
    let pointers = &state.pointers;
    let epoch = pointers.leader_epoch.value();
    match asked.timestamp {
        LATEST => Ok((Some(isolation.bound(pointers)), epoch)),
        EARLIEST => Ok((Some(pointers.log_start), epoch)),
        EARLIEST_LOCAL if 8 <= version => Ok((Some(pointers.log_start), epoch)),
        LATEST_TIERED if 9 <= version => Ok((None, -1)),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

/// A client that knows another life of the cluster than this one asks for metadata first.
pub(super) fn check_epoch(theirs: i32, pointers: &Pointers) -> Result<(), ErrorCode> {
    let ours = pointers.leader_epoch.value();
    match theirs {
        0.. if theirs < ours => Err(ErrorCode::FencedLeaderEpoch),
        0.. if ours < theirs => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::{EPOCH, pointers};

    #[test]
    fn a_client_of_another_leader_epoch_is_told_which_side_is_behind() {
        let (ours, told) = (EPOCH.value(), pointers(0, 10));
        let fenced = Err(ErrorCode::FencedLeaderEpoch);
        let unknown = Err(ErrorCode::UnknownLeaderEpoch);
        let cases = [(-1, Ok(())), (ours - 1, fenced), (ours, Ok(())), (ours + 1, unknown)];
        for (theirs, expected) in cases {
            assert_eq!(check_epoch(theirs, &told), expected, "epoch {theirs}");
        }
    }
}
