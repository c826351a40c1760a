//! The gRPC service of a metadata node: reads a request, asks the node, writes the reply.
//!
//! # Invariants
//! - What the node refuses travels in the reply. A transport status says nothing about effects.
//! - A caller of another cluster, of another life of this one, or of a newer level, is refused
//!   before anything of it is read.

mod admission;
mod calls;
mod cluster;
mod incoming;
mod peers;
mod streams;

use std::{future::Future, time::Duration};

use aquifer_storage::seam::net::Listener;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::{
    client::remote::{CONNECTION_WINDOW_BYTES, REQUEST_BYTES_MAX, STREAM_WINDOW_BYTES},
    node::MetadataNode,
    proto::{
        cluster_server::ClusterServer, metadata_server::MetadataServer, raft_server::RaftServer,
    },
    raft::network::PEER_MESSAGE_BYTES_MAX,
};

/// Requests and streams of one connection at once: an agent multiplexes all of its own over one.
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// Calls that their callers gave up before they were looked at. A node that was stalled for a
/// moment finds many heartbeats so; to close the connection for it would stall it again.
const RESET_STREAMS_MAX: usize = 1024;
/// Headers of one request: gRPC sends a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Two together notice an agent that is gone long before its session is fenced.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What is under way at shutdown gets this long.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// The service could not go on serving.
#[derive(Debug, thiserror::Error)]
#[error("metadata service: {source}")]
pub struct ServeError {
    /// What the listener or the transport said.
    #[from]
    source: tonic::transport::Error,
}

/// Serves `node` on `listener` until `shutdown` resolves; then ends its streams, lets calls that
/// are under way finish for a few seconds, and returns. The node itself goes on.
///
/// # Cancel safety
/// Dropping the future stops accepting; connections end with their own calls.
pub async fn serve(
    listener: impl Into<Listener>,
    node: MetadataNode,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let seams = node.seams().clone();
    let (stop, stopping) = watch::channel(false);
    let service = Service { node, stopping: stopping.clone() };
    let raft = RaftServer::new(service.clone()).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let cluster = ClusterServer::new(service.clone());
    let service = MetadataServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    let incoming = incoming::connections(listener.into(), seams.clone());
    let signal = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
        .add_service(service)
        .add_service(raft)
        .add_service(cluster)
        .serve_with_incoming_shutdown(incoming, signal);
    let overdue = async {
        stopped(stopping).await;
        seams.sleep(SHUTDOWN_MAX).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = overdue => {
            tracing::warn!("calls to metadata were still under way at shutdown");
            Ok(())
        }
    }
}

/// Resolves once the service stops, or is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await; // An error says that it is gone.
}

/// One node, as its callers see it.
#[derive(Clone)]
struct Service {
    node: MetadataNode,
    stopping: watch::Receiver<bool>,
}
