//! A metadata node: the Raft group's member, the one proposer, liveness, ticks and watches, put
//! together over one data folder.

pub mod cost;
pub mod folder;
pub mod followers;
pub mod health;
pub mod liveness;
pub mod proposer;
pub mod read_index;
pub mod signs;
mod startup;
pub mod ticks;
pub mod watch_hub;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aquifer_storage::{
    error::Outcome,
    model::{LogIndex, SessionId},
    seam::Seams,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    folder::{FolderError, FolderLock, Identity},
    followers::{Follower, Followers},
    liveness::{Liveness, Watchman},
    proposer::Proposer,
    read_index::ReadIndex,
    signs::Sign,
    startup::{Expected, check_owner, lead, open_log, raft_config},
    watch_hub::{WatchHub, stream::WatchTask},
};
use crate::{
    client::{CallError, Heartbeat, WatchStream, direct::DirectClient},
    machine::{
        Genesis, MetadataState,
        command::{AppliedReply, Command},
        query::{Answer, Query},
    },
    raft::{
        RaftHandle,
        log_store::LogStore,
        network::NoPeers,
        snapshot_file::{SnapshotError, SnapshotFiles},
        state_machine::{MachineCell, StateMachine},
    },
    wal::{
        Wal, WalError,
        disk::{Disk, FsDisk},
    },
};

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's id; never used again once its folder is lost.
    pub node_id: u64,
    /// The `--data` folder.
    pub data_dir: PathBuf,
    /// The cluster and lineage it serves. Must be the folder's, if that has an owner.
    pub genesis: Genesis,
    /// Sizes that tests make small.
    pub tuning: Tuning,
}

