//! DescribeCluster (60) v0-2.

use super::{Request, admin};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            DescribeClusterRequest, DescribeClusterResponse, DescribeClusterResponseBrokers,
        },
    },
};

/// Brokers, the only endpoints of this listener.
const ENDPOINT_BROKERS: i8 = 1;

/// Served by no listener of agents.
const ENDPOINT_CONTROLLERS: i8 = 2;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if 1 <= request.version && body.endpoint_type != ENDPOINT_BROKERS {
        let (code, words) = match body.endpoint_type {
            ENDPOINT_CONTROLLERS => (
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                 type CONTROLLER"
                    .to_owned(),
            ),
            other => {
                (ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))
            }
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(words.into()),
            endpoint_type: ENDPOINT_BROKERS,
            ..DescribeClusterResponse::default()
        };
    }
    let nodes = broker.nodes();
    let brokers = nodes.iter().map(|node| DescribeClusterResponseBrokers {
        broker_id: node.node_id.value(),
        host: node.advertised.host.as_str().into(),
        port: node.advertised.port.into(),
        rack: node.zone.as_deref().map(Into::into),
        ..DescribeClusterResponseBrokers::default()
    });
    DescribeClusterResponse {
        error_message: None,
        endpoint_type: ENDPOINT_BROKERS,
        cluster_id: broker.view.catalog().cluster_id.as_str().into(),
        controller_id: nodes.first().map_or(-1, |node| node.node_id.value()),
        brokers: brokers.collect(),
        cluster_authorized_operations: admin::operations(
            body.include_cluster_authorized_operations,
            admin::CLUSTER_OPERATIONS,
        ),
        ..DescribeClusterResponse::default()
    }
}
