//! What a start checks and begins with: the log, the owner, Raft's settings, the first leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aquifer_storage::seam::Seams;

use super::{
    NodeConfig, StartError,
    folder::{Home, Identity},
};
use crate::{
    raft::{
        Member, RaftHandle,
        library::{Config, SnapshotPolicy, StorageHelper},
        log_store::LogStore,
        network::Peers,
        state_machine::{MachineCell, StateMachine},
    },
    wal::{Drive, Wal, WalConfig},
};

/// How long a start may take to apply what its log holds.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// What must be there at a start that is not the first.
pub(super) struct Expected {
    pub(super) log: bool,
    /// The log of a single voter reaches at least as far as its snapshot.
    pub(super) last: Option<u64>,
}

/// Opens the log of `home`, which stays locked until nobody can write to it any more. Must not
/// begin one where one was lost: the next start would not see the loss.
pub(super) fn open_log(
    home: &Home,
    identity: &Identity,
    expected: &Expected,
    seams: &Seams,
) -> Result<Wal, StartError> {
    if expected.log && !Wal::exists(&*home.log)? {
        return Err(StartError::LogMissing(home.raft_path()));
    }
    let mut config =
        WalConfig::new(identity.cluster_id.clone(), identity.node_id, seams.rng.next_u64());
    config.drive = home.drive;
    config.segment_bytes = home.segment_bytes.unwrap_or(config.segment_bytes);
    let (wal, recovered) = Wal::open(Arc::clone(&home.log), &config)?;
    if recovered.last.map(|last| last.index) < expected.last {
        return Err(StartError::LogMissing(home.raft_path()));
    }
    if home.drive == Drive::Manual {
        seams.spawn("wal-writer", write_behind(wal.clone(), seams.clone(), home.sync_time));
    }
    if let Some(torn) = &recovered.torn {
        tracing::info!(?torn, "cut a torn tail that was never acknowledged");
    }
    Ok(wal)
}

/// The writer of a simulated log: what was asked for during a sync goes into the next one.
async fn write_behind(wal: Wal, seams: Seams, sync_time: Duration) {
    loop {
        wal.filled().await;
        seams.sleep(sync_time).await;
        wal.run_waiting();
    }
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

/// The voters as of the end of the log, a change under way included. Empty for a new node.
pub(super) async fn voters(
    log: &mut LogStore,
    machine: &mut StateMachine,
) -> Result<BTreeSet<u64>, StartError> {
    let membership = StorageHelper::new(log, machine).get_membership().await;
    let membership = membership.map_err(|error| StartError::Raft(error.to_string()))?;
    Ok(membership.effective().voter_ids().collect())
}

/// Raft's settings, for a node that is `alone` in its group or one of several.
pub(super) fn raft_config(config: &NodeConfig, alone: bool) -> Config {
    let tuning = &config.tuning;
    Config {
        cluster_name: config.genesis.cluster_id.clone(),
        election_timeout_min: tuning.timings.election_ms_min,
        election_timeout_max: tuning.timings.election_ms_max,
        heartbeat_interval: tuning.timings.heartbeat_ms,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.snapshot_entries),
        // A single voter replicates to nobody: the snapshot serves as well.
        max_in_snapshot_log_to_keep: if alone { 0 } else { tuning.entries_kept },
        enable_pre_vote: Some(true),
        // Safe with one voter: everything in its log is committed. Never with more.
        enable_leader_restore: Some(alone),
        backoff: "50ms 100ms 200ms ..400ms".into(),
        ..Config::default()
    }
}

/// Waits until this node leads, alone.
pub(super) async fn lead(raft: &RaftHandle, peers: &Peers) -> Result<(), StartError> {
    let to_error = |error: &dyn std::error::Error| StartError::Raft(error.to_string());
    let (id, incarnation) = (peers.me().id, peers.me().incarnation);
    if !raft.is_initialized().await.map_err(|error| to_error(&error))? {
        let voters = BTreeMap::from([(id, Member { address: String::new(), incarnation })]);
        raft.initialize(voters).await.map_err(|error| to_error(&error))?;
    }
    let led = raft.wait(Some(RECOVERY_MAX)).current_leader(id, "lead").await;
    led.map_err(|error| to_error(&error))?;
    raft.wait_for_recovery(Some(RECOVERY_MAX)).await.map_err(|error| to_error(&error))?;
    Ok(())
}
