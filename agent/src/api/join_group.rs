//! JoinGroup (11) v0-9. Nothing is held at the coordinator: this agent waits for the group's
//! pushed version to move, and asks again.

use std::time::Duration;

use aquifer_metadata::{
    client::CallError,
    machine::{
        group::{
            command::{GroupAction, GroupReply, Join, Progress},
            query::{GroupAnswer, GroupAsk, GroupQuery},
            types::{GroupRejected, JoinResult, MemberId},
        },
        query::Answer,
    },
};
use aquifer_storage::error::Outcome;

use super::{
    Request,
    errors::{coordinator_error, group_error},
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMembers},
    },
};

/// A parked member counts as alive because its agent asks again this often, at the latest.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often a join is proposed when it is not known what became of it; its request id makes it
/// count once. A member that does not know its id yet would come back as another one.
const PROPOSED_MAX: usize = 3;

/// The last version in which a new member is admitted without coming back with its id.
const LAST_WITHOUT_KNOWN_ID: i16 = 3;

/// The first version that can tell a leader to skip the assignment.
const FIRST_SKIPPING_ASSIGNMENT: i16 = 9;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: JoinGroupRequest,
) -> JoinGroupResponse {
    if body.group_id.is_empty() {
        return refused(request, ErrorCode::InvalidGroupId, &body.member_id);
    }
    let (Ok(session), Ok(rebalance)) = (
        u32::try_from(body.session_timeout_ms),
        // v0 has none and means the session timeout.
        u32::try_from(match request.version {
            0 => body.session_timeout_ms,
            _ => body.rebalance_timeout_ms.max(0),
        }),
    ) else {
        return refused(request, ErrorCode::InvalidSessionTimeout, &body.member_id);
    };
    if body.protocols.is_empty() || body.protocol_type.is_empty() {
        return refused(request, ErrorCode::InconsistentGroupProtocol, &body.member_id);
    }
    let member = body.member_id.detached();
    match join(broker, request, body, (session, rebalance)).await {
        Ok(result) => accepted(request.version, result),
        Err((code, Some(member))) => refused(request, code, &member),
        Err((code, None)) => refused(request, code, &member),
    }
}

/// The code, and the member id the answer names instead of the request's.
type Refusal = (ErrorCode, Option<Str>);
type JoinAnswer = Result<Progress<JoinResult>, GroupRejected>;

async fn join(
    broker: &Broker,
    request: &Request<'_>,
    body: JoinGroupRequest,
    (session_timeout_ms, rebalance_timeout_ms): (u32, u32),
) -> Result<JoinResult, Refusal> {
    let id = broker.request_id().await;
    let group = body.group_id.as_str().to_owned();
    let dynamic = body.group_instance_id.is_none();
    let join = Join {
        request: id,
        member: MemberId::new(body.member_id.as_str()),
        proposed_member: propose_member(broker, request.client_id, &body),
        require_known_member: dynamic && LAST_WITHOUT_KNOWN_ID < request.version,
        instance: body.group_instance_id.map(|instance| instance.as_str().to_owned()),
        client_id: request.client_id.to_owned(),
        client_host: format!("/{}", request.peer.ip()),
        session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: body.protocol_type.as_str().to_owned(),
        protocols: body
            .protocols
            .into_iter()
            // The state outlives the frame: do not pin it.
            .map(|one| (one.name.as_str().to_owned(), copied(&one.metadata)))
            .collect(),
        limits: broker.options.group_limits,
    };
    let mut watch = broker.view.watch_group(&group);
    let unanswered = |error| (coordinator_error(&error), None);
    let mut answer = propose(broker, &group, join).await.map_err(unanswered)?;
    request.release_memory();
    let mut parked = None;
    loop {
        // As in Kafka: who waited and is out is nobody; who was replaced is named by its old id.
        let refused = |(code, named): Refusal| match code {
            ErrorCode::UnknownMemberId => (code, parked.map(|_| Str::EMPTY)),
            _ => (code, named.or(parked)),
        };
        let (member, version) = match answer.map_err(|rejected| refused(rejection(rejected)))? {
            Progress::Ready(result) => return Ok(result),
            Progress::Pending { member, version } => (member, version),
        };
        parked = Some(member.as_str().into());
        // A time-out only asks again, which tells the coordinator that the member still waits.
        let _ = broker.seams.timeout(ASK_AGAIN, watch.passed(version)).await;
        let ask = GroupAsk::Join { member, request: id };
        let query = GroupQuery { group: group.clone(), ask };
        let again = broker.ask_group(query).await.map_err(unanswered)?;
        let GroupAnswer::Join(next) = again else {
            return Err(unanswered(mismatch("query", &Answer::Group(again))));
        };
        answer = next;
    }
}

