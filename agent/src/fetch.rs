//! The read path: plan over pushed rows, read through the caches, wait for more by push.
//!
//! # Invariants
//! - One answer takes rows and pointers of a partition from one applied index.
//! - An offset beyond the known high watermark is checked at a ReadIndex index before it is called
//!   out of range: a consumer that moved to a lagging agent waits and is never reset.
//! - A parked fetch holds no bytes; it wakes on a push or at its deadline. A timer never plans.
//! - What was planned is planned again only once it was pushed, and a session does not look at
//!   those of its partitions that were at their end when they were last told and not pushed since.
//! - Batches leave as they lie in the cache: a patched header and a slice. Only where a slice
//!   would keep several times its bytes in memory is it copied, so that what an answer holds is
//!   what it counts against the budget.
//! - Every wait has an end: an answer comes within the client's wait and some seconds.

mod answer;
mod by_time;
mod catch_up;
mod connection;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod hot;
pub mod line;
pub mod metrics;
mod missing;
mod older_rows;
pub mod place;
pub mod plan;
mod planning;
pub mod read_ahead;
mod reader;
mod round;
pub mod session;
mod stage;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_metadata::{client::Metadata, machine::effect::Pointers};
use aquifer_storage::{
    budget::{BudgetPermit, ByteBudget},
    cache::ObjectReader,
    seam::{MonoTime, Seams},
};
use bytes::Bytes;
use tokio::sync::Semaphore;

use self::{
    answer::Kept,
    catch_up::CatchUp,
    line::{FullLine, Line, Turn},
    metrics::FetchMetrics,
    missing::MissingObjects,
    place::Places,
    plan::Isolation,
    round::Round,
    session::SessionRoom,
};
pub use self::{
    catch_up::CatchUpReaders,
    connection::{BegunAnswer, ConnectionSessions},
    line::Wanted,
};
use crate::view::{PartitionSnapshot, View, Watches};

/// How long an answer waits for a partition's first push before it says "try again".
const FIRST_PUSH_MAX: Duration = Duration::from_secs(5);

/// How long one question to metadata may take.
const QUERY_MAX: Duration = Duration::from_secs(5);

/// Limits of the read path.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The most one answer holds, whatever the client asks.
    pub response_bytes_max: usize,
    /// The longest a fetch is parked.
    pub wait_max: Duration,
    /// Partitions read at the same time for one answer.
    pub reads_max: usize,
    /// The longest the reading of one partition takes: well below the 30 s after which clients
    /// give up a connection, and with it the partitions that could be read.
    pub read_max: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            response_bytes_max: 55 << 20,
            wait_max: Duration::from_secs(300),
            reads_max: 16,
            read_max: Duration::from_secs(15),
        }
    }
}

/// Serves fetches. Clones share everything.
#[derive(Clone)]
pub struct Fetcher {
    metadata: Arc<dyn Metadata>,
    view: View,
    reader: ObjectReader,
    budget: ByteBudget,
    seams: Seams,
    limits: FetchLimits,
    metrics: FetchMetrics,
    missing: Arc<Mutex<MissingObjects>>,
    session_room: SessionRoom,
    catch_up: CatchUp,
    lookups: Arc<Semaphore>,
}

/// What one connection reads, and where.
pub struct Positions {
    /// The partitions it fetched last.
    pub watches: Watches,
    /// Those of them that it reads behind the tail.
    pub readers: CatchUpReaders,
    /// Where it stopped inside a row.
    pub places: Places,
}

/// What the read path works with.
pub struct FetchDeps {
    /// Rows older than the pushed window.
    pub metadata: Arc<dyn Metadata>,
    /// Pushed rows and pointers.
    pub view: View,
    /// The bytes.
    pub reader: ObjectReader,
    /// What answers may hold.
    pub budget: ByteBudget,
    /// The seams.
    pub seams: Seams,
}

/// What holds for the whole fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchParams {
    /// The answer waits for this many bytes.
    pub bytes_min: usize,
    /// The answer holds at most this many, but for its first batch.
    pub bytes_max: usize,
    /// The longest it waits.
    pub wait: Duration,
    /// What may be seen.
    pub isolation: Isolation,
}

/// Why a partition gives no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchRefused {
    /// It does not exist.
    Unknown,
    /// The offset is below the log start or beyond the end, at a linearizable index.
    OffsetOutOfRange,
    /// The client's leader epoch is older than ours.
    FencedLeaderEpoch,
    /// The client's leader epoch is newer than ours.
    UnknownLeaderEpoch,
    /// Metadata is silent, or the bytes cannot be read now. Retriable.
    Unavailable,
    /// The bytes in the bucket are not what was written.
    Corrupt,
    /// No metadata node was heard for long: another agent may know more.
    Elsewhere,
}

/// The answer for one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The pointers, where known.
    pub pointers: Option<Pointers>,
    /// Headers and bodies of whole batches, in order; empty when there is nothing (yet).
    pub records: Result<Vec<Bytes>, FetchRefused>,
    /// Whether it has nothing to give, and no other pointers to tell, before its next push.
    pub is_at_end: bool,
}

