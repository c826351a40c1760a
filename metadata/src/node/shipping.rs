//! Ships snapshots and the log to the bucket while this node leads, in the background: apply and
//! proposals never wait for it, and a store that does not answer only makes the copy older.
//!
//! Every node that may lead runs it. Two that both think they lead write the same history under
//! keys of their own.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aquifer_storage::{
    error::Outcome,
    model::LogIndex,
    seam::{MonoTime, Seams},
    store::Store,
};
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{MetadataNode, folder::Identity, leadership::Leadership, until_stopped};
use crate::{
    backup::{
        BackupStatus,
        bucket::list,
        file::{Chunk, Logged, Place, encode_chunk, snapshot_objects},
        kept::Kept,
        key::{BACKUP_PREFIX, BackupName, Covers},
        plan::{Next, Pace, Plan},
    },
    client::CallError,
    codec,
    raft::{record::commands_of, snapshot_file::SnapshotFiles, state_machine::MachineCell},
    wal::Wal,
};

/// How often the log is looked at. Entries that a local snapshot makes unnecessary go within
/// moments, so it is more often than anything is shipped.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Entries read from the log in one go.
const READ_BYTES_MAX: usize = 8 << 20;
/// After a request failed, its own retries included.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said that the store does not take a copy.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// How long an operator waits for the snapshot asked for.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Objects deleted in one request.
const DELETE_KEYS: usize = 1000;
/// How often it is looked whether something is to be deleted, and tried again what was refused.
const DROP_INTERVAL: Duration = Duration::from_secs(60);

/// A snapshot that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// The entry it reaches.
    pub index: LogIndex,
    /// The key of its first part.
    pub key: String,
}

/// What others see of the shipping. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Backup(Arc<Shared>);

#[derive(Default)]
struct Shared {
    started: Mutex<bool>,
    status: Mutex<Status>,
    /// How many snapshots were asked for.
    asked: AtomicU64,
    wake: Notify,
    /// The number of the last request that was fulfilled, and with what.
    fulfilled: watch::Sender<(u64, Option<Shipped>)>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Status {
    covered: Option<LogIndex>,
    oldest: Option<LogIndex>,
    /// When everything that was applied then was covered.
    whole_at: Option<MonoTime>,
}

#[derive(Debug, Default)]
struct Counters {
    snapshots: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl Backup {
    fn status(&self, now: MonoTime) -> Option<BackupStatus> {
        if !*self.0.started.lock().expect("no panic while held") {
            return None;
        }
        let status = *self.0.status.lock().expect("no panic while held");
        let counters = &self.0.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(BackupStatus {
            covered: status.covered,
            age: status.whole_at.map(|at| now.since(at)),
            oldest: status.oldest,
            snapshots: count(&counters.snapshots),
            chunks: count(&counters.chunks),
            bytes: count(&counters.bytes),
            failures: count(&counters.failures),
        })
    }
}

impl MetadataNode {
    /// Ships copies of the group's state and log to `store` from now on, whenever this node leads.
    /// Only the first call does anything.
    pub fn ship_to(&self, store: Arc<dyn Store>, pace: Pace) {
        let inner = &self.inner;
        let backup = inner.backup.clone();
        if std::mem::replace(&mut *backup.0.started.lock().expect("no panic while held"), true) {
            return;
        }
        let shipping = Shipping {
            store,
            pace,
            identity: inner.identity.clone(),
            seams: inner.seams.clone(),
            leadership: inner.leadership.clone(),
            machine: inner.machine.clone(),
            wal: inner.wal.clone(),
            files: inner.files.clone(),
            backup,
        };
        inner.seams.spawn("backup", until_stopped(inner.running.subscribe(), shipping.run()));
    }

    /// How far the copies in the bucket reach; `None` when this node ships none.
    pub fn backup(&self) -> Option<BackupStatus> {
        self.inner.backup.status(self.inner.seams.clock.mono())
    }

