//! A metadata node: the Raft group's member, the one proposer, liveness, ticks and watches, put
//! together over one data folder.

mod checkpoints;
pub mod cost;
pub mod expiry;
pub mod folder;
pub mod followers;
mod formation;
pub mod health;
mod launch;
pub mod leadership;
pub mod liveness;
mod members;
pub mod presence;
pub mod proposer;
pub mod read_index;
pub mod restore;
pub mod shipping;
pub mod signs;
mod startup;
pub mod ticks;
mod transfer;
pub mod watch_hub;

use std::{
    collections::{BTreeMap, BTreeSet},
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
    checkpoints::Checkpoints,
    expiry::OffsetExpiry,
    folder::{FolderError, Identity},
    followers::{Follower, Followers},
    leadership::Leadership,
    liveness::Liveness,
    presence::Presence,
    proposer::Proposer,
    read_index::ReadIndex,
    shipping::Backup,
    signs::Sign,
    watch_hub::{WatchHub, stream::WatchTask},
};
use crate::{
    client::{CallError, Heartbeat, WatchStream, direct::DirectClient},
    machine::{
        Genesis,
        command::{AppliedReply, Command},
        query::{Answer, Query},
    },
    proto,
    raft::{
        RaftHandle,
        network::Peers,
        snapshot_file::{SnapshotError, SnapshotFiles},
        state_machine::MachineCell,
    },
    wal::{Wal, WalError},
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

/// When snapshots are taken, which bounds how long a restart replays, and how fast a leader that
/// is gone is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// A snapshot after this many entries.
    pub snapshot_entries: u64,
    /// A snapshot after this many bytes of entries.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot for followers that are a little late.
    pub entries_kept: u64,
    /// The state is hashed, and compared between the nodes, every so many entries.
    pub hash_entries: u64,
    /// Raft's timings.
    pub timings: Timings,
    /// Of committed offsets.
    pub offset_expiry: OffsetExpiry,
}

/// Raft's timings, in milliseconds. A follower stands for election `max` plus `min..max` after it
/// last heard the leader, and a leader that no majority answered for `max` says that it leads no
/// more.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// How often the leader is heard.
    pub heartbeat_ms: u64,
    /// The shortest election time-out.
    pub election_ms_min: u64,
    /// The longest election time-out.
    pub election_ms_max: u64,
}

impl Timings {
    /// For how long a majority's confirmation lets a leader speak, on its own clock. A voter stands
    /// for election so much later that their clocks may run at rates 10 % off, each its own way.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.election_ms_max)
    }
}

impl Default for Timings {
    /// A leader that is gone is replaced within half a second; six heartbeats may be lost.
    fn default() -> Self {
        Self { heartbeat_ms: 50, election_ms_min: 130, election_ms_max: 210 }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            entries_kept: 1_000,
            hash_entries: 16_384,
            timings: Timings::default(),
            offset_expiry: OffsetExpiry::default(),
        }
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
    /// It was started as the only voter, and is not.
    #[error("{0} is of a node in a group of several: start it with `aquifer metadata`")]
    OneOfSeveral(PathBuf),
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
    leadership: Leadership,
    presence: Presence,
    checkpoints: Checkpoints,
    backup: Backup,
    files: Arc<SnapshotFiles>,
    peers: Peers,
    followers: Followers,
    metrics: Arc<NodeMetrics>,
    stop_proposer: Mutex<Option<oneshot::Sender<()>>>,
    /// Set at shutdown: ends the background tasks, Raft among them.
    running: watch::Sender<bool>,
    stopped: watch::Sender<Option<Fatal>>,
    commit_streams: Mutex<BTreeMap<SessionId, (u64, oneshot::Sender<()>)>>,
    commit_stream_count: AtomicU64,
    /// Held by a change of the members: they take turns.
    changing: tokio::sync::Mutex<()>,
}

impl MetadataNode {
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

    /// This node's member of the Raft group.
    pub(crate) fn raft(&self) -> &RaftHandle {
        &self.inner.raft
    }

    /// Whether a message of another node may be read, and whose it is.
    pub(crate) fn admit_peer(&self, peer: Option<&proto::Peer>) -> Result<u64, proto::Refusal> {
        self.inner.peers.me().admit(peer, |id| self.inner.leadership.member(id))
    }

    /// The leader of `term` found these sessions absent.
    pub(crate) fn learn_absent(&self, term: u64, absent: BTreeSet<SessionId>) {
        self.inner.presence.tell(term, absent);
    }

