//! Counts bytes against the calling thread's CPU time and the wall.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::figures::Sample;

/// A tenth of a measurement goes before it: sockets open their windows, caches and pools fill.
const WARM_UP_PART: u32 = 10;

/// A measurement lasts until it has this much: on a machine that gives a thread no turn for a
/// while, time alone may pass without a byte.
const SAMPLE_BYTES_MIN: u64 = 16 << 20;

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // The kernel's CPU clocks start at zero and never hold a whole second of nanoseconds.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// CPU time that the calling thread has used, system time included.
pub fn thread_cpu() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

/// CPU time that all threads of the process have used.
pub fn process_cpu() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

/// One measurement, made and read by the one thread that it is about.
pub struct Meter {
    warm_up: Option<Duration>,
    started: Instant,
    cpu: Duration,
    bytes: u64,
}

impl Meter {
    /// Starts to measure after a warm-up that fits a measurement of `run`.
    pub fn warming(run: Duration) -> Self {
        Self { warm_up: Some(run / WARM_UP_PART), ..Self::now() }
    }

    /// Starts to measure now.
    pub fn now() -> Self {
        Self { warm_up: None, started: Instant::now(), cpu: thread_cpu(), bytes: 0 }
    }

    /// Counts `bytes`; forgets all counted so far when this ends the warm-up.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.warm_up.is_some_and(|warm_up| warm_up <= self.started.elapsed()) {
            *self = Self::now();
        }
    }

    /// Whether a warm-up and a whole measurement of `run` have passed, and enough was counted.
    pub fn is_over(&self, run: Duration) -> bool {
        let counted = self.warm_up.is_none() && SAMPLE_BYTES_MIN <= self.bytes;
        counted && run <= self.started.elapsed()
    }

    /// What was counted. A measurement that ended within its warm-up is better than none.
    pub fn sample(&self) -> Sample {
        Sample {
            bytes: self.bytes,
            cpu: thread_cpu().saturating_sub(self.cpu),
            wall: self.started.elapsed(),
        }
    }
}
