//! ListConfigResources (74) v0-1: resources that have configs, by type; v0 knows client metrics
//! only. Loggers are never listed: they are not served.

use aquifer_metadata::machine::config::ConfigKind;

use super::{
    Request,
    config_resources::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
    errors::admin_error,
};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            ListConfigResourcesRequest, ListConfigResourcesResponse,
            ListConfigResourcesResponseConfigResources,
        },
    },
};

const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let refused = |code: ErrorCode| ListConfigResourcesResponse {
        error_code: code.code(),
        ..ListConfigResourcesResponse::default()
    };
    let asked = match body.resource_types {
        _ if request.version == 0 => vec![CLIENT_METRICS],
        types if types.is_empty() => TYPES.to_vec(),
        types => types,
    };
    if asked.iter().any(|resource_type| !TYPES.contains(resource_type)) {
        return refused(ErrorCode::UnsupportedVersion);
    }
    if let Err(error) = broker.view.fresh().await {
        return refused(admin_error(&error));
    }
    let catalog = broker.view.catalog();
    let mut config_resources = Vec::new();
    let mut add = |name: &str, resource_type| {
        config_resources.push(ListConfigResourcesResponseConfigResources {
            resource_name: name.into(),
            resource_type,
        });
    };
    // By type and not in the order asked: a type that is repeated must not multiply the answer.
    for resource_type in TYPES.into_iter().filter(|known| asked.contains(known)) {
        let mut stored = |kind| {
            let keys = catalog.configs.keys().filter(|key| key.kind == kind);
            keys.for_each(|key| add(&key.name, resource_type));
        };
        match resource_type {
            GROUP => stored(ConfigKind::Group),
            CLIENT_METRICS => stored(ConfigKind::ClientMetrics),
            TOPIC => catalog.topics.values().for_each(|topic| add(&topic.name, TOPIC)),
            BROKER => {
                let nodes = broker.nodes();
                nodes.iter().for_each(|node| add(&node.node_id.value().to_string(), BROKER));
            }
            _ => {}
        }
    }
    ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() }
}