    /// Ships a snapshot now.
    ///
    /// # Errors
    /// `Unavailable` where this node does not lead, `Rejected` where it ships nothing, `Indefinite`
    /// when the snapshot is not there yet: it goes on being shipped.
    pub async fn ship_snapshot(&self) -> Result<Shipped, CallError> {
        let error = |outcome, reason: &str| CallError {
            call: "snapshot",
            outcome,
            reason: reason.to_owned(),
        };
        self.lead("snapshot")?;
        let shared = &self.inner.backup.0;
        if !*shared.started.lock().expect("no panic while held") {
            return Err(error(Outcome::Rejected, "this node ships nothing: it has no store"));
        }
        let mut fulfilled = shared.fulfilled.subscribe();
        let mine = shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
        shared.wake.notify_one();
        let waiting = fulfilled.wait_for(|(number, _)| mine <= *number);
        match self.inner.seams.timeout(ASK_MAX, waiting).await {
            Some(Ok(done)) => Ok(done.1.clone().expect("a number comes with its snapshot")),
            _ => Err(error(Outcome::Indefinite, "the snapshot is not in the bucket yet")),
        }
    }
}

/// The task.
struct Shipping {
    store: Arc<dyn Store>,
    pace: Pace,
    identity: Identity,
    seams: Seams,
    leadership: Leadership,
    machine: MachineCell,
    wal: Wal,
    files: Arc<SnapshotFiles>,
    backup: Backup,
}

/// What this process shipped.
struct Spell {
    run: u64,
    plan: Plan,
    kept: Kept,
    /// The term it was done in last.
    led: Option<u64>,
    /// Whether what others left in the bucket is in `kept`.
    is_listed: bool,
    dropped_at: Option<MonoTime>,
}

impl Shipping {
    /// Ships for as long as the node lives, while it leads. What was begun is finished also when it
    /// leads no more: it is committed, and a leader that comes and goes begins nothing anew.
    async fn run(self) {
        let mut spell = Spell {
            run: self.seams.rng.next_u64(),
            plan: Plan::new(self.pace),
            kept: Kept::default(),
            led: None,
            is_listed: false,
            dropped_at: None,
        };
        loop {
            let Ok(term) = self.leadership.term() else {
                // How far whoever leads now comes is not known here.
                *self.backup.0.status.lock().expect("no panic while held") = Status::default();
                self.seams.sleep(LOOK_INTERVAL).await;
                continue;
            };
            if spell.led != Some(term) {
                (spell.led, spell.is_listed) = (Some(term), false);
            }
            self.step(&mut spell).await;
        }
    }

    async fn step(&self, spell: &mut Spell) {
        spell.plan.ask(self.backup.0.asked.load(Ordering::Relaxed));
        self.gather(&mut spell.plan).await;
        self.publish(spell);
        match spell.plan.next(self.now()) {
            Next::Snapshot => self.ship_snapshot(spell).await,
            Next::Log => self.ship_log(spell).await,
            Next::Wait => tokio::select! {
                () = self.seams.sleep(LOOK_INTERVAL) => {}
                () = self.backup.0.wake.notified() => {}
            },
        }
        self.drop_old(spell).await;
    }

    fn now(&self) -> MonoTime {
        self.seams.clock.mono()
    }

    fn publish(&self, spell: &Spell) {
        let applied = self.machine.lock().index();
        let covered = spell.plan.covered();
        let mut status = self.backup.0.status.lock().expect("no panic while held");
        status.covered = covered;
        status.oldest = spell.kept.oldest_needed();
        if covered.is_some_and(|covered| applied <= covered) {
            status.whole_at = Some(self.now());
        }
    }

    /// Takes in what was applied since.
    async fn gather(&self, plan: &mut Plan) {
        let Some(from) = plan.wanted_from() else { return };
        let to = self.machine.lock().index();
        if to < from {
            return;
        }
        let wal = self.wal.clone();
        let read = move || {
            let read = wal.read(from.value()..to.value() + 1, READ_BYTES_MAX);
            let mut entries = Vec::new();
            let mut last = None;
            for entry in read.map_err(io::Error::other)? {
                if last.is_none() && entry.id.index != from.value() {
                    return Ok((Vec::new(), None));
                }
                let commands = commands_of(entry.payload).map_err(io::Error::other)?;
                let (index, term) = (entry.id.index, entry.id.term);
                last = Some((LogIndex::new(index), term));
                entries.extend(commands.map(|entry| Logged { index, term, entry }));
            }
            Ok((entries, last))
        };
        match self.files.work(read).await {
            Ok((entries, Some(last))) => plan.gather(entries, last, self.now()),
            Ok((_, None)) => plan.missed(),
            Err(error) => {
                // A log that cannot be read stops the node by itself.
                tracing::warn!(%error, "the log cannot be read for the backup");
                plan.missed();
            }
        }
    }