async fn propose(broker: &Broker, group: &str, join: Join) -> Result<JoinAnswer, CallError> {
    let mut proposed = 0;
    loop {
        proposed += 1;
        match broker.group(group, GroupAction::Join(join.clone())).await {
            Ok(GroupReply::Join(answer)) => return Ok(answer),
            Ok(other) => return Err(mismatch("propose", &other)),
            Err(error) if error.outcome != Outcome::Indefinite || proposed == PROPOSED_MAX => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
}

/// A copy that does not keep the request's frame in memory.
fn copied(bytes: &bytes::Bytes) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}

fn rejection(rejected: GroupRejected) -> Refusal {
    let code = group_error(&rejected);
    match rejected {
        GroupRejected::MemberIdRequired(member) => (code, Some(member.as_str().into())),
        // As in Kafka: the member is out, and joins as a new one if it tries again.
        GroupRejected::GroupFull => (code, Some(Str::EMPTY)),
        _ => (code, None),
    }
}

/// `<client id or instance id>-<uuid>`, as Kafka makes them.
fn propose_member(broker: &Broker, client_id: &str, body: &JoinGroupRequest) -> MemberId {
    let mut id = [0; 16];
    broker.seams.rng.fill(&mut id);
    let hex = aquifer_storage::model::TopicId::from_bytes(id).to_string();
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let prefix = body.group_instance_id.as_ref().map_or(client_id, |instance| instance.as_str());
    MemberId::new(format!("{prefix}-{uuid}"))
}

fn accepted(version: i16, mut result: JoinResult) -> JoinGroupResponse {
    if result.skip_assignment && version < FIRST_SKIPPING_ASSIGNMENT {
        // It cannot be told to skip the assignment, so it must not know that it leads. Kafka
        // names its previous id, which is not in the group any more either.
        (result.leader, result.members) = (MemberId::default(), Vec::new());
        result.skip_assignment = false;
    }
    let members = result.members.into_iter().map(|member| JoinGroupResponseMembers {
        member_id: member.member.as_str().into(),
        group_instance_id: member.instance.map(Into::into),
        metadata: member.metadata,
    });
    JoinGroupResponse {
        error_code: ErrorCode::None.code(),
        generation_id: result.generation.value(),
        protocol_type: (7 <= version).then(|| result.protocol_type.into()),
        protocol_name: Some(result.protocol.into()),
        leader: result.leader.as_str().into(),
        skip_assignment: result.skip_assignment,
        member_id: result.member.as_str().into(),
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

fn refused(request: &Request<'_>, code: ErrorCode, member: &Str) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: code.code(),
        generation_id: -1,
        protocol_type: None,
        // Nullable from v7 on; empty before.
        protocol_name: (request.version < 7).then_some(Str::EMPTY),
        member_id: member.clone(),
        ..JoinGroupResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use aquifer_metadata::machine::group::types::{GenerationId, JoinedMember};
    use bytes::Bytes;

    use super::*;

    fn a_static_leader_that_came_back() -> JoinResult {
        let member = MemberId::new("one-2");
        let joined =
            JoinedMember { member: member.clone(), instance: None, metadata: Bytes::new() };
        JoinResult {
            generation: GenerationId::new(4),
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            leader: member.clone(),
            member,
            members: vec![joined],
            skip_assignment: true,
        }
    }

    #[test]
    fn a_static_leader_that_cannot_skip_the_assignment_is_not_told_that_it_leads() {
        let new = accepted(9, a_static_leader_that_came_back());
        assert_eq!((new.leader.as_str(), new.members.len()), ("one-2", 1));
        assert!(new.skip_assignment);
        let old = accepted(8, a_static_leader_that_came_back());
        assert_eq!((old.leader.as_str(), old.members.len()), ("", 0));
        assert!(!old.skip_assignment);
        assert_eq!((old.member_id.as_str(), old.generation_id), ("one-2", 4));
        let other = JoinResult { skip_assignment: false, ..a_static_leader_that_came_back() };
        assert_eq!(accepted(5, other).leader.as_str(), "one-2");
    }

    #[test]
    fn the_protocol_type_is_told_from_version_7_on_and_absent_names_are_null_from_there() {
        assert_eq!(accepted(6, a_static_leader_that_came_back()).protocol_type, None);
        assert!(accepted(7, a_static_leader_that_came_back()).protocol_type.is_some());
    }

    #[test]
    fn a_member_is_told_the_id_it_must_come_back_with_and_none_when_the_group_is_full() {
        let id = MemberId::new("c-1");
        let (code, named) = rejection(GroupRejected::MemberIdRequired(id));
        assert_eq!((code, named.as_deref()), (ErrorCode::MemberIdRequired, Some("c-1")));
        let (code, named) = rejection(GroupRejected::GroupFull);
        assert_eq!((code, named.as_deref()), (ErrorCode::GroupMaxSizeReached, Some("")));
        assert_eq!(rejection(GroupRejected::UnknownMember).1, None);
    }
}
