//! DescribeGroups (15) v0-6.

use aquifer_metadata::machine::group::query::{
    GroupAnswer, GroupAsk, GroupDescription, GroupQuery, MemberDescription,
};
use futures::{StreamExt, stream};

use super::{Request, admin, errors::coordinator_error, list_groups::state_name};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            DescribeGroupsRequest, DescribeGroupsResponse, DescribeGroupsResponseGroups as Group,
            DescribeGroupsResponseGroupsMembers as Member,
        },
    },
};

/// Before it, a group that does not exist is in the state "Dead", without an error.
const FIRST_WITH_NOT_FOUND: i16 = 6;

/// Groups of one request that are asked for at once.
const AT_ONCE: usize = 16;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = admin::operations(body.include_authorized_operations, admin::GROUP_OPERATIONS);
    let describing = stream::iter(body.groups)
        .map(|group| described(broker, group, request.version, operations));
    let groups = describing.buffered(AT_ONCE).collect().await;
    DescribeGroupsResponse { throttle_time_ms: 0, groups }
}

async fn described(broker: &Broker, id: Str, version: i16, operations: i32) -> Group {
    let group = id.as_str().to_owned();
    let refused = |code: ErrorCode| Group {
        error_code: code.code(),
        group_id: id.clone(),
        authorized_operations: i32::MIN,
        ..Group::default()
    };
    let found = match broker.ask_group(GroupQuery { group, ask: GroupAsk::Describe }).await {
        Ok(GroupAnswer::Described(found)) => found,
        Ok(other) => return refused(coordinator_error(&mismatch("query", &other))),
        Err(error) => return refused(coordinator_error(&error)),
    };
    match found {
        Some(found) => told(id, found, operations),
        None if version < FIRST_WITH_NOT_FOUND => Group {
            group_state: "Dead".into(),
            authorized_operations: operations,
            ..refused(ErrorCode::None)
        },
        None => Group {
            group_state: "Dead".into(),
            error_message: Some(why_not_classic(broker, &id).await.into()),
            ..refused(ErrorCode::GroupIdNotFound)
        },
    }
}

/// Kafka's words for a group that is not there, or goes by the other protocol.
async fn why_not_classic(broker: &Broker, id: &Str) -> String {
    let group = id.as_str().to_owned();
    match broker.ask_group(GroupQuery { group, ask: GroupAsk::ConsumerDescribe }).await {
        Ok(GroupAnswer::ConsumerDescribed(Some(_))) => {
            format!("Group {id} is not a classic group.")
        }
        // The words are for people: who asks again is told the right ones.
        _ => format!("Group {id} not found."),
    }
}

fn told(group_id: Str, found: GroupDescription, operations: i32) -> Group {
    let member = |member: MemberDescription| Member {
        member_id: member.member.as_str().into(),
        group_instance_id: member.instance.map(Into::into),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    Group {
        error_code: ErrorCode::None.code(),
        error_message: None,
        group_id,
        group_state: state_name(found.state).into(),
        protocol_type: found.protocol_type.unwrap_or_default().into(),
        protocol_data: found.protocol.unwrap_or_default().into(),
        members: found.members.into_iter().map(member).collect(),
        authorized_operations: operations,
    }
}
