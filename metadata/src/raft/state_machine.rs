//! Brings committed entries to the pure machine and its replies back, and takes snapshots.
//!
//! The machine sits behind one lock that is held per entry: to apply it, or for the microseconds
//! of a read. A snapshot is an O(1) clone under that lock; encoding and writing it is done by a
//! thread of its own.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aquifer_storage::{model::LogIndex, seam::Seams};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    EntryReply, LogId, RaftEntry, SnapshotMeta, StoredMembership, TypeConfig,
    own_entries::OwnEntries, snapshot_file::SnapshotFiles,
};
use crate::{
    codec,
    machine::{LEVEL, MetadataState, effect::Effect},
    wal::is_full,
};

/// Learns of applied entries. Called in log order, under the machine's lock: it must not block.
pub trait ApplySink: Send + Sync + 'static {
    /// The entry at `index` was applied to `state` with these effects.
    fn applied(&self, index: LogIndex, effects: Vec<Effect>, state: &MetadataState);

    /// The whole state was replaced by a snapshot that reaches `index`.
    fn installed(&self, index: LogIndex, state: &MetadataState);
}

/// The machine and how far Raft has brought it.
#[derive(Clone)]
pub struct Machine {
    /// The replicated state.
    pub state: MetadataState,
    applied: Option<LogId>,
    membership: StoredMembership,
    entry_bytes_since_snapshot: u64,
}

impl Machine {
    /// The index of the last entry applied, Raft's own entries included.
    pub fn index(&self) -> LogIndex {
        LogIndex::new(self.applied.map_or(0, |id| id.index))
    }

    /// The term of the last entry applied, Raft's own entries included.
    pub fn applied_term(&self) -> u64 {
        self.applied.map_or(0, |id| id.leader_id.term)
    }

    /// Whether the last entry applied is of the leader `node` in `term`. A term may have several
    /// leaders, one after the other, told apart by their node.
    pub fn applied_by(&self, term: u64, node: u64) -> bool {
        let of = |id: LogId| id.leader_id.term == term && id.leader_id.node_id == node;
        self.applied.is_some_and(of)
    }

    /// Bytes of entries applied since a snapshot was last begun.
    pub fn entry_bytes_since_snapshot(&self) -> u64 {
        self.entry_bytes_since_snapshot
    }

    fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

/// A shared handle to the machine, for readers.
#[derive(Clone)]
pub struct MachineCell(Arc<Mutex<Machine>>);

impl MachineCell {
    /// Locks the machine. Hold it for microseconds and never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("apply does not panic while it holds the machine")
    }
}

/// Raft's view of the machine.
pub struct StateMachine {
    cell: MachineCell,
    files: Arc<SnapshotFiles>,
    sink: Arc<dyn ApplySink>,
    patience: Option<Patience>,
    own: OwnEntries,
}

/// With what a snapshot waits for space, and until when.
#[derive(Clone)]
struct Patience {
    seams: Seams,
    running: watch::Receiver<bool>,
}

/// How often a snapshot that found the disk full is tried again: each try takes what is free.
const RETRY_SPACE_INTERVAL: Duration = Duration::from_secs(5);

impl StateMachine {
    /// Starts from a snapshot that was read back, or from `genesis`.
    pub fn new(
        files: SnapshotFiles,
        newest: Option<(SnapshotMeta, Bytes)>,
        genesis: MetadataState,
        sink: Arc<dyn ApplySink>,
    ) -> io::Result<Self> {
        let machine = match newest {
            None => Machine {
                state: genesis,
                applied: None,
                membership: StoredMembership::default(),
                entry_bytes_since_snapshot: 0,
            },
            Some((meta, body)) => machine_of(&meta, &body)?,
        };
        sink.installed(machine.index(), &machine.state);
        let cell = MachineCell(Arc::new(Mutex::new(machine)));
        Ok(Self { cell, files: Arc::new(files), sink, patience: None, own: OwnEntries::default() })
    }

    /// Lets a snapshot that finds the disk full wait for space while `running`: to fail would stop
    /// the node, though its log is whole and has its own room.
    pub fn patient(mut self, seams: Seams, running: watch::Receiver<bool>) -> Self {
        self.patience = Some(Patience { seams, running });
        self
    }

    /// What this node proposes: put there, it need not be decoded.
    pub fn own_entries(&self) -> OwnEntries {
        self.own.clone()
    }

