//! What several handlers need to know of topics: finding one, creating one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aquifer_metadata::{
    client::CallError,
    machine::{
        command::{AppliedReply, Command, CreateTopic, Reply, TopicRejected},
        effect::Pointers,
    },
    watch::{CatalogTopic, PartitionState},
};
use aquifer_storage::{
    model::{LogIndex, PartitionIndex, TopicId, TopicPartition},
    seam::MonoTime,
};

use crate::{
    broker::{Broker, mismatch},
    wire::{codec::Uuid, error_code::ErrorCode, walk::TopicRef},
};

/// Topics of one request that are created or deleted at once: they share entries of the log, and
/// the wait for the other agents.
pub const CHANGES_AT_ONCE: usize = 64;

/// Partitions of one request that are looked at together: those not watched before are then told of
/// together too.
pub const PARTITIONS_AT_ONCE: usize = 64;

/// How long all partitions of a request that asks about them may take: less than the 30 s after
/// which clients give up, and with them what could be answered.
pub const ASKED_MAX: Duration = Duration::from_secs(20);

/// How long the answer waits for a partition that was not watched before.
const FIRST_PUSH_MAX: Duration = Duration::from_secs(5);

/// Metadata waited for the other agents as long already; a stream that is away comes back later.
const OWN_VIEW_MAX: Duration = Duration::from_secs(1);

/// Waits until this agent shows a change that metadata answered, or a second.
pub async fn shown(broker: &Broker, index: LogIndex) {
    // Late is no error: a client that asks again is answered at a fresh index.
    let _ = broker.seams.timeout(OWN_VIEW_MAX, broker.view.wait_applied(index)).await;
}

/// Whether Kafka keeps a topic of this name for itself.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// The topic of a reference, if this agent knows it.
pub fn known(broker: &Broker, topic: &TopicRef) -> Option<Arc<CatalogTopic>> {
    match topic {
        TopicRef::Name(name) => broker.view.topic_by_name(name),
        TopicRef::Id(id) => broker.view.topic((*id).into()),
    }
}

/// The topic of a reference; a negative answer is given only at a linearizable index. Without a
/// leader the answer is retriable.
pub async fn resolve(broker: &Broker, topic: &TopicRef) -> Result<Arc<CatalogTopic>, ErrorCode> {
    if let Some(found) = known(broker, topic) {
        return Ok(found);
    }
    broker.view.fresh().await.map_err(|_| ErrorCode::LeaderNotAvailable)?;
    known(broker, topic).ok_or(match topic {
        TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
        TopicRef::Id(_) => ErrorCode::UnknownTopicId,
    })
}

/// The partition of `topic` at a wire index, if the topic has it.
pub fn partition(topic: &CatalogTopic, index: i32) -> Option<TopicPartition> {
    let exists = u32::try_from(index).is_ok_and(|index| index < topic.partitions);
    exists.then(|| TopicPartition { topic: topic.id, partition: PartitionIndex::new(index) })
}

/// What is known of a partition at a wire index. One that is watched for the first time is told of
/// at an index after this call. Fails a client that knows another leader epoch, unless it says -1.
pub async fn partition_state(
    broker: &Broker,
    topic: &TopicRef,
    (index, leader_epoch): (i32, i32),
) -> Result<Arc<PartitionState>, ErrorCode> {
    let found = resolve(broker, topic).await?;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let partition = partition(&found, index).ok_or(unknown)?;
    let mut watch = broker.view.watch(partition);
    let first_push = broker.seams.timeout(FIRST_PUSH_MAX, watch.known()).await;
    let state = first_push.ok_or(ErrorCode::LeaderNotAvailable)?.ok_or(unknown)?;
    check_epoch(leader_epoch, &state.pointers)?;
    Ok(state)
}

/// A client that knows another life of the cluster than this one asks for metadata first.
fn check_epoch(theirs: i32, pointers: &Pointers) -> Result<(), ErrorCode> {
    let ours = pointers.leader_epoch.value();
    match theirs {
        0.. if theirs < ours => Err(ErrorCode::FencedLeaderEpoch),
        0.. if ours < theirs => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What `asked` gives until `deadline`, of which there is one for the whole request.
pub async fn until<T>(
    broker: &Broker,
    deadline: MonoTime,
    asked: impl Future<Output = Result<T, ErrorCode>>,
) -> Result<T, ErrorCode> {
    let left = deadline.since(broker.seams.clock.mono());
    broker.seams.timeout(left, asked).await.unwrap_or(Err(ErrorCode::LeaderNotAvailable))
}

/// Kafka's id of a topic reference for the answer.
pub fn wire_id(topic: &TopicRef) -> Uuid {
    match topic {
        TopicRef::Name(_) => Uuid::ZERO,
        TopicRef::Id(id) => *id,
    }
}

/// What a new topic looks like.
pub struct NewTopic {
    /// Its name, valid.
    pub name: String,
    /// At least 1.
    pub partitions: u32,
    /// As asked.
    pub replication_factor: u16,
    /// Validated overrides.
    pub configs: BTreeMap<String, String>,
}

/// An id for a new topic.
pub fn draw_id(broker: &Broker) -> TopicId {
    let mut id = [0; 16];
    broker.seams.rng.fill(&mut id);
    // A random (version 4) UUID: Kafka reserves ids of other shapes.
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    TopicId::from_bytes(id)
}

/// Creates a topic. Metadata answers once every agent that is present knows it, or after a second;
/// this one is waited for here as well.
pub async fn create(
    broker: &Broker,
    new: NewTopic,
) -> Result<Result<TopicId, TopicRejected>, CallError> {
    let command = CreateTopic {
        topic: draw_id(broker),
        name: new.name,
        partitions: new.partitions,
        replication_factor: new.replication_factor,
        configs: new.configs,
    };
    match broker.metadata.propose(Command::CreateTopic(command)).await? {
        AppliedReply { index, reply: Reply::TopicCreated(result) } => {
            shown(broker, index).await;
            Ok(result)
        }
        other => Err(mismatch("propose", &other)),
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
