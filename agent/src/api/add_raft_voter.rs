//! AddRaftVoter (80) v0-1: makes a metadata node that joined (`aquifer metadata --join`) a voter.
//!
//! The node told the group itself where it is reached, so the request's listeners are not used.
//! The answer always waits for a majority, whatever `ackWhenCommitted` says.

use std::time::Duration;

use aquifer_metadata::client::cluster::{OperationError, VoterChange};

use super::{
    Request,
    quorum::{change_error, check_cluster, member},
};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{AddRaftVoterRequest, AddRaftVoterResponse},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: AddRaftVoterRequest,
) -> AddRaftVoterResponse {
    let within = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or_default());
    let added = match broker.seams.timeout(within, add(broker, &body)).await {
        Some(added) => added,
        None => Err((
            ErrorCode::RequestTimedOut,
            format!("it may or may not have happened, not answered within {within:?}"),
        )),
    };
    let (code, message) = match added {
        Ok(()) => (ErrorCode::None, None),
        Err((code, message)) => (code, Some(message)),
    };
    AddRaftVoterResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
        error_message: message.map(Into::into),
    }
}

async fn add(broker: &Broker, body: &AddRaftVoterRequest) -> Result<(), (ErrorCode, String)> {
    check_cluster(body.cluster_id.as_deref(), &broker.view.catalog().cluster_id)?;
    let seen = |error: &OperationError| change_error(error, ErrorCode::InvalidRequest);
    let status = broker.quorum.quorum().await.map_err(|error| seen(&error))?;
    let (id, directory) = (body.voter_id, body.voter_directory_id);
    let Some(found) = member(&status, id, directory) else {
        let reason = format!(
            "node {id} with directory id {directory} is not known: start it with \
             `aquifer metadata --join` first"
        );
        return Err((ErrorCode::InvalidRequest, reason));
    };
    if found.voter {
        return Err((ErrorCode::DuplicateVoter, format!("node {id} is a voter")));
    }
    let change = VoterChange::Add(found.id);
    let added = broker.quorum.change_voters(change).await;
    // A learner is refused only while it is behind: later it may not be.
    added.map(drop).map_err(|error| change_error(&error, ErrorCode::RequestTimedOut))
}