    /// Where its snapshots go.
    pub fn files(&self) -> Arc<SnapshotFiles> {
        self.files.clone()
    }

    /// The machine, for readers.
    pub fn cell(&self) -> MachineCell {
        self.cell.clone()
    }

    fn apply_entry(&self, raft_entry: RaftEntry) -> io::Result<EntryReply> {
        let RaftEntry { log_id, payload } = raft_entry;
        let index = LogIndex::new(log_id.index);
        let mut reply = EntryReply { index, replies: Vec::new() };
        match payload {
            EntryPayload::Blank => {
                let mut machine = self.cell.lock();
                machine.applied = Some(log_id);
                self.sink.applied(index, Vec::new(), &machine.state);
            }
            EntryPayload::Membership(membership) => {
                let mut machine = self.cell.lock();
                machine.applied = Some(log_id);
                machine.membership = StoredMembership::new(Some(log_id), membership);
                self.sink.applied(index, Vec::new(), &machine.state);
            }
            EntryPayload::Normal(encoded) => {
                let entry = match self.own.take(&encoded.0) {
                    Some(entry) => entry,
                    None => codec::decode_entry(&encoded.0).map_err(io::Error::other)?,
                };
                if LEVEL < entry.min_level {
                    return Err(io::Error::other(format!(
                        "entry {index} needs level {} and this build has {LEVEL}: upgrade it",
                        entry.min_level
                    )));
                }
                let mut machine = self.cell.lock();
                let applied = machine.state.apply(index, log_id.leader_id.term, &entry);
                machine.applied = Some(log_id);
                machine.entry_bytes_since_snapshot += encoded.0.len() as u64;
                self.sink.applied(index, applied.effects, &machine.state);
                reply.replies = applied.replies;
            }
        }
        Ok(reply)
    }
}

fn machine_of(meta: &SnapshotMeta, body: &[u8]) -> io::Result<Machine> {
    let state = codec::decode_snapshot(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Machine {
        state,
        applied: meta.last_log_id,
        membership: meta.last_membership.clone(),
        entry_bytes_since_snapshot: 0,
    })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.cell.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let mut machine = self.cell.lock();
        machine.entry_bytes_since_snapshot = 0;
        SnapshotBuilder {
            machine: machine.clone(),
            files: self.files.clone(),
            patience: self.patience.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Bytes) -> io::Result<()> {
        let (files, stored) = (self.files.clone(), meta.clone());
        let install = move || {
            let machine = machine_of(&stored, &body)?; // Before it replaces one that decodes.
            files.save(&stored, &body)?;
            Ok(machine)
        };
        let machine = self.files.work(install).await?;
        let mut current = self.cell.lock();
        *current = machine;
        self.sink.installed(current.index(), &current.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Bytes>>> {
        let files = self.files.clone();
        let newest = self.files.work(move || Ok(files.newest()?)).await?;
        Ok(newest.map(|(meta, snapshot)| SnapshotOf::<TypeConfig, Bytes> { meta, snapshot }))
    }
}

/// A state to be written: costs nothing until it is built.
pub struct SnapshotBuilder {
    machine: Machine,
    files: Arc<SnapshotFiles>,
    patience: Option<Patience>,
}

impl SnapshotBuilder {
    /// Waits before another try; `false` when there shall be none.
    async fn waits_for_space(&mut self) -> bool {
        let Some(Patience { seams, running }) = &mut self.patience else { return false };
        tokio::select! {
            () = seams.sleep(RETRY_SPACE_INTERVAL) => true,
            _ = running.wait_for(|running| !running) => false,
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Bytes>> {
        let meta = self.machine.snapshot_meta();
        let machine = self.machine.clone();
        let encode = move || Ok(Bytes::from(codec::encode_snapshot(&machine.state)));
        let snapshot = self.files.work(encode).await?;
        loop {
            let (files, stored, body) = (self.files.clone(), meta.clone(), snapshot.clone());
            match self.files.work(move || Ok(files.save(&stored, &body)?)).await {
                Ok(()) => return Ok(SnapshotOf::<TypeConfig, Bytes> { meta, snapshot }),
                Err(error) if is_full(&error) => {
                    tracing::error!(%error, "no disk space for a snapshot; waiting for it");
                    if !self.waits_for_space().await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
