//! Messages of deletions and descriptions.

use aquifer_storage::model::PartitionIndex;

use super::text;
use crate::{
    codec::{
        CodecError,
        admin::{state_from_proto, state_to_proto},
        topic_from_proto, topic_to_proto,
    },
    machine::group::{
        command::TopicOffsets,
        query::{GroupDescription, MemberDescription},
        types::MemberId,
    },
    proto,
};

pub(super) fn delete_offsets_to_proto(topics: &[TopicOffsets]) -> proto::GroupDeleteOffsets {
    let one = |topic: &TopicOffsets| proto::GroupTopicOffsets {
        topic: topic_to_proto(topic.topic),
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(|partition| partition.value()).collect(),
    };
    proto::GroupDeleteOffsets { topics: topics.iter().map(one).collect() }
}

pub(super) fn delete_offsets_from_proto(
    delete: proto::GroupDeleteOffsets,
) -> Result<Vec<TopicOffsets>, CodecError> {
    let one = |topic: proto::GroupTopicOffsets| {
        Ok(TopicOffsets {
            topic: topic_from_proto(&topic.topic)?,
            name: topic.name,
            partitions: topic.partitions.into_iter().map(PartitionIndex::new).collect(),
        })
    };
    delete.topics.into_iter().map(one).collect()
}

pub(super) fn description_to_proto(group: &GroupDescription) -> proto::GroupDescription {
    let member = |member: &MemberDescription| proto::GroupMemberDescription {
        member: text(&member.member),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: member.metadata.clone(),
        assignment: member.assignment.clone(),
    };
    proto::GroupDescription {
        state: state_to_proto(group.state).into(),
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        members: group.members.iter().map(member).collect(),
    }
}

pub(super) fn description_from_proto(
    group: proto::GroupDescription,
) -> Result<GroupDescription, CodecError> {
    let member = |member: proto::GroupMemberDescription| MemberDescription {
        member: MemberId::new(member.member),
        instance: member.instance,
        client_id: member.client_id,
        client_host: member.client_host,
        metadata: member.metadata,
        assignment: member.assignment,
    };
    Ok(GroupDescription {
        state: state_from_proto(group.state)?,
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        members: group.members.into_iter().map(member).collect(),
    })
}
