//! Turns plans into an answer: memory first, then the reads, each asked again of metadata when its
//! object is not there.

use std::{sync::PoisonError, time::Duration};

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{
    budget::BudgetPermit,
    model::{OffsetRange, TopicPartition},
    seam::MonoTime,
};
use futures::StreamExt;

use super::{
    FetchAnswer, FetchParams, FetchRefused, Fetched, Fetcher, Wanted,
    catch_up::{CatchUpReader, CatchUpReaders},
    place::{Place, Places},
    plan::{PartitionPlan, share_bytes, share_memory},
    planning::Look,
    reader::{self, Cutting, ReadFailed, read_cached},
    round::Planned,
    stage::Stage,
};
use crate::view::Watches;

/// Memory is waited for at least this long, and as long as the client waits.
const MEMORY_WAIT_MIN: Duration = Duration::from_secs(1);
/// What a client that found no memory is told to wait: about one answer to a slow reader.
const STARVED_THROTTLE: Duration = Duration::from_millis(100);
/// A referenced object that is not there is looked for this often within one request.
const LOOKS_MAX: usize = 4;
/// Between looks at an object that is still referenced.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A fetch that is to be answered now.
pub(super) struct Job<'a> {
    pub watches: &'a Watches,
    pub params: FetchParams,
    pub deadline: MonoTime,
}

/// One partition to be read.
struct Reading<'a> {
    one: Wanted,
    watches: &'a Watches,
    params: FetchParams,
    at_least_one: bool,
    pointers: Pointers,
    plan: PartitionPlan,
    /// When it is history that is read.
    reader: Option<CatchUpReader>,
}

/// A read partition and what it holds beyond what was granted before.
struct Done {
    fetched: Fetched,
    held_bytes: u64,
    more: Option<BudgetPermit>,
    /// When there is more history to be read.
    reader: Option<CatchUpReader>,
    place: Option<Place>,
}

/// What a connection keeps for the next answer.
pub(super) type Kept<'a> = (&'a mut CatchUpReaders, &'a mut Places);

impl Fetcher {
    pub(super) async fn answer(
        &self,
        job: Job<'_>,
        kept: Kept<'_>,
        mut planned: Vec<Planned>,
    ) -> FetchAnswer {
        let plans = planned.iter_mut().filter_map(|one| one.stage.plan_mut());
        let first = share_bytes(plans, job.params.bytes_max);
        let capacity = self.budget.capacity_bytes();
        let plans = planned.iter_mut().filter_map(|one| one.stage.plan_mut());
        let cost = share_memory(plans, capacity).min(capacity);
        if cost == 0 {
            return FetchAnswer::without_records(planned, Duration::ZERO);
        }
        let Some(permit) = self.memory(cost, job.deadline).await else {
            self.metrics.starved.inc();
            return FetchAnswer::without_records(planned, STARVED_THROTTLE);
        };
        self.read_all(job, kept, (planned, first), permit).await
    }

    /// Memory for an answer, at most the budget's capacity; `None` when there is none in time.
    async fn memory(&self, bytes: u64, deadline: MonoTime) -> Option<BudgetPermit> {
        // A timer costs more than all the rest of a small answer.
        let free = self.budget.try_acquire(bytes).expect("at most the capacity is asked");
        if free.is_some() {
            return free;
        }
        let wait = deadline.since(self.seams.clock.mono()).max(MEMORY_WAIT_MIN);
        let permit = self.seams.timeout(wait, self.budget.acquire(bytes)).await?;
        Some(permit.expect("at most the capacity is asked"))
    }

    async fn read_all(
        &self,
        job: Job<'_>,
        (readers, places): Kept<'_>,
        (planned, first): (Vec<Planned>, Option<usize>),
        mut permit: BudgetPermit,
    ) -> FetchAnswer {
        let Job { watches, params, .. } = job;
        let turns = planned.iter().map(|one| one.turn).collect();
        let mut partitions = Vec::with_capacity(planned.len());
        let mut readings = Vec::new();
        let (mut plans, mut held_bytes) = (0, 0);
        for Planned { wanted: one, stage, .. } in planned {
            let (pointers, mut plan) = match stage {
                Stage::Planned(pointers, plan) => (pointers, *plan),
                other => {
                    partitions.push(other.without_records());
                    continue;
                }
            };
            let at_least_one = first == Some(plans);
            plans += 1;
            if plan.runs.is_empty() {
                partitions.push(Fetched::read(pointers, Vec::new()));
                continue;
            }
            plan.place = places.of(one.partition, plan.offset);
            let reader = readers.take(one.partition, &plan, &self.reader);
            if let Some(cutting) = read_cached(&self.reader, &plan, &pointers, at_least_one) {
                self.note_found(&plan.runs[..cutting.rows]);
                if cutting.next.is_some() {
                    places.note(one.partition, cutting.place);
                }
                if let Some(reader) = reader {
                    readers.extend(self.go_on(reader, watches, &plan, &cutting).await);
                }
                held_bytes += cutting.held_bytes;
                partitions.push(Fetched::read(pointers, cutting.chunks));
                continue;
            }
            let turn = partitions.len();
            // Only until its read is done, which fills it.
            partitions.push(Fetched::refused(Some(pointers), FetchRefused::Unavailable));
            let partition = one.partition;
            let reading = Reading { one, watches, params, at_least_one, pointers, plan, reader };
            readings.push(async move {
                let read = self.seams.timeout(self.limits.read_max, self.read_one(reading)).await;
                (turn, partition, read)
            });
        }
        let mut reads = futures::stream::iter(readings).buffer_unordered(self.limits.reads_max);
        while let Some((turn, partition, read)) = reads.next().await {
            let Some(Done { fetched, held_bytes: held, more, reader, place }) = read else {
                continue;
            };
            partitions[turn] = fetched;
            held_bytes += held;
            places.note(partition, place);
            readers.extend(reader);
            if let Some(more) = more {
                permit.merge(more);
            }
        }
        permit.shrink_to(held_bytes);
        FetchAnswer { turns, partitions, permit: Some(permit), throttle: Duration::ZERO }
    }

