//! The read path over a memory store, a pushed view and a clock that the test moves.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use aquifer_metadata::{
    client::{CallError, CommitStream, Heartbeat, WatchStream},
    machine::{
        command::{AppliedReply, Command},
        effect::Run,
        query::{Answer, PartitionRuns, Query, TimeSpec},
    },
    watch::{PartitionState, WINDOW_RUNS_MAX, WatchEvent},
};
use aquifer_storage::{
    error::Outcome,
    format::object_key::object_key,
    model::{LogIndex, SessionId, TopicPartition},
    store::Store,
};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{
    testing::{
        self, CountingStore, ModelLog, joined, object_name, object_reader, partition, pointers,
    },
    *,
};
use crate::{
    produce::testing::WatchEnd,
    view::{
        SILENT_AFTER,
        testing::{ManualClock, manual_seams, settle},
    },
};

mod by_time;
mod catch_up;
mod incremental;

const WAIT: Duration = Duration::from_millis(500);

/// Metadata that answers what the test says.
struct StubMetadata {
    /// The next read index; `None` when there is no leader.
    read_index: Mutex<Option<u64>>,
    looks: AtomicU64,
    /// Answer to every query of rows.
    rows: Mutex<Option<PartitionRuns>>,
    /// Unless it is empty, where the answers come from instead.
    log: Mutex<ModelLog>,
    /// The same of certain partitions.
    logs: Mutex<BTreeMap<TopicPartition, ModelLog>>,
    queries: AtomicU64,
    watches: mpsc::Sender<WatchEnd>,
}

fn nobody() -> CallError {
    let (call, outcome) = ("stub", Outcome::Unavailable);
    CallError { call, outcome, reason: "no leader".to_owned() }
}

#[async_trait]
impl Metadata for StubMetadata {
    async fn propose(&self, _command: Command) -> Result<AppliedReply, CallError> {
        Err(nobody())
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.read_index.lock().unwrap().map(LogIndex::new).ok_or_else(nobody)
    }

    async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        let mut log = self.log.lock().unwrap().clone();
        if let Query::Runs { partition, .. } = &query
            && let Some(other) = self.logs.lock().unwrap().get(partition)
        {
            log = other.clone();
        }
        if let (Query::RunByTime { offset, time, .. }, false) = (&query, log.runs.is_empty()) {
            let mut rows: Vec<Run> = log.runs.clone();
            rows.retain(|run| *offset < run.offsets.next);
            let newest = rows.iter().map(|run| run.max_timestamp).max();
            let oldest = match time {
                TimeSpec::Since(oldest) => Some(*oldest),
                TimeSpec::Newest => newest,
            };
            let found = rows.into_iter().find(|run| oldest <= Some(run.max_timestamp));
            let runs = found.into_iter().collect();
            let rows = PartitionRuns { pointers: pointers(0, log.end()), runs };
            return Ok((LogIndex::new(1), Answer::Runs(Some(rows))));
        }
        if let (Query::Runs { offset, limit, .. }, false) = (query, log.runs.is_empty()) {
            let rows = log.runs.iter().filter(|run| offset < run.offsets.next);
            let runs = rows.take(limit as usize).copied().collect();
            let rows = PartitionRuns { pointers: pointers(0, log.end()), runs };
            return Ok((LogIndex::new(1), Answer::Runs(Some(rows))));
        }
        let rows = self.rows.lock().unwrap().clone();
        Ok((LogIndex::new(1), Answer::Runs(rows)))
    }

    async fn heartbeat(&self, _session: SessionId) -> Result<Heartbeat, CallError> {
        Err(nobody())
    }

    async fn open_commits(&self, _session: SessionId) -> Result<CommitStream, CallError> {
        Err(nobody())
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        let (requests, receiver) = mpsc::channel(5000);
        let (sender, events) = mpsc::channel(5000);
        let end = WatchEnd { seen, requests: receiver, events: sender };
        self.watches.send(end).await.map_err(|_| nobody())?;
        Ok(WatchStream { requests, events })
    }
}

struct World {
    clock: Arc<ManualClock>,
    seams: Seams,
    metadata: Arc<StubMetadata>,
    store: Arc<CountingStore>,
    fetcher: Fetcher,
    budget: ByteBudget,
    end: WatchEnd,
    /// Later ends of the watch stream.
    opened: mpsc::Receiver<WatchEnd>,
}

