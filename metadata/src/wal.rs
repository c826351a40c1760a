//! The disk half of the Raft log store: vote and log in one ordered, preallocated, CRC-framed log.
//!
//! Requests are accepted in one order, visible at once to [`Wal::read`] and [`Wal::state`], and
//! written in that order by one thread: everything waiting goes out with one write and one fsync,
//! then the callbacks run. The log knows terms, indexes and bytes, not the Raft library.
//!
//! # Invariants
//! - A callback ran with `Ok` only if its request and all before it survive a power loss.
//! - A request is refused before any of it is written, or accepted as a whole.
//! - After a failed write or fsync, or damage found by a read, everything is refused.
//! - Entries have no hole: the log is `(purged, last]`.
//!
//! # Non-obvious
//! - The disk running full is no failure. Each segment is filled with zeros before anything is
//!   accepted into it, so only making the next one can find the disk full. Entries are then
//!   refused with [`WalError::DiskFull`] while votes and purges go into a reserve; the next request
//!   (or [`Wal::retry_space`]) tries again.
//! - [`Wal::save_committed`] is a hint that costs no write: it goes along with the next entries,
//!   with the next segment, or at the end. [`Wal::flush_hint`] writes it when none of them comes.
//!
//! # Not here
//! The bytes (`frame`), what counts as damage (`recovery`), who may vote (the Raft library).

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    thread,
};

use aquifer_storage::planted::{self, Bug};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

pub mod disk;
mod error;
mod frame;
mod index;
mod read;
mod recovery;
mod report;
mod state;
mod writer;

#[cfg(test)]
mod tests;

#[cfg(feature = "server")]
pub(crate) use self::error::is_full;
use self::{
    disk::Disk,
    frame::{CLUSTER_ID_BYTES_MAX, ENTRY_PREFIX_BYTES, FRAME_HEADER_BYTES, Record},
    read::Located,
    state::{Class, Sizes, SparesMissing, State},
    writer::{Job, Message, Writer, lock},
};
pub use self::{
    error::{Damage, Refused, Rejection, WalError},
    report::{Recovered, TornTail, WalHealth, WalState},
};

/// Called once, when the request it came with is durable or the log stopped. Runs on the writer's
/// thread: it must not block.
pub type Callback = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// Requests that may wait for the writer; above it, requests wait to be accepted.
const WAITING_JOBS_MAX: usize = writer::JOBS_PER_SYNC_MAX;
/// The smallest segment: a reserve and a few entries.
const SEGMENT_BYTES_MIN: u32 = 16 * 1024;
/// The largest segment: it is read into memory as a whole at open.
const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Room for about a thousand votes on a full disk.
const RESERVE_BYTES_MAX: u32 = 64 * 1024;

/// A log id: an entry's index, and the term and node of the leader that proposed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub node_id: u64,
    /// The place in the log, from 0.
    pub index: u64,
}

/// A vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The node voted for.
    pub node_id: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    /// Its log id.
    pub id: LogId,
    /// What the Raft library says it is.
    pub payload: Bytes,
}

/// Who runs the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// A thread of its own. For production.
    Thread,
    /// Every request is written and synced before its call returns. For a deterministic simulator.
    Inline,
    /// Requests wait for [`Wal::run_waiting`]: for tests of group commit, and for a simulator in
    /// which a sync takes time.
    Manual,
}

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// The cluster, at most 255 bytes. A log of another one is refused.
    pub cluster_id: String,
    /// The node. A log of another one is refused.
    pub node_id: u64,
    /// Size of new segments, from 16 KiB to 1 GiB, in whole sectors of 512 bytes.
    pub segment_bytes: u32,
    /// Payloads kept in memory. Those that are not yet durable stay in addition.
    pub cache_bytes_max: usize,
    /// Random bits, drawn anew for each open: bytes of an earlier life never look valid.
    pub nonce: u64,
    /// Who runs the writer.
    pub drive: Drive,
}

