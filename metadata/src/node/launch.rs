//! Starting a node: its folder, its log and snapshot, Raft over them, and the tasks around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use aquifer_storage::seam::Seams;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Fatal, Inner, MetadataNode, NodeConfig, NodeMetrics, StartError,
    checkpoints::{Checkpoints, Comparison},
    expiry,
    folder::{Home, Identity},
    followers::Followers,
    formation::keep_in_touch,
    health,
    leadership::Leadership,
    liveness::{Liveness, Watchman},
    presence::Presence,
    proposer::Proposer,
    read_index::{ReadIndex, Source},
    shipping::Backup,
    startup::{Expected, check_owner, lead, open_log, raft_config, voters},
    stop, stop_behind, ticks,
    transfer::yield_when_full,
    until_stopped,
    watch_hub::WatchHub,
};
use crate::{
    machine::MetadataState,
    raft::{
        RaftHandle, SnapshotMeta,
        log_store::LogStore,
        network::Peers,
        own_entries::OwnEntries,
        peer::Myself,
        runtime::drawing_from,
        snapshot_file::SnapshotFiles,
        state_machine::{MachineCell, StateMachine},
    },
    wal::{
        Wal,
        disk::{Disk, FsDisk},
    },
};

/// How often the size of the log since the last snapshot is looked at.
const SNAPSHOT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is known of sessions that are gone is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// A node that Raft runs for.
struct Parts {
    identity: Identity,
    config: NodeConfig,
    seams: Seams,
    raft: RaftHandle,
    wal: Wal,
    own: OwnEntries,
    machine: MachineCell,
    hub: Arc<WatchHub>,
    peers: Peers,
    files: Arc<SnapshotFiles>,
    alone: bool,
    running: watch::Sender<bool>,
}

impl MetadataNode {
    /// Starts the node of a group with one voter and returns once it leads and has applied
    /// everything its log holds.
    pub async fn start(config: NodeConfig, seams: Seams) -> Result<Self, StartError> {
        Self::start_through(config, seams, |disk| Arc::new(disk)).await
    }

    /// As [`Self::start`], with the log written through what `wrap` makes of the folder's disk:
    /// how a failing disk is injected.
    pub async fn start_through(
        config: NodeConfig,
        seams: Seams,
        wrap: impl FnOnce(FsDisk) -> Arc<dyn Disk>,
    ) -> Result<Self, StartError> {
        let home = Home::lock_patiently(&config.data_dir, wrap, &seams).await?;
        Self::start_in(home, config, seams).await
    }

    /// As [`Self::start`], in a home that is not the folder of `config`: a simulated one.
    pub async fn start_in(
        home: Home,
        config: NodeConfig,
        seams: Seams,
    ) -> Result<Self, StartError> {
        let alone = BTreeSet::from([config.node_id]);
        let parts = Parts::open(home, config, &alone, seams).await?;
        let led = match parts.alone {
            true => lead(&parts.raft, &parts.peers).await,
            false => Err(StartError::OneOfSeveral(parts.config.data_dir.clone())),
        };
        if let Err(error) = led {
            stop(&parts.raft, &parts.wal).await;
            return Err(error);
        }
        Ok(parts.assemble())
    }

    /// Starts one node of a group and returns at once: the others must be able to call it before
    /// there is a leader. Serve it with [`crate::service::serve`]; a new one is then told to
    /// [`Self::form`] its group, or hears from the leader of the one it joined.
    pub async fn start_member(config: NodeConfig, seams: Seams) -> Result<Self, StartError> {
        let home = Home::lock_patiently(&config.data_dir, |disk| Arc::new(disk), &seams).await?;
        Self::start_member_in(home, config, seams).await
    }

    /// As [`Self::start_member`], in a home that is not the folder of `config`.
    pub async fn start_member_in(
        home: Home,
        config: NodeConfig,
        seams: Seams,
    ) -> Result<Self, StartError> {
        Ok(Parts::open(home, config, &BTreeSet::new(), seams).await?.assemble())
    }
}

/// What the log of a node that was not empty must reach: alone, a voter's log is never behind its
/// snapshot. One of several may have installed a snapshot and crashed before it cut its log.
fn expected_of(
    newest: Option<&SnapshotMeta>,
    owned: bool,
    alone: impl Fn(&BTreeSet<u64>) -> bool,
) -> Expected {
    let voters = |meta: &SnapshotMeta| meta.last_membership.voter_ids().collect();
    let last = newest.filter(|meta| alone(&voters(meta)));
    Expected {
        log: owned || newest.is_some(),
        last: last.and_then(|meta| Some(meta.last_log_id?.index)),
    }
}

