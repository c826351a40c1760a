//! From counts to figures [pure].

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Bytes in a GiB.
pub const GIB: f64 = 1_073_741_824.0;

/// What one measurement counted.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Bytes moved.
    pub bytes: u64,
    /// CPU time of the one thread that counts.
    pub cpu: Duration,
    /// Time that passed.
    pub wall: Duration,
}

/// One sample per round.
pub type Samples = Vec<Sample>;

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`, to four significant digits; `None` without a finite one.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Some(Self {
            median: four_digits(f64::midpoint(lower, upper)),
            min: four_digits(min),
            max: four_digits(max),
        })
    }
}

/// `value` to four significant digits.
fn four_digits(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let decimals = 3 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(decimals.clamp(-300, 300));
    (value * scale).round() / scale
}

/// How many bytes a thread moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// GiB per second of the thread's CPU time.
    pub gib_per_cpu_s: Spread,
    /// GiB per second that passed.
    pub gib_per_s: Spread,
}

impl Throughput {
    /// Of all rounds; `None` when none took any time.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let gib = |sample: &Sample| sample.bytes as f64 / GIB;
        Some(Self {
            gib_per_cpu_s: Spread::of(samples.iter().map(|of| gib(of) / of.cpu.as_secs_f64()))?,
            gib_per_s: Spread::of(samples.iter().map(|of| gib(of) / of.wall.as_secs_f64()))?,
        })
    }
}

/// What a GiB costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// CPU-seconds per GiB.
    pub cpu_s_per_gib: Spread,
}

impl Cost {
    /// Of all rounds; `None` without bytes.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let cost = |of: &Sample| of.cpu.as_secs_f64() * GIB / of.bytes as f64;
        Some(Self { cpu_s_per_gib: Spread::of(samples.iter().map(cost))? })
    }
}

/// A distribution of round trips, in microseconds: milliseconds are too coarse for loopback.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTrip {
    /// Round trips.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

impl RoundTrip {
    /// Summary of a histogram of nanoseconds.
    pub fn of_nanos(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| four_digits(histogram.value_at_quantile(quantile) as f64 / 1000.0);
        Self { count: histogram.len(), p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99) }
    }
}

/// A histogram of nanoseconds up to ten seconds, three significant digits.
pub fn nanos_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("bounds are in order")
}

/// `bytes` as people write it, such as `64KiB`.
pub fn size_name(bytes: usize) -> String {
    const MIB: usize = 1 << 20;
    match bytes {
        bytes if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{}KiB", bytes / 1024),
        bytes => format!("{bytes}B"),
    }
}