impl WalConfig {
    /// The defaults: segments of 16 MiB, as much cache, and a thread.
    pub fn new(cluster_id: impl Into<String>, node_id: u64, nonce: u64) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            node_id,
            segment_bytes: 16 * 1024 * 1024,
            cache_bytes_max: 16 * 1024 * 1024,
            nonce,
            drive: Drive::Thread,
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            segment_bytes: self.segment_bytes,
            reserve_bytes: RESERVE_BYTES_MAX.min(self.segment_bytes / 8),
            nonce: self.nonce,
        }
    }

    fn check(&self) -> Result<(), WalError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(WalError::Config("segment_bytes must be from 16 KiB to 1 GiB"));
        }
        if !self.segment_bytes.is_multiple_of(512) {
            return Err(WalError::Config("segment_bytes must be a multiple of 512"));
        }
        if CLUSTER_ID_BYTES_MAX < self.cluster_id.len() {
            return Err(WalError::Config("cluster_id must be at most 255 bytes"));
        }
        Ok(())
    }
}

/// A handle to the log. The last one to go waits until everything accepted is written.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<Mutex<State>>,
    driver: Driver,
}

enum Driver {
    Thread { inbox: Option<mpsc::Sender<Message>>, thread: Option<thread::JoinHandle<()>> },
    Caller { queue: Queue, writer: Box<Mutex<Writer>>, inline: bool },
}

/// What waits for a caller to write it.
#[derive(Default)]
struct Queue {
    messages: Mutex<Vec<Message>>,
    filled: Notify,
}

impl Queue {
    fn push(&self, message: Message) {
        self.messages.lock().expect("no holder panics").push(message);
        self.filled.notify_one();
    }

    fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.messages.lock().expect("no holder panics"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &mut self.driver {
            Driver::Thread { inbox, thread } => {
                drop(inbox.take());
                // A callback may hold the last handle: the thread cannot wait for itself.
                let joinable = |handle: &thread::JoinHandle<()>| {
                    handle.thread().id() != thread::current().id()
                };
                if let Some(handle) = thread.take().filter(joinable) {
                    // A panic of the writer was reported by the panic itself.
                    let _ = handle.join();
                }
            }
            Driver::Caller { .. } => {}
        }
    }
}

/// What a caller asks for.
enum Request<'a> {
    Vote(Vote),
    Append(&'a [WalEntry]),
    TruncateFrom(u64),
    Purge(LogId),
    Hint,
    Barrier,
}

impl Request<'_> {
    fn class(&self) -> Class {
        match self {
            Self::Append(_) => Class::Entries,
            Self::Hint => Class::Hint,
            Self::Vote(_) | Self::TruncateFrom(_) | Self::Purge(_) | Self::Barrier => {
                Class::Control
            }
        }
    }

    /// The records that do it to `state`; none when there is nothing to do.
    fn records(&self, state: &State) -> Result<Vec<Record>, Rejection> {
        let record = match self {
            Self::Append(entries) => return append_records(entries, state),
            Self::Barrier => None,
            Self::Vote(vote) => Some(Record::Vote(*vote)),
            Self::TruncateFrom(first) if *first == state.index.next() => None,
            Self::TruncateFrom(first) => Some(Record::TruncateFrom(*first)),
            Self::Purge(id) if state.is_purged(id) => None,
            Self::Purge(id) => Some(Record::Purge(*id)),
            Self::Hint => state.hint(),
        };
        record.iter().try_for_each(|record| state.check(record))?;
        Ok(record.into_iter().collect())
    }
}

fn append_records(entries: &[WalEntry], state: &State) -> Result<Vec<Record>, Rejection> {
    let frame_bytes_max = state.sizes.frame_bytes_max();
    let mut records = Vec::with_capacity(entries.len());
    for (expected, entry) in (state.index.next()..).zip(entries) {
        state.check_entry(entry.id.index, expected)?;
        let record = Record::Append(entry.clone());
        if frame_bytes_max < record.frame_bytes() {
            return Err(Rejection::TooLarge {
                index: entry.id.index,
                bytes: entry.payload.len() as u64,
                bytes_max: payload_bytes_max(&state.sizes),
            });
        }
        records.push(record);
    }
    Ok(records)
}

