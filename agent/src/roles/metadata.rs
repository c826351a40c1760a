//! `aquifer metadata`: one node of the metadata group, over gRPC.

use anyhow::Context;
use aquifer_agent::config::{self, Flags};
use aquifer_metadata::service;
use aquifer_storage::seam::system;
use tokio::net::TcpListener;

use super::{bucket, parts, signals};

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let settings = config::load(flags)?;
    let seams = system::seams();
    let shutdown = signals::shutdown()?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("--listen {}", settings.listen))?;
    let store = bucket::open(&settings, &seams)?;
    let node = parts::start_node(&settings, &seams).await?;
    tokio::select! {
        claimed = parts::claim(&settings, &store, &node, &seams) => claimed?,
        () = shutdown.cancelled() => return Ok(()),
    }
    println!("Aquifer metadata node {} listens on {}", settings.id, settings.listen);
    println!("  log and snapshots  {}", settings.data.display());
    println!("  bucket             {}", settings.store_url());
    let serve = service::serve(listener, node.clone(), shutdown.clone().cancelled_owned());
    tokio::select! {
        ended = serve => ended.context("metadata service")?,
        fatal = node.fatal() => anyhow::bail!("metadata node stopped: {fatal}"),
    }
    node.shutdown().await;
    Ok(())
}