    /// Begins the group of `founders`, each with the `host:port` where the others reach it,
    /// together with them. A node that is part of a group already takes no notice.
    pub fn form(&self, founders: BTreeMap<u64, String>) {
        let inner = &self.inner;
        let formation = formation::Formation {
            raft: inner.raft.clone(),
            peers: inner.peers.clone(),
            founders,
            fatal: inner.stopped.clone(),
            seams: inner.seams.clone(),
        };
        inner.seams.spawn("formation", until_stopped(inner.running.subscribe(), formation.run()));
    }

    /// Of this node's data folder.
    pub fn incarnation(&self) -> u64 {
        self.inner.peers.me().incarnation
    }

    /// What each other node refused of this one last, and why.
    pub fn refusals(&self) -> BTreeMap<u64, String> {
        self.inner.peers.refusals()
    }

    /// What this node tells one that it meets.
    pub(crate) async fn hello(&self) -> Result<proto::Hello, CallError> {
        let refused = |reason| CallError { call: "hello", outcome: Outcome::Unavailable, reason };
        if !*self.inner.running.borrow() {
            return Err(refused("the metadata node is stopping".to_owned()));
        }
        let initialized = self.inner.raft.is_initialized().await;
        let initialized = initialized.map_err(|error| refused(error.to_string()))?;
        Ok(proto::Hello { incarnation: self.inner.peers.me().incarnation, initialized })
    }

    /// Whether this node leads, and who does.
    pub fn leadership(&self) -> &Leadership {
        &self.inner.leadership
    }

    /// Answers `query` at a linearizable index. A group member that asks is noted to live, which
    /// only the leader can do.
    pub async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        if matches!(query, Query::Group(_)) {
            self.lead("query")?;
        }
        self.read_index().await?;
        let (index, answer) = if matches!(query, Query::RunByTime { .. }) {
            // Of a clone: a walk over many rows holds nobody up.
            let machine = self.inner.machine.lock();
            let (index, state) = (machine.index(), machine.state.clone());
            drop(machine);
            (index, state.query(&query))
        } else {
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
        let changes_catalog = matches!(
            command,
            Command::CreateTopic(_)
                | Command::DeleteTopic { .. }
                | Command::CreatePartitions(_)
                | Command::AlterConfigs(_)
        );
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

    fn lead(&self, call: &'static str) -> Result<u64, CallError> {
        self.inner.leadership.term().map_err(|not_leader| not_leader.refusal_of(call))
    }

    /// The agent of `session` took in the catalog as of `seen`, from another node's stream.
    pub fn took_in(&self, session: SessionId, seen: LogIndex) {
        self.inner.followers.heard(session, seen);
    }

    /// Notes that `session` lives. Only a leader can that a majority confirmed of late, and that
    /// holds everything that was committed before it.
    pub fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        self.lead("heartbeat")?;
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
    /// when a newer stream takes over. Only the leader has commit streams.
    pub fn replace_commit_stream(
        &self,
        session: SessionId,
    ) -> Result<CommitStreamGuard, CallError> {
        let term = self.lead("commits")?;
        let (replaced, ended) = oneshot::channel();
        let id = self.inner.commit_stream_count.fetch_add(1, Ordering::Relaxed);
        self.inner.metrics.commit_streams_opened.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.inner.commit_streams.lock().expect("no panic while held");
        if let Some((_, older)) = streams.insert(session, (id, replaced)) {
            let _ = older.send(()); // It may have ended by itself.
        }
        let leads = self.inner.leadership.changes();
        Ok(CommitStreamGuard { node: self.clone(), session, id, term, leads, ended })
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
        let mut fatal = self.inner.stopped.subscribe();
        if let Ok(found) = fatal.wait_for(Option::is_some).await {
            return found.clone().expect("waited for it");
        }
        std::future::pending().await // Shut down in order.
    }

    /// Hands leadership over, answers what is queued `Unavailable`, waits for what is under way,
    /// and stops Raft.
    pub async fn shutdown(&self) {
        self.step_aside().await;
        self.halt().await;
    }

    /// As [`Self::shutdown`], without a word to the others: they must notice.
    pub async fn halt(&self) {
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
    term: u64,
    leads: watch::Receiver<Option<u64>>,
    /// Resolves when a newer stream of the session takes over.
    pub ended: oneshot::Receiver<()>,
}

impl CommitStreamGuard {
    /// Completes when this node leads no more.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        leadership::lost(self.leads.clone(), self.term)
    }

    /// How long answers may still come behind that.
    pub fn grace(&self) -> Duration {
        self.node.inner.leadership.lease()
    }
}

impl Drop for CommitStreamGuard {
    fn drop(&mut self) {
        let mut streams = self.node.inner.commit_streams.lock().expect("no panic while held");
        if streams.get(&self.session).is_some_and(|(id, _)| *id == self.id) {
            streams.remove(&self.session);
        }
    }
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
