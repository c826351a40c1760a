//! What several handlers need to know of topics: finding one, creating one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aquifer_metadata::{
    client::CallError,
    machine::command::{AppliedReply, Command, CreateTopic, Reply, TopicRejected},
    watch::CatalogTopic,
};
use aquifer_storage::model::{LogIndex, PartitionIndex, TopicId, TopicPartition};

use crate::{
    broker::{Broker, mismatch},
    wire::{codec::Uuid, error_code::ErrorCode, walk::TopicRef},
};

/// Topics of one request that are created or deleted at once: they share entries of the log, and
/// the wait for the other agents.
pub const CHANGES_AT_ONCE: usize = 64;

/// Metadata waited for the other agents as long already; a stream that is away comes back later.
const OWN_VIEW_MAX: Duration = Duration::from_secs(1);

/// Waits until this agent shows a change that metadata answered, or a second.
pub async fn shown(broker: &Broker, index: LogIndex) {
    // Late is no error: a client that asks again is answered at a fresh index.
    let _ = broker.seams.timeout(OWN_VIEW_MAX, broker.view.wait_applied(index)).await;
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

/// Creates a topic. Metadata answers once every agent that is present knows it, or after a second;
/// this one is waited for here as well.
pub async fn create(
    broker: &Broker,
    new: NewTopic,
) -> Result<Result<TopicId, TopicRejected>, CallError> {
    let mut id = [0; 16];
    broker.seams.rng.fill(&mut id);
    // A random (version 4) UUID: Kafka reserves ids of other shapes.
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    let command = CreateTopic {
        topic: TopicId::from_bytes(id),
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
