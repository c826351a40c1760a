//! The only path that proposes: commands wait in one bounded queue, everything that waits goes
//! into the next entry, and the order of entries is the order of the queue.
//!
//! # Invariants
//! - A command that was not handed to Raft is answered `Unavailable`: it had no effect and never
//!   will. One that was handed over is answered from its apply or `Indefinite`.
//! - A bounded number of entries is under way, so a slow disk grows entries and not their number.
//! - Nothing is handed to Raft while this node does not lead, or hands leadership over.
//! - An entry is handed to Raft only once its place in the log is preallocated: Raft never waits
//!   for space, so reads and heartbeats go on while the disk is full.

use std::sync::{Arc, atomic::Ordering};

use crate::raft::library::ProgressResponder;
use aquifer_storage::{
    error::Outcome,
    planted::{self, Bug},
    seam::Seams,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{NodeMetrics, cost::Cost, health::has_space, leadership::Leadership};
use crate::{
    client::CallError,
    codec,
    machine::command::{AppliedReply, Command, Entry, Stamp},
    raft::{EncodedEntry, EntryReply, RaftHandle, own_entries::OwnEntries},
    wal::{Wal, WalError},
};

/// Entries above this wait longer for the disk than the ones behind them should.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Bounds the time the machine is locked for one entry.
pub const ENTRY_TOUCHES_MAX: usize = 10_000;
/// A single command above this is refused: it would not fit one message between nodes.
pub const COMMAND_BYTES_MAX: usize = 3 << 20;
/// Commands in the queue: enough to fill an entry, few enough to drain in well under a second.
const QUEUE_COMMANDS_MAX: usize = 16_384;
/// Memory of commands waiting or under way.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Entries under way: hides one fsync behind the next, and more only splits batches.
const ENTRIES_UNDER_WAY_MAX: usize = 4;

/// What Raft's log wraps around an entry, from above.
const WRAPPING_BYTES: usize = 64;
/// Room that is left for Raft's own entries: a few dozen restarts on a full disk.
const RAFT_BYTES: usize = 4096;

/// The outcome of a proposal, once known.
pub type Receipt = oneshot::Receiver<Result<AppliedReply, CallError>>;

/// A definite refusal of a proposal: it had no effect.
pub fn refused(outcome: Outcome, reason: impl ToString) -> CallError {
    CallError { call: "propose", outcome, reason: reason.to_string() }
}

/// Nothing of the entry reached the log.
fn no_room(error: &WalError) -> CallError {
    match error {
        WalError::DiskFull => refused(Outcome::Unavailable, "the metadata disk is full"),
        error => refused(Outcome::Unavailable, error),
    }
}

struct Waiting {
    command: Command,
    cost: Cost,
    reply: oneshot::Sender<Result<AppliedReply, CallError>>,
    _bytes: OwnedSemaphorePermit,
}

/// Puts commands into the queue. Cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    under_way: watch::Receiver<usize>,
}

impl Proposer {
    /// A proposer and the task that serves it.
    pub fn new(
        raft: RaftHandle,
        leadership: Leadership,
        (wal, own): (Wal, OwnEntries),
        seams: Seams,
        metrics: Arc<NodeMetrics>,
    ) -> (Self, ProposerTask) {
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let boot = seams.rng.next_u64();
        let (busy, under_way) = watch::channel(0);
        let (busy, carried) = (Arc::new(busy), None);
        let task = ProposerTask {
            raft,
            leadership,
            wal,
            own,
            seams,
            metrics,
            waiting,
            boot,
            carried,
            busy,
        };
        (Self { queue, bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), under_way }, task)
    }

    /// Completes when Raft was given nothing that it has not answered.
    pub async fn idle(&self) {
        let mut under_way = self.under_way.clone();
        let _ = under_way.wait_for(|entries| *entries == 0).await; // Gone is idle too.
    }

    /// Queues `command`, waiting for room, and returns its receipt. Commands of one caller that
    /// awaits each `submit` are proposed in that order.
    ///
    /// # Cancel safety
    /// Dropping the future before it resolves proposes nothing.
    pub async fn submit(&self, command: Command) -> Result<Receipt, CallError> {
        let cost = Cost::of(&command);
        if COMMAND_BYTES_MAX < cost.bytes || ENTRY_TOUCHES_MAX < cost.touches {
            let reason = format!(
                "command of {} bytes and {} partitions is above the limit of {COMMAND_BYTES_MAX} \
                 bytes and {ENTRY_TOUCHES_MAX} partitions",
                cost.bytes, cost.touches
            );
            return Err(refused(Outcome::Rejected, reason));
        }
        let stopped = || refused(Outcome::Unavailable, "the metadata node is stopping");
        let permits = u32::try_from(cost.bytes).expect("bounded by COMMAND_BYTES_MAX");
        let bytes = self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| stopped())?;
        let (reply, receipt) = oneshot::channel();
        let waiting = Waiting { command, cost, reply, _bytes: bytes };
        self.queue.send(waiting).await.map_err(|_| stopped())?;
        Ok(receipt)
    }

    /// Queues `command` and waits for its outcome.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the command may still be applied.
    pub async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        outcome_of(self.submit(command).await?).await
    }
}