    async fn ship_snapshot(&self, spell: &mut Spell) {
        let asked = self.backup.0.asked.load(Ordering::Relaxed);
        let (state, index, term) = {
            let machine = self.machine.lock();
            (machine.state.clone(), machine.index(), machine.applied_term())
        };
        let encode = move || Ok(Bytes::from(codec::encode_snapshot(&state)));
        let state = match self.files.work(encode).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "a snapshot for the backup was not made");
                return self.seams.sleep(RETRY_INTERVAL).await;
            }
        };
        let bytes = state.len() as u64;
        let objects = snapshot_objects(&self.place(index, term), state, spell.run);
        let key = objects[0].0.key();
        for (name, body) in objects {
            self.put(&name, body).await;
            spell.kept.note([name]);
        }
        spell.plan.snapshot_shipped(index, bytes, (asked, self.now()));
        self.backup.0.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.publish(spell);
        let shipped = Shipped { index, key };
        self.backup.0.fulfilled.send_replace((asked, Some(shipped)));
    }

    async fn ship_log(&self, spell: &mut Spell) {
        let Some((gathered, first, last)) = spell.plan.take() else { return };
        let place = self.place(last, gathered.term);
        let body = encode_chunk(&Chunk { first, place, entries: gathered.entries });
        let bytes = body.iter().map(|part| part.len() as u64).sum();
        let covers = Covers::Log { first, last };
        let name = BackupName { lineage: self.identity.lineage, covers, run: spell.run };
        self.put(&name, body).await;
        spell.kept.note([name]);
        spell.plan.log_shipped(last, bytes);
        self.backup.0.counters.chunks.fetch_add(1, Ordering::Relaxed);
        self.publish(spell);
    }

    fn place(&self, index: LogIndex, term: u64) -> Place {
        let Identity { cluster_id, lineage, .. } = self.identity.clone();
        Place { cluster_id, lineage, index, term }
    }

    /// Puts an object, however long it takes: the same bytes under the same key.
    async fn put(&self, name: &BackupName, body: Vec<Bytes>) {
        let key = name.key();
        let mut said = None;
        loop {
            match self.store.put(&key, body.clone()).await {
                Ok(()) => break,
                Err(error) => {
                    self.backup.0.counters.failures.fetch_add(1, Ordering::Relaxed);
                    let now = self.now();
                    if said.is_none_or(|at| SAY_INTERVAL <= now.since(at)) {
                        tracing::warn!(%error, "the metadata backup does not advance, trying on");
                        said = Some(now);
                    }
                }
            }
            self.seams.sleep(RETRY_INTERVAL).await;
        }
        let bytes = body.iter().map(|part| part.len() as u64).sum();
        self.backup.0.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Deletes what is not needed any more. What fails is tried with the next.
    async fn drop_old(&self, spell: &mut Spell) {
        if !spell.is_listed {
            // Once a term: what those who led before left. Never while anybody waits for it.
            let prefix = format!("{BACKUP_PREFIX}/{}", self.identity.lineage);
            match list(self.store.as_ref(), &prefix).await {
                Ok(found) => spell.kept.note(found.names),
                Err(error) => tracing::debug!(%error, "older backups are not listed"),
            }
            spell.is_listed = true;
        }
        let now = self.now();
        let interval = DROP_INTERVAL.min(self.pace.keep);
        if spell.dropped_at.is_some_and(|at| now.since(at) < interval) {
            return;
        }
        spell.dropped_at = Some(now);
        let due = spell.kept.obsolete(now, self.pace.keep);
        for due in due.chunks(DELETE_KEYS) {
            let keys = due.iter().map(BackupName::key).collect();
            match self.store.delete_many(keys).await {
                Ok(()) => spell.kept.forget(due),
                Err(error) => tracing::debug!(%error, "older backups are not deleted"),
            }
        }
    }
}
