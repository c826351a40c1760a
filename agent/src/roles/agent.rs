//! `aquifer agent`: a stateless agent that reaches metadata over gRPC.

use std::sync::Arc;

use anyhow::Context;
use aquifer_agent::config::{self, Flags};
use aquifer_metadata::client::{
    Metadata,
    cluster::{Operator, Quorum},
    remote::{RemoteClient, RemoteConfig},
};
use aquifer_storage::seam::system;
use futures::future::try_join;

use super::{bucket, parts, signals};

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let settings = config::load(flags)?;
    let seams = settings.tls().secure(system::seams())?;
    let shutdown = signals::shutdown()?;
    let addresses: Vec<String> = settings
        .metadata
        .split(',')
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    if addresses.is_empty() {
        anyhow::bail!("--metadata ADDR[,ADDR...] is missing: an agent needs a metadata node");
    }
    for address in &addresses {
        config::parse_host_port(address).map_err(anyhow::Error::msg).context("--metadata")?;
    }
    let store = bucket::open(&settings, &seams).await?;
    let quorum = Arc::new(Operator::new(addresses.clone(), seams.clone()));
    let remote = RemoteConfig { addresses, ..RemoteConfig::default() };
    let client = Arc::new(RemoteClient::new(remote, seams.clone()));
    let metadata = (client as Arc<dyn Metadata>, quorum as Arc<dyn Quorum>);
    // Nobody is served by a store that was found to lose records; one that is down keeps no agent.
    let (proving, clock) = (store.clone(), seams.clone());
    let (agent, _is_proven) = tokio::select! {
        started = async {
            let agent = parts::Agent::start(settings, metadata, store, seams, None);
            try_join(agent, proving.prove(&clock)).await
        } => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    agent.announce("agent");
    agent.run(shutdown).await
}
