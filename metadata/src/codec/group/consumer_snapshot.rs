//! A consumer group as a message and back; what is derived is not written.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_storage::model::{PartitionIndex, SessionId, TopicId, TopicPartition};
use bytes::Bytes;

use super::{
    consumer::{topics_from_proto, topics_to_proto},
    text,
};
use crate::{
    codec::{CodecError, topic_from_proto, topic_to_proto},
    machine::{
        group::{
            command::RequestId,
            consumer::state::{
                ClassicSide, ConsumerGroup, ConsumerMember, MemberState, Owned, TopicSizes,
                by_topic, flat,
            },
            types::MemberId,
        },
        time::{Elapsed, WallTime},
    },
    proto::{self, consumer_member_snapshot::State},
};

pub(super) fn to_proto(group: &ConsumerGroup) -> proto::ConsumerGroupSnapshot {
    let size = |(topic, partitions): (&TopicId, &u32)| proto::ConsumerTopicSize {
        topic: topic_to_proto(*topic),
        partitions: *partitions,
    };
    let expressions = group.expressions.iter();
    proto::ConsumerGroupSnapshot {
        epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        assigned_ms: group.assigned_at.map(Elapsed::millis),
        empty_since_wall_ms: group.empty_since.map(WallTime::millis),
        topics: group.topics.iter().map(size).collect(),
        expressions: expressions
            .map(|(expression, topics)| proto::ConsumerExpression {
                expression: expression.clone(),
                topics: topics.iter().map(|topic| topic_to_proto(*topic)).collect(),
            })
            .collect(),
        catalog_seen: group.catalog_seen,
        is_stale: group.is_stale,
        members: group
            .members
            .iter()
            .map(|(id, member)| member_to_proto(group, id, member))
            .collect(),
    }
}

pub(super) fn from_proto(
    snapshot: proto::ConsumerGroupSnapshot,
) -> Result<ConsumerGroup, CodecError> {
    let empty_since = snapshot.empty_since_wall_ms.map(WallTime::from_millis);
    let mut group = ConsumerGroup::new(WallTime::from_millis(0));
    for member in snapshot.members {
        let id = MemberId::new(member.member.clone());
        if group.members.contains_key(&id) {
            return Err(CodecError::Invalid("repeated group member"));
        }
        if let Some(target) = &member.target {
            let target = topics_from_proto(target.clone())?;
            group.targets.insert_mut(id.clone(), Arc::new(flat(&target).collect()));
        }
        group.put_member(&id, member_from_proto(member)?);
    }
    group.share_subscriptions();
    group.epoch = snapshot.epoch;
    group.assignment_epoch = snapshot.assignment_epoch;
    group.assigned_at = snapshot.assigned_ms.map(Elapsed::from_millis);
    group.empty_since = empty_since;
    group.catalog_seen = snapshot.catalog_seen;
    group.is_stale = snapshot.is_stale;
    let size =
        |size: proto::ConsumerTopicSize| Ok((topic_from_proto(&size.topic)?, size.partitions));
    let sizes: Result<TopicSizes, CodecError> = snapshot.topics.into_iter().map(size).collect();
    group.topics = Arc::new(sizes?);
    for one in snapshot.expressions {
        let topics = one.topics.iter().map(|topic| topic_from_proto(topic));
        let topics = topics.collect::<Result<_, _>>()?;
        group.expressions.insert_mut(one.expression, Arc::new(topics));
    }
    Ok(group)
}

fn member_to_proto(
    group: &ConsumerGroup,
    id: &MemberId,
    member: &ConsumerMember,
) -> proto::ConsumerMemberSnapshot {
    let state = match member.state {
        MemberState::Stable => State::Stable,
        MemberState::UnrevokedPartitions => State::UnrevokedPartitions,
        MemberState::UnreleasedPartitions => State::UnreleasedPartitions,
    };
    let target = group.targets.get(id);
    proto::ConsumerMemberSnapshot {
        member: text(id),
        instance: member.instance.clone(),
        rack: member.rack.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        subscribed: member.subscribed.iter().cloned().collect(),
        regex: member.regex.clone(),
        assignor: member.assignor.clone(),
        epoch: member.epoch,
        previous_epoch: member.previous_epoch,
        state: state.into(),
        assigned: owned_to_proto(&member.assigned),
        revoking: owned_to_proto(&member.revoking),
        revoke_by_ms: member.revoke_by.map(Elapsed::millis),
        touched: member.touched,
        classic: member.classic.as_ref().map(classic_to_proto),
        target: target.map(|target| topics_to_proto(&by_topic(target.iter().copied()))),
    }
}

fn member_from_proto(member: proto::ConsumerMemberSnapshot) -> Result<ConsumerMember, CodecError> {
    let state = match State::try_from(member.state) {
        Ok(State::Stable) => MemberState::Stable,
        Ok(State::UnrevokedPartitions) => MemberState::UnrevokedPartitions,
        Ok(State::UnreleasedPartitions) => MemberState::UnreleasedPartitions,
        Err(_) => return Err(CodecError::Missing("state of a group member")),
    };
    Ok(ConsumerMember {
        instance: member.instance,
        rack: member.rack,
        client_id: member.client_id,
        client_host: member.client_host,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        subscribed: Arc::new(member.subscribed.into_iter().collect()),
        regex: member.regex,
        assignor: member.assignor,
        epoch: member.epoch,
        previous_epoch: member.previous_epoch,
        state,
        assigned: Arc::new(owned_from_proto(member.assigned)?),
        revoking: Arc::new(owned_from_proto(member.revoking)?),
        revoke_by: member.revoke_by_ms.map(Elapsed::from_millis),
        touched: member.touched,
        classic: member.classic.map(classic_from_proto),
    })
}

fn classic_to_proto(classic: &ClassicSide) -> proto::ConsumerClassicSide {
    let protocol = |(name, metadata): &(String, Bytes)| proto::ConsumerClassicProtocol {
        name: name.clone(),
        metadata: metadata.clone(),
    };
    proto::ConsumerClassicSide {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic.protocols.iter().map(protocol).collect(),
        request_session: classic.request.map(|request| request.session.value()),
        request_number: classic.request.map_or(0, |request| request.number),
    }
}

fn classic_from_proto(classic: proto::ConsumerClassicSide) -> ClassicSide {
    let number = classic.request_number;
    let request = |session| RequestId { session: SessionId::new(session), number };
    let protocols = classic.protocols.into_iter();
    ClassicSide {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: protocols.map(|protocol| (protocol.name, protocol.metadata)).collect(),
        request: classic.request_session.map(request),
    }
}

fn owned_to_proto(owned: &Owned) -> Vec<proto::ConsumerOwned> {
    let mut topics: BTreeMap<TopicId, proto::ConsumerOwned> = BTreeMap::new();
    for (TopicPartition { topic, partition }, epoch) in owned {
        let one = topics.entry(*topic).or_default();
        one.topic = topic_to_proto(*topic);
        one.partitions.push(partition.value());
        one.epochs.push(*epoch);
    }
    topics.into_values().collect()
}

fn owned_from_proto(topics: Vec<proto::ConsumerOwned>) -> Result<Owned, CodecError> {
    let mut owned = Owned::new();
    for one in topics {
        if one.partitions.len() != one.epochs.len() {
            return Err(CodecError::Invalid("epochs of a member's partitions"));
        }
        let topic = topic_from_proto(&one.topic)?;
        for (partition, epoch) in one.partitions.into_iter().zip(one.epochs) {
            let partition = PartitionIndex::new(partition);
            owned.insert(TopicPartition { topic, partition }, epoch);
        }
    }
    Ok(owned)
}