impl Parts {
    /// Opens what `home` holds and starts Raft. `founders` are the voters of a new group, as far as
    /// they are known.
    async fn open(
        home: Home,
        config: NodeConfig,
        founders: &BTreeSet<u64>,
        seams: Seams,
    ) -> Result<Self, StartError> {
        let identity = Identity {
            cluster_id: config.genesis.cluster_id.clone(),
            node_id: config.node_id,
            lineage: config.genesis.lineage,
        };
        let owned = home.is_owned(&identity)?;
        let incarnation = home.incarnation(&*seams.rng)?;
        let snapshots = Arc::clone(&home.snapshots);
        let (files, newest) = SnapshotFiles::open_on(snapshots, &home.raft_path(), home.drive)?;
        let alone = |voters: &BTreeSet<u64>| voters.iter().all(|id| *id == identity.node_id);
        let expected = expected_of(newest.as_ref().map(|(meta, _)| meta), owned, alone);
        let wal = open_log(&home, &identity, &expected, &seams)?;
        // Behind the log: from now on a log that is not there is a loss.
        home.claim(&identity)?;
        let hub = Arc::new(WatchHub::default());
        let state = MetadataState::new(config.genesis.clone());
        let (running, _) = watch::channel(true);
        let mut adapter = StateMachine::new(files, newest, state, hub.clone())
            .map_err(|error| StartError::State(error.to_string()))?
            .patient(seams.clone(), running.subscribe());
        let (machine, files, own) = (adapter.cell(), adapter.files(), adapter.own_entries());
        check_owner(&machine, &identity)?;
        let mut log = LogStore::new(wal.clone(), seams.clone());
        let known = voters(&mut log, &mut adapter).await?;
        let voters = if known.is_empty() { founders } else { &known };
        let alone = !voters.is_empty() && alone(voters);
        let raft_config = Arc::new(raft_config(&config, alone));
        let Identity { cluster_id, node_id: id, lineage } = identity.clone();
        let peers = Peers::new(Myself { cluster_id, lineage, id, incarnation }, seams.clone());
        let raft = RaftHandle::new(id, raft_config, peers.clone(), log, adapter);
        let raft = drawing_from(&*seams.rng, raft)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        // From here on Raft stops when `running` does, also when this future is dropped.
        seams.spawn("raft-stop", stop_behind(running.subscribe(), raft.clone(), wal.clone()));
        Ok(Self {
            identity,
            config,
            seams,
            raft,
            wal,
            own,
            machine,
            hub,
            peers,
            files,
            alone,
            running,
        })
    }

