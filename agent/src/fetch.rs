//! The read path: plan over pushed rows, read through the caches, wait for more by push.
//!
//! # Invariants
//! - One answer takes rows and pointers of a partition from one applied index.
//! - An offset beyond the known high watermark is checked at a ReadIndex index before it is called
//!   out of range: a consumer that moved to a lagging agent waits and is never reset.
//! - A parked fetch holds no bytes; it wakes on a push or at its deadline. A timer never plans.
//! - Batches leave as they lie in the cache: a patched header and a slice. Only where a slice
//!   would keep several times its bytes in memory is it copied, so that what an answer holds is
//!   what it counts against the budget.
//! - Every wait has an end: an answer comes within the client's wait and some seconds.

mod answer;
mod catch_up;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod hot;
pub mod metrics;
mod missing;
mod older_rows;
pub mod place;
pub mod plan;
pub mod read_ahead;
mod reader;
pub mod session;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_metadata::{
    client::Metadata,
    machine::{
        effect::Pointers,
        query::{Answer, Query},
    },
    watch::{PartitionState, WINDOW_RUNS_MAX},
};
use aquifer_storage::{
    budget::{BudgetPermit, ByteBudget},
    cache::ObjectReader,
    model::{Offset, TopicPartition},
    seam::{MonoTime, Seams},
};
use bytes::Bytes;

pub use self::catch_up::CatchUpReaders;
use self::{
    catch_up::CatchUp,
    metrics::FetchMetrics,
    missing::MissingObjects,
    place::Places,
    plan::{Isolation, PartitionInput, PartitionPlan, plan_partition},
    session::{SessionRoom, Sessions},
};
use crate::view::{PartitionSnapshot, View, Watches};

/// How long an answer waits for a partition's first push before it says "try again".
const FIRST_PUSH_MAX: Duration = Duration::from_secs(5);

/// How long one question to metadata may take.
const QUERY_MAX: Duration = Duration::from_secs(5);
/// Questions to metadata at the same time for one answer.
const QUERIES_MAX: usize = 16;

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
}

/// What one connection carries from fetch to fetch.
pub struct ConnectionSessions {
    /// Its fetch sessions.
    pub sessions: Sessions,
    /// What it fetched last.
    pub positions: Positions,
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

/// One partition to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset, as the client sent it: it may be negative.
    pub offset: i64,
    /// At most this many bytes.
    pub bytes_max: usize,
    /// The leader epoch the client knows.
    pub leader_epoch: Option<i32>,
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
}

impl Fetched {
    fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self { pointers, records: Err(refused) }
    }
}

/// A whole answer and the memory it counts against.
pub struct FetchAnswer {
    /// One per wanted partition, in order.
    pub partitions: Vec<Fetched>,
    /// Released when the answer is written.
    pub permit: Option<BudgetPermit>,
    /// How long the client should wait before it asks again: there was no memory for an answer.
    pub throttle: Duration,
}

/// One partition on its way to an answer.
enum Stage {
    Refused(Fetched),
    /// Rows older than the pushed ones, which came with these pointers, are to be asked for.
    BelowWindow(Pointers, Offset),
    Planned(Pointers, PartitionPlan),
}

