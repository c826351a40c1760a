//! OffsetCommit (8) v2-10.

use aquifer_metadata::machine::group::{
    command::{CommitOffsets, CommittedOffset, GroupAction, GroupReply},
    types::{GenerationId, GroupRejected, MemberId},
};
use aquifer_storage::model::{LeaderEpoch, Offset, TopicPartition};

use super::{
    Request,
    errors::{coordinator_error, group_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{
            OffsetCommitRequest, OffsetCommitRequestTopicsPartitions, OffsetCommitResponse,
            OffsetCommitResponseTopics, OffsetCommitResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

/// `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4096;
/// The first version that names topics by id, and the first that knows GROUP_ID_NOT_FOUND and
/// member epochs.
const FIRST_BY_ID: i16 = 10;
const FIRST_BY_EPOCH: i16 = 9;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in &body.topics {
        let by = if FIRST_BY_ID <= request.version {
            TopicRef::Id(topic.topic_id)
        } else {
            TopicRef::Name(topic.name.clone())
        };
        let found = topics::resolve(broker, &by).await.map_err(|code| match code {
            ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => code,
            // Consumers know how to go on after this one, and give up after others.
            _ => ErrorCode::CoordinatorNotAvailable,
        });
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let checked = found.as_ref().map_err(|code| *code).and_then(|topic| {
                let unknown = ErrorCode::UnknownTopicOrPartition;
                check(topics::partition(topic, asked.partition_index).ok_or(unknown)?, asked)
            });
            partitions.push(OffsetCommitResponseTopicsPartitions {
                partition_index: asked.partition_index,
                error_code: checked.as_ref().err().map_or(0, |code| code.code()),
            });
            offsets.extend(checked);
        }
        let (name, topic_id) = (topic.name.clone(), topic.topic_id);
        topics.push(OffsetCommitResponseTopics { name, topic_id, partitions });
    }
    // As in Kafka, a member that commits nothing is not even looked at.
    let failed =
        if offsets.is_empty() { None } else { commit(broker, request, &body, offsets).await };
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if let (Some(code), 0) = (failed, partition.error_code) {
            partition.error_code = code.code();
        }
    }
    OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
}

fn check(
    partition: TopicPartition,
    asked: &OffsetCommitRequestTopicsPartitions,
) -> Result<(TopicPartition, CommittedOffset), ErrorCode> {
    let metadata = asked.committed_metadata.as_ref().map_or("", |text| text.as_str());
    if METADATA_BYTES_MAX < metadata.len() {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    let offset = Offset::new(asked.committed_offset).ok_or(ErrorCode::InvalidCommitOffsetSize)?;
    let epoch = asked.committed_leader_epoch;
    let leader_epoch = (0 <= epoch).then(|| LeaderEpoch::new(epoch));
    Ok((partition, CommittedOffset { offset, leader_epoch, metadata: metadata.to_owned() }))
}

/// Commits; `Some` is the error of every partition that was not refused by itself.
async fn commit(
    broker: &Broker,
    request: &Request<'_>,
    body: &OffsetCommitRequest,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
) -> Option<ErrorCode> {
    let generation = body.generation_id_or_member_epoch;
    let action = GroupAction::CommitOffsets(CommitOffsets {
        member: MemberId::new(body.member_id.as_str()),
        instance: body.group_instance_id.as_ref().map(|one| one.as_str().to_owned()),
        generation: (0 <= generation).then(|| GenerationId::new(generation)),
        knows_epochs: FIRST_BY_EPOCH <= request.version,
        offsets,
    });
    match broker.group(&body.group_id, action).await {
        Ok(GroupReply::CommitOffsets(Ok(gone))) => {
            // Deleted between our look and the commit: nothing to keep, nothing to tell.
            tracing::debug!(count = gone.len(), "offsets of deleted partitions dropped");
            None
        }
        Ok(GroupReply::CommitOffsets(Err(GroupRejected::UnknownGroup)))
            if request.version < FIRST_BY_EPOCH =>
        {
            Some(ErrorCode::IllegalGeneration)
        }
        Ok(GroupReply::CommitOffsets(Err(rejected))) => Some(group_error(&rejected)),
        Ok(other) => Some(coordinator_error(&mismatch("propose", &other))),
        Err(error) => Some(coordinator_error(&error)),
    }
}
