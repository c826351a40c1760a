//! The self-clocked flush of one agent, event by event [pure].
//!
//! # Invariants
//! - With no PUT in flight nothing waits, unless the PUT budget says so.
//! - Objects are flushed in the order in which they were begun.
//!
//! # Not here
//! The bound on bytes in flight: a floor has memory enough.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rand::{Rng, rngs::StdRng};

use super::model::{Latencies, Parts};

/// Nanoseconds since the model's start.
type Nanos = u64;

const NANOS_PER_MS: f64 = 1_000_000.0;
const NANOS_PER_SECOND: f64 = 1_000_000_000.0;

/// How requests arrive.
#[derive(Clone, Copy, Debug)]
pub enum ArrivalPattern {
    /// In equal steps.
    Uniform,
    /// Independently of each other.
    Poisson,
}

/// What arrives.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests in total.
    pub requests: usize,
    /// Requests per second.
    pub per_second: f64,
    /// Bytes of each.
    pub request_bytes: u64,
    /// Their distances.
    pub arrivals: ArrivalPattern,
    /// Connections that take turns; 0 when every request has its own.
    pub connections: usize,
}

/// When the agent flushes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A request waits at most this long while PUTs are in flight, in milliseconds.
    pub flush_ms: f64,
    /// A buffer of this size is flushed at once.
    pub object_bytes: u64,
    /// What a byte adds to its PUT, in milliseconds.
    pub put_ms_per_byte: f64,
    /// PUTs per second that may be sustained; 0 means no limit.
    pub put_budget_per_s: u32,
    /// PUTs that may come at once; at least 1.
    pub put_burst: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct SelfClockedRun {
    /// Of every request.
    pub latencies: Latencies,
    /// PUTs per second while requests arrived.
    pub puts_per_s: f64,
    /// Mean bytes of an object.
    pub object_bytes_mean: f64,
}

/// Runs `load` against `rules` to the last acknowledgement.
pub fn run(load: &Load, rules: &Rules, parts: &Parts, rng: &mut StdRng) -> SelfClockedRun {
    let mut agent = Agent::new(*load, *rules);
    let mut arrived = 0;
    let mut next_arrival = Some(0);
    let mut last_arrival = 0;
    loop {
        // A PUT that ends when a request arrives ends first: the request finds none in flight.
        let put_end = agent.put_ends.peek().map(|Reverse(at)| *at);
        let Some(now) = [put_end, next_arrival, agent.flush_at].into_iter().flatten().min() else {
            break;
        };
        if put_end == Some(now) {
            agent.put_ends.pop();
        } else if next_arrival == Some(now) {
            agent.push(now, arrived);
            last_arrival = now;
            arrived += 1;
            let more = arrived < load.requests;
            next_arrival = more.then(|| now + step(load, rng));
        }
        agent.flush_due(now, parts, rng);
    }
    let seconds = last_arrival as f64 / NANOS_PER_SECOND;
    let puts = agent.puts.max(1) as f64;
    SelfClockedRun {
        latencies: agent.latencies,
        puts_per_s: if seconds > 0.0 { puts / seconds } else { puts },
        object_bytes_mean: load.requests as f64 * load.request_bytes as f64 / puts,
    }
}

fn step(load: &Load, rng: &mut StdRng) -> Nanos {
    let mean = NANOS_PER_SECOND / load.per_second;
    match load.arrivals {
        ArrivalPattern::Uniform => mean as Nanos,
        ArrivalPattern::Poisson => (-mean * (1.0 - rng.random::<f64>()).ln()) as Nanos,
    }
}

fn nanos(ms: f64) -> Nanos {
    (ms * NANOS_PER_MS) as Nanos
}

/// Requests that will share an object.
#[derive(Debug, Default)]
struct Object {
    /// Arrival and connection of each.
    requests: Vec<(Nanos, Option<usize>)>,
    bytes: u64,
}

/// One agent.
struct Agent {
    load: Load,
    rules: Rules,
    full: VecDeque<Object>,
    open: Object,
    put_ends: BinaryHeap<Reverse<Nanos>>,
    /// When the open object may leave, if nothing happens before.
    flush_at: Option<Nanos>,
    /// When the PUT budget would be untouched again.
    budget_full_at: Nanos,
    /// When each connection gets its latest answer.
    answered_at: Vec<Nanos>,
    puts: u64,
    latencies: Latencies,
}

impl Agent {
    fn new(load: Load, rules: Rules) -> Self {
        Self {
            load,
            rules,
            full: VecDeque::new(),
            open: Object::default(),
            put_ends: BinaryHeap::new(),
            flush_at: None,
            budget_full_at: 0,
            answered_at: vec![0; load.connections],
            puts: 0,
            latencies: Latencies::default(),
        }
    }

    fn push(&mut self, now: Nanos, request: usize) {
        let bytes = self.load.request_bytes;
        if self.rules.object_bytes < self.open.bytes + bytes && !self.open.requests.is_empty() {
            self.full.push_back(std::mem::take(&mut self.open));
        }
        self.open.requests.push((now, request.checked_rem(self.load.connections)));
        self.open.bytes += bytes;
        if self.rules.object_bytes <= self.open.bytes {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    /// Flushes all that may leave at `now` and notes when the rest may.
    fn flush_due(&mut self, now: Nanos, parts: &Parts, rng: &mut StdRng) {
        while let Some(object) = self.full.pop_front() {
            self.put(now, object, parts, rng);
        }
        self.flush_at = self.open_leaves_at(now);
        if self.flush_at.is_some_and(|at| at <= now) {
            let object = std::mem::take(&mut self.open);
            self.put(now, object, parts, rng);
            self.flush_at = None;
        }
    }

    fn open_leaves_at(&self, now: Nanos) -> Option<Nanos> {
        let (oldest, _) = *self.open.requests.first()?;
        // No PUT in flight also says that the last one just ended.
        let wanted =
            if self.put_ends.is_empty() { now } else { oldest + nanos(self.rules.flush_ms) };
        Some(wanted.max(self.next_token(now)))
    }

    fn nanos_per_token(&self) -> Nanos {
        1_000_000_000_u64.checked_div(u64::from(self.rules.put_budget_per_s)).unwrap_or(0)
    }

    fn next_token(&self, now: Nanos) -> Nanos {
        let per_token = self.nanos_per_token();
        let missing = self.budget_full_at.saturating_sub(now) + per_token;
        now + missing.saturating_sub(per_token * u64::from(self.rules.put_burst))
    }

    fn put(&mut self, now: Nanos, object: Object, parts: &Parts, rng: &mut StdRng) {
        let per_token = self.nanos_per_token();
        let debt_max = per_token * u64::from(self.rules.put_burst) * 2;
        self.budget_full_at = (self.budget_full_at.max(now) + per_token).min(now + debt_max);
        self.puts += 1;
        let bytes_ms = object.bytes as f64 * self.rules.put_ms_per_byte;
        let end = now + nanos(parts.put.draw_ms(rng) + bytes_ms);
        self.put_ends.push(Reverse(end));
        let committed = end + nanos(parts.commit.draw_ms(rng));
        for (arrived, connection) in object.requests {
            let mut answered = committed;
            if let Some(connection) = connection {
                let latest = &mut self.answered_at[connection];
                answered = answered.max(*latest);
                *latest = answered;
            }
            let ack_ms = (answered - arrived) as f64 / NANOS_PER_MS + parts.rtt_ms;
            self.latencies.push(ack_ms, parts, rng);
        }
    }
}
