//! FindCoordinator (10) v0-6: any agent will do, because coordination is metadata's state. Groups
//! are spread over the live agents by hash; transactional ids are not served yet.

use aquifer_metadata::watch::CatalogNode;

use super::Request;
use crate::{
    broker::Broker,
    placement,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            FindCoordinatorRequest, FindCoordinatorResponse, FindCoordinatorResponseCoordinators,
        },
    },
};

const KEY_GROUP: i8 = 0;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let place = Place { nodes: broker.nodes(), zone: broker.zone_of(request) };
    let find = |key: &Str| find(&place, key, body.key_type);
    if 4 <= request.version {
        return FindCoordinatorResponse {
            coordinators: body.coordinator_keys.iter().map(find).collect(),
            ..FindCoordinatorResponse::default()
        };
    }
    let found = find(&body.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        // Kafka's name of no error, in these versions.
        error_message: match found.error_code {
            0 => Some("NONE".into()),
            _ => found.error_message,
        },
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

/// The live agents, and where the client is.
struct Place<'a> {
    nodes: Vec<CatalogNode>,
    zone: Option<&'a str>,
}

fn find(place: &Place<'_>, key: &Str, key_type: i8) -> FindCoordinatorResponseCoordinators {
    let refused = |code: ErrorCode, words: &'static str| FindCoordinatorResponseCoordinators {
        key: key.clone(),
        node_id: -1,
        port: -1,
        error_code: code.code(),
        error_message: Some(words.into()),
        ..FindCoordinatorResponseCoordinators::default()
    };
    if key_type != KEY_GROUP {
        return refused(ErrorCode::InvalidRequest, "only groups have a coordinator here");
    }
    let slot = placement::slot_of(key.as_bytes());
    let home = placement::replicas(slot, &place.nodes, place.zone, 1).first().copied();
    let Some(node) = place.nodes.iter().find(|node| Some(node.node_id) == home) else {
        return refused(ErrorCode::CoordinatorNotAvailable, "no agent is registered");
    };
    FindCoordinatorResponseCoordinators {
        key: key.clone(),
        node_id: node.node_id.value(),
        host: node.advertised.host.as_str().into(),
        port: node.advertised.port.into(),
        error_code: ErrorCode::None.code(),
        error_message: Some("".into()),
    }
}
