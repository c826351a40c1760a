//! InitProducerId (22) v0-5, without transactions: always a fresh id, epoch 0.

use super::{Request, errors::coordinator_error};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{InitProducerIdRequest, InitProducerIdResponse},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    match &body.transactional_id {
        None => {}
        Some(id) if id.is_empty() => return refused(ErrorCode::InvalidRequest),
        // No transactions yet: the one answer that every client reports as such.
        Some(_) => return refused(ErrorCode::TransactionalIdAuthorizationFailed),
    }
    match broker.session.next_producer_id().await {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.value(),
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        Err(error) => refused(coordinator_error(&error)),
    }
}
