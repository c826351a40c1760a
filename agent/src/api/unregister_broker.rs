//! UnregisterBroker (64) v0: forgets the node id of an agent that lives no more.

use aquifer_metadata::machine::command::{Command, NodeRejected, Reply};
use aquifer_storage::model::NodeId;

use super::{Request, errors::admin_error};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{UnregisterBrokerRequest, UnregisterBrokerResponse},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = body.broker_id;
    let command = Command::UnregisterNode { node: NodeId::new(id) };
    let applied = broker.metadata.propose(command).await.map(|applied| applied.reply);
    let (code, words) = match applied {
        Ok(Reply::NodeUnregistered(outcome)) => match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(NodeRejected::Unknown) => (
                ErrorCode::BrokerIdNotRegistered,
                Some(format!("Broker ID {id} is not currently registered")),
            ),
            Err(NodeRejected::Live) => (
                ErrorCode::InvalidRequest,
                Some(format!("Broker ID {id} is an agent that lives: stop it first")),
            ),
        },
        Ok(other) => {
            let error = mismatch("propose", &other);
            (admin_error(&error), Some(error.to_string()))
        }
        Err(error) => (admin_error(&error), Some(error.to_string())),
    };
    UnregisterBrokerResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
        error_message: words.map(Into::into),
    }
}