/// Waits for a receipt. One whose task is gone may or may not have happened.
pub async fn outcome_of(receipt: Receipt) -> Result<AppliedReply, CallError> {
    receipt.await.unwrap_or_else(|_| {
        Err(refused(Outcome::Indefinite, "the metadata node stopped before it answered"))
    })
}

/// The one task that proposes.
pub struct ProposerTask {
    raft: RaftHandle,
    leadership: Leadership,
    wal: Wal,
    /// From where apply takes what was encoded here.
    own: OwnEntries,
    seams: Seams,
    metrics: Arc<NodeMetrics>,
    waiting: mpsc::Receiver<Waiting>,
    boot: u64,
    /// Taken from the queue, but did not fit the last entry.
    carried: Option<Waiting>,
    /// Entries that are, or may be about to be, in Raft's hands.
    busy: Arc<watch::Sender<usize>>,
}

/// Counts an entry until it is answered.
struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    fn with(entries: &Arc<watch::Sender<usize>>) -> Self {
        entries.send_modify(|entries| *entries += 1);
        Self(Arc::clone(entries))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|entries| *entries -= 1);
    }
}

/// Entries that Raft was given and has not answered.
#[derive(Default)]
struct UnderWay {
    answers: FuturesUnordered<BoxFuture<'static, usize>>,
    /// Their sizes. Some have their place in the log already; it is kept free twice then.
    bytes: Vec<usize>,
}

impl UnderWay {
    fn push(&mut self, bytes: usize, answered: impl Future<Output = ()> + Send + 'static) {
        self.bytes.push(bytes);
        self.answers.push(Box::pin(async move {
            answered.await;
            bytes
        }));
    }

    /// Completes when an entry was answered; `None` when there is none.
    async fn next(&mut self) -> Option<()> {
        let bytes = self.answers.next().await?;
        let place = self.bytes.iter().position(|known| *known == bytes);
        self.bytes.swap_remove(place.expect("pushed together"));
        Some(())
    }

    /// The sizes of all of them, of one more of `bytes`, and of what is left for Raft's own.
    fn with(&self, bytes: usize) -> Vec<usize> {
        let ours = self.bytes.iter().copied().chain([bytes]).map(|bytes| bytes + WRAPPING_BYTES);
        ours.chain([RAFT_BYTES]).collect()
    }
}