    /// Runs `task` until the node stops.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.seams.spawn(name, until_stopped(self.running.subscribe(), task));
    }

    fn assemble(self) -> MetadataNode {
        let metrics = Arc::new(NodeMetrics::default());
        let (fatal, _) = watch::channel(None);
        let lease = self.config.tuning.timings.lease();
        let leadership = Leadership::new(self.raft.clone(), self.machine.clone(), lease);
        let (proposer, proposing) = Proposer::new(
            self.raft.clone(),
            leadership.clone(),
            (self.wal.clone(), self.own.clone()),
            self.seams.clone(),
            metrics.clone(),
        );
        let (stop_proposer, stop) = oneshot::channel();
        self.seams.spawn("proposer", proposing.run(stop));
        let (read_index, reading) = ReadIndex::new(Source {
            raft: self.raft.clone(),
            leadership: leadership.clone(),
            peers: self.peers.clone(),
            applied: self.hub.applied(),
            seams: self.seams.clone(),
        });
        self.spawn("read-index", reading);
        let liveness = Liveness::default();
        let followers = Followers::new(liveness.clone());
        let presence = Presence::new(self.hub.clone(), self.machine.clone());
        let watchman = Watchman {
            liveness: liveness.clone(),
            leadership: leadership.clone(),
            machine: self.machine.clone(),
            proposer: proposer.clone(),
            presence: presence.clone(),
        };
        self.spawn("liveness", watchman.run(self.seams.clone()));
        self.spawn_leading(&leadership, &proposer, &presence);
        self.spawn_looking(&followers, &fatal);
        let checkpoints = self.spawn_hashing(&leadership, &fatal);
        let inner = Inner {
            identity: self.identity,
            seams: self.seams,
            raft: self.raft,
            wal: self.wal,
            machine: self.machine,
            hub: self.hub,
            proposer,
            read_index,
            liveness,
            leadership,
            presence,
            checkpoints,
            backup: Backup::default(),
            files: self.files,
            peers: self.peers,
            followers,
            metrics,
            stop_proposer: Mutex::new(Some(stop_proposer)),
            running: self.running,
            stopped: fatal,
            commit_streams: Mutex::new(BTreeMap::new()),
            commit_stream_count: AtomicU64::new(0),
            changing: tokio::sync::Mutex::new(()),
        };
        let inner = Arc::new(inner);
        let yielding = yield_when_full(Arc::downgrade(&inner), inner.seams.clone());
        inner.seams.spawn("yield", until_stopped(inner.running.subscribe(), yielding));
        MetadataNode { inner }
    }

    /// What a leader does of its own accord.
    fn spawn_leading(&self, leadership: &Leadership, proposer: &Proposer, presence: &Presence) {
        self.spawn("leadership", leadership.clone().watch(self.seams.clone()));
        let (machine, seams) = (self.machine.clone(), self.seams.clone());
        let ticking = ticks::run(machine, leadership.clone(), proposer.clone(), seams);
        self.spawn("ticks", ticking);
        let (machine, seams) = (self.machine.clone(), self.seams.clone());
        let expiry = (self.config.tuning.offset_expiry, seams);
        let expiring = expiry::run(machine, leadership.clone(), proposer.clone(), expiry);
        self.spawn("expiry", expiring);
        let (presence, peers, seams) = (presence.clone(), self.peers.clone(), self.seams.clone());
        let greeting = keep_in_touch(leadership.clone(), peers.clone(), seams);
        self.spawn("greetings", greeting);
        self.spawn("presence", presence.spread(leadership.clone(), peers, self.seams.clone()));
    }

    /// What every node looks after.
    fn spawn_looking(&self, followers: &Followers, fatal: &watch::Sender<Option<Fatal>>) {
        let looking = health::watch_log(self.wal.clone(), self.seams.clone(), fatal.clone());
        self.spawn("log-watch", looking);
        let running = self.running.subscribe();
        let looking = health::watch_raft(self.raft.clone(), running, fatal.clone());
        self.seams.spawn("raft-watch", looking);
        self.spawn("snapshots", self.snapshots());
        let (followers, machine, seams) =
            (followers.clone(), self.machine.clone(), self.seams.clone());
        self.spawn("followers", async move {
            loop {
                seams.sleep(FORGET_INTERVAL).await;
                let live = machine.lock().state.live_sessions().into_iter().collect();
                followers.retain(&live);
            }
        });
    }

    /// Hashes the state now and then, and compares it while this node leads.
    fn spawn_hashing(
        &self,
        leadership: &Leadership,
        fatal: &watch::Sender<Option<Fatal>>,
    ) -> Checkpoints {
        let checkpoints = Checkpoints::default();
        let (states, hashed) = mpsc::channel(1);
        self.hub.hash_every(self.config.tuning.hash_entries, states);
        self.spawn("hashes", checkpoints.clone().hash(self.files.clone(), hashed));
        let comparison = Comparison {
            checkpoints: checkpoints.clone(),
            leadership: leadership.clone(),
            peers: self.peers.clone(),
            fatal: fatal.clone(),
            seams: self.seams.clone(),
        };
        self.spawn("comparison", comparison.run());
        checkpoints
    }

    fn snapshots(&self) -> impl Future<Output = ()> + Send + 'static {
        let (raft, machine) = (self.raft.clone(), self.machine.clone());
        let (seams, bytes_max) = (self.seams.clone(), self.config.tuning.snapshot_bytes);
        async move {
            loop {
                seams.sleep(SNAPSHOT_CHECK_INTERVAL).await;
                let due = bytes_max <= machine.lock().entry_bytes_since_snapshot();
                if due && raft.trigger().snapshot().await.is_err() {
                    return; // Raft stopped; `fatal` says why.
                }
            }
        }
    }
}