impl Fetched {
    fn read(pointers: Pointers, records: Vec<Bytes>) -> Self {
        Self { pointers: Some(pointers), records: Ok(records), is_at_end: false }
    }

    fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self { pointers, records: Err(refused), is_at_end: false }
    }
}

/// A whole answer and the memory it counts against.
pub struct FetchAnswer {
    /// Whose turn each of [`Self::partitions`] is; those of the line that are left out are at
    /// their end.
    pub turns: Vec<u64>,
    /// One per wanted partition, in order.
    pub partitions: Vec<Fetched>,
    /// Released when the answer is written.
    pub permit: Option<BudgetPermit>,
    /// How long the client should wait before it asks again: there was no memory for an answer.
    pub throttle: Duration,
}

impl Fetcher {
    /// A fetcher over `deps`.
    pub fn new(deps: FetchDeps, limits: FetchLimits) -> Self {
        let FetchDeps { metadata, view, reader, budget, seams } = deps;
        let (metrics, missing) = (FetchMetrics::default(), Arc::default());
        let (session_room, catch_up) = (SessionRoom::default(), CatchUp::default());
        Self {
            metadata,
            view,
            reader,
            budget,
            seams,
            limits,
            metrics,
            missing,
            session_room,
            catch_up,
            lookups: Arc::new(Semaphore::new(by_time::LOOKUPS_MAX)),
        }
    }

    /// The same, counting in `metrics`.
    #[must_use]
    pub fn counting(self, metrics: FetchMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Of a connection that has not fetched yet.
    pub fn positions(&self) -> Positions {
        Positions {
            watches: self.view.watches(),
            readers: CatchUpReaders::default(),
            places: Places::default(),
        }
    }

    /// A random name for a fetch session.
    pub fn session_id(&self) -> i32 {
        ((self.seams.rng.next_u64() >> 34) as i32).max(1)
    }

    /// Fetches; parks until `bytes_min` are there, a partition fails, or the wait is over.
    /// `positions` then hold what was wanted.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect but on the caches and on what is read ahead.
    pub async fn fetch(
        &self,
        positions: &mut Positions,
        wanted: &[Wanted],
        params: FetchParams,
    ) -> FetchAnswer {
        let turns: Vec<Turn> = (0..).zip(wanted.iter().copied()).collect();
        self.fetch_full(positions, &turns, params).await
    }

    /// The same, of partitions that have turns already.
    async fn fetch_full(
        &self,
        positions: &mut Positions,
        turns: &[Turn],
        params: FetchParams,
    ) -> FetchAnswer {
        let Positions { watches, readers, places } = positions;
        watches.hold(turns.iter().map(|(_, one)| one.partition));
        self.fetch_line(watches, (readers, places), &mut FullLine::new(turns), params).await
    }

    /// The same, of a line whose partitions `watches` hold.
    async fn fetch_line(
        &self,
        watches: &Watches,
        kept: Kept<'_>,
        line: &mut dyn Line,
        params: FetchParams,
    ) -> FetchAnswer {
        let start = self.seams.clock.mono();
        let deadline = start + params.wait.min(self.limits.wait_max);
        let mut round = Round::new(line.begin(&watches.pushed()));
        self.first_push(watches, &round, start + FIRST_PUSH_MAX).await;
        let bytes_max = params.bytes_max.min(self.limits.response_bytes_max);
        let params = FetchParams { bytes_max, ..params };
        loop {
            if self.view.is_silent() {
                return FetchAnswer::refused(&line.all(), FetchRefused::Elsewhere);
            }
            let pushed = watches.pushed();
            if !pushed.is_empty() {
                round.push(line.pushed(&pushed));
            }
            self.plan(&mut round, watches, params).await;
            let enough = params.bytes_min.min(bytes_max) <= round.available();
            let is_late = deadline <= self.seams.clock.mono();
            if round.is_any_refused() || enough || is_late || line.is_empty() {
                let job = answer::Job { watches, params, deadline };
                return self.answer(job, kept, round.into_plans()).await;
            }
            tokio::select! {
                biased; // A push at the deadline still counts.
                () = watches.rung() => {}
                () = self.seams.clock.sleep_until(deadline) => {}
                () = self.view.silent() => {}
            }
        }
    }

    /// Waits until each partition was told of once.
    async fn first_push(&self, watches: &Watches, round: &Round, deadline: MonoTime) {
        for one in round.iter() {
            while watches.look(one.partition) == PartitionSnapshot::Pending {
                tokio::select! {
                    biased; // A push at the deadline still counts.
                    () = watches.rung() => {}
                    () = self.seams.clock.sleep_until(deadline) => return,
                }
            }
        }
    }
}

impl FetchAnswer {
    fn refused(turns: &[Turn], refused: FetchRefused) -> Self {
        let partitions = turns.iter().map(|_| Fetched::refused(None, refused)).collect();
        let turns = turns.iter().map(|(turn, _)| *turn).collect();
        Self { turns, partitions, permit: None, throttle: Duration::ZERO }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
