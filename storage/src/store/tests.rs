//! The decorators, on a clock that jumps to the next deadline whenever everything waits.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    fault::{Fault, FaultStore},
    retry::RetryPolicy,
    *,
};
use crate::{
    error::{Outcome, StoreCondition},
    model::Timestamp,
    seam::{BoxFuture, Clock, MonoTime, Rng, Seams, Spawn, net::TcpNet},
};

#[derive(Default)]
struct JumpClock {
    state: Arc<Mutex<ClockState>>,
}

#[derive(Default)]
struct ClockState {
    now: Duration,
    sleepers: BTreeMap<Duration, Vec<Waker>>,
}

impl Clock for JumpClock {
    fn mono(&self) -> MonoTime {
        MonoTime::from_zero(self.state.lock().unwrap().now)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
        let state = Arc::clone(&self.state);
        Box::pin(poll_fn(move |context| {
            let mut state = state.lock().unwrap();
            if deadline.since_zero() <= state.now {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            state.sleepers.entry(deadline.since_zero()).or_default().push(waker);
            Poll::Pending
        }))
    }
}

struct Zeros;

impl Rng for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

struct NoTasks;

impl Spawn for NoTasks {
    fn spawn(&self, name: &'static str, _task: BoxFuture<'static, ()>) {
        panic!("the decorators start no task, but one started {name}");
    }
}

/// A world with one clock, in which a store is used.
struct World {
    clock: Arc<JumpClock>,
    seams: Seams,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(JumpClock::default());
        let (rng, spawn) = (Arc::new(Zeros), Arc::new(NoTasks));
        let seams = Seams { clock: clock.clone(), rng, spawn, net: Arc::new(TcpNet) };
        Self { clock, seams }
    }

    fn faulty(&self, script: &[Fault]) -> FaultStore<MemoryStore> {
        let script: VecDeque<Fault> = script.iter().copied().collect();
        FaultStore::new(MemoryStore::new(), script, self.seams.clone())
    }

    fn retrying(&self, script: &[Fault]) -> RetryingStore<FaultStore<MemoryStore>> {
        RetryingStore::new(self.faulty(script), RetryPolicy::default(), self.seams.clone())
    }

    /// Runs `future` to its end, jumping over all waiting.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            let mut state = self.clock.state.lock().unwrap();
            let (deadline, wakers) = state.sleepers.pop_first().expect("something sleeps");
            state.now = state.now.max(deadline);
            drop(state);
            wakers.iter().for_each(Waker::wake_by_ref);
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.mono().since_zero()
    }
}

fn body() -> Vec<Bytes> {
    vec![Bytes::from_static(b"water")]
}

#[test]
fn a_transient_failure_is_retried() {
    let world = World::new();
    let store = world.retrying(&[Fault::Refuse, Fault::LoseAnswer, Fault::Hang]);
    world.run(store.put("a", body())).unwrap();
    let policy = RetryPolicy::default();
    assert!(policy.attempt_timeout <= world.elapsed());
    assert!(world.elapsed() < policy.attempt_timeout + Duration::from_secs(1));
    assert_eq!(world.run(store.get("a")).unwrap(), "water");
}

#[test]
fn a_definite_refusal_is_not_retried() {
    let world = World::new();
    let store = world.retrying(&[]);
    let error = world.run(store.get("missing")).unwrap_err();
    assert_eq!(error.condition, StoreCondition::NotFound);
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[test]
fn a_put_stays_indefinite_once_an_attempt_was() {
    let world = World::new();
    let mut script = vec![Fault::Refuse; 200];
    let store = world.retrying(&script);
    let error = world.run(store.put("a", body())).unwrap_err();
    assert_eq!(error.outcome, Outcome::Unavailable, "no attempt had an effect");
    script[0] = Fault::LoseAnswer;
    let store = world.retrying(&script);
    let error = world.run(store.put("a", body())).unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite);
}

#[test]
fn retries_end_at_the_total_deadline() {
    let world = World::new();
    let store = world.retrying(&[Fault::Hang; 200]);
    let error = world.run(store.get("a")).unwrap_err();
    assert_eq!(error.outcome, Outcome::Unavailable, "a read changes nothing");
    assert!(world.elapsed() <= RetryPolicy::default().total_timeout);
}

#[test]
fn a_conditional_put_is_never_repeated() {
    let world = World::new();
    let store = world.retrying(&[Fault::Refuse]);
    assert!(world.run(store.put_if_absent("a", Bytes::new())).is_err());
    let store = world.retrying(&[Fault::Hang]);
    let error = world.run(store.put_if_absent("a", Bytes::new())).unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite);
}

