//! The write path: buffer, PUT, commit, and only then the answer.
//!
//! [`Producer`] is a cloneable handle; [`ProducerService`] is the one task that owns the buffer,
//! the chains and the commit streams. Everything it decides is decided in pure modules.
//!
//! # Invariants
//! - A batch is acknowledged only by the reply to its own commit.
//! - An outcome that is not known is never reported as a failure.
//! - Batches of one (connection, producer id, partition) take effect in request order.
//!
//! # Not here
//! Parsing and validation of requests (`wire`, `storage::format`), quotas, Kafka's error codes.

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{client::Metadata, machine::command::BatchRejected};
use aquifer_storage::{
    format::record_batch::ValidatedBatch,
    model::{Lineage, ObjectName, Offset, Timestamp, TopicPartition},
    seam::{MonoTime, Seams},
    store::Store,
};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::session::Session;

mod buffer;
mod chain;
mod commit_stream;
mod flusher;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod hot;
mod ledger;
mod link;
mod plan;
mod waiters;
mod writer;

pub use plan::{FlushLimits, PutBudget};
pub use writer::ProducerService;

/// No request waits longer for its outcome, whatever its time-out says.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Requests on their way to the writer; their bytes are bounded by the permits they carry.
const INBOX_MAX: usize = 1024;

/// A client connection, unique within this process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Wraps a number that was given to no other connection.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
}

/// A batch within this process's life, in order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct BatchId(u64);

impl BatchId {
    fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a process sees fewer than 2^64 batches"))
    }

    /// How many batches later than `first` it came.
    fn distance_from(self, first: Self) -> usize {
        usize::try_from(self.0.saturating_sub(first.0)).unwrap_or(usize::MAX)
    }

    /// The batch that came `count` later.
    fn advance(self, count: usize) -> Self {
        Self(self.0.saturating_add(count as u64))
    }
}

/// The place of a request's bytes in a budget. It is given back when every PUT that carries some
/// of them has ended.
#[derive(Clone)]
pub struct Permit(Option<Arc<dyn Send + Sync>>);

impl Permit {
    /// Holds `held` until the bytes are no longer needed.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(held)))
    }

    /// Bytes that no budget counts.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether a budget counts the bytes.
    pub const fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// Whether both are the same place.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(held), Some(other)) => Arc::ptr_eq(held, other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// One batch of a produce request.
pub struct ProduceBatch {
    /// Where it goes.
    pub partition: TopicPartition,
    /// The batch.
    pub batch: ValidatedBatch,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Durable, at `base`.
    Appended {
        /// Offset of the first record.
        base: Offset,
        /// The partition's log start offset.
        log_start: Offset,
    },
    /// A retry of a batch that was appended before.
    Duplicate {
        /// Offset of the original's first record.
        base: Offset,
        /// The original's largest timestamp.
        max_timestamp: Timestamp,
        /// The partition's log start offset.
        log_start: Offset,
    },
    /// Definitely refused.
    Rejected(BatchRejected),
    /// Definitely did not happen, because an earlier batch of its chain did not. Retriable.
    BrokenChain,
    /// Definitely did not happen. Retriable.
    Unavailable,
    /// Not known in time: it may have happened. Never a failure.
    Unknown,
}

/// Where finished objects go besides the bucket: the cache, so that readers of the tail never ask
/// the bucket for what this agent just wrote.
pub trait WriteThrough: Send + Sync + 'static {
    /// `name` is in the bucket with these bytes. Must not block.
    fn written(&self, name: ObjectName, body: &[Bytes]);
}

/// Keeps nothing.
impl WriteThrough for () {
    fn written(&self, _name: ObjectName, _body: &[Bytes]) {}
}

/// What the write path needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ProducerConfig {
    /// When to flush.
    pub limits: FlushLimits,
    /// The lineage this agent belongs to.
    pub lineage: Lineage,
}

/// What the write path works with.
#[derive(Clone)]
pub struct ProducerDeps {
    /// The bucket; retries, hedges and attempt deadlines are its decorators' work.
    pub store: Arc<dyn Store>,
    /// Metadata.
    pub metadata: Arc<dyn Metadata>,
    /// This agent's session.
    pub session: Session,
    /// The cache.
    pub written: Arc<dyn WriteThrough>,
    /// The seams.
    pub seams: Seams,
}

/// A handle to the write path.
#[derive(Clone)]
pub struct Producer {
    inbox: mpsc::Sender<Message>,
    stop: watch::Sender<bool>,
    seams: Seams,
}

/// What the handle tells the writer.
enum Message {
    Append {
        connection: ConnectionId,
        deadline: MonoTime,
        batches: Vec<ProduceBatch>,
        permit: Permit,
        reply: oneshot::Sender<Vec<AppendOutcome>>,
    },
    Close(ConnectionId),
}

/// A request that the writer has taken.
pub struct PendingAppend {
    batch_count: usize,
    outcomes: oneshot::Receiver<Vec<AppendOutcome>>,
    /// Whether the writer's inbox took them.
    taken: bool,
}

impl Producer {
    /// A handle, and the service that writes.
    pub fn new(config: ProducerConfig, deps: ProducerDeps) -> (Self, ProducerService) {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let stop = watch::Sender::new(false);
        let producer = Self { inbox: sender, stop: stop.clone(), seams: deps.seams.clone() };
        (producer, ProducerService::new(config, deps, inbox, stop))
    }

    /// Hands a request's batches to the writer. Completes when they have their place: a
    /// connection's next request may then be handed over, and takes effect behind this one. The
    /// outcomes come by [`PendingAppend::outcomes`], at the latest after the smaller of `timeout`
    /// and [`DEADLINE_MAX`].
    ///
    /// # Cancel safety
    /// Dropping the future before it completes leaves open whether the batches were taken.
    pub async fn append(
        &self,
        connection: ConnectionId,
        timeout: Duration,
        (batches, permit): (Vec<ProduceBatch>, Permit),
    ) -> PendingAppend {
        let deadline = self.seams.clock.mono() + timeout.min(DEADLINE_MAX);
        let batch_count = batches.len();
        let (reply, outcomes) = oneshot::channel();
        let message = Message::Append { connection, deadline, batches, permit, reply };
        let taken = self.inbox.send(message).await.is_ok();
        PendingAppend { batch_count, outcomes, taken }
    }

    /// Says that a connection is gone: nothing of it will arrive any more.
    ///
    /// # Cancel safety
    /// Dropping the future may keep a few bytes per broken chain of the connection.
    pub async fn close(&self, connection: ConnectionId) {
        // A writer that stopped has nothing to forget.
        let _ = self.inbox.send(Message::Close(connection)).await;
    }

    /// Stops accepting, flushes, commits, answers everybody, and completes when all that is done.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo the stop.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
        // The service closes the inbox at the stop and drops the stop's receiver at its end.
        self.stop.closed().await;
    }
}

impl PendingAppend {
    /// The outcome of each batch, in the order of the request.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write.
    pub async fn outcomes(self) -> Vec<AppendOutcome> {
        let Self { batch_count, outcomes, taken } = self;
        // A writer that is stopping answers everything it took before it ends; one whose runtime
        // ends under it answers nothing, and may have sent.
        let unanswered = if taken { AppendOutcome::Unknown } else { AppendOutcome::Unavailable };
        outcomes.await.unwrap_or_else(|_| vec![unanswered; batch_count])
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
pub(crate) mod testing;
