//! A clock that tests move by hand, and the seams around it.

use std::{sync::Arc, time::Duration};

use aquifer_storage::{
    model::Timestamp,
    seam::{BoxFuture, Clock, MonoTime, Seams, Spawn, system},
};
use tokio::sync::watch;

/// Stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    now: watch::Sender<Duration>,
}

impl ManualClock {
    /// Moves the clock and lets every task do what it can.
    pub(crate) async fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
        settle().await;
    }
}

impl Clock for ManualClock {
    fn mono(&self) -> MonoTime {
        MonoTime::from_zero(*self.now.borrow())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            let _ = now.wait_for(|now| deadline.since_zero() <= *now).await;
        })
    }
}

/// Seams over a clock of the test's own.
pub(crate) fn manual_seams() -> (Arc<ManualClock>, Seams) {
    let clock = Arc::new(ManualClock::default());
    (clock.clone(), Seams { clock, spawn: Arc::new(TasksOnly), ..system::seams() })
}

/// Long computations are tasks too, so that [`settle`] waits for them.
struct TasksOnly;

impl Spawn for TasksOnly {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }
}

/// Lets every task of a single-threaded test run until all wait.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