    /// Reads one partition. An object that is not there may have been replaced: metadata is asked,
    /// and what it names now is read.
    async fn read_one(&self, mut reading: Reading<'_>) -> Done {
        let granted = reading.plan.held_bytes_max();
        let mut more = None;
        for look in 1..=LOOKS_MAX {
            let Reading { pointers, plan, at_least_one, watches, .. } = &reading;
            let of_history = reading.reader.as_ref();
            let ahead = of_history.and_then(|reader| self.ahead(reader, watches, plan));
            let read = reader::read(&self.reader, plan, pointers, *at_least_one, ahead.as_ref());
            let gone = match read.await {
                Ok(cutting) => return self.done(reading, cutting, more).await,
                Err(ReadFailed::Refused(refused)) => {
                    if refused == FetchRefused::Corrupt {
                        self.metrics.damaged.inc();
                    }
                    return Done::refused(Some(*pointers), refused);
                }
                Err(ReadFailed::Missing(gone)) => gone,
            };
            let known = Some(reading.pointers);
            let stage = match self.plan_again(&reading).await {
                Ok(stage) => stage,
                Err(refused) => return Done::refused(known, refused),
            };
            let Stage::Planned(pointers, plan) = stage else {
                return Done::from(stage.without_records());
            };
            let named = plan.runs.iter().find(|run| run.object == gone).copied();
            (reading.pointers, reading.plan) = (pointers, *plan);
            // A replaced object may be larger. Waiting for memory while holding some could go
            // round in circles.
            let surplus = reading.plan.held_bytes_max().saturating_sub(granted);
            more = self.budget.try_acquire(surplus).ok().flatten();
            if more.is_none() {
                return Done::refused(known, FetchRefused::Unavailable);
            }
            if let Some(run) = named {
                self.missed(reading.one.partition, &run);
                if look < LOOKS_MAX {
                    self.seams.sleep(LOOK_PAUSE).await;
                }
            } else {
                self.metrics.refreshed.inc();
            }
        }
        Done::refused(Some(reading.pointers), FetchRefused::Unavailable)
    }

    /// The plan as of an index read after the object was found missing. Without metadata there is
    /// none, and nothing can be said of the object.
    async fn plan_again(&self, reading: &Reading<'_>) -> Result<Stage, FetchRefused> {
        self.catch_up.older().forget(reading.one.partition);
        let (bytes_max, runs_max) = (reading.plan.bytes_max, reading.plan.held_bytes_max());
        self.view.fresh().await.map_err(|error| {
            tracing::debug!(%error, "cannot ask metadata what became of an object");
            FetchRefused::Unavailable
        })?;
        let Reading { one, watches, params, .. } = reading;
        let mut look = Look { succeeded: Some(true) };
        let mut stage = self.plan_one(one, watches, params.isolation, &mut look).await;
        if let Stage::BelowWindow(pushed, offset) = stage {
            stage = self.plan_below_window(one, (pushed, offset), params.isolation).await;
        }
        if let Stage::Planned(_, plan) = &mut stage {
            plan.bytes_max = plan.bytes_max.min(bytes_max);
            share_memory([&mut **plan], runs_max);
        }
        Ok(stage)
    }

    async fn done(
        &self,
        reading: Reading<'_>,
        cutting: Cutting,
        more: Option<BudgetPermit>,
    ) -> Done {
        self.note_found(&reading.plan.runs[..cutting.rows]);
        let reader = match reading.reader {
            Some(reader) => self.go_on(reader, reading.watches, &reading.plan, &cutting).await,
            None => None,
        };
        let fetched = Fetched::read(reading.pointers, cutting.chunks);
        let (held_bytes, place) = (cutting.held_bytes, cutting.place);
        Done { fetched, held_bytes, more, reader, place }
    }

    fn note_found(&self, runs: &[Run]) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if !missing.is_empty() {
            for run in runs {
                if missing.found(&run.object) {
                    tracing::warn!(object = %run.object, "an object that was lost is there again");
                }
            }
        }
    }

    fn missed(&self, partition: TopicPartition, run: &Run) {
        let now = self.seams.clock.mono();
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = missing.missed(run.object, now);
        drop(missing);
        let (object, OffsetRange { base, next }) = (run.object, run.offsets);
        if is_lost {
            self.metrics.lost_objects.inc();
            tracing::error!(
                %object, %partition, %base, %next,
                "DATA LOSS: an object that metadata names has been missing for 30 s"
            );
        } else {
            tracing::debug!(%object, %partition, "an object that metadata names is not there");
        }
    }
}

impl FetchAnswer {
    fn without_records(planned: Vec<Planned>, throttle: Duration) -> Self {
        let turns = planned.iter().map(|one| one.turn).collect();
        let partitions = planned.into_iter().map(|one| one.stage.without_records()).collect();
        Self { turns, partitions, permit: None, throttle }
    }
}

impl Done {
    fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self::from(Fetched::refused(pointers, refused))
    }
}

impl From<Fetched> for Done {
    fn from(fetched: Fetched) -> Self {
        Self { fetched, held_bytes: 0, more: None, reader: None, place: None }
    }
}
