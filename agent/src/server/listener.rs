//! Accepts Kafka connections.

use std::{sync::Arc, time::Duration};

use aquifer_storage::seam::net::Listener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection, connection_limit::connections_max, refusal_log::RefusalLog};
use crate::broker::Broker;

/// Nothing is accepted for this long after an attempt failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Draining waits this long for answers under way: as long as a produce may take.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Attempts that fail in a row are logged every so often: a minute's worth.
const FAILURES_PER_LINE: u64 = 600;

/// Accepts until `shutdown`, then waits until every connection has answered what it had read.
pub async fn run(listener: impl Into<Listener>, broker: Arc<Broker>, shutdown: CancellationToken) {
    let listener = listener.into();
    let connections = TaskTracker::new();
    let refusals = Arc::new(RefusalLog::new(broker.seams.clone()));
    let limit = connections_max();
    let mut failures = 0u64;
    loop {
        let accepted = tokio::select! {
            biased; // Draining stops accepting at once.
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_, peer)) if limit <= connections.len() => {
                // Closed at once, so that the client tries another agent.
                refusals.note(peer, &format!("{limit} connections are all that fit"));
            }
            Ok((stream, peer)) => {
                failures = 0;
                let (broker, refusals) = (Arc::clone(&broker), Arc::clone(&refusals));
                let seams = broker.seams.clone();
                let serve = connection::serve(stream, peer, broker, refusals, shutdown.clone());
                seams.spawn("connection", connections.track_future(serve));
            }
            Err(error) => {
                // Out of descriptors, mostly: the backlog waits until some are free again.
                if failures.is_multiple_of(FAILURES_PER_LINE) {
                    tracing::warn!(%error, failures, "cannot accept a connection");
                }
                failures += 1;
                broker.seams.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if broker.seams.timeout(DRAIN_MAX, connections.wait()).await.is_none() {
        let left = connections.len();
        tracing::warn!(left, "connections did not end, not waiting for them any longer");
    }
}
