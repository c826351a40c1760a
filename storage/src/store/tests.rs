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
    seam::{BoxFuture, Clock, MonoTime, Rng, Seams, Spawn},
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
        let seams = Seams { clock: clock.clone(), rng: Arc::new(Zeros), spawn: Arc::new(NoTasks) };
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
            let (deadline, _) = state.sleepers.pop_first().expect("something sleeps");
            state.now = state.now.max(deadline);
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