fn payload_bytes_max(sizes: &Sizes) -> u64 {
    // One byte ends the body, up to seven pad the frame.
    sizes.frame_bytes_max() - u64::from(FRAME_HEADER_BYTES + ENTRY_PREFIX_BYTES + 8)
}

impl Wal {
    /// Whether `disk` holds a log. Changes nothing there: for those who must not begin one.
    pub fn exists(disk: &dyn Disk) -> Result<bool, WalError> {
        let names = disk.list().map_err(|error| WalError::io("list", ".", error))?;
        Ok(names.iter().any(|name| recovery::is_segment(name)))
    }

    /// Opens the log on `disk`, or begins one when there is none.
    ///
    /// Blocks while the segments are read. Refuses a damaged log, one of another cluster or node
    /// and one of a newer version: the node must not vote then.
    pub fn open(disk: Arc<dyn Disk>, config: &WalConfig) -> Result<(Self, Recovered), WalError> {
        config.check()?;
        let (writer, recovered) = recovery::open(disk, config)?;
        if let Some(torn) = &recovered.torn {
            let TornTail { file, offset, bytes } = torn;
            tracing::warn!(%file, offset, bytes, "removed the torn end of the log");
        }
        let state = Arc::clone(&writer.state);
        let driver = match config.drive {
            Drive::Thread => {
                let (inbox, receiver) = mpsc::channel(WAITING_JOBS_MAX);
                let thread = thread::Builder::new()
                    .name("wal-writer".to_owned())
                    .spawn(move || writer.serve(receiver))
                    .map_err(|error| WalError::io("start", "wal-writer", error))?;
                Driver::Thread { inbox: Some(inbox), thread: Some(thread) }
            }
            Drive::Inline | Drive::Manual => Driver::Caller {
                queue: Queue::default(),
                writer: Box::new(Mutex::new(writer)),
                inline: config.drive == Drive::Inline,
            },
        };
        Ok((Self { inner: Arc::new(Inner { state, driver }) }, recovered))
    }

    /// Saves the vote.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready asks for nothing. The same holds for every request.
    pub async fn save_vote(&self, vote: Vote, done: Callback) -> Result<(), Refused> {
        self.submit(Request::Vote(vote), done).await
    }

    /// Saves the vote, and returns once it is durable.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the vote may be saved.
    pub async fn save_vote_synced(&self, vote: Vote) -> Result<(), WalError> {
        if planted::is(Bug::VoteNotSynced) {
            let saved = self.save_vote(vote, Box::new(|_| {})).await;
            return saved.map_err(|refused| refused.error);
        }
        self.synced(Request::Vote(vote)).await
    }

    /// Returns once everything accepted before is durable.
    pub async fn barrier(&self) -> Result<(), WalError> {
        self.synced(Request::Barrier).await
    }

    /// Appends the entries, all or none. They must follow the last entry. They can be read as soon
    /// as this returns `Ok`; `done` runs once they are durable.
    pub async fn append(&self, entries: &[WalEntry], done: Callback) -> Result<(), Refused> {
        self.submit(Request::Append(entries), done).await
    }

    /// Removes the entries behind `last_kept`; all of them when `None`.
    pub async fn truncate_after(
        &self,
        last_kept: Option<u64>,
        done: Callback,
    ) -> Result<(), Refused> {
        let first = last_kept.map_or(0, |last| last.saturating_add(1));
        self.submit(Request::TruncateFrom(first), done).await
    }

    /// Removes the entries up to and with `last`. It may lie behind the end: the log then goes on
    /// after it. Purging what is purged does nothing.
    pub async fn purge(&self, last: LogId, done: Callback) -> Result<(), Refused> {
        self.submit(Request::Purge(last), done).await
    }