/// A linearizable look that serves every partition of one round.
#[derive(Default)]
struct Look {
    succeeded: Option<bool>,
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
        }
    }

    /// The same, counting in `metrics`.
    #[must_use]
    pub fn counting(self, metrics: FetchMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// What a new connection carries from fetch to fetch.
    pub fn sessions(&self) -> ConnectionSessions {
        let sessions = Sessions::new(self.session_room.clone());
        ConnectionSessions { sessions, positions: self.positions() }
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
        let start = self.seams.clock.mono();
        let deadline = start + params.wait.min(self.limits.wait_max);
        let Positions { watches, readers, places } = positions;
        watches.hold(wanted.iter().map(|one| one.partition));
        self.first_push(watches, wanted, start + FIRST_PUSH_MAX).await;
        let bytes_max = params.bytes_max.min(self.limits.response_bytes_max);
        let params = FetchParams { bytes_max, ..params };
        loop {
            if self.view.is_silent() {
                return FetchAnswer::refused(wanted.len(), FetchRefused::Elsewhere);
            }
            watches.hush();
            let stages = self.plan(wanted, watches, params).await;
            let failed = stages.iter().any(|stage| matches!(stage, Stage::Refused(_)));
            let available = stages.iter().map(Stage::available).fold(0, usize::saturating_add);
            let enough = params.bytes_min.min(bytes_max) <= available;
            if failed || enough || deadline <= self.seams.clock.mono() || wanted.is_empty() {
                let job = answer::Job { wanted, watches, params, deadline };
                return self.answer(job, (readers, places), stages).await;
            }
            drop(stages);
            tokio::select! {
                biased; // A push at the deadline still counts.
                () = watches.rung() => {}
                () = self.seams.clock.sleep_until(deadline) => {}
                () = self.view.silent() => {}
            }
        }
    }

    /// Waits until each partition was told of once.
    async fn first_push(&self, watches: &Watches, wanted: &[Wanted], deadline: MonoTime) {
        for one in wanted {
            while watches.look(one.partition) == PartitionSnapshot::Pending {
                tokio::select! {
                    biased; // A push at the deadline still counts.
                    () = watches.rung() => {}
                    () = self.seams.clock.sleep_until(deadline) => return,
                }
            }
        }
    }

    async fn plan(&self, wanted: &[Wanted], watches: &Watches, params: FetchParams) -> Vec<Stage> {
        let mut stages = Vec::with_capacity(wanted.len());
        let mut look = Look::default();
        for one in wanted {
            let stage = self.plan_one(one, watches, params.isolation, &mut look).await;
            stages.push(self.with_older_rows(one, stage, params.isolation));
        }
        let mut available = stages.iter().map(Stage::available).fold(0, usize::saturating_add);
        let below: Vec<(usize, Pointers, Offset)> = stages
            .iter()
            .enumerate()
            .filter_map(|(place, stage)| match stage {
                Stage::BelowWindow(pointers, offset) => Some((place, *pointers, *offset)),
                Stage::Refused(_) | Stage::Planned(..) => None,
            })
            .collect();
        for chunk in below.chunks(QUERIES_MAX) {
            if 0 < available && params.bytes_max <= available {
                // They would get no bytes; the session or the client asks for them first later.
                for (place, pointers, offset) in chunk {
                    let plan = PartitionPlan::nothing(*offset, *offset);
                    stages[*place] = Stage::Planned(*pointers, plan);
                }
                continue;
            }
            let asked = chunk.iter().map(|(place, pointers, offset)| async move {
                let below = (*pointers, *offset);
                (*place, self.plan_below_window(&wanted[*place], below, params.isolation).await)
            });
            for (place, stage) in futures::future::join_all(asked).await {
                available = available.saturating_add(stage.available());
                stages[place] = stage;
            }
        }
        stages
    }

    async fn plan_one(
        &self,
        one: &Wanted,
        watches: &Watches,
        isolation: Isolation,
        look: &mut Look,
    ) -> Stage {
        let mut state = match known(watches, one) {
            Ok(state) => state,
            Err(refused) => return Stage::refused(None, refused),
        };
        if state.pointers.high_watermark.value() < one.offset {
            // Only a linearizable look may say that an offset does not exist yet.
            if look.succeeded.is_none() {
                look.succeeded = Some(self.view.fresh().await.is_ok());
            }
            if look.succeeded == Some(false) {
                return Stage::refused(None, FetchRefused::Unavailable);
            }
            state = match known(watches, one) {
                Ok(state) => state,
                Err(refused) => return Stage::refused(None, refused),
            };
        }
        let pointers = state.pointers;
        if let Some(refused) = check_epoch(one, &pointers) {
            return Stage::refused(Some(pointers), refused);
        }
        let range = pointers.log_start.value()..=pointers.high_watermark.value();
        if !range.contains(&one.offset) {
            return Stage::refused(None, FetchRefused::OffsetOutOfRange);
        }
        let offset = Offset::new(one.offset).expect("not below the log start");
        let bound = isolation.bound(&pointers);
        let in_window = state.runs.first().is_none_or(|run| run.offsets.base <= offset);
        if offset < bound && !in_window {
            return Stage::BelowWindow(pointers, offset);
        }
        Stage::planned(one, offset, &state, isolation)
    }

    /// The same, planned if the rows that it needs were asked for lately.
    fn with_older_rows(&self, one: &Wanted, stage: Stage, isolation: Isolation) -> Stage {
        let Stage::BelowWindow(pushed, offset) = &stage else { return stage };
        let now = self.seams.clock.mono();
        let rows = self.catch_up.older().find(one.partition, *offset, now);
        match rows {
            Some(rows) => Stage::planned_older(one, (*pushed, *offset), &rows, isolation),
            None => stage,
        }
    }

    /// History older than the rows that were pushed with `pushed` is asked for.
    async fn plan_below_window(
        &self,
        one: &Wanted,
        (pushed, offset): (Pointers, Offset),
        isolation: Isolation,
    ) -> Stage {
        let limit = WINDOW_RUNS_MAX as u32;
        let query = Query::Runs { partition: one.partition, offset, limit };
        let asked = self.seams.timeout(QUERY_MAX, self.metadata.query(query)).await;
        match asked {
            Some(Ok((index, Answer::Runs(Some(rows))))) => {
                let (partition, runs, pointers) = (one.partition, rows.runs, rows.pointers);
                if offset < pointers.log_start {
                    // Retention or DeleteRecords moved past it meanwhile.
                    return Stage::refused(None, FetchRefused::OffsetOutOfRange);
                }
                let rows = Arc::new(PartitionState { partition, index, runs, pointers });
                let now = self.seams.clock.mono();
                self.catch_up.older().answered(offset, Arc::clone(&rows), now);
                self.keep_swept();
                Stage::planned_older(one, (pushed, offset), &rows, isolation)
            }
            Some(Ok((_, Answer::Runs(None)))) => Stage::refused(None, FetchRefused::Unknown),
            Some(Ok((_, other))) => {
                tracing::error!(?other, "metadata answered a query of rows with something else");
                Stage::refused(None, FetchRefused::Unavailable)
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "rows of older offsets are not available");
                Stage::refused(None, FetchRefused::Unavailable)
            }
            None => Stage::refused(None, FetchRefused::Unavailable),
        }
    }
}