/// When snapshots are taken: both bound how long a restart replays.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// After this many entries.
    pub snapshot_entries: u64,
    /// After this many bytes of entries.
    pub snapshot_bytes: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { snapshot_entries: 10_000, snapshot_bytes: 64 << 20 }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log cannot be used.
    #[error("metadata log: {0}")]
    Log(#[from] WalError),
    /// The folder has an owner, but its log is gone: its votes are forgotten.
    #[error("the metadata log in {0} is missing; start the node under a new id or restore it")]
    LogMissing(PathBuf),
    /// The snapshot cannot be used.
    #[error("metadata {0}")]
    Snapshot(#[from] SnapshotError),
    /// The snapshot is whole by its checksum, but not one this build reads, or of another cluster.
    #[error("metadata snapshot: {0}")]
    State(String),
    /// Raft did not start, or did not recover what the log holds.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a running node had to stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata node stopped: {reason}")]
pub struct Fatal {
    /// What failed.
    pub reason: String,
}

/// Counters since start.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Entries handed to Raft.
    pub entries_proposed: AtomicU64,
    /// Their encoded bytes.
    pub entry_bytes_proposed: AtomicU64,
    /// Commands in them.
    pub commands_proposed: AtomicU64,
    /// Entries whose outcome stayed unknown.
    pub entries_undecided: AtomicU64,
    /// Heartbeats of sessions.
    pub heartbeats: AtomicU64,
    /// Queries answered.
    pub queries: AtomicU64,
    /// Changes of the catalog that were answered before every agent had taken them in.
    pub catalog_changes_untold: AtomicU64,
    /// Watch streams opened.
    pub watches_opened: AtomicU64,
    /// Commit streams opened.
    pub commit_streams_opened: AtomicU64,
}

/// How long a watch waits for a node that is behind the agent.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// Events buffered in a stream's channel; the backlog proper is the hub's.
const WATCH_CHANNEL_EVENTS: usize = 256;
const WATCH_CHANNEL_REQUESTS: usize = 1024;
/// How often the size of the log since the last snapshot is looked at.
const SNAPSHOT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A running node. Cheap to clone. When the last clone goes, Raft stops; the folder's lock goes
/// once nobody is left who could write to the folder.
#[derive(Clone)]
pub struct MetadataNode {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    seams: Seams,
    raft: RaftHandle,
    wal: Wal,
    machine: MachineCell,
    hub: Arc<WatchHub>,
    proposer: Proposer,
    read_index: ReadIndex,
    liveness: Liveness,
    followers: Followers,
    metrics: Arc<NodeMetrics>,
    stop_proposer: Mutex<Option<oneshot::Sender<()>>>,
    /// Set at shutdown: ends the background tasks, Raft among them.
    running: watch::Sender<bool>,
    fatal: watch::Receiver<Option<Fatal>>,
    commit_streams: Mutex<BTreeMap<SessionId, (u64, oneshot::Sender<()>)>>,
    commit_stream_count: AtomicU64,
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
        let lock = Arc::new(FolderLock::take(&config.data_dir)?);
        let identity = Identity {
            cluster_id: config.genesis.cluster_id.clone(),
            node_id: config.node_id,
            lineage: config.genesis.lineage,
        };
        let raft_dir = config.data_dir.join("raft");
        let owned = folder::is_owned(&config.data_dir, &identity)?;
        let (files, newest) = SnapshotFiles::open(&raft_dir)?;
        let expected = Expected {
            log: owned || newest.is_some(),
            last: newest.as_ref().and_then(|(meta, _)| Some(meta.last_log_id?.index)),
        };
        let disk = wrap(FsDisk::new(&raft_dir).guarded(lock.clone()));
        let wal = open_log(&raft_dir, &identity, &expected, &seams, disk)?;
        // Behind the log: from now on a log that is not there is a loss.
        folder::claim(&config.data_dir, &identity)?;
        let hub = Arc::new(WatchHub::default());
        let files = files.guarded(lock);
        let state = MetadataState::new(config.genesis.clone());
        let (running, _) = watch::channel(true);
        let adapter = StateMachine::new(files, newest, state, hub.clone())
            .map_err(|error| StartError::State(error.to_string()))?
            .patient(seams.clone(), running.subscribe());
        let machine = adapter.cell();
        check_owner(&machine, &identity)?;
        let log = LogStore::new(wal.clone(), seams.clone());
        let raft_config = Arc::new(raft_config(&config));
        let raft = RaftHandle::new(config.node_id, raft_config, NoPeers, log, adapter)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        // From here on Raft stops when `running` does, also when this future is dropped.
        seams.spawn("raft-stop", stop_behind(running.subscribe(), raft.clone(), wal.clone()));
        if let Err(error) = lead(&raft, config.node_id).await {
            stop(&raft, &wal).await;
            return Err(error);
        }
        let node = Self::assemble(Parts { identity, seams, raft, wal, machine, hub, running });
        node.spawn_snapshots(config.tuning.snapshot_bytes);
        Ok(node)
    }

    fn assemble(parts: Parts) -> Self {
        let Parts { identity, seams, raft, wal, machine, hub, running } = parts;
        let metrics = Arc::new(NodeMetrics::default());
        let (proposer, proposing) =
            Proposer::new(raft.clone(), wal.clone(), seams.clone(), metrics.clone());
        let (read_index, reading) = ReadIndex::new(raft.clone());
        let (stop_proposer, stop) = oneshot::channel();
        let (fatal_sender, fatal) = watch::channel(None);
        let liveness = Liveness::default();
        let followers = Followers::new(liveness.clone());
        let watchman = Watchman {
            liveness: liveness.clone(),
            raft: raft.clone(),
            machine: machine.clone(),
            proposer: proposer.clone(),
            hub: hub.clone(),
        };
        seams.spawn("proposer", proposing.run(stop));
        seams.spawn("read-index", until_stopped(running.subscribe(), reading));
        let judging = watchman.run(seams.clone());
        seams.spawn("liveness", until_stopped(running.subscribe(), judging));
        let ticking = ticks::run(machine.clone(), proposer.clone(), seams.clone());
        seams.spawn("ticks", until_stopped(running.subscribe(), ticking));
        let looking = health::watch_log(wal.clone(), seams.clone(), fatal_sender.clone());
        seams.spawn("log-watch", until_stopped(running.subscribe(), looking));
        let looking = health::watch_raft(raft.clone(), running.subscribe(), fatal_sender);
        seams.spawn("raft-watch", looking);
        let stop_proposer = Mutex::new(Some(stop_proposer));
        let commit_streams = Mutex::default();
        let commit_stream_count = AtomicU64::new(0);
        let inner = Inner {
            identity,
            seams,
            raft,
            wal,
            machine,
            hub,
            proposer,
            read_index,
            liveness,
            followers,
            metrics,
            stop_proposer,
            running,
            fatal,
            commit_streams,
            commit_stream_count,
        };
        Self { inner: Arc::new(inner) }
    }

    fn spawn_snapshots(&self, bytes_max: u64) {
        let (raft, machine) = (self.inner.raft.clone(), self.inner.machine.clone());
        let seams = self.inner.seams.clone();
        let task = async move {
            loop {
                seams.sleep(SNAPSHOT_CHECK_INTERVAL).await;
                let due = bytes_max <= machine.lock().entry_bytes_since_snapshot();
                if due && raft.trigger().snapshot().await.is_err() {
                    return; // Raft stopped; `fatal` says why.
                }
            }
        };
        self.inner.seams.spawn("snapshots", until_stopped(self.inner.running.subscribe(), task));
    }

    /// This node's [`crate::client::Metadata`], in process.
    pub fn client(&self) -> DirectClient {
        DirectClient::new(self.clone())
    }

    /// Whose node it is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The seams it was started with.
    pub fn seams(&self) -> &Seams {
        &self.inner.seams
    }

    /// Counters since start.
    pub fn metrics(&self) -> &NodeMetrics {
        &self.inner.metrics
    }

    /// How far this node has applied the log.
    pub fn applied_index(&self) -> LogIndex {
        *self.inner.hub.applied().borrow()
    }

    /// The one way to propose.
    pub fn proposer(&self) -> &Proposer {
        &self.inner.proposer
    }

    /// A linearizable index, which this node has applied.
    pub async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.inner.read_index.fresh().await
    }

    /// Answers `query` at a linearizable index. A group member that asks is noted
    /// to live.
    pub async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        self.read_index().await?;
        let (index, answer) = {
            let machine = self.inner.machine.lock();
            (machine.index(), machine.state.query(&query))
        };
        self.inner.metrics.queries.fetch_add(1, Ordering::Relaxed);
        self.note(signs::of_query(&query, &answer));
        Ok((index, answer))
    }

    /// Proposes `command` and waits for its outcome. A group member it comes from is noted to live.
    /// A change of the catalog is answered once every agent that is not absent has taken it in, or
    /// after a second.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the command may still be applied.
    pub async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        let sign = Sign::of_command(&command);
        let changes_catalog =
            matches!(command, Command::CreateTopic(_) | Command::DeleteTopic { .. });
        let applied = self.inner.proposer.propose(command).await?;
        if changes_catalog {
            self.told(applied.index).await;
        }
        self.note(sign.and_then(|sign| sign.heard(&applied.reply)));
        Ok(applied)
    }

    /// Waits until the agents that are not absent know the catalog as of `index`.
    async fn told(&self, index: LogIndex) {
        // A command that changed nothing need not wait for more than the last change.
        let index = index.min(self.inner.hub.catalog_index());
        let present = || self.inner.hub.present_sessions(&self.inner.machine);
        if !self.inner.followers.told(index, present, &self.inner.seams).await {
            self.inner.metrics.catalog_changes_untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The follower behind a new watch stream: tells how far its agent came.
    pub fn follower(&self) -> Follower {
        self.inner.followers.begin()
    }

    fn note(&self, heard: Option<signs::Heard>) {
        if let Some((group, member)) = heard {
            self.inner.liveness.heard_member(group, member, self.inner.seams.clock.mono());
        }
    }

    /// Notes that `session` lives.
    pub fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        if self.inner.raft.as_leader().is_err() {
            return Err(CallError {
                call: "heartbeat",
                outcome: Outcome::Unavailable,
                reason: "this node does not lead".into(),
            });
        }
        let (index, live) = {
            let machine = self.inner.machine.lock();
            (machine.index(), machine.state.live_sessions().contains(&session))
        };
        if !live {
            return Ok(Heartbeat::Fenced);
        }
        self.inner.metrics.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.inner.liveness.heard_session(session, self.inner.seams.clock.mono());
        Ok(Heartbeat::Live { wall: self.inner.seams.clock.wall(), index })
    }

    /// Registers a session's new commit stream and ends the one before. The receiver resolves
    /// when a newer stream takes over.
    pub fn replace_commit_stream(&self, session: SessionId) -> CommitStreamGuard {
        let (replaced, ended) = oneshot::channel();
        let id = self.inner.commit_stream_count.fetch_add(1, Ordering::Relaxed);
        self.inner.metrics.commit_streams_opened.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.inner.commit_streams.lock().expect("no panic while held");
        if let Some((_, older)) = streams.insert(session, (id, replaced)) {
            let _ = older.send(()); // It may have ended by itself.
        }
        CommitStreamGuard { node: self.clone(), session, id, ended }
    }

    /// Opens a watch stream once this node has applied `seen`. An agent in this process is told
    /// apart by its `session`: its progress is seen here. Others report to a [`Self::follower`].
    pub async fn open_watch(
        &self,
        seen: LogIndex,
        session: Option<watch::Receiver<Option<SessionId>>>,
    ) -> Result<WatchStream, CallError> {
        let mut applied = self.inner.hub.applied();
        let caught_up = applied.wait_for(|applied| seen <= *applied);
        if !matches!(self.inner.seams.timeout(CATCH_UP_MAX, caught_up).await, Some(Ok(_))) {
            return Err(CallError {
                call: "watch",
                outcome: Outcome::Unavailable,
                reason: format!("this node has not applied {seen}"),
            });
        }
        let (request_sender, requests) = mpsc::channel(WATCH_CHANNEL_REQUESTS);
        let (event_sender, events) = mpsc::channel(WATCH_CHANNEL_EVENTS);
        let mut task =
            WatchTask::new(self.inner.hub.clone(), self.inner.machine.clone(), event_sender);
        if let Some(session) = session {
            task = task.reporting(self.follower(), session);
        }
        let serving = task.run(requests, self.inner.seams.clone());
        let running = self.inner.running.subscribe();
        self.inner.seams.spawn("watch", until_stopped(running, serving));
        self.inner.metrics.watches_opened.fetch_add(1, Ordering::Relaxed);
        Ok(WatchStream { requests: request_sender, events })
    }

    /// Resolves when the node had to stop: its process should end. Pends for ever otherwise.
    pub async fn fatal(&self) -> Fatal {
        let mut fatal = self.inner.fatal.clone();
        if let Ok(found) = fatal.wait_for(Option::is_some).await {
            return found.clone().expect("waited for it");
        }
        std::future::pending().await // Shut down in order.
    }

    /// Answers what is queued `Unavailable`, waits for what is under way, and stops Raft.
    pub async fn shutdown(&self) {
        let proposer = self.inner.stop_proposer.lock().expect("no panic while held").take();
        if let Some(proposer) = proposer {
            let _ = proposer.send(()); // The proposer may be gone with Raft.
        }
        self.inner.running.send_replace(false);
        stop(&self.inner.raft, &self.inner.wal).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.running.send_replace(false);
    }
}

