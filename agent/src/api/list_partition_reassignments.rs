//! ListPartitionReassignments (46) v0: there never is one.

use super::Request;
use crate::{
    broker::Broker,
    wire::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse},
};

pub async fn handle(
    _broker: &Broker,
    _request: &Request<'_>,
    _body: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let error_message = None;
    ListPartitionReassignmentsResponse {
        error_message,
        ..ListPartitionReassignmentsResponse::default()
    }
}