/// A hedged store that has seen `count` puts of 20 ms, with `script` behind them.
fn hedged(world: &World, count: usize, script: &[Fault]) -> HedgedStore<FaultStore<MemoryStore>> {
    let usual = vec![Fault::Delay(Duration::from_millis(20)); count];
    let store = HedgedStore::new(world.faulty(&[&usual, script].concat()), world.seams.clone());
    for _ in 0..count {
        world.run(store.put("usual", body())).unwrap();
    }
    store
}

#[test]
fn a_late_put_is_hedged_and_the_first_answer_wins() {
    let world = World::new();
    let store = hedged(&world, 200, &[Fault::Hang, Fault::None]);
    let before = world.elapsed();
    world.run(store.put("late", body())).unwrap();
    assert!(world.elapsed() - before < Duration::from_millis(40));
}

#[test]
fn a_hedged_put_is_indefinite_unless_both_attempts_were_definite() {
    let late = Duration::from_secs(1);
    for (second, outcome) in
        [(Fault::Refuse, Outcome::Rejected), (Fault::LoseAnswer, Outcome::Indefinite)]
    {
        let world = World::new();
        let store = hedged(&world, 200, &[Fault::Delay(late), second]);
        // The key is refused, so the delayed attempt fails definitely.
        let error = world.run(store.put("/refused", body())).unwrap_err();
        assert_eq!(error.outcome, outcome);
    }
}

#[test]
fn a_metered_store_counts_ends_errors_and_abandoned_requests() {
    let world = World::new();
    let store = MeteredStore::new(world.faulty(&[Fault::None, Fault::Refuse, Fault::Hang]));
    world.run(store.put("a", body())).unwrap();
    world.run(store.put("a", body())).unwrap_err();
    {
        let mut hanging = pin!(store.put("a", body()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(hanging.as_mut().poll(&mut context).is_pending());
        assert_eq!(store.counters().snapshot().put.in_flight, 1);
    }
    world.run(store.get_range("a", 1..3)).unwrap();
    let snapshot = store.counters().snapshot();
    assert_eq!((snapshot.put.requests, snapshot.put.errors, snapshot.put.abandoned), (3, 1, 1));
    assert_eq!((snapshot.put.bytes, snapshot.get.bytes, snapshot.put.in_flight), (5, 2, 0));
}

/// Draws the same bits again and again.
struct Constant(u64);

impl Rng for Constant {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.to_le_bytes()[..bytes.len()]);
    }
}

/// When each of the first ten attempts at a store that says 503 started, with `rng` as jitter.
fn attempts_at_a_busy_store(rng: u64) -> Vec<Duration> {
    struct Recorder {
        clock: Arc<JumpClock>,
        started: Arc<Mutex<Vec<Duration>>>,
    }
    impl fault::FaultScript for Recorder {
        fn next(&mut self, _operation: &'static str, _key: &str) -> Fault {
            let mut started = self.started.lock().unwrap();
            started.push(self.clock.mono().since_zero());
            if started.len() < 10 { Fault::SlowDown } else { Fault::None }
        }
    }
    let mut world = World::new();
    world.seams.rng = Arc::new(Constant(rng));
    let started = Arc::default();
    let script = Recorder { clock: Arc::clone(&world.clock), started: Arc::clone(&started) };
    let busy = FaultStore::new(MemoryStore::new(), script, world.seams.clone());
    let store = RetryingStore::new(busy, RetryPolicy::default(), world.seams.clone());
    world.run(store.put("a", body())).unwrap();
    let started = started.lock().unwrap().clone();
    started.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_store_that_says_slow_down_is_left_alone_longer_each_time_and_never_in_step() {
    let policy = RetryPolicy::default();
    let shortest = attempts_at_a_busy_store(0);
    // Half of the first pause is 25 ms; the draw that reaches the whole of it is one less than
    // the number of choices.
    let other = attempts_at_a_busy_store(20_000);
    let mut pause = policy.backoff_first;
    for (n, (short, other)) in shortest.iter().zip(&other).enumerate() {
        assert_eq!(*short, pause / 2, "pause {n}");
        assert!(pause / 2 < *other && *other <= pause, "pause {n}: {other:?} of {pause:?}");
        pause = (pause * 2).min(policy.backoff_max);
    }
    assert_eq!(pause, policy.backoff_max, "ten attempts reach the longest pause");
}

/// A store that a test can look into from behind the decorators.
struct Shared(Arc<MemoryStore>);

#[async_trait]
impl Store for Shared {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.0.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.0.put_if_absent(key, body).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.0.get(key).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.0.delete_many(keys).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.0.list(prefix, start_after, limit).await
    }
}

/// The whole stack of a process: retry(hedge(metered(faults))).
type Stack = RetryingStore<HedgedStore<MeteredStore<FaultStore<Shared>>>>;

