//! DescribeCluster (60) v0-2.

use super::Request;
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

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if 1 <= request.version && body.endpoint_type != ENDPOINT_BROKERS {
        let code = if body.endpoint_type == 2 {
            ErrorCode::MismatchedEndpointType
        } else {
            ErrorCode::UnsupportedEndpointType
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some("this listener serves brokers".into()),
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
        ..DescribeClusterResponse::default()
    }
}
