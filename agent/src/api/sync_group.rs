//! SyncGroup (14) v0-5: the leader gives the assignment, everyone else waits for it.

use std::time::Duration;

use aquifer_metadata::machine::group::{
    command::{GroupAction, GroupReply, Progress, Sync},
    query::{GroupAnswer, GroupAsk, GroupQuery},
    types::{GenerationId, MemberId, SyncResult},
};
use bytes::Bytes;

use super::{
    Request,
    errors::{coordinator_error, group_error},
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{SyncGroupRequest, SyncGroupResponse},
    },
};

/// A parked member counts as alive because its agent asks again this often, at the latest.
const ASK_AGAIN: Duration = Duration::from_secs(2);

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: SyncGroupRequest,
) -> SyncGroupResponse {
    if body.group_id.is_empty() {
        return refused(ErrorCode::InvalidGroupId);
    }
    // Both are mandatory since v5, though the schema lets them be null.
    if 5 <= request.version && (body.protocol_type.is_none() || body.protocol_name.is_none()) {
        return refused(ErrorCode::InconsistentGroupProtocol);
    }
    match sync(broker, request, body).await {
        Ok(result) => SyncGroupResponse {
            protocol_type: Some(result.protocol_type.into()),
            protocol_name: Some(result.protocol.into()),
            assignment: result.assignment,
            ..SyncGroupResponse::default()
        },
        Err(code) => refused(code),
    }
}

fn refused(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: code.code(),
        protocol_type: None,
        protocol_name: None,
        ..SyncGroupResponse::default()
    }
}

async fn sync(
    broker: &Broker,
    request: &Request<'_>,
    body: SyncGroupRequest,
) -> Result<SyncResult, ErrorCode> {
    let group = body.group_id.as_str().to_owned();
    let member = MemberId::new(body.member_id.as_str());
    let generation = GenerationId::new(body.generation_id);
    let text = |text: crate::wire::codec::Str| text.as_str().to_owned();
    let sync = Sync {
        member: member.clone(),
        instance: body.group_instance_id.map(text),
        generation,
        protocol_type: body.protocol_type.map(text),
        protocol: body.protocol_name.map(text),
        assignments: body
            .assignments
            .into_iter()
            .map(|one| {
                let member = MemberId::new(one.member_id.as_str());
                (member, Bytes::copy_from_slice(&one.assignment))
            })
            .collect(),
    };
    let mut watch = broker.view.watch_group(&group);
    let unanswered = |error| coordinator_error(&error);
    let reply = broker.group(&group, GroupAction::Sync(sync)).await.map_err(unanswered)?;
    request.release_memory();
    let GroupReply::Sync(mut answer) = reply else {
        return Err(unanswered(mismatch("propose", &reply)));
    };
    loop {
        let version = match answer.map_err(|rejected| group_error(&rejected))? {
            Progress::Ready(result) => return Ok(result),
            Progress::Pending { version, .. } => version,
        };
        // A time-out only asks again, which tells the coordinator that the member still waits.
        let _ = broker.seams.timeout(ASK_AGAIN, watch.passed(version)).await;
        let ask = GroupAsk::Sync { member: member.clone(), generation };
        let query = GroupQuery { group: group.clone(), ask };
        let again = broker.ask_group(query).await.map_err(unanswered)?;
        let GroupAnswer::Sync(next) = again else {
            return Err(unanswered(mismatch("query", &again)));
        };
        answer = next;
    }
}
