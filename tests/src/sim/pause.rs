//! A process that gets no CPU for a while, as with SIGSTOP or a host that steals it.
//!
//! What a stopped process does not do: run its tasks, read or write its connections, hear from the
//! store. Its clocks go on, and what arrives meanwhile is there when it wakes. Tasks that libraries
//! spawned are stopped only by what they wait for: connections do nothing without the network, but
//! Raft's own timer runs on, so a woken metadata node may know sooner than a real one that it lost
//! its leadership.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use aquifer_storage::seam::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

/// Whether a process is stopped. Clones share it.
#[derive(Clone, Default)]
pub struct Pause(Arc<Mutex<Option<Instant>>>);

impl Pause {
    /// Stops the process until then, or longer if it was stopped for longer.
    pub fn until(&self, wakes: Instant) {
        let mut known = self.0.lock().expect("no holder of this lock panics");
        *known = (*known).max(Some(wakes));
    }

    fn wakes(&self) -> Option<Instant> {
        let known = *self.0.lock().expect("no holder of this lock panics");
        known.filter(|wakes| Instant::now() < *wakes)
    }

    /// Completes while the process runs.
    pub async fn passed(&self) {
        while let Some(wakes) = self.wakes() {
            sleep_until(wakes).await;
        }
    }
}

/// One thing a process does, which it does not while it is stopped.
pub struct Gate {
    pause: Pause,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    /// Of the process that `pause` stops.
    pub const fn new(pause: Pause) -> Self {
        Self { pause, sleep: None }
    }

    /// Ready while the process runs.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(wakes) = self.pause.wakes() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(wakes)));
            if sleep.deadline() != wakes {
                sleep.as_mut().reset(wakes);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.sleep = None;
        Poll::Ready(())
    }
}

/// A task of a process.
pub struct Gated {
    gate: Gate,
    task: BoxFuture<'static, ()>,
}

impl Gated {
    /// `task`, which rests while the process is stopped.
    pub const fn new(pause: Pause, task: BoxFuture<'static, ()>) -> Self {
        Self { gate: Gate::new(pause), task }
    }
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.gate.poll(context) {
            Poll::Ready(()) => self.task.as_mut().poll(context),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_does_nothing_until_it_wakes() {
        let (pause, began) = (Pause::default(), Instant::now());
        let second = Duration::from_secs(1);
        let task = Gated::new(pause.clone(), Box::pin(async move { sleep(second).await }));
        pause.until(began + 3 * second);
        pause.until(began + 2 * second);
        task.await;
        assert_eq!(began.elapsed(), 4 * second, "its second began when it woke");
        pause.passed().await;
        assert_eq!(began.elapsed(), 4 * second);
    }
}
