//! The parts of an acknowledgement and how they add up under a flush timer [pure].

use rand::{Rng, rngs::StdRng};
use rand_distr::StandardNormal;
use serde::Serialize;

use super::FloorRefused;

/// The 99th percentile of the standard normal distribution.
const Z_P99: f64 = 2.326_347_874_040_841;

/// No modelled delay is longer: ten minutes, as the histograms.
const DELAY_MS_MAX: f64 = 600_000.0;

/// A lognormal delay, known by two percentiles; or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    p50_ms: f64,
    sigma: f64,
}

impl Delay {
    /// The delay with median `p50_ms` and 99th percentile `p99_ms`; none when both are 0.
    ///
    /// # Errors
    /// Percentiles out of order or out of range.
    pub fn new(p50_ms: f64, p99_ms: f64) -> Result<Self, FloorRefused> {
        if p50_ms == 0.0 && p99_ms == 0.0 {
            return Ok(Self { p50_ms: 0.0, sigma: 0.0 });
        }
        let fits = 0.0 < p50_ms && p50_ms <= p99_ms && p99_ms <= DELAY_MS_MAX;
        if !fits {
            return Err(FloorRefused::Delay { p50: p50_ms, p99: p99_ms });
        }
        Ok(Self { p50_ms, sigma: (p99_ms / p50_ms).ln() / Z_P99 })
    }

    /// One delay in milliseconds.
    pub fn draw_ms(&self, rng: &mut StdRng) -> f64 {
        let z: f64 = rng.sample(StandardNormal);
        self.p50_ms * (self.sigma * z).exp()
    }
}

/// How many copies of an object are written, and how many of them are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    acks: usize,
    copies: usize,
}

impl Quorum {
    /// One copy.
    pub const ONE: Self = Self { acks: 1, copies: 1 };

    /// Copies beyond this would be a typing error.
    const COPIES_MAX: usize = 16;

    /// Waits for `acks` of `copies`.
    ///
    /// # Errors
    /// Waiting for none, or for more than are written.
    pub fn new(acks: usize, copies: usize) -> Result<Self, FloorRefused> {
        if 1 <= acks && acks <= copies && copies <= Self::COPIES_MAX {
            Ok(Self { acks, copies })
        } else {
            Err(FloorRefused::Quorum { acks, copies })
        }
    }
}

/// Requests that are slow for no reason of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    fraction: f64,
    factor: f64,
}

impl Tail {
    /// No request is slow.
    pub const NONE: Self = Self { fraction: 0.0, factor: 1.0 };

    /// `fraction` of all requests takes `factor` times as long.
    ///
    /// # Errors
    /// A fraction outside 0 to 1, a factor outside 1 to 1000.
    pub fn new(fraction: f64, factor: f64) -> Result<Self, FloorRefused> {
        if (0.0..=1.0).contains(&fraction) && (1.0..=1000.0).contains(&factor) {
            Ok(Self { fraction, factor })
        } else {
            Err(FloorRefused::Tail { fraction, factor })
        }
    }
}

/// A request to the store, of as many copies as its quorum says.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    delay: Delay,
    quorum: Quorum,
    tail: Tail,
}

impl Request {
    /// A request whose copies are independent.
    pub fn new(delay: Delay, quorum: Quorum, tail: Tail) -> Self {
        Self { delay, quorum, tail }
    }

    /// One request in milliseconds: until the last copy that is waited for.
    pub fn draw_ms(&self, rng: &mut StdRng) -> f64 {
        let mut copies = [0.0; Quorum::COPIES_MAX];
        let copies = &mut copies[..self.quorum.copies];
        for copy in copies.iter_mut() {
            let slow = rng.random::<f64>() < self.tail.fraction;
            *copy = self.delay.draw_ms(rng) * if slow { self.tail.factor } else { 1.0 };
        }
        copies.sort_unstable_by(f64::total_cmp);
        copies[self.quorum.acks - 1]
    }
}

/// What an acknowledgement and a delivery are made of, apart from waiting for the flush.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Writing the object.
    pub put: Request,
    /// Reading it at the consumer's agent.
    pub get: Request,
    /// Assigning offsets.
    pub commit: Delay,
    /// Between client and agent, both ways, in milliseconds.
    pub rtt_ms: f64,
    /// From the commit to the reading agent, in milliseconds.
    pub notify_ms: f64,
}

/// Modelled requests, in milliseconds; unordered.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Until the producer has its acknowledgement.
    pub ack_ms: Vec<f64>,
    /// Until a consumer has the records.
    pub e2e_ms: Vec<f64>,
}

impl Latencies {
    /// Adds a request acknowledged after `ack_ms`, and the delivery of its records.
    pub fn push(&mut self, ack_ms: f64, parts: &Parts, rng: &mut StdRng) {
        self.ack_ms.push(ack_ms);
        self.e2e_ms.push(ack_ms + parts.notify_ms + parts.get.draw_ms(rng));
    }
}

/// `samples` requests to an agent that flushes every `flush_ms` and on nothing else.
pub fn timed(flush_ms: f64, parts: &Parts, samples: usize, rng: &mut StdRng) -> Latencies {
    let mut latencies = Latencies::default();
    for _ in 0..samples {
        let waited_ms = flush_ms * rng.random::<f64>();
        let stored_ms = parts.put.draw_ms(rng);
        let ack_ms = waited_ms + stored_ms + parts.commit.draw_ms(rng) + parts.rtt_ms;
        latencies.push(ack_ms, parts, rng);
    }
    latencies
}

/// Percentiles of modelled latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
}

impl Percentiles {
    /// Percentiles of `latencies_ms` by nearest rank, to the microsecond; zeros when it is empty.
    pub fn of(mut latencies_ms: Vec<f64>) -> Self {
        latencies_ms.sort_unstable_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = (quantile * latencies_ms.len() as f64).ceil() as usize;
            let value = latencies_ms.get(rank.saturating_sub(1)).copied().unwrap_or(0.0);
            (value * 1000.0).round() / 1000.0
        };
        Self { p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), p999_ms: at(0.999) }
    }
}
