//! ConsumerGroupDescribe (69) v0-1.

use aquifer_metadata::{
    client::CallError,
    machine::group::{
        consumer::{
            AssignedTopic,
            query::{ConsumerGroupDescription, ConsumerMemberDescription},
        },
        query::{GroupAnswer, GroupAsk, GroupQuery},
    },
};
use aquifer_storage::model::PartitionIndex;
use futures::{StreamExt, stream};

use super::{Request, admin, errors::coordinator_error, list_groups::state_name, topics};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
            ConsumerGroupDescribeResponseGroups as Group,
            ConsumerGroupDescribeResponseGroupsMembers as Member,
            ConsumerGroupDescribeResponseGroupsMembersAssignment as Assignment,
            ConsumerGroupDescribeResponseGroupsMembersAssignmentTopicPartitions as Assigned,
            ConsumerGroupDescribeResponseGroupsMembersTargetAssignment as Target,
            ConsumerGroupDescribeResponseGroupsMembersTargetAssignmentTopicPartitions as Targeted,
        },
        walk::TopicRef,
    },
};

/// Groups of one request that are asked for at once.
const AT_ONCE: usize = 16;

/// Kafka's numbers of the two protocols a member may speak.
const MEMBER_CLASSIC: i8 = 0;
const MEMBER_CONSUMER: i8 = 1;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = admin::operations(body.include_authorized_operations, admin::GROUP_OPERATIONS);
    // As in Kafka, what is no name of a group is told first.
    let (nameless, named): (Vec<Str>, Vec<Str>) =
        body.group_ids.into_iter().partition(|group| group.is_empty());
    let nameless = nameless.into_iter().map(|group| refused(group, ErrorCode::InvalidGroupId));
    let describing = stream::iter(named).map(|group| described(broker, group, operations));
    let named: Vec<Group> = describing.buffered(AT_ONCE).collect().await;
    let groups = nameless.chain(named).collect();
    ConsumerGroupDescribeResponse { groups, ..ConsumerGroupDescribeResponse::default() }
}

fn refused(group_id: Str, code: ErrorCode) -> Group {
    Group {
        error_code: code.code(),
        error_message: None,
        group_id,
        authorized_operations: i32::MIN,
        ..Group::default()
    }
}

async fn described(broker: &Broker, group: Str, operations: i32) -> Group {
    match look(broker, &group).await {
        Ok(Ok(found)) => told(broker, (group, operations), found).await,
        Ok(Err(words)) => Group {
            error_message: Some(words.into()),
            ..refused(group, ErrorCode::GroupIdNotFound)
        },
        Err(error) => refused(group, coordinator_error(&error)),
    }
}

/// The group, or Kafka's words for one that is not there or goes by the other protocol.
async fn look(
    broker: &Broker,
    group: &Str,
) -> Result<Result<ConsumerGroupDescription, String>, CallError> {
    let query = |ask: GroupAsk| GroupQuery { group: group.as_str().to_owned(), ask };
    match broker.ask_group(query(GroupAsk::ConsumerDescribe)).await? {
        GroupAnswer::ConsumerDescribed(Some(found)) => return Ok(Ok(found)),
        GroupAnswer::ConsumerDescribed(None) => {}
        other => return Err(mismatch("query", &other)),
    }
    Ok(Err(match broker.ask_group(query(GroupAsk::Describe)).await? {
        GroupAnswer::Described(Some(_)) => format!("Group {group} is not a consumer group."),
        _ => format!("Group {group} not found."),
    }))
}

async fn told(
    broker: &Broker,
    (group_id, authorized_operations): (Str, i32),
    found: ConsumerGroupDescription,
) -> Group {
    let mut members = Vec::with_capacity(found.members.len());
    for one in found.members {
        members.push(member(broker, one).await);
    }
    Group {
        error_code: ErrorCode::None.code(),
        error_message: None,
        group_id,
        group_state: state_name(found.state).into(),
        group_epoch: found.group_epoch,
        assignment_epoch: found.assignment_epoch,
        assignor_name: found.assignor.into(),
        members,
        authorized_operations,
    }
}

async fn member(broker: &Broker, one: ConsumerMemberDescription) -> Member {
    let assignment = named(broker, one.assignment).await;
    let target = named(broker, one.target).await;
    let target = target.into_iter().map(|topic| Targeted {
        topic_id: topic.topic_id,
        topic_name: topic.topic_name,
        partitions: topic.partitions,
    });
    Member {
        member_id: one.member.as_str().into(),
        instance_id: one.instance.map(Into::into),
        rack_id: one.rack.map(Into::into),
        member_epoch: one.epoch.value(),
        client_id: one.client_id.into(),
        client_host: one.client_host.into(),
        subscribed_topic_names: one.subscribed.into_iter().map(Into::into).collect(),
        // As in Kafka, which keeps "none" as an empty one.
        subscribed_topic_regex: Some(one.regex.unwrap_or_default().into()),
        assignment: Assignment { topic_partitions: assignment },
        target_assignment: Target { topic_partitions: target.collect() },
        member_type: if one.is_classic { MEMBER_CLASSIC } else { MEMBER_CONSUMER },
    }
}

/// Partitions with the names of their topics; those of topics that are gone are left out.
async fn named(broker: &Broker, topics: Vec<AssignedTopic>) -> Vec<Assigned> {
    let mut named = Vec::with_capacity(topics.len());
    for one in topics {
        let by_id = TopicRef::Id(one.topic.into());
        let Ok(topic) = topics::resolve(broker, &by_id).await else { continue };
        named.push(Assigned {
            topic_id: topic.id.into(),
            topic_name: topic.name.as_str().into(),
            partitions: one.partitions.into_iter().map(PartitionIndex::value).collect(),
        });
    }
    named
}
