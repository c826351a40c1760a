//! A load in equal intervals: how long an incident lasts shows here, not in one percentile.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::stats::Answer;
use crate::bench::{clock::Window, process::mib};

/// More intervals than this would take hundreds of megabytes.
pub const INTERVALS_MAX: usize = 2000;

/// Two digits suffice for a course of time, and take a tenth of the memory of three.
const DIGITS: u8 = 2;

/// What each interval saw.
#[derive(Debug)]
pub struct Timeline {
    window: Window,
    interval_micros: u64,
    seen: Vec<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    from_intended: Histogram<u64>,
    batches: u64,
    refused: u64,
}

/// One interval.
#[derive(Clone, Debug, Serialize)]
pub struct Interval {
    /// Its start, in seconds after the first request was due.
    at_s: f64,
    /// Requests due in it that were appended, whenever that was.
    acks: u64,
    /// Of those, from the intended send time; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    /// Bytes of batches whose acknowledgement came in it, by its length.
    mib_per_s: f64,
    /// Batches whose refusal came in it.
    refused: u64,
}

impl Timeline {
    /// Nothing yet, of a window cut into intervals; the last one may be shorter.
    pub fn new(window: Window, interval_micros: u64) -> Self {
        let interval_micros = interval_micros.max(1);
        let count = (window.end - window.start).div_ceil(interval_micros);
        let count = usize::try_from(count).unwrap_or(INTERVALS_MAX).clamp(1, INTERVALS_MAX + 1);
        let seen = || Seen {
            from_intended: Histogram::new_with_bounds(1, 600_000_000, DIGITS)
                .expect("bounds are in order"),
            batches: 0,
            refused: 0,
        };
        let seen = (0..count).map(|_| Mutex::new(seen())).collect();
        Self { window, interval_micros, seen }
    }

    /// Adds an answer.
    pub fn add(&self, answer: &Answer) {
        let appended = answer.codes.iter().filter(|code| **code == 0).count();
        let refused = answer.codes.len() - appended;
        self.with(answer.answered_micros, |seen| {
            seen.batches += appended as u64;
            seen.refused += refused as u64;
        });
        let intended = answer.sent.intended_micros;
        if refused == 0 {
            let latency = answer.answered_micros.saturating_sub(intended);
            self.with(intended, |seen| seen.from_intended.saturating_record(latency));
        }
    }

    /// All of them, with batches of `batch_bytes`.
    pub fn intervals(&self, batch_bytes: u64) -> Vec<Interval> {
        let interval = |(index, seen): (usize, &Mutex<Seen>)| {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let from = index as u64 * self.interval_micros;
            let length = (self.window.end - self.window.start - from).min(self.interval_micros);
            let at = |quantile| {
                let latency = &seen.from_intended;
                (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64 / 1e3)
            };
            Interval {
                at_s: from as f64 / 1e6,
                acks: seen.from_intended.len(),
                p50_ms: at(0.5),
                p99_ms: at(0.99),
                mib_per_s: mib(seen.batches * batch_bytes) * 1e6 / length.max(1) as f64,
                refused: seen.refused,
            }
        };
        self.seen.iter().enumerate().map(interval).collect()
    }

    fn with(&self, at_micros: u64, change: impl FnOnce(&mut Seen)) {
        if self.window.contains(at_micros) {
            let index = (at_micros - self.window.start) / self.interval_micros;
            let seen = usize::try_from(index).ok().and_then(|index| self.seen.get(index));
            if let Some(seen) = seen {
                change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::in_flight::Sent, *};

    fn answer(intended: u64, answered: u64, codes: &[i16]) -> Answer {
        let sent = Sent {
            correlation_id: 0,
            intended_micros: intended,
            written_micros: intended,
            generation: 0,
        };
        Answer { sent, answered_micros: answered, codes: codes.to_vec(), is_outdated: false }
    }

    #[test]
    fn latency_counts_where_a_request_was_due_and_bytes_where_they_were_acknowledged() {
        let window = Window { start: 1_000_000, end: 3_500_000 };
        let timeline = Timeline::new(window, 1_000_000);
        timeline.add(&answer(1_500_000, 3_200_000, &[0, 0]));
        timeline.add(&answer(2_500_000, 2_600_000, &[6, 0]));
        timeline.add(&answer(3_400_000, 9_000_000, &[0]));
        timeline.add(&answer(3_500_000, 3_600_000, &[0]));
        let seen = timeline.intervals(1 << 20);
        let acks: Vec<_> = seen.iter().map(|i| (i.at_s, i.acks, i.refused)).collect();
        assert_eq!(acks, [(0.0, 1, 0), (1.0, 0, 1), (2.0, 1, 0)]);
        let rates: Vec<_> = seen.iter().map(|i| i.mib_per_s).collect();
        assert_eq!(rates, [0.0, 1.0, 4.0], "the last interval is half as long");
        assert!(seen[1].p50_ms.is_none());
        assert!(seen[0].p50_ms.is_some_and(|p50| (1690.0..1720.0).contains(&p50)), "{seen:?}");
    }

    #[test]
    fn a_window_that_ends_where_it_starts_has_an_interval_all_the_same() {
        let timeline = Timeline::new(Window { start: 5, end: 5 }, 0);
        timeline.add(&answer(5, 6, &[0]));
        assert_eq!(timeline.intervals(1).len(), 1);
    }
}