impl ProposerTask {
    /// Serves the queue until `stop`; then what was not handed to Raft is answered `Unavailable`.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut under_way = UnderWay::default();
        let mut leads = self.leadership.changes();
        loop {
            // What waits while this node does not lead is told so, however long the rest takes.
            let may_propose = under_way.bytes.len() < ENTRIES_UNDER_WAY_MAX
                || leads.borrow_and_update().is_none();
            tokio::select! {
                biased; // Raft stops next and drops what it has: that makes no room for more.
                _ = &mut stop => break,
                Ok(()) = leads.changed() => {}
                Some(()) = under_way.next(), if !under_way.bytes.is_empty() => {}
                batch = next_batch(&mut self.waiting, &mut self.carried), if may_propose => {
                    match batch {
                        Some(batch) => self.propose(batch, &mut under_way).await,
                        None => break, // Every handle is gone.
                    }
                }
            }
        }
        self.waiting.close();
        let stopping = refused(Outcome::Unavailable, "the metadata node is stopping");
        answer_all(self.carried.take(), &stopping);
        while let Some(waiting) = self.waiting.recv().await {
            answer_all([waiting], &stopping);
        }
        while under_way.next().await.is_some() {}
    }

    async fn propose(&self, batch: Vec<Waiting>, under_way: &mut UnderWay) {
        let busy = Busy::with(&self.busy); // Before the look: see `Proposer::idle`.
        if let Err(not_leader) = self.leadership.term() {
            return answer_all(batch, &not_leader.refusal_of("propose"));
        }
        if ENTRIES_UNDER_WAY_MAX <= under_way.bytes.len() {
            let full = "entries are waiting for a majority";
            return answer_all(batch, &refused(Outcome::Unavailable, full));
        }
        if !has_space(&self.wal) {
            return answer_all(batch, &no_room(&WalError::DiskFull));
        }
        let (commands, mut replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|one| (one.command, (one.reply, one._bytes))).unzip();
        let stamp = Stamp {
            boot: self.boot,
            mono_ms: self.seams.clock.mono().since_zero().as_millis() as u64,
            wall_ms: self.seams.clock.wall().millis(),
        };
        // A node that is not yet as new as this one goes on until something is new to it.
        let min_level = commands.iter().map(Command::level).max().unwrap_or(1);
        let entry = Entry { stamp, min_level, commands };
        let encoded = codec::encode_entry(&entry);
        let guessed = self.guess(&entry, under_way);
        let bytes = encoded.len();
        if let Err(error) = self.wal.make_room(&under_way.with(bytes)).await {
            let refused = no_room(&error);
            for (reply, _bytes) in replies {
                let _ = reply.send(Err(refused.clone())); // The caller may be gone.
            }
            return;
        }
        self.metrics.entries_proposed.fetch_add(1, Ordering::Relaxed);
        self.metrics.commands_proposed.fetch_add(replies.len() as u64, Ordering::Relaxed);
        self.metrics.entry_bytes_proposed.fetch_add(bytes as u64, Ordering::Relaxed);
        let (responder, outcome) = ProgressResponder::complete_only();
        self.own.keep(&encoded, entry);
        // From here on the entry may be in the log, whatever the error says.
        let handed = self.raft.client_write_ff(EncodedEntry(encoded), Some(responder)).await;
        if let Some(guessed) = guessed {
            if planted::is(Bug::AckOnAppend) {
                let _ = self.wal.barrier().await; // A mistake need not be careful.
            }
            let early = replies.drain(..).map(|(reply, _bytes)| reply);
            deliver(early, Ok(guessed));
        }
        let metrics = self.metrics.clone();
        under_way.push(bytes, async move {
            let _busy = busy;
            let result = match handed {
                Err(fatal) => Err(fatal.to_string()),
                Ok(()) => match outcome.await {
                    Ok(Ok(response)) => Ok(response.data),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("the raft core stopped".to_owned()),
                },
            };
            if result.is_err() {
                metrics.entries_undecided.fetch_add(1, Ordering::Relaxed);
            }
            if !replies.is_empty() {
                deliver(replies.into_iter().map(|(reply, _bytes)| reply), result);
            }
        });
    }

    /// Planted mistakes only: what `entry` will answer, before it is decided. Guessed while nothing
    /// else is under way, so that only what is lost later makes it wrong.
    fn guess(&self, entry: &Entry, under_way: &UnderWay) -> Option<EntryReply> {
        let is_planted = planted::is(Bug::AckOnAppend) || planted::is(Bug::AckBeforeApply);
        if !is_planted || !under_way.bytes.is_empty() {
            return None;
        }
        let (mut state, last, term) = self.leadership.foresee()?;
        let index = last.next();
        let replies = state.apply(index, term, entry).replies;
        Some(EntryReply { index, replies })
    }
}

/// Waits for a command and takes along what waits behind it, up to an entry's limits.
async fn next_batch(
    queue: &mut mpsc::Receiver<Waiting>,
    carried: &mut Option<Waiting>,
) -> Option<Vec<Waiting>> {
    let first = match carried.take() {
        Some(carried) => carried,
        None => queue.recv().await?,
    };
    let mut total = first.cost;
    let mut batch = vec![first];
    while let Ok(next) = queue.try_recv() {
        let with_next = total.plus(next.cost);
        if ENTRY_BYTES_MAX < with_next.bytes || ENTRY_TOUCHES_MAX < with_next.touches {
            *carried = Some(next);
            break;
        }
        total = with_next;
        batch.push(next);
    }
    Some(batch)
}

fn answer_all(batch: impl IntoIterator<Item = Waiting>, error: &CallError) {
    for waiting in batch {
        let _ = waiting.reply.send(Err(error.clone())); // The caller may be gone.
    }
}

fn deliver(
    receivers: impl ExactSizeIterator<Item = oneshot::Sender<Result<AppliedReply, CallError>>>,
    result: Result<EntryReply, String>,
) {
    match result {
        Ok(EntryReply { index, replies }) => {
            assert_eq!(receivers.len(), replies.len(), "apply answers every command of an entry");
            for (receiver, reply) in receivers.zip(replies) {
                let _ = receiver.send(Ok(AppliedReply { index, reply })); // The caller may be gone.
            }
        }
        Err(reason) => {
            for receiver in receivers {
                let _ = receiver.send(Err(refused(Outcome::Indefinite, &reason)));
            }
        }
    }
}
