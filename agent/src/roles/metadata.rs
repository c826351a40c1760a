//! `aquifer metadata`: one node of the metadata group, over gRPC.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use aquifer_agent::{
    config::{self, Flags, Settings},
    configs::group_defaults,
};
use aquifer_metadata::{
    client::cluster::{OperationError, Operator},
    machine::Genesis,
    node::{
        MetadataNode, NodeConfig,
        folder::{Home, Identity},
    },
    service,
};
use aquifer_storage::{
    claim::{ClaimFailed, read_claim},
    seam::{Seams, system},
};
use futures::future::try_join;
use tokio_util::sync::CancellationToken;

use super::{
    backups,
    bucket::{self, Bucket},
    parts, signals,
};

/// How often what is waited for is looked at, and said.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS_PER_LINE: u32 = 10;

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let settings = config::load(flags)?;
    let seams = settings.tls().secure(system::seams())?;
    if let Some(name) = settings.options.given.keys().find(|name| group_defaults::is_one(name)) {
        anyhow::bail!("-o {name} is for agents, which tell the metadata nodes");
    }
    let shutdown = signals::shutdown()?;
    let home = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        home = Home::lock_patiently(&settings.data, |disk| Arc::new(disk), &seams) => home,
    };
    let home = home.context("--data")?;
    let founders = founders(&settings, &home)?;
    let listener = seams
        .net
        .listen(settings.listen)
        .await
        .with_context(|| format!("--listen {}", settings.listen))?;
    let store = bucket::open(&settings, &seams).await?;
    let start = Start { settings: &settings, flags, founders: &founders, store: &store };
    let ((node, founds), is_proven) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        started = async {
            try_join(start.node(home, &seams), store.prove(&seams)).await
        } => started?,
    };
    let claim = async {
        parts::claim(&settings, &store, &node, &seams).await?;
        store.prove_unless(is_proven, &seams).await
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        claimed = claim => claimed?,
    }
    backups::ship(&settings, &store, &node);
    println!("Aquifer metadata node {} listens on {}", node.identity().node_id, settings.listen);
    println!("  log and snapshots  {}", settings.data.display());
    println!("  bucket             {}", settings.store_url());
    let stop = CancellationToken::new();
    let serve = service::serve(listener, node.clone(), stop.clone().cancelled_owned());
    if founds {
        node.form(founders);
    }
    let leave = async {
        shutdown.cancelled().await;
        // Whoever calls meanwhile is told who leads.
        node.step_aside().await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        ended = serve => ended.context("metadata service")?,
        fatal = node.fatal() => anyhow::bail!("{fatal}"),
        () = leave => {}
    }
    node.shutdown().await;
    Ok(())
}

/// Who begins the group: `--voters`, now or at the first start, or this node alone.
fn founders(settings: &Settings, home: &Home) -> anyhow::Result<BTreeMap<u64, String>> {
    let owner = home.identity().context("--data")?;
    let noted = match (&settings.voters, &owner) {
        (None, Some(_)) => home.founders().context("--data")?,
        (voters, _) => voters.clone(),
    };
    let id = owner.as_ref().map_or(settings.id, |owner| owner.node_id);
    let is_first = owner.is_none() && settings.join.is_none();
    if is_first && noted.is_none() && settings.listen.ip().is_unspecified() {
        anyhow::bail!(
            "--listen {} is every address, so agents cannot be told one: add --voters {id}=HOST:{}",
            settings.listen,
            settings.listen.port()
        );
    }
    let voters = noted.unwrap_or_else(|| format!("{id}={}", settings.listen));
    if owner.is_some() && config::FOUNDER_ID_MAX < id {
        return Ok(BTreeMap::new()); // It joined.
    }
    let founders = config::parse_voters(&voters).map_err(anyhow::Error::msg).context("--voters")?;
    if !founders.contains_key(&id) {
        anyhow::bail!("--id {id} is not among --voters {voters}");
    }
    if is_first {
        home.note_founders(&voters).context("--data")?;
    }
    if 1 < founders.len() && settings.store.is_none() {
        anyhow::bail!("--store is missing: the nodes of a group find each other's cluster there");
    }
    Ok(founders)
}

/// What a node is started from.
struct Start<'a> {
    settings: &'a Settings,
    flags: &'a Flags,
    founders: &'a BTreeMap<u64, String>,
    store: &'a Bucket,
}

