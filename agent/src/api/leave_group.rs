//! LeaveGroup (13) v0-5.

use aquifer_metadata::machine::group::{
    command::{GroupAction, GroupReply, LeavingMember},
    types::MemberId,
};

use super::{
    Request,
    errors::{coordinator_error, group_error},
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{LeaveGroupRequest, LeaveGroupResponse, LeaveGroupResponseMembers},
    },
};

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let whole = |code: ErrorCode| LeaveGroupResponse {
        error_code: code.code(),
        ..LeaveGroupResponse::default()
    };
    if body.group_id.is_empty() {
        return whole(ErrorCode::InvalidGroupId);
    }
    let asked: Vec<(Str, Option<Str>)> = if request.version < 3 {
        vec![(body.member_id, None)]
    } else {
        body.members.into_iter().map(|one| (one.member_id, one.group_instance_id)).collect()
    };
    let members = asked.iter().map(|(member, instance)| LeavingMember {
        member: MemberId::new(member.as_str()),
        instance: instance.as_ref().map(|instance| instance.as_str().to_owned()),
    });
    let action = GroupAction::Leave { members: members.collect() };
    let results = match broker.group(&body.group_id, action).await {
        Ok(GroupReply::Leave(results)) if results.len() == asked.len() => results,
        Ok(other) => return whole(coordinator_error(&mismatch("propose", &other))),
        Err(error) => return whole(coordinator_error(&error)),
    };
    let codes = results.iter().map(|result| match result {
        Ok(()) => ErrorCode::None,
        Err(rejected) => group_error(rejected),
    });
    if request.version < 3 {
        return whole(codes.into_iter().next().unwrap_or_default());
    }
    let answers = asked.iter().zip(codes).map(|((member, instance), code)| {
        let (member_id, group_instance_id) = (member.clone(), instance.clone());
        LeaveGroupResponseMembers { member_id, group_instance_id, error_code: code.code() }
    });
    LeaveGroupResponse { members: answers.collect(), ..LeaveGroupResponse::default() }
}