    /// Notes that `last` and all before it are committed: a hint for the next start, dropped when
    /// the entry is not here. It is written beside the next entries, so it costs nothing.
    pub fn save_committed(&self, last: LogId) -> Result<(), WalError> {
        let mut state = lock(&self.inner.state);
        state.running()?;
        // What is committed but not here yet is said again once it is.
        if last.index < state.index.next() {
            state.committed = state.committed.max(Some(last));
        }
        Ok(())
    }

    /// Writes the last hint by itself, without an fsync, unless it is in the log already or the
    /// disk is full. For a slow periodic check: an idle log says then what is committed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the hint for later.
    pub async fn flush_hint(&self) -> Result<(), WalError> {
        let done: Callback = Box::new(|_| {});
        self.submit(Request::Hint, done).await.map_err(|refused| refused.error)
    }

    /// What the log holds, durable or not yet.
    pub fn state(&self) -> WalState {
        lock(&self.inner.state).summary()
    }

    /// The indexes of the entries that can be read.
    pub fn entries(&self) -> Range<u64> {
        let state = lock(&self.inner.state);
        state.index.first()..state.index.next()
    }

    /// The largest payload of an entry.
    pub fn payload_bytes_max(&self) -> u64 {
        payload_bytes_max(&lock(&self.inner.state).sizes)
    }

    /// Whether the log takes requests.
    pub fn health(&self) -> WalHealth {
        let state = lock(&self.inner.state);
        match &state.stopped {
            Some(reason) => WalHealth::Stopped { reason: Arc::clone(reason) },
            None if state.disk_full => WalHealth::DiskFull,
            None => WalHealth::Running,
        }
    }

    /// Makes sure that entries with payloads of these sizes, appended next and in this order, find
    /// their place preallocated: appending them then cannot meet a full disk. Who proposes asks
    /// this before, so that whoever appends never waits for space.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a segment prepared.
    pub async fn make_room(&self, payload_bytes: &[usize]) -> Result<(), WalError> {
        loop {
            let missing = {
                let state = lock(&self.inner.state);
                state.running()?;
                let hint_bytes = Record::Committed(LogId::default()).frame_bytes();
                let frames = payload_bytes
                    .iter()
                    .flat_map(|bytes| [hint_bytes, frame::entry_frame_bytes(*bytes)]);
                state.room_missing(frames, Class::Entries)
            };
            match missing {
                None => return Ok(()),
                Some(SparesMissing(spares)) => self.grow(spares).await?,
            }
        }
    }

    /// Tries again to make room when the disk was full. For a slow periodic check.
    pub async fn retry_space(&self) -> WalHealth {
        let wanted = {
            let state = lock(&self.inner.state);
            state.disk_full.then(|| state.spares.saturating_add(1))
        };
        if let Some(spares) = wanted {
            // What came of it is the health.
            let _ = self.grow(spares).await;
        }
        self.health()
    }