impl Start<'_> {
    /// Starts the node of `home`, and whether it still has to begin a group.
    async fn node(&self, home: Home, seams: &Seams) -> anyhow::Result<(MetadataNode, bool)> {
        let owner = home.identity().context("--data")?;
        let (node_id, genesis, founds) = match owner {
            Some(owner) => self.known(owner)?,
            None if self.settings.join.is_some() => {
                let (id, genesis) = self.join(&home, seams).await?;
                (id, genesis, false)
            }
            None => (self.settings.id, self.found(seams).await?, true),
        };
        let data_dir = self.settings.data.clone();
        let tuning = parts::tuning(self.settings);
        let config = NodeConfig { node_id, data_dir, genesis, tuning };
        let starting = MetadataNode::start_member_in(home, config, seams.clone());
        Ok((starting.await.context("--data")?, founds))
    }

    /// The folder says who this node is. Its group may not have begun yet.
    fn known(&self, owner: Identity) -> anyhow::Result<(u64, Genesis, bool)> {
        let Identity { cluster_id, node_id, lineage } = owner;
        if let Some(id) = self.flags.id.filter(|id| *id != node_id) {
            anyhow::bail!(
                "--data {} is of node {node_id}, not of --id {id}",
                self.settings.data.display()
            );
        }
        let founds = self.settings.join.is_none() && self.founders.contains_key(&node_id);
        Ok((node_id, Genesis { cluster_id, lineage }, founds))
    }

    /// The cluster that a founder begins: the one with the lowest id draws it and claims the
    /// bucket's prefix, the others find it there.
    async fn found(&self, seams: &Seams) -> anyhow::Result<Genesis> {
        let first = self.founders.keys().next() == Some(&self.settings.id);
        let mut looks = 0;
        loop {
            match read_claim(self.store.store.as_ref()).await {
                Ok(None) if first => return Ok(parts::new_cluster(seams)),
                Ok(Some(found)) if first => anyhow::bail!(
                    "{} belongs to cluster {} already, and --data {} is empty: give its folder, \
                     --join one of its nodes, or another --store prefix; when the majority of its \
                     nodes was lost, run `{}`",
                    self.settings.store_url(),
                    found.cluster_id,
                    self.settings.data.display(),
                    backups::restore_command(self.settings)
                ),
                Ok(Some(found)) => {
                    return Ok(Genesis { cluster_id: found.cluster_id, lineage: found.lineage });
                }
                Ok(None) if looks % LOOKS_PER_LINE == 0 => tracing::info!(
                    "waiting for node {:?} to claim {}",
                    self.founders.keys().next(),
                    self.settings.store_url()
                ),
                Ok(None) => {}
                Err(error @ ClaimFailed::File { .. }) => return Err(error.into()),
                Err(error) if looks % LOOKS_PER_LINE == 0 => {
                    tracing::warn!(%error, "cannot read whose the bucket is yet, trying again");
                }
                Err(_) => {}
            }
            looks += 1;
            seams.sleep(LOOK_INTERVAL).await;
        }
    }

    /// Asks the group at `--join` to admit this folder.
    async fn join(&self, home: &Home, seams: &Seams) -> anyhow::Result<(u64, Genesis)> {
        let at = self.settings.join.clone().unwrap_or_default();
        config::parse_host_port(&at).map_err(anyhow::Error::msg).context("--join")?;
        if self.settings.listen.ip().is_unspecified() {
            anyhow::bail!(
                "--listen {} names no address: the other nodes must reach this one there",
                self.settings.listen
            );
        }
        let incarnation = home.incarnation(&*seams.rng).context("--data")?;
        let operator = Operator::new(vec![at.clone()], seams.clone());
        let mut looks = 0;
        loop {
            match operator.join(&self.settings.listen.to_string(), incarnation).await {
                Ok(admission) => {
                    println!(
                        "joined cluster {} as node {}: `aquifer cluster add-voter {}` makes it a \
                         voter",
                        admission.cluster_id, admission.id, admission.id
                    );
                    let (cluster_id, lineage) = (admission.cluster_id, admission.lineage);
                    return Ok((admission.id, Genesis { cluster_id, lineage }));
                }
                Err(error @ OperationError::Refused(_)) => {
                    return Err(error).with_context(|| format!("--join {at}"));
                }
                Err(error) if looks % LOOKS_PER_LINE == 0 => {
                    tracing::warn!(%error, "cannot join yet, trying again");
                }
                Err(_) => {}
            }
            looks += 1;
            seams.sleep(LOOK_INTERVAL).await;
        }
    }
}
