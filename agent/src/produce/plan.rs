//! When to flush: the self-clocked decision and the PUT budget [pure].
//!
//! # Invariants
//! - An empty buffer is never flushed.
//! - Bytes in flight are bounded, not their number; one object always may be in flight.
//! - Only a full object passes the PUT budget without a token.

use std::time::Duration;

use aquifer_storage::seam::MonoTime;

/// Limits of the flush decision.
#[derive(Clone, Copy, Debug)]
pub struct FlushLimits {
    /// A buffer of this size is flushed at once (`object.size`).
    pub object_bytes: u64,
    /// A batch waits at most this long while other PUTs are in flight (`flush.interval`).
    pub interval: Duration,
    /// Bytes in flight at once.
    pub in_flight_bytes_max: u64,
    /// What PUTs may cost.
    pub put_budget: PutBudget,
}

impl Default for FlushLimits {
    fn default() -> Self {
        Self {
            object_bytes: 8 * 1024 * 1024,
            interval: Duration::from_millis(100),
            in_flight_bytes_max: 128 * 1024 * 1024,
            put_budget: PutBudget { per_second: 10, burst: 100 },
        }
    }
}

/// PUTs per second and in a burst (`put.budget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBudget {
    /// Sustained rate; 0 means no limit.
    pub per_second: u32,
    /// How many may come at once; at least 1.
    pub burst: u32,
}

/// A token bucket in integer time: it keeps the moment at which it would be full again.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    per_token: Duration,
    depth: Duration,
    full_at: MonoTime,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(budget: PutBudget) -> Self {
        let per_token = match budget.per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        let depth = per_token.saturating_mul(budget.burst.max(1));
        Self { per_token, depth, full_at: MonoTime::from_zero(Duration::ZERO) }
    }

    /// Takes a token, on credit when there is none; the debt is at most another burst.
    pub(super) fn take(&mut self, now: MonoTime) {
        let full_at = self.full_at.max(now) + self.per_token;
        self.full_at = full_at.min(now + self.depth * 2);
    }

    /// The first moment, at or after `now`, with a token.
    pub(super) fn next_token(&self, now: MonoTime) -> MonoTime {
        let missing = self.full_at.since(now) + self.per_token;
        now + missing.saturating_sub(self.depth)
    }
}

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushInput {
    pub(super) now: MonoTime,
    /// Bytes of the object that would be flushed; `None` when the buffer is empty.
    pub(super) buffered: Option<Buffered>,
    pub(super) puts_in_flight: usize,
    pub(super) bytes_in_flight: u64,
    /// No more batches will come: nothing is gained by waiting.
    pub(super) draining: bool,
}

/// The oldest object of the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffered {
    pub(super) bytes: u64,
    pub(super) oldest: MonoTime,
    /// Closed by size.
    pub(super) full: bool,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Flush the oldest object now.
    Now,
    /// Nothing happens before this moment, unless a batch arrives or a PUT ends.
    At(MonoTime),
    /// Nothing happens before a batch arrives or a PUT ends.
    Wait,
}

/// Whether to flush the oldest object of the buffer.
pub(super) fn plan_flush(input: FlushInput, limits: &FlushLimits, tokens: &TokenBucket) -> Flush {
    let Some(buffered) = input.buffered else { return Flush::Wait };
    let fits = input.puts_in_flight == 0
        || input.bytes_in_flight.saturating_add(buffered.bytes) <= limits.in_flight_bytes_max;
    if !fits {
        return Flush::Wait;
    }
    if buffered.full || input.draining {
        return Flush::Now;
    }
    let token = tokens.next_token(input.now);
    // No PUT in flight also says that the last one just ended.
    let wanted =
        if input.puts_in_flight == 0 { input.now } else { buffered.oldest + limits.interval };
    let at = wanted.max(token);
    if at <= input.now { Flush::Now } else { Flush::At(at) }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