/// The stack over `memory`, its counters, and what makes requests fail.
fn stack(
    world: &World,
    memory: &Arc<MemoryStore>,
    script: impl fault::FaultScript,
) -> (Stack, metered::StoreCounters) {
    let faulty = FaultStore::new(Shared(Arc::clone(memory)), script, world.seams.clone());
    let metered = MeteredStore::new(faulty);
    let counters = metered.counters();
    let hedged = HedgedStore::new(metered, world.seams.clone());
    (RetryingStore::new(hedged, RetryPolicy::default(), world.seams.clone()), counters)
}

/// Answers within 20 ms for a while, then hangs for ever; watches how many are under way.
struct HangsLater {
    answers_left: usize,
    under_way_max: Arc<Mutex<u64>>,
    counters: Arc<Mutex<Option<metered::StoreCounters>>>,
}

impl fault::FaultScript for HangsLater {
    fn next(&mut self, _operation: &'static str, _key: &str) -> Fault {
        if let Some(counters) = &*self.counters.lock().unwrap() {
            let mut most = self.under_way_max.lock().unwrap();
            *most = (*most).max(counters.snapshot().put.in_flight);
        }
        let Some(left) = self.answers_left.checked_sub(1) else { return Fault::Hang };
        self.answers_left = left;
        Fault::Delay(Duration::from_millis(20))
    }
}

#[test]
fn a_store_that_hangs_costs_bounded_requests_and_keeps_no_body() {
    const CALLERS: u64 = 100;
    const LEARNED: u64 = 1000;
    let world = World::new();
    let (under_way_max, seen) = (Arc::default(), Arc::default());
    let script = HangsLater {
        answers_left: LEARNED as usize,
        under_way_max: Arc::clone(&under_way_max),
        counters: Arc::clone(&seen),
    };
    let memory = Arc::new(MemoryStore::new());
    let (store, counters) = stack(&world, &memory, script);
    *seen.lock().unwrap() = Some(counters.clone());
    for _ in 0..LEARNED {
        world.run(store.put("usual", body())).unwrap();
    }
    let before = world.elapsed();
    let shared = Bytes::from(vec![7; 64 << 10]);
    let keys: Vec<String> = (0..CALLERS).map(|n| format!("hanging/{n}")).collect();
    let puts = keys.iter().map(|key| store.put(key, vec![shared.clone()]));
    let results = world.run(futures::future::join_all(puts));

    assert!(results.iter().all(|put| put.as_ref().unwrap_err().outcome == Outcome::Indefinite));
    let policy = RetryPolicy::default();
    assert!(world.elapsed() - before <= policy.total_timeout);
    let put = counters.snapshot().put;
    let attempts = CALLERS * (policy.total_timeout.as_secs() / policy.attempt_timeout.as_secs());
    let hedges_max = 10 + attempts / 50;
    assert!(put.requests - LEARNED <= attempts + hedges_max, "{put:?}");
    let under_way_max = *under_way_max.lock().unwrap();
    assert!(CALLERS < under_way_max, "some were hedged");
    assert!(under_way_max <= CALLERS + hedges_max, "two for few, one for most");
    assert_eq!((put.in_flight, put.abandoned), (0, put.requests - LEARNED), "{put:?}");
    drop(results);
    assert!(shared.is_unique(), "an attempt that was given up keeps nothing");
}

proptest::proptest! {
    #[test]
    fn a_put_that_failed_for_certain_left_nothing(
        faults in proptest::collection::vec(0..6_u8, 0..60),
        learned in proptest::sample::select(vec![0_usize, 200]),
    ) {
        let fault = |kind| match kind {
            0 => Fault::Refuse,
            1 => Fault::SlowDown,
            2 => Fault::LoseAnswer,
            3 => Fault::Hang,
            4 => Fault::Delay(Duration::from_secs(3)),
            _ => Fault::Refuse,
        };
        let world = World::new();
        let usual = vec![Fault::Delay(Duration::from_millis(20)); learned];
        // Refusals for ever behind the drawn ones, so that some puts do fail.
        let script = usual.into_iter().chain(faults.into_iter().map(fault));
        let script: VecDeque<Fault> = script.chain(vec![Fault::Refuse; 400]).collect();
        let memory = Arc::new(MemoryStore::new());
        let (store, _) = stack(&world, &memory, script);
        for _ in 0..learned {
            world.run(store.put("usual", body())).unwrap();
        }
        let put = world.run(store.put("a", body()));
        let stands = world.run(memory.get("a")).is_ok();
        match put {
            Ok(()) => proptest::prop_assert!(stands),
            Err(error) if error.outcome == Outcome::Indefinite => {}
            Err(error) => proptest::prop_assert!(!stands, "{error}"),
        }
    }
}
