//! Heartbeat (12) v0-4: answered and noted by the metadata leader, never replicated.

use aquifer_metadata::machine::group::{
    query::{GroupAnswer, GroupAsk, GroupQuery},
    types::{GenerationId, MemberId},
};

use super::{
    Request,
    errors::{coordinator_error, group_error},
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{HeartbeatRequest, HeartbeatResponse},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: HeartbeatRequest,
) -> HeartbeatResponse {
    let code =
        if body.group_id.is_empty() { ErrorCode::InvalidGroupId } else { beat(broker, body).await };
    HeartbeatResponse { error_code: code.code(), ..HeartbeatResponse::default() }
}

async fn beat(broker: &Broker, body: HeartbeatRequest) -> ErrorCode {
    let ask = GroupAsk::Heartbeat {
        member: MemberId::new(body.member_id.as_str()),
        instance: body.group_instance_id.map(|instance| instance.as_str().to_owned()),
        generation: GenerationId::new(body.generation_id),
    };
    let query = GroupQuery { group: body.group_id.as_str().to_owned(), ask };
    match broker.ask_group(query).await {
        Ok(GroupAnswer::Heartbeat(Ok(()))) => ErrorCode::None,
        Ok(GroupAnswer::Heartbeat(Err(rejected))) => group_error(&rejected),
        Ok(other) => coordinator_error(&mismatch("query", &other)),
        Err(error) => coordinator_error(&error),
    }
}
