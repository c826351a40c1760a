//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. Bound before anything else, so
//! that an orchestrator sees a process that starts.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};

use crate::metrics;

/// Whether clients should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They should not, because of this.
    NotReady(String),
    /// They should.
    Ready,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    readiness: watch::Receiver<Readiness>,
    registry: Arc<Registry>,
}

/// Binds the listener.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    readiness: watch::Receiver<Readiness>,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route(
            "/metrics",
            get(async |State(shared): State<Shared>| {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([("content-type", kind)], metrics::render(&shared.registry))
            }),
        )
        .with_state(Shared { readiness, registry });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown).await {
        tracing::error!(%error, "health and metrics listener stopped");
    }
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.readiness.borrow().clone() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
