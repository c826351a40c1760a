//! Accepts Kafka connections.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connection;
use crate::broker::Broker;

/// Accepts until `shutdown`, then waits until every connection has answered what it had read.
pub async fn run(listener: TcpListener, broker: Arc<Broker>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased; // Draining stops accepting at once.
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serve = connection::serve(stream, peer, Arc::clone(&broker), shutdown.clone());
                broker.seams.spawn("connection", connections.track_future(serve));
            }
            Err(error) => {
                // Out of descriptors, mostly: the backlog waits until some are free again.
                tracing::warn!(%error, "cannot accept a connection");
                broker.seams.sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