async fn world() -> World {
    let (clock, seams) = manual_seams();
    let (watches, mut opened) = mpsc::channel(16);
    let (read_index, rows) = (Mutex::new(Some(1)), Mutex::default());
    let (looks, queries, log) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
    let logs = Mutex::default();
    let metadata = Arc::new(StubMetadata { read_index, looks, rows, log, logs, queries, watches });
    let (view, service) = View::new(metadata.clone(), seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let end = opened.recv().await.unwrap();
    let store = Arc::new(CountingStore::default());
    let budget = ByteBudget::new("fetch", 1 << 20);
    let deps = FetchDeps {
        metadata: metadata.clone(),
        view,
        reader: object_reader(store.clone()),
        budget: budget.clone(),
        seams: seams.clone(),
    };
    let fetcher = Fetcher::new(deps, FetchLimits::default());
    World { clock, seams, metadata, store, fetcher, budget, end, opened }
}

fn at(offset: i64) -> Wanted {
    Wanted { partition: partition(1), offset, bytes_max: 1 << 20, leader_epoch: None }
}

fn params() -> FetchParams {
    let isolation = Isolation::ReadUncommitted;
    FetchParams { bytes_min: 1, bytes_max: 1 << 20, wait: WAIT, isolation }
}

impl World {
    /// Pushes the partition with the last rows of `log`, and that all is told up to `index`.
    async fn push(&self, index: u64, log: &ModelLog, runs: Vec<Run>) {
        let state = PartitionState {
            partition: partition(1),
            index: LogIndex::new(index),
            runs,
            pointers: pointers(0, log.end()),
        };
        self.end.events.send(WatchEvent::PartitionState(state)).await.unwrap();
        self.applied(index).await;
    }

    async fn applied(&self, index: u64) {
        self.end.events.send(WatchEvent::Applied(LogIndex::new(index))).await.unwrap();
        settle().await;
    }

    /// Starts a fetch in the background and lets it go as far as it can.
    async fn start(&self, wanted: Wanted, params: FetchParams) -> oneshot::Receiver<FetchAnswer> {
        let (sender, receiver) = oneshot::channel();
        let fetcher = self.fetcher.clone();
        self.seams.spawn("fetch", async move {
            let mut positions = fetcher.positions();
            let _ = sender.send(fetcher.fetch(&mut positions, &[wanted], params).await);
        });
        settle().await;
        receiver
    }

    /// Answers a fetch that need not wait for anything but short pauses.
    async fn fetch(&self, wanted: Wanted) -> FetchAnswer {
        let mut answer = self.start(wanted, params()).await;
        for _ in 0..10 {
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            self.clock.advance(Duration::from_millis(100)).await;
            // Nothing is pushed, but metadata is not silent.
            self.applied(1).await;
        }
        panic!("no answer");
    }

    async fn log_of_two_objects(&self) -> ModelLog {
        let mut log = ModelLog::default();
        for seq in 0..2 {
            let shapes = [(3, 5), (2, 5)];
            log.append(&*self.store, object_name(seq, false), (0, &shapes)).await;
        }
        log
    }
}

fn records(answer: &FetchAnswer) -> Result<Vec<u8>, FetchRefused> {
    answer.partitions[0].records.clone().map(|chunks| chunks.concat())
}

/// The world with a log of two objects, all of it pushed at index 5.
async fn pushed() -> (World, ModelLog) {
    let world = world().await;
    let log = world.log_of_two_objects().await;
    let _watch = world.fetcher.view.watch(partition(1));
    settle().await;
    world.push(5, &log, log.runs.clone()).await;
    (world, log)
}

#[tokio::test]
async fn a_parked_fetch_wakes_on_the_push_of_a_new_high_watermark_and_not_by_timer() {
    let (world, mut log) = pushed().await;
    let mut answer = world.start(at(log.end()), params()).await;
    world.clock.advance(WAIT / 2).await;
    assert!(answer.try_recv().is_err(), "there is nothing to send");
    let from = log.end();
    log.append(&*world.store, object_name(2, false), (0, &[(4, 5)])).await;
    world.push(6, &log, log.runs.clone()).await;
    let answer = answer.try_recv().expect("the clock stood still and the push came");
    assert_eq!(records(&answer), Ok(joined(&log.from(from, log.end()))));
    assert_eq!(answer.partitions[0].pointers, Some(pointers(0, log.end())));
}

#[tokio::test]
async fn a_parked_fetch_ends_empty_at_the_clients_wait() {
    let (world, log) = pushed().await;
    let mut answer = world.start(at(log.end()), params()).await;
    world.clock.advance(WAIT - Duration::from_millis(1)).await;
    assert!(answer.try_recv().is_err());
    world.clock.advance(Duration::from_millis(1)).await;
    let answer = answer.try_recv().expect("the wait is over");
    assert_eq!(records(&answer), Ok(Vec::new()));
    assert_eq!(answer.partitions[0].pointers, Some(pointers(0, log.end())));
}

#[tokio::test]
async fn a_parked_fetch_holds_no_memory_and_an_answer_holds_its_bytes() {
    let (world, log) = pushed().await;
    let waiting = FetchParams { bytes_min: 1 << 20, ..params() };
    let mut answer = world.start(at(0), waiting).await;
    assert_eq!((world.budget.in_use(), world.store.gets.load(Ordering::SeqCst)), (0, 0));
    world.clock.advance(WAIT).await;
    let answer = answer.try_recv().expect("the wait is over");
    assert_eq!(records(&answer), Ok(joined(&log.batches)));
    assert_eq!(world.budget.in_use(), joined(&log.batches).len() as u64);
    drop(answer);
    assert_eq!(world.budget.in_use(), 0);
}

#[tokio::test]
async fn a_consumer_that_hops_to_a_stale_agent_waits_and_is_not_reset() {
    let (world, mut log) = pushed().await;
    let from = log.end() + 4;
    *world.metadata.read_index.lock().unwrap() = Some(9);
    let mut answer = world.start(at(from), params()).await;
    assert!(answer.try_recv().is_err(), "this agent is behind: it cannot know");
    for seq in 2..4 {
        log.append(&*world.store, object_name(seq, false), (0, &[(4, 5)])).await;
    }
    world.push(9, &log, log.runs.clone()).await;
    let answer = answer.try_recv().expect("the view is fresh");
    assert_eq!(records(&answer), Ok(joined(&log.from(from, log.end()))));
}

#[tokio::test]
async fn an_offset_is_out_of_range_only_at_a_linearizable_index() {
    let (world, log) = pushed().await;
    let beyond = at(log.end() + 1);
    let answer = world.fetch(beyond).await;
    assert_eq!(records(&answer), Err(FetchRefused::OffsetOutOfRange));
    assert_eq!(world.metadata.looks.load(Ordering::SeqCst), 1);
    *world.metadata.read_index.lock().unwrap() = None;
    let answer = world.fetch(beyond).await;
    assert_eq!(records(&answer), Err(FetchRefused::Unavailable), "nobody knows");
    *world.metadata.read_index.lock().unwrap() = Some(99);
    let mut answer = world.start(beyond, params()).await;
    for _ in 0..5 {
        assert!(answer.try_recv().is_err());
        world.clock.advance(Duration::from_secs(1)).await;
        world.applied(98).await;
    }
    let answer = answer.try_recv().expect("a view that stays behind is told in time");
    assert_eq!(records(&answer), Err(FetchRefused::Unavailable));
    let below = at(-1);
    assert_eq!(records(&world.fetch(below).await), Err(FetchRefused::OffsetOutOfRange));
}

#[tokio::test]
async fn a_replaced_object_is_found_by_asking_metadata_within_the_request() {
    let (world, log) = pushed().await;
    let old: Vec<String> = log.runs.iter().map(|run| object_key(&run.object)).collect();
    world.store.delete_many(old).await.unwrap();
    *world.metadata.read_index.lock().unwrap() = Some(9);
    let mut answer = world.start(at(0), params()).await;
    assert!(answer.try_recv().is_err());
    let mut merged = ModelLog::default();
    let shapes = [(3, 5), (2, 5), (3, 5), (2, 5)];
    merged.append(&*world.store, object_name(0, true), (9, &shapes)).await;
    world.push(8, &merged, merged.runs.clone()).await;
    world.applied(9).await;
    let answer = answer.try_recv().expect("the new rows are known");
    assert_eq!(records(&answer), Ok(joined(&log.batches)));
    assert_eq!(world.fetcher.metrics.refreshed.get(), 1);
    drop(answer);
    assert_eq!(world.budget.in_use(), 0);
}

#[tokio::test]
async fn an_object_that_stays_away_is_an_error_at_once_and_an_alarm_after_thirty_seconds() {
    let (world, log) = pushed().await;
    let key = object_key(&log.runs[0].object);
    let body = world.store.get(&key).await.unwrap();
    world.store.delete_many(vec![key.clone()]).await.unwrap();
    let first = world.seams.clock.mono();
    for _ in 0..50 {
        assert_eq!(records(&world.fetch(at(0)).await), Err(FetchRefused::Unavailable));
        let since = world.seams.clock.mono().since(first);
        let alarms = u64::from(missing::LOST_AFTER + Duration::from_millis(200) <= since);
        assert_eq!(world.fetcher.metrics.lost_objects.get(), alarms, "after {since:?}");
        world.clock.advance(Duration::from_secs(1)).await;
        world.applied(1).await;
    }
    assert_eq!(world.fetcher.metrics.lost_objects.get(), 1, "one alarm for one object");
    // The rest of the log is served all the while.
    let tail = world.fetch(at(5)).await;
    assert_eq!(records(&tail), Ok(joined(&log.from(5, 10))));
    world.store.put(&key, vec![body]).await.unwrap();
    assert_eq!(records(&world.fetch(at(0)).await), Ok(joined(&log.batches)));
    assert!(world.fetcher.missing.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_metadata_a_missing_object_is_no_alarm() {
    let (world, log) = pushed().await;
    world.store.delete_many(vec![object_key(&log.runs[0].object)]).await.unwrap();
    *world.metadata.read_index.lock().unwrap() = None;
    for _ in 0..50 {
        assert_eq!(records(&world.fetch(at(0)).await), Err(FetchRefused::Unavailable));
        world.clock.advance(Duration::from_secs(1)).await;
        world.applied(1).await;
    }
    assert_eq!(world.fetcher.metrics.lost_objects.get(), 0);
}

#[tokio::test]
async fn without_a_leader_what_is_known_is_served_and_without_any_metadata_clients_are_sent_away() {
    let (mut world, log) = pushed().await;
    *world.metadata.read_index.lock().unwrap() = None;
    for _ in 0..30 {
        world.clock.advance(Duration::from_secs(1)).await;
        world.applied(5).await;
    }
    assert_eq!(records(&world.fetch(at(0)).await), Ok(joined(&log.batches)));
    let long = FetchParams { wait: Duration::from_secs(100), ..params() };
    let mut parked = world.start(at(log.end()), long).await;
    let mut waited = Duration::ZERO;
    let parked = loop {
        if let Ok(parked) = parked.try_recv() {
            break parked;
        }
        world.clock.advance(Duration::from_secs(1)).await;
        waited += Duration::from_secs(1);
        if let Ok(end) = world.opened.try_recv() {
            world.end = end; // It says nothing either.
        }
        assert!(waited <= SILENT_AFTER, "a parked fetch is sent away too");
    };
    assert!(SILENT_AFTER - Duration::from_secs(3) < waited);
    assert_eq!(records(&parked), Err(FetchRefused::Elsewhere));
    let answer = world.start(at(0), params()).await.try_recv().expect("at once");
    assert_eq!(records(&answer), Err(FetchRefused::Elsewhere));
}

#[tokio::test]
async fn a_fetch_that_finds_no_memory_is_answered_empty_and_throttled_in_time() {
    let (world, log) = pushed().await;
    let held = world.budget.try_acquire(world.budget.capacity_bytes()).unwrap().unwrap();
    let mut answer = world.start(at(0), params()).await;
    assert!(answer.try_recv().is_err());
    world.clock.advance(Duration::from_secs(1)).await;
    let answer = answer.try_recv().expect("in time");
    assert_eq!(records(&answer), Ok(Vec::new()));
    assert_eq!(answer.partitions[0].pointers, Some(pointers(0, log.end())));
    assert!(Duration::ZERO < answer.throttle);
    assert_eq!(world.fetcher.metrics.starved.get(), 1);
    drop(held);
    assert_eq!(records(&world.fetch(at(0)).await), Ok(joined(&log.batches)));
}

#[tokio::test]
async fn rows_below_the_window_are_asked_for_and_more_of_them_is_as_good_as_enough() {
    let world = world().await;
    let mut log = ModelLog::default();
    for seq in 0..2 * WINDOW_RUNS_MAX as u64 {
        log.append(&*world.store, object_name(seq, false), (0, &[(3, 5), (2, 5)])).await;
    }
    let _watch = world.fetcher.view.watch(partition(1));
    settle().await;
    world.push(5, &log, log.runs[WINDOW_RUNS_MAX..].to_vec()).await;
    let runs = log.runs[..WINDOW_RUNS_MAX].to_vec();
    let answered = log.from(0, 5 * WINDOW_RUNS_MAX as i64);
    let pointers = pointers(0, log.end());
    *world.metadata.rows.lock().unwrap() = Some(PartitionRuns { pointers, runs });
    let much = FetchParams { bytes_min: 1 << 19, ..params() };
    let answer = world.start(at(0), much).await.try_recv().expect("it does not wait for a push");
    assert_eq!(records(&answer), Ok(joined(&answered)));
}

#[tokio::test]
async fn a_reader_of_history_is_told_the_high_watermark_that_others_are_told() {
    let world = world().await;
    let mut log = ModelLog::default();
    for seq in 0..2 * WINDOW_RUNS_MAX as u64 {
        log.append(&*world.store, object_name(seq, false), (0, &[(3, 5), (2, 5)])).await;
    }
    let _watch = world.fetcher.view.watch(partition(1));
    settle().await;
    let runs = log.runs[..WINDOW_RUNS_MAX].to_vec();
    // Rows that were asked for a moment before the push, and ones that the push does not reach yet.
    for answered_end in [log.end() - 5, log.end() + 5] {
        world.push(5, &log, log.runs[WINDOW_RUNS_MAX..].to_vec()).await;
        let pointers = pointers(0, answered_end);
        *world.metadata.rows.lock().unwrap() = Some(PartitionRuns { pointers, runs: runs.clone() });
        // The second time they are remembered.
        for _ in 0..2 {
            let answer = world.fetch(at(0)).await;
            let told = answer.partitions[0].pointers.expect("it is known");
            assert_eq!(told.high_watermark.value(), log.end());
            assert!(told.last_stable <= told.high_watermark);
        }
        world.fetcher.catch_up.older().forget(partition(1));
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_in_time_does_not_keep_the_others() {
    let (world, log) = pushed().await;
    *world.store.stalled.lock().unwrap() = Some(object_key(&log.runs[1].object));
    let (sender, mut receiver) = oneshot::channel();
    let fetcher = world.fetcher.clone();
    world.seams.spawn("fetch", async move {
        // The row that stalls is the first of the second one.
        let both = [Wanted { bytes_max: 1, ..at(0) }, at(5)];
        let mut positions = fetcher.positions();
        let _ = sender.send(fetcher.fetch(&mut positions, &both, params()).await);
    });
    settle().await;
    assert!(receiver.try_recv().is_err());
    for _ in 0..15 {
        world.clock.advance(Duration::from_secs(1)).await;
        world.applied(5).await;
    }
    let answer = receiver.try_recv().expect("in time");
    assert_eq!(records(&answer), Ok(joined(&log.batches[..1])));
    assert_eq!(answer.partitions[1].records, Err(FetchRefused::Unavailable));
}

/// What a client knows from before a restore, or from an agent that saw one that this did not.
#[tokio::test]
async fn a_fetch_of_another_leader_epoch_is_refused_and_says_which_side_is_behind() {
    let (world, log) = pushed().await;
    let ours = testing::EPOCH.value();
    let all = Ok(joined(&log.batches));
    let fenced = Err(FetchRefused::FencedLeaderEpoch);
    let unknown = Err(FetchRefused::UnknownLeaderEpoch);
    for (theirs, expected) in
        [(0, &fenced), (ours - 1, &fenced), (ours, &all), (ours + 1, &unknown)]
    {
        let wanted = Wanted { leader_epoch: Some(theirs), ..at(0) };
        assert_eq!(records(&world.fetch(wanted).await), *expected, "epoch {theirs}");
    }
}
