//! Pauses between tries that go on for ever, and how often they may log.

use std::time::Duration;

use aquifer_storage::seam::{MonoTime, Seams};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// One line says it all; the next is due this much later.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Doubling pauses with jitter, from 50 ms to 2 s.
pub(crate) struct Backoff {
    seams: Seams,
    pause: Duration,
    line_due: Option<MonoTime>,
}

impl Backoff {
    /// A backoff that has not paused yet.
    pub(crate) fn new(seams: Seams) -> Self {
        Self { seams, pause: PAUSE_MIN, line_due: None }
    }

    /// The next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.pause = PAUSE_MIN;
        self.line_due = None;
    }

    /// Whether a log line is due; true at most once per 10 s.
    pub(crate) fn is_line_due(&mut self) -> bool {
        let now = self.seams.clock.mono();
        let due = self.line_due.is_none_or(|due| due <= now);
        if due {
            self.line_due = Some(now + LINE_EVERY);
        }
        due
    }

    /// Waits between half of the current pause and all of it, then doubles it.
    ///
    /// # Cancel safety
    /// Dropping the future skips the rest of the pause.
    pub(crate) async fn pause(&mut self) {
        let half = self.pause / 2;
        let jitter_us = self.seams.rng.next_u64() % (half.as_micros() as u64 + 1);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.seams.sleep(half + Duration::from_micros(jitter_us)).await;
    }
}
