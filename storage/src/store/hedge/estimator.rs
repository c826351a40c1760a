//! When an answer is late enough to ask again, and whether we may. Pure.
//!
//! Latencies are kept per size class in logarithmic buckets that fade, so the estimate follows the
//! store within some thousand requests and costs no memory to speak of.

use std::time::Duration;

/// An answer later than this part of all answers is late: 985 of 1000 lies between p98 and p99.
const LATE_PER_MILLE: u64 = 985;

/// One hedge for this many requests: the 2 percent by which hedges may raise the bill.
const REQUESTS_PER_HEDGE: u32 = 50;

/// Hedges that a quiet time may save up.
const SAVED_HEDGES_MAX: u32 = 10;

/// With fewer answers seen, the estimate is noise.
const SAMPLES_MIN: u64 = 100;

/// All buckets are halved at this many samples, so that old answers fade.
const SAMPLES_MAX: u64 = 4096;

/// Buckets per doubling of the latency.
const STEPS_PER_DOUBLING: usize = 4;

/// From 1 ms to 65 s.
const BUCKETS: usize = 16 * STEPS_PER_DOUBLING;

/// Bodies up to these sizes, and larger ones, have latencies of their own.
const CLASS_BYTES: [u64; 3] = [64 * 1024, 1024 * 1024, 8 * 1024 * 1024];

/// Decides when to hedge the requests of one kind.
#[derive(Clone, Debug)]
pub struct HedgeEstimator {
    classes: [Latencies; CLASS_BYTES.len() + 1],
    /// In parts of a hedge: each request adds one, a hedge costs [`REQUESTS_PER_HEDGE`].
    saved: u32,
}

#[derive(Clone, Debug)]
struct Latencies {
    counts: [u64; BUCKETS],
    samples: u64,
}

impl Default for HedgeEstimator {
    fn default() -> Self {
        let empty = Latencies { counts: [0; BUCKETS], samples: 0 };
        Self { classes: std::array::from_fn(|_| empty.clone()), saved: 0 }
    }
}

impl HedgeEstimator {
    /// A request of `body_bytes` starts: how long to wait before [`Self::take_hedge`] is asked.
    /// `None` while too little is known.
    pub fn start(&mut self, body_bytes: u64) -> Option<Duration> {
        self.saved = (self.saved + 1).min(SAVED_HEDGES_MAX * REQUESTS_PER_HEDGE);
        self.classes[class_of(body_bytes)].late_after()
    }

    /// Takes a hedge out of the budget; `false` when there is none.
    pub fn take_hedge(&mut self) -> bool {
        let left = self.saved.checked_sub(REQUESTS_PER_HEDGE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }

    /// A request of `body_bytes` succeeded after `elapsed`.
    pub fn observe(&mut self, body_bytes: u64, elapsed: Duration) {
        self.classes[class_of(body_bytes)].observe(elapsed);
    }
}

impl Latencies {
    fn observe(&mut self, elapsed: Duration) {
        self.counts[bucket_of(elapsed)] += 1;
        self.samples += 1;
        if SAMPLES_MAX <= self.samples {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.samples = self.counts.iter().sum();
        }
    }

    fn late_after(&self) -> Option<Duration> {
        if self.samples < SAMPLES_MIN {
            return None;
        }
        let wanted = (self.samples * LATE_PER_MILLE).div_ceil(1000);
        let mut seen = 0;
        let late = self.counts.iter().position(|count| {
            seen += count;
            wanted <= seen
        });
        late.map(upper_bound)
    }
}

fn class_of(body_bytes: u64) -> usize {
    CLASS_BYTES.iter().take_while(|&&most| most < body_bytes).count()
}

fn bucket_of(elapsed: Duration) -> usize {
    (0..BUCKETS - 1).find(|&bucket| elapsed <= upper_bound(bucket)).unwrap_or(BUCKETS - 1)
}

/// The longest latency of a bucket: 1 ms doubled, in equal steps between two doublings.
fn upper_bound(bucket: usize) -> Duration {
    let doubled = Duration::from_millis(1 << (bucket / STEPS_PER_DOUBLING));
    let step = u32::try_from(bucket % STEPS_PER_DOUBLING).expect("a few steps");
    doubled + doubled * step / STEPS_PER_DOUBLING as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_hedged_before_enough_is_known() {
        let mut estimator = HedgeEstimator::default();
        for _ in 0..SAMPLES_MIN {
            assert_eq!(estimator.start(1), None);
            estimator.observe(1, MS * 20);
        }
        assert_eq!(estimator.start(1), Some(MS * 20));
        assert_eq!(estimator.start(10 << 20), None, "another size class");
    }

    #[test]
    fn the_delay_lies_between_the_usual_and_the_slowest() {
        let mut estimator = HedgeEstimator::default();
        for n in 0..1000 {
            estimator.observe(1, if n % 100 == 0 { MS * 900 } else { MS * 20 });
        }
        let delay = estimator.start(1).unwrap();
        assert!(MS * 20 <= delay && delay < MS * 100, "{delay:?}");
    }

    #[test]
    fn the_delay_follows_a_store_that_becomes_slower() {
        let mut estimator = HedgeEstimator::default();
        for _ in 0..10_000 {
            estimator.observe(1, MS * 10);
        }
        for _ in 0..10_000 {
            estimator.observe(1, MS * 400);
        }
        assert!(MS * 300 < estimator.start(1).unwrap());
    }

    #[test]
    fn hedges_stay_within_two_percent_and_a_short_burst() {
        let mut estimator = HedgeEstimator::default();
        let hedges = (0..10_000).filter(|_| {
            estimator.start(1);
            estimator.take_hedge()
        });
        assert_eq!(hedges.count(), 200);
        for _ in 0..100_000 {
            estimator.start(1);
        }
        assert_eq!((0..100).filter(|_| estimator.take_hedge()).count(), 10);
    }
}
