//! The read path: plan over pushed rows, read through the caches, wait for more by push.
//!
//! # Invariants
//! - One answer takes rows and pointers of a partition from one applied index.
//! - An offset beyond the known high watermark is checked at a ReadIndex index before it is called
//!   out of range: a consumer that moved to a lagging agent waits and is never reset.
//! - A parked fetch holds no bytes; it wakes on a push or at its deadline.
//! - Batches leave as they lie in the cache: a patched header and a slice, nothing is copied.

pub mod plan;
mod reader;
pub mod session;

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{
    client::Metadata,
    machine::{
        effect::{Pointers, Run},
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
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

use self::plan::{
    Isolation, PartitionInput, PartitionPlan, first_with_rows, plan_partition, share_bytes,
};
pub use self::session::ConnectionSessions;
use crate::view::{PartitionSnapshot, PartitionWatch, View};

/// How long an answer waits for a partition's first push before it says "try again".
const FIRST_PUSH_MAX: Duration = Duration::from_secs(5);

/// Limits of the read path.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The most one answer holds, whatever the client asks.
    pub response_bytes_max: usize,
    /// The longest a fetch is parked.
    pub wait_max: Duration,
    /// Partitions read at the same time for one answer.
    pub reads_max: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { response_bytes_max: 55 << 20, wait_max: Duration::from_secs(300), reads_max: 16 }
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
    fn bytes(&self) -> u64 {
        let chunks = self.records.as_deref().unwrap_or_default();
        chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

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
}

/// One partition on its way to an answer.
enum Stage {
    Refused(Fetched),
    Planned(Pointers, PartitionPlan),
}

impl Fetcher {
    /// A fetcher over `deps`.
    pub fn new(deps: FetchDeps, limits: FetchLimits) -> Self {
        let FetchDeps { metadata, view, reader, budget, seams } = deps;
        Self { metadata, view, reader, budget, seams, limits }
    }

    /// The sessions of a new connection.
    pub fn sessions(&self) -> ConnectionSessions {
        ConnectionSessions::default()
    }

    /// A random name for a fetch session.
    pub fn session_id(&self) -> i32 {
        ((self.seams.rng.next_u64() >> 34) as i32).max(1)
    }

    /// Fetches; parks until `bytes_min` are there, a partition fails, or the wait is over.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect but on the caches.
    pub async fn fetch(&self, wanted: &[Wanted], params: FetchParams) -> FetchAnswer {
        let start = self.seams.clock.mono();
        let deadline = start + params.wait.min(self.limits.wait_max);
        let mut watches: Vec<PartitionWatch> =
            wanted.iter().map(|one| self.view.watch(one.partition)).collect();
        self.first_push(&mut watches, start + FIRST_PUSH_MAX).await;
        let bytes_max = params.bytes_max.min(self.limits.response_bytes_max);
        loop {
            let stages = self.plan(wanted, &watches, params.isolation).await;
            let failed = stages.iter().any(|stage| matches!(stage, Stage::Refused(_)));
            let available: usize = stages.iter().map(Stage::available).sum();
            let enough = params.bytes_min.min(bytes_max) <= available;
            if failed || enough || deadline <= self.seams.clock.mono() || wanted.is_empty() {
                return self.read(stages, bytes_max).await;
            }
            let changed = async {
                let mut pushes: FuturesUnordered<_> =
                    watches.iter_mut().map(|watch| watch.changed().map(|_| ())).collect();
                pushes.next().await;
            };
            tokio::select! {
                biased; // A push at the deadline still counts.
                () = changed => {}
                () = self.seams.clock.sleep_until(deadline) => {}
            }
        }
    }

    /// Waits until each partition was told of once.
    async fn first_push(&self, watches: &mut [PartitionWatch], deadline: MonoTime) {
        for watch in watches {
            if matches!(watch.current(), PartitionSnapshot::Pending) {
                tokio::select! {
                    biased; // A push at the deadline still counts.
                    _ = watch.known() => {}
                    () = self.seams.clock.sleep_until(deadline) => return,
                }
            }
        }
    }

    async fn plan(
        &self,
        wanted: &[Wanted],
        watches: &[PartitionWatch],
        isolation: Isolation,
    ) -> Vec<Stage> {
        let mut stages = Vec::with_capacity(wanted.len());
        for (one, watch) in wanted.iter().zip(watches) {
            stages.push(self.plan_one(one, watch, isolation).await);
        }
        stages
    }

    async fn plan_one(&self, one: &Wanted, watch: &PartitionWatch, isolation: Isolation) -> Stage {
        let mut state = match known(watch) {
            Ok(state) => state,
            Err(refused) => return Stage::refused(None, refused),
        };
        if state.pointers.high_watermark.value() < one.offset {
            // Only a linearizable look may say that an offset does not exist yet.
            if self.view.fresh().await.is_err() {
                return Stage::refused(None, FetchRefused::Unavailable);
            }
            state = match known(watch) {
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
            return self.plan_below_window(one, offset, isolation).await;
        }
        Stage::planned(one, offset, &state, isolation)
    }

    /// History older than the pushed rows is asked for; rows and pointers of that answer only.
    async fn plan_below_window(&self, one: &Wanted, offset: Offset, isolation: Isolation) -> Stage {
        let limit = WINDOW_RUNS_MAX as u32;
        let query = Query::Runs { partition: one.partition, offset, limit };
        match self.metadata.query(query).await {
            Ok((index, Answer::Runs(Some(rows)))) => {
                let (partition, runs, pointers) = (one.partition, rows.runs, rows.pointers);
                let state = PartitionState { partition, index, runs, pointers };
                Stage::planned(one, offset, &state, isolation)
            }
            Ok((_, Answer::Runs(None))) => Stage::refused(None, FetchRefused::Unknown),
            Ok((_, other)) => {
                tracing::error!(?other, "metadata answered a query of rows with something else");
                Stage::refused(None, FetchRefused::Unavailable)
            }
            Err(error) => {
                tracing::debug!(%error, "rows of older offsets are not available");
                Stage::refused(None, FetchRefused::Unavailable)
            }
        }
    }

    async fn read(&self, stages: Vec<Stage>, bytes_max: usize) -> FetchAnswer {
        let mut plans: Vec<PartitionPlan> = stages.iter().map(Stage::plan).collect();
        share_bytes(&mut plans, bytes_max);
        let first = first_with_rows(&plans);
        let cost: usize = plans.iter().map(PartitionPlan::bytes_to_read).sum();
        let cost = (cost as u64).min(self.budget.capacity_bytes());
        let permit = match cost {
            0 => None,
            _ => Some(self.budget.acquire(cost).await.expect("at most the capacity is asked")),
        };
        let reads =
            plans.into_iter().zip(stages).enumerate().map(|(place, (plan, stage))| async move {
                match stage {
                    Stage::Refused(fetched) => fetched,
                    Stage::Planned(pointers, _) => {
                        let records =
                            reader::read(&self.reader, &plan, &pointers, Some(place) == first)
                                .await;
                        Fetched { pointers: Some(pointers), records }
                    }
                }
            });
        let reads = futures::stream::iter(reads).buffered(self.limits.reads_max);
        let partitions: Vec<Fetched> = reads.collect().await;
        let mut permit = permit;
        if let Some(permit) = &mut permit {
            permit.shrink_to(partitions.iter().map(Fetched::bytes).sum());
        }
        FetchAnswer { partitions, permit }
    }
}

/// What was pushed of a partition. "Gone" is a fact of an applied index: ids are never reused.
fn known(watch: &PartitionWatch) -> Result<Arc<PartitionState>, FetchRefused> {
    match watch.current() {
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

impl Stage {
    fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self::Refused(Fetched::refused(pointers, refused))
    }

    fn planned(one: &Wanted, offset: Offset, state: &PartitionState, isolation: Isolation) -> Self {
        let input = PartitionInput {
            offset,
            bytes_max: one.bytes_max,
            runs: &state.runs,
            bound: isolation.bound(&state.pointers),
        };
        Self::Planned(state.pointers, plan_partition(&input))
    }

    fn available(&self) -> usize {
        match self {
            Self::Refused(_) => 0,
            Self::Planned(_, plan) => plan.bytes_available,
        }
    }

    fn plan(&self) -> PartitionPlan {
        match self {
            Self::Refused(_) => PartitionPlan::nothing(),
            Self::Planned(_, plan) => plan.clone(),
        }
    }
}

impl PartitionPlan {
    fn nothing() -> Self {
        let (runs, bound) = (Vec::<Run>::new(), Offset::ZERO);
        Self { offset: Offset::ZERO, bound, bytes_max: 0, runs, bytes_available: 0 }
    }

    /// Bytes the reader will hold for it.
    fn bytes_to_read(&self) -> usize {
        self.runs.iter().map(|run| run.length as usize).sum()
    }
}
