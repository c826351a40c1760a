//! Microseconds since the Unix epoch that never step back within one process.
//!
//! A producer stamps its batches with them and a reader, perhaps in another process of the same
//! machine, subtracts.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The wall clock, read once, carried on by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct BenchClock {
    anchor: Instant,
    anchor_micros: u64,
}

impl BenchClock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        let anchor = Instant::now();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor, anchor_micros: micros(since_epoch) }
    }

    /// Microseconds since the Unix epoch.
    pub fn now_micros(&self) -> u64 {
        self.anchor_micros + micros(self.anchor.elapsed())
    }

    /// Blocks this thread until `at_micros`: threads wake within 0.1 ms, the timers of an
    /// asynchronous runtime within 1 ms.
    pub fn sleep_until(&self, at_micros: u64) {
        let left = at_micros.saturating_sub(self.now_micros());
        if left != 0 {
            thread::sleep(Duration::from_micros(left));
        }
    }
}

/// The measured time, in microseconds since the Unix epoch, the end exclusive.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its start.
    pub start: u64,
    /// Its end.
    pub end: u64,
}

impl Window {
    /// Whether a moment lies in it.
    pub fn contains(&self, micros: u64) -> bool {
        (self.start..self.end).contains(&micros)
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1e6
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
