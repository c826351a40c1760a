//! The seams to the world: clock, randomness, tasks and network. Production uses [`system`]; the
//! simulator brings its own. No other file reads a clock or draws randomness.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use self::net::Net;
use crate::model::Timestamp;

pub mod net;

/// A future that can be stored behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A point on a process's monotonic clock, comparable only within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonoTime(Duration);

impl MonoTime {
    /// Time since the clock's own zero.
    pub const fn from_zero(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time since the clock's own zero.
    pub const fn since_zero(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for MonoTime {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0 + later)
    }
}

/// The two clocks of a process, and sleeping on the monotonic one.
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock: deadlines and durations.
    fn mono(&self) -> MonoTime;

    /// The wall clock: only for record timestamps, retention and expiry. May go back.
    fn wall(&self) -> Timestamp;

    /// Completes once `mono` has reached `deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()>;
}

/// Randomness for ids, nonces and jitter.
pub trait Rng: Send + Sync + 'static {
    /// Fills `bytes` with random bits.
    fn fill(&self, bytes: &mut [u8]);

    /// 64 random bits.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Starts background tasks.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` to its end in the background. `name` says what it is in traces.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// Runs `work`, which computes for long and waits for nothing, where it keeps no task waiting.
    /// Where there is one thread it is a task like any other.
    fn compute(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.spawn(name, Box::pin(async move { work() }));
    }
}

/// The seams, handed down from `main` to everything that needs one.
#[derive(Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// Connections.
    pub net: Arc<dyn Net>,
}

impl Seams {
    /// Completes after `duration` on the monotonic clock.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(self.clock.mono() + duration)
    }

    /// Runs `task` in the background.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn.spawn(name, Box::pin(task));
    }

    /// What `work` gives, which computes for long and waits for nothing; `None` when it panicked or
    /// the process ends.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the result, not the work: bound how much there is at a time.
    pub async fn compute<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        let work = move || drop(done.send(work())); // Nobody may wait for it any more.
        self.spawn.compute(name, Box::new(work));
        result.await.ok()
    }

    /// Runs `future` for at most `duration`; `None` when it did not finish and was dropped.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let sleep = self.sleep(duration);
        tokio::select! {
            biased; // A result that is ready at the deadline still counts.
            value = future => Some(value),
            () = sleep => None,
        }
    }
}

/// The real world: the operating system's clocks and randomness, and the tokio runtime.
#[expect(clippy::disallowed_methods, reason = "this is the seam that wraps them")]
pub mod system {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    struct SystemClock {
        zero: Instant,
    }

    struct SystemRng;

    struct TokioSpawn;

    impl Clock for SystemClock {
        fn mono(&self) -> MonoTime {
            MonoTime::from_zero(self.zero.elapsed())
        }

        fn wall(&self) -> Timestamp {
            // Before 1970 reads as 1970: a wall clock never decides safety.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        }

        fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep_until((self.zero + deadline.since_zero()).into()))
        }
    }

    impl Rng for SystemRng {
        fn fill(&self, bytes: &mut [u8]) {
            getrandom::fill(bytes).expect("the operating system gives random bytes");
        }
    }

    impl Spawn for TokioSpawn {
        fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
            drop(tokio::spawn(task)); // Detached: the task ends by its own shutdown signal.
        }

        fn compute(&self, _name: &'static str, work: Box<dyn FnOnce() + Send>) {
            drop(tokio::task::spawn_blocking(work));
        }
    }

    /// The seams of a real process. Call within a tokio runtime's lifetime.
    pub fn seams() -> Seams {
        Seams {
            clock: Arc::new(SystemClock { zero: Instant::now() }),
            rng: Arc::new(SystemRng),
            spawn: Arc::new(TokioSpawn),
            net: Arc::new(net::TcpNet),
        }
    }
}
