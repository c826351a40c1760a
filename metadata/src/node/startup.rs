//! What a start checks and begins with: the log, the owner, Raft's settings, the first leader.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use aquifer_storage::seam::Seams;

use super::{NodeConfig, StartError, folder::Identity};
use crate::{
    raft::{
        RaftHandle,
        library::{BasicNode, Config, SnapshotPolicy},
        state_machine::MachineCell,
    },
    wal::{Wal, WalConfig, disk::Disk},
};

/// How long a start may take to apply what its log holds.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// What must be there at a start that is not the first.
pub(super) struct Expected {
    pub(super) log: bool,
    /// The log of a single voter reaches at least as far as its snapshot.
    pub(super) last: Option<u64>,
}

/// Opens the log on `disk`, which holds the folder's lock until nobody can write to it any more.
/// Must not begin one where one was lost: the next start would not see the loss.
pub(super) fn open_log(
    folder: &Path,
    identity: &Identity,
    expected: &Expected,
    seams: &Seams,
    disk: Arc<dyn Disk>,
) -> Result<Wal, StartError> {
    if expected.log && !Wal::exists(&*disk)? {
        return Err(StartError::LogMissing(folder.to_path_buf()));
    }
    let config =
        WalConfig::new(identity.cluster_id.clone(), identity.node_id, seams.rng.next_u64());
    let (wal, recovered) = Wal::open(disk, &config)?;
    if recovered.last.map(|last| last.index) < expected.last {
        return Err(StartError::LogMissing(folder.to_path_buf()));
    }
    if let Some(torn) = &recovered.torn {
        tracing::info!(?torn, "cut a torn tail that was never acknowledged");
    }
    Ok(wal)
}

pub(super) fn check_owner(machine: &MachineCell, identity: &Identity) -> Result<(), StartError> {
    let machine = machine.lock();
    if machine.state.cluster_id() == identity.cluster_id
        && machine.state.lineage() == identity.lineage
    {
        return Ok(());
    }
    Err(StartError::State(format!(
        "it is of cluster {} lineage {}, this node is {identity}",
        machine.state.cluster_id(),
        machine.state.lineage()
    )))
}

pub(super) fn raft_config(config: &NodeConfig) -> Config {
    Config {
        cluster_name: config.genesis.cluster_id.clone(),
        election_timeout_min: 300,
        election_timeout_max: 600,
        heartbeat_interval: 100,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.tuning.snapshot_entries),
        // A single voter replicates to nobody: the snapshot serves as well.
        max_in_snapshot_log_to_keep: 0,
        enable_pre_vote: Some(true),
        // Safe with one voter: everything in its log is committed. Never with more.
        enable_leader_restore: Some(true),
        ..Config::default()
    }
}

pub(super) async fn lead(raft: &RaftHandle, node_id: u64) -> Result<(), StartError> {
    let to_error = |error: &dyn std::error::Error| StartError::Raft(error.to_string());
    if !raft.is_initialized().await.map_err(|error| to_error(&error))? {
        let voters = BTreeMap::from([(node_id, BasicNode::default())]);
        raft.initialize(voters).await.map_err(|error| to_error(&error))?;
    }
    let led = raft.wait(Some(RECOVERY_MAX)).current_leader(node_id, "lead").await;
    led.map_err(|error| to_error(&error))?;
    raft.wait_for_recovery(Some(RECOVERY_MAX)).await.map_err(|error| to_error(&error))?;
    Ok(())
}
