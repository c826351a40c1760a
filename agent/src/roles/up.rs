//! `aquifer up`: one metadata voter and one agent in one process, without loopback gRPC.

use std::sync::Arc;

use aquifer_agent::config::{self, Flags};
use aquifer_storage::seam::system;

use super::{bucket, parts, signals};

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let settings = config::load(flags)?;
    let seams = system::seams();
    let shutdown = signals::shutdown()?;
    let store = bucket::open(&settings, &seams)?;
    let node = parts::start_node(&settings, &seams).await?;
    tokio::select! {
        claimed = parts::claim(&settings, &store, &node, &seams) => claimed?,
        () = shutdown.cancelled() => return Ok(()),
    }
    let metadata = Arc::new(node.client());
    let agent = tokio::select! {
        started = parts::Agent::start(settings, metadata, store, seams) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    agent.announce("up");
    let ended = tokio::select! {
        ended = agent.run(shutdown) => ended,
        fatal = node.fatal() => Err(fatal.into()),
    };
    node.shutdown().await;
    ended
}
