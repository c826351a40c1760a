//! The requests of one connection that have no answer yet: what its writer and its reader share.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// What its answer is told by.
    pub correlation_id: i32,
    /// When it was meant to leave, in microseconds since the Unix epoch.
    pub intended_micros: u64,
    /// When its write began.
    pub written_micros: u64,
    /// How many producer ids the connection had before the one it was sent with.
    pub generation: u32,
}

/// A bounded queue of them: a broker answers in the order of the requests.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Sent>,
    /// Whether the writer sleeps; waking nobody would cost a system call.
    writer_waits: bool,
    failed: Option<String>,
}

impl InFlight {
    /// Room for `limit` requests.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until fewer than the limit are on their way.
    ///
    /// # Errors
    /// The reader failed, or no answer came within `patience`.
    pub fn wait_for_room(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait_for_fewer_than(self.limit, patience)
    }

    /// Waits until none is on its way.
    ///
    /// # Errors
    /// The reader failed, or the answers did not come within `patience`.
    pub fn wait_until_empty(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait_for_fewer_than(1, patience)
    }

    fn wait_for_fewer_than(&self, limit: usize, patience: Duration) -> anyhow::Result<()> {
        let mut state = self.lock();
        let mut deadline = None;
        while state.failed.is_none() && limit <= state.queue.len() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} requests have no answer after {patience:?}", state.queue.len());
            }
            state.writer_waits = true;
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.writer_waits = false;
        state.failed.as_ref().map_or(Ok(()), |reason| Err(anyhow!("{reason}")))
    }

    /// Adds a request, just before its write begins.
    pub fn push(&self, sent: Sent) {
        self.lock().queue.push_back(sent);
    }

    /// The request that the next answer is for.
    pub fn pop(&self) -> Option<Sent> {
        let mut state = self.lock();
        let sent = state.queue.pop_front();
        if state.writer_waits {
            self.changed.notify_one();
        }
        sent
    }

    /// Tells the writer that no more answers will come.
    pub fn fail(&self, reason: String) {
        let mut state = self.lock();
        state.failed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// How many are on their way.
    pub fn count(&self) -> usize {
        self.lock().queue.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn until_the_writer_waits(in_flight: &InFlight) {
        while !in_flight.lock().writer_waits {
            thread::yield_now();
        }
    }

    fn sent(correlation_id: i32) -> Sent {
        Sent { correlation_id, intended_micros: 0, written_micros: 0, generation: 0 }
    }

    #[test]
    fn a_writer_waits_at_the_limit_until_an_answer_makes_room() {
        let in_flight = InFlight::new(2);
        in_flight.push(sent(1));
        in_flight.wait_for_room(Duration::ZERO).unwrap();
        in_flight.push(sent(2));
        in_flight.wait_for_room(Duration::ZERO).unwrap_err();
        thread::scope(|scope| {
            let writer = scope.spawn(|| in_flight.wait_for_room(LONG));
            until_the_writer_waits(&in_flight);
            assert_eq!(in_flight.pop().unwrap().correlation_id, 1);
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_failed_reader_ends_the_wait_of_its_writer() {
        let in_flight = InFlight::new(1);
        in_flight.push(sent(1));
        let begun = Instant::now();
        thread::scope(|scope| {
            let writer = scope.spawn(|| in_flight.wait_until_empty(LONG));
            until_the_writer_waits(&in_flight);
            in_flight.fail("reset by peer".into());
            let error = writer.join().unwrap().unwrap_err();
            assert_eq!(error.to_string(), "reset by peer");
        });
        assert!(begun.elapsed() < LONG, "the writer was woken");
    }
}
