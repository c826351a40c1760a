//! RemoveRaftVoter (81) v0: removes a voter from the metadata group, for ever.

use aquifer_metadata::client::cluster::VoterChange;

use super::{
    Request,
    quorum::{change_error, check_cluster, member},
};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let (code, message) = match remove(broker, &body).await {
        Ok(()) => (ErrorCode::None, None),
        Err((code, message)) => (code, Some(message)),
    };
    RemoveRaftVoterResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
        error_message: message.map(Into::into),
    }
}

async fn remove(broker: &Broker, body: &RemoveRaftVoterRequest) -> Result<(), (ErrorCode, String)> {
    check_cluster(body.cluster_id.as_deref(), &broker.view.catalog().cluster_id)?;
    let refused = |error| change_error(&error, ErrorCode::InvalidRequest);
    let status = broker.quorum.quorum().await.map_err(refused)?;
    let (id, directory) = (body.voter_id, body.voter_directory_id);
    let found = member(&status, id, directory).filter(|member| member.voter);
    let Some(found) = found else {
        let reason = format!("node {id} with directory id {directory} is not a voter");
        return Err((ErrorCode::VoterNotFound, reason));
    };
    broker.quorum.change_voters(VoterChange::Remove(found.id)).await.map(drop).map_err(refused)
}