/// A session's current commit stream.
pub struct CommitStreamGuard {
    node: MetadataNode,
    session: SessionId,
    id: u64,
    /// Resolves when a newer stream of the session takes over.
    pub ended: oneshot::Receiver<()>,
}

impl Drop for CommitStreamGuard {
    fn drop(&mut self) {
        let mut streams = self.node.inner.commit_streams.lock().expect("no panic while held");
        if streams.get(&self.session).is_some_and(|(id, _)| *id == self.id) {
            streams.remove(&self.session);
        }
    }
}

struct Parts {
    identity: Identity,
    seams: Seams,
    raft: RaftHandle,
    wal: Wal,
    machine: MachineCell,
    hub: Arc<WatchHub>,
    running: watch::Sender<bool>,
}

/// Ends what writes to the folder: Raft first, then what it left to the log.
async fn stop(raft: &RaftHandle, wal: &Wal) {
    if let Err(error) = raft.shutdown().await {
        tracing::warn!(%error, "raft did not shut down in order");
    }
    if let Err(error) = wal.barrier().await {
        tracing::warn!(%error, "the metadata log did not close in order");
    }
}

/// Stops Raft for a node that was dropped without a shutdown, or never came to be.
async fn stop_behind(mut running: watch::Receiver<bool>, raft: RaftHandle, wal: Wal) {
    let _ = running.wait_for(|running| !running).await; // An error: dropped, which means the same.
    stop(&raft, &wal).await;
}

async fn until_stopped(mut running: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        _ = running.wait_for(|running| !running) => {}
        () = task => {}
    }
}

#[cfg(test)]
mod tests;
