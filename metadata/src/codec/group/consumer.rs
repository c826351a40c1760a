//! Messages of consumer groups.

use aquifer_storage::model::PartitionIndex;

use super::{rejected_from_proto, rejected_to_proto, text};
use crate::{
    codec::{
        CodecError,
        admin::{state_from_proto, state_to_proto},
        topic_from_proto, topic_to_proto,
    },
    machine::group::{
        consumer::{
            AssignedTopic, MemberEpoch,
            command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
            query::{ConsumerGroupDescription, ConsumerMemberDescription},
        },
        types::MemberId,
    },
    proto::{self, group_consumer_outcome::Outcome},
};

type HeartbeatAnswer = Result<ConsumerHeartbeatResult, ConsumerRejected>;

pub(super) fn heartbeat_to_proto(heartbeat: &ConsumerHeartbeat) -> proto::ConsumerHeartbeat {
    let names = |names: &Vec<String>| proto::ConsumerTopicNames { names: names.clone() };
    proto::ConsumerHeartbeat {
        member: text(&heartbeat.member),
        epoch: heartbeat.epoch.value(),
        instance: heartbeat.instance.clone(),
        rack: heartbeat.rack.clone(),
        client_id: heartbeat.client_id.clone(),
        client_host: heartbeat.client_host.clone(),
        rebalance_timeout_ms: heartbeat.rebalance_timeout_ms,
        subscribed: heartbeat.subscribed.as_ref().map(names),
        regex: heartbeat.regex.clone(),
        assignor: heartbeat.assignor.clone(),
        owned: heartbeat.owned.as_deref().map(topics_to_proto),
    }
}

pub(super) fn heartbeat_from_proto(
    heartbeat: proto::ConsumerHeartbeat,
) -> Result<ConsumerHeartbeat, CodecError> {
    Ok(ConsumerHeartbeat {
        member: MemberId::new(heartbeat.member),
        epoch: MemberEpoch::new(heartbeat.epoch),
        instance: heartbeat.instance,
        rack: heartbeat.rack,
        client_id: heartbeat.client_id,
        client_host: heartbeat.client_host,
        rebalance_timeout_ms: heartbeat.rebalance_timeout_ms,
        subscribed: heartbeat.subscribed.map(|subscribed| subscribed.names),
        regex: heartbeat.regex,
        assignor: heartbeat.assignor,
        owned: heartbeat.owned.map(topics_from_proto).transpose()?,
    })
}

/// The outcome of a heartbeat; none where the leader cannot answer alone.
pub(super) fn outcome_to_proto(result: Option<&HeartbeatAnswer>) -> proto::GroupConsumerOutcome {
    let outcome = result.map(|result| match result {
        Ok(result) => Outcome::Result(proto::ConsumerHeartbeatResult {
            member: text(&result.member),
            epoch: result.epoch.value(),
            heartbeat_interval_ms: result.heartbeat_interval_ms,
            assignment: result.assignment.as_deref().map(topics_to_proto),
        }),
        Err(rejected) => Outcome::Rejected(proto::GroupConsumerRejection {
            kind: Some(rejected_to_proto(&rejected.kind)),
            message: rejected.message.clone(),
        }),
    });
    proto::GroupConsumerOutcome { outcome }
}

pub(super) fn outcome_from_proto(
    outcome: proto::GroupConsumerOutcome,
) -> Result<Option<HeartbeatAnswer>, CodecError> {
    Ok(match outcome.outcome {
        None => None,
        Some(Outcome::Result(result)) => Some(Ok(ConsumerHeartbeatResult {
            member: MemberId::new(result.member),
            epoch: MemberEpoch::new(result.epoch),
            heartbeat_interval_ms: result.heartbeat_interval_ms,
            assignment: result.assignment.map(topics_from_proto).transpose()?,
        })),
        Some(Outcome::Rejected(rejected)) => {
            let kind = rejected.kind.ok_or(CodecError::Missing("group rejection"))?;
            let kind = rejected_from_proto(kind)?;
            Some(Err(ConsumerRejected { kind, message: rejected.message }))
        }
    })
}

pub(super) fn description_to_proto(
    group: &ConsumerGroupDescription,
) -> proto::ConsumerGroupDescription {
    let member = |member: &ConsumerMemberDescription| proto::ConsumerMemberDescription {
        member: text(&member.member),
        instance: member.instance.clone(),
        rack: member.rack.clone(),
        epoch: member.epoch.value(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed: member.subscribed.clone(),
        regex: member.regex.clone(),
        assignment: Some(topics_to_proto(&member.assignment)),
        target: Some(topics_to_proto(&member.target)),
        is_classic: member.is_classic,
    };
    proto::ConsumerGroupDescription {
        state: state_to_proto(group.state).into(),
        group_epoch: group.group_epoch,
        assignment_epoch: group.assignment_epoch,
        assignor: group.assignor.clone(),
        members: group.members.iter().map(member).collect(),
    }
}

pub(super) fn description_from_proto(
    group: proto::ConsumerGroupDescription,
) -> Result<ConsumerGroupDescription, CodecError> {
    let member = |member: proto::ConsumerMemberDescription| {
        Ok(ConsumerMemberDescription {
            member: MemberId::new(member.member),
            instance: member.instance,
            rack: member.rack,
            epoch: MemberEpoch::new(member.epoch),
            client_id: member.client_id,
            client_host: member.client_host,
            subscribed: member.subscribed,
            regex: member.regex,
            assignment: topics_from_proto(member.assignment.unwrap_or_default())?,
            target: topics_from_proto(member.target.unwrap_or_default())?,
            is_classic: member.is_classic,
        })
    };
    Ok(ConsumerGroupDescription {
        state: state_from_proto(group.state)?,
        group_epoch: group.group_epoch,
        assignment_epoch: group.assignment_epoch,
        assignor: group.assignor,
        members: group.members.into_iter().map(member).collect::<Result<_, CodecError>>()?,
    })
}

pub(super) fn topics_to_proto(topics: &[AssignedTopic]) -> proto::ConsumerTopics {
    let one = |topic: &AssignedTopic| proto::ConsumerTopicPartitions {
        topic: topic_to_proto(topic.topic),
        partitions: topic.partitions.iter().map(|partition| partition.value()).collect(),
    };
    proto::ConsumerTopics { topics: topics.iter().map(one).collect() }
}

pub(super) fn topics_from_proto(
    topics: proto::ConsumerTopics,
) -> Result<Vec<AssignedTopic>, CodecError> {
    let one = |topic: proto::ConsumerTopicPartitions| {
        let partitions = topic.partitions.into_iter().map(PartitionIndex::new);
        Ok(AssignedTopic {
            topic: topic_from_proto(&topic.topic)?,
            partitions: partitions.collect(),
        })
    };
    topics.topics.into_iter().map(one).collect()
}
