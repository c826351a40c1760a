//! `aquifer up`: one metadata voter and one agent in one process, without loopback gRPC.

use std::sync::Arc;

use aquifer_agent::config::{self, Flags};
use aquifer_metadata::client::{Metadata, cluster::Quorum};
use aquifer_storage::seam::system;
use futures::future::try_join;

use super::{
    backups::{self, BackupMetrics},
    bucket, parts, signals,
};

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let settings = config::load(flags)?;
    if settings.tls().files()?.is_some() {
        anyhow::bail!("--tls-cert has nothing to secure: `aquifer up` calls no other process");
    }
    let seams = system::seams();
    let shutdown = signals::shutdown()?;
    let store = bucket::open(&settings, &seams).await?;
    let (node, is_proven) = tokio::select! {
        started = async {
            try_join(parts::start_node(&settings, &store, &seams), store.prove(&seams)).await
        } => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let claim = async {
        parts::claim(&settings, &store, &node, &seams).await?;
        store.prove_unless(is_proven, &seams).await
    };
    tokio::select! {
        claimed = claim => claimed?,
        () = shutdown.cancelled() => return Ok(()),
    }
    backups::ship(&settings, &store, &node);
    let client = Arc::new(node.client());
    let metadata = (client.clone() as Arc<dyn Metadata>, client as Arc<dyn Quorum>);
    let shown = Some(BackupMetrics(node.clone()));
    let agent = tokio::select! {
        started = parts::Agent::start(settings, metadata, store, seams, shown) => started?,
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