/// What was pushed of a partition. "Gone" is a fact of an applied index: ids are never reused.
fn known(watches: &Watches, one: &Wanted) -> Result<Arc<PartitionState>, FetchRefused> {
    match watches.look(one.partition) {
        PartitionSnapshot::Known(state) => Ok(state),
        PartitionSnapshot::Gone => Err(FetchRefused::Unknown),
        PartitionSnapshot::Pending => Err(FetchRefused::Unavailable),
    }
}

fn check_epoch(one: &Wanted, pointers: &Pointers) -> Option<FetchRefused> {
    let ours = pointers.leader_epoch.value();
    match one.leader_epoch? {
        theirs if theirs < ours => Some(FetchRefused::FencedLeaderEpoch),
        theirs if ours < theirs => Some(FetchRefused::UnknownLeaderEpoch),
        _ => None,
    }
}

impl FetchAnswer {
    fn refused(count: usize, refused: FetchRefused) -> Self {
        let partitions = (0..count).map(|_| Fetched::refused(None, refused)).collect();
        Self { partitions, permit: None, throttle: Duration::ZERO }
    }
}

impl Stage {
    fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self::Refused(Fetched::refused(pointers, refused))
    }

    /// Plans over pushed rows.
    fn planned(one: &Wanted, offset: Offset, state: &PartitionState, isolation: Isolation) -> Self {
        let plan = plan_partition(&PartitionInput {
            offset,
            bytes_max: one.bytes_max,
            runs: &state.runs,
            rows_follow: false,
            bound: isolation.bound(&state.pointers),
        });
        Self::Planned(state.pointers, plan)
    }

    /// Plans over rows older than those that were pushed with `pushed`. How far the log goes is
    /// told as it was pushed: what a question once gave may be older than what clients were told,
    /// or newer than what the next ones will be. The last stable offset goes with the rows.
    fn planned_older(
        one: &Wanted,
        (pushed, offset): (Pointers, Offset),
        older: &PartitionState,
        isolation: Isolation,
    ) -> Self {
        let last_stable = older.pointers.last_stable.min(pushed.high_watermark);
        let told = Pointers { last_stable, ..pushed };
        let mut plan = plan_partition(&PartitionInput {
            offset,
            bytes_max: one.bytes_max,
            runs: &older.runs,
            rows_follow: WINDOW_RUNS_MAX <= older.runs.len(),
            bound: isolation.bound(&told),
        });
        plan.is_behind = true;
        Self::Planned(told, plan)
    }

    fn available(&self) -> usize {
        match self {
            Self::Planned(_, plan) if plan.more => usize::MAX,
            Self::Planned(_, plan) => plan.bytes_available,
            Self::Refused(_) | Self::BelowWindow(..) => 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod testing;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