    /// The entries of `range` that are here, in order and without a hole, up to about `bytes_max`
    /// of payload but at least one. May read the disk. Damage stops the log.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<WalEntry>, WalError> {
        let mut found = Vec::new();
        let mut bytes: usize = 0;
        {
            let state = lock(&self.inner.state);
            state.running()?;
            for index in state.index.clip(range) {
                if !found.is_empty() && bytes_max <= bytes {
                    break;
                }
                let entry = Located::find(&state, index);
                bytes = bytes.saturating_add(entry.payload_bytes());
                found.push(entry);
            }
        }
        let read = found.into_iter().map(Located::load).collect::<Result<Vec<_>, _>>();
        if let Err(error) = &read {
            tracing::error!(%error, "the log stopped: an entry cannot be read back");
            lock(&self.inner.state).stop(error.to_string());
        }
        read
    }

    /// With [`Drive::Manual`]: returns once a request waits for [`Self::run_waiting`]. For one task
    /// at a time; never returns with another drive.
    pub async fn filled(&self) {
        match &self.inner.driver {
            Driver::Caller { queue, .. } => queue.filled.notified().await,
            Driver::Thread { .. } => std::future::pending().await,
        }
    }

    /// With [`Drive::Manual`]: writes what waits as one group commit, and runs the callbacks.
    pub fn run_waiting(&self) {
        let Driver::Caller { queue, writer, .. } = &self.inner.driver else { return };
        let due = {
            let mut writer = writer.lock().expect("no holder of the writer panics");
            let due = writer.commit(queue.take());
            writer.prepare_ahead();
            due
        };
        for (done, result) in due {
            done(result);
        }
    }

    async fn synced(&self, request: Request<'_>) -> Result<(), WalError> {
        let (reply, answer) = oneshot::channel();
        let done: Callback = Box::new(move |result| {
            // Nobody waits any more.
            let _ = reply.send(result);
        });
        self.submit(request, done).await.map_err(|refused| refused.error)?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    async fn submit(&self, request: Request<'_>, mut done: Callback) -> Result<(), Refused> {
        loop {
            let permit = match self.permit().await {
                Ok(permit) => permit,
                Err(error) => return Err(Refused { error, done }),
            };
            let missing = match self.try_submit(&request, permit, done) {
                Ok(()) => return Ok(()),
                Err((NotSubmitted::Refused(error), done)) => return Err(Refused { error, done }),
                Err((NotSubmitted::NoRoom(missing), returned)) => {
                    done = returned;
                    missing
                }
            };
            if let Err(error) = self.grow(missing.0).await {
                return Err(Refused { error, done });
            }
        }
    }

    /// Accepts the request and queues it, in one step: the order of the log is the queue's.
    fn try_submit(
        &self,
        request: &Request<'_>,
        permit: Permit<'_>,
        done: Callback,
    ) -> Result<(), (NotSubmitted, Callback)> {
        let is_hint = request.class() == Class::Hint;
        {
            let mut state = lock(&self.inner.state);
            let records =
                state.running().and_then(|()| request.records(&state).map_err(WalError::Rejected));
            let steps = match records {
                Ok(records) => state.accept(records, request.class()),
                Err(error) => return Err((NotSubmitted::Refused(error), done)),
            };
            match steps {
                Ok(steps) if is_hint && steps.is_empty() => return Ok(()),
                Ok(steps) => permit.send(Message::Job(Job { steps, durable: !is_hint, done })),
                Err(_) if is_hint => return Ok(()),
                Err(missing) => return Err((NotSubmitted::NoRoom(missing), done)),
            }
        }
        self.run_inline();
        Ok(())
    }

    /// Waits for a place in the queue.
    async fn permit(&self) -> Result<Permit<'_>, WalError> {
        match &self.inner.driver {
            Driver::Caller { queue, .. } => Ok(Permit::Caller(queue)),
            Driver::Thread { inbox, .. } => {
                let inbox = inbox.as_ref().expect("the inbox closes with the last handle");
                inbox.reserve().await.map(Permit::Thread).map_err(|_| self.gone())
            }
        }
    }

    /// Waits until so many spare segments are there.
    async fn grow(&self, spares: u32) -> Result<(), WalError> {
        let (reply, answer) = oneshot::channel();
        self.permit().await?.send(Message::Grow { spares, reply });
        if let Driver::Caller { .. } = self.inner.driver {
            self.run_waiting(); // Nobody else would answer.
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn run_inline(&self) {
        if let Driver::Caller { inline: true, .. } = self.inner.driver {
            self.run_waiting();
        }
    }

    /// The error when the writer ended without an answer.
    fn gone(&self) -> WalError {
        lock(&self.inner.state).stop("the writer is gone")
    }
}

/// A place in the queue.
enum Permit<'a> {
    Thread(mpsc::Permit<'a, Message>),
    Caller(&'a Queue),
}

impl Permit<'_> {
    fn send(self, message: Message) {
        match self {
            Self::Thread(permit) => permit.send(message),
            Self::Caller(queue) => queue.push(message),
        }
    }
}

/// Why a request was not queued.
enum NotSubmitted {
    Refused(WalError),
    NoRoom(SparesMissing),
}
