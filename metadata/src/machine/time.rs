//! The two clocks of the state machine, derived from the stamps of its entries (DESIGN 6).
//!
//! # Invariants
//! - *Elapsed* never falls, never runs without a leader, and is never faster than real time: an
//!   entry adds at most [`STEP_MAX`], and nothing when leader, term or clock are not comparable.
//! - *Wall* is what the leader said and may go back; no safety hangs on it.

use std::time::Duration;

use aquifer_storage::{
    model::Timestamp,
    planted::{self, Bug},
};

use super::command::Stamp;

/// The most one entry adds to elapsed time: a stalled leader must not expire what it did not see.
pub const STEP_MAX: Duration = Duration::from_secs(1);

/// Time that has passed under a leader, since the cluster's first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Elapsed(u64);

impl Elapsed {
    /// The first start of the cluster.
    pub const ZERO: Self = Self(0);

    /// Wraps milliseconds since the first start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the first start.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The point `later` after this one.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        self.plus_millis(u64::try_from(later.as_millis()).unwrap_or(u64::MAX))
    }

    /// The point `millis` after this one.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The leader's wall clock: for record timestamps, retention and expiry only. May go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

impl WallTime {
    /// Wraps milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// As a record timestamp.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }

    /// Whether `self` is `age` or more after `then`; false when the clock went back behind it.
    pub fn is_past(self, then: Self, age: Duration) -> bool {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.0.saturating_sub(then.0) >= age
    }
}

/// Turns stamps into the two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Elapsed time as of the last entry.
    elapsed: Elapsed,
    /// The last entry's stamp.
    stamp: Stamp,
    /// The last entry's term.
    term: u64,
}

impl Clocks {
    /// Restores the clocks from a snapshot.
    pub const fn restore(elapsed: Elapsed, stamp: Stamp, term: u64) -> Self {
        Self { elapsed, stamp, term }
    }

    /// Takes the stamp of the next entry.
    ///
    /// Time is added only between two entries of one leader's life, where its monotonic clock is
    /// comparable; a stamp that does not advance (two entries within a millisecond) adds nothing.
    pub fn advance(&mut self, stamp: Stamp, term: u64) {
        let comparable = stamp.boot == self.stamp.boot && term == self.term;
        if comparable {
            let step = stamp.mono_ms.saturating_sub(self.stamp.mono_ms);
            let step_max = STEP_MAX.as_millis() as u64;
            self.elapsed = self.elapsed.plus_millis(step.min(step_max));
        }
        self.stamp = stamp;
        self.term = term;
    }

    /// Elapsed time as of the last entry.
    pub fn elapsed(&self) -> Elapsed {
        if planted::is(Bug::MonoFromWall) {
            return Elapsed::from_millis(self.stamp.wall_ms.unsigned_abs());
        }
        self.elapsed
    }

    /// Wall time as of the last entry.
    pub const fn wall(&self) -> WallTime {
        WallTime::from_millis(self.stamp.wall_ms)
    }

    /// The last entry's stamp.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The last entry's term.
    pub const fn term(&self) -> u64 {
        self.term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(boot: u64, mono_ms: u64) -> Stamp {
        Stamp { boot, mono_ms, wall_ms: 0 }
    }

    fn after(entries: &[(u64, u64, u64)]) -> u64 {
        let mut clocks = Clocks::default();
        for &(boot, mono_ms, term) in entries {
            clocks.advance(stamp(boot, mono_ms), term);
        }
        clocks.elapsed().millis()
    }

    #[test]
    fn elapsed_adds_the_time_between_two_entries_of_one_leader() {
        assert_eq!(after(&[(7, 100, 1), (7, 350, 1), (7, 400, 1)]), 300);
    }

    #[test]
    fn elapsed_adds_at_most_a_second_per_entry() {
        assert_eq!(after(&[(7, 0, 1), (7, 60_000, 1)]), 1_000);
    }

    #[test]
    fn elapsed_stands_still_across_a_new_boot_a_new_term_or_a_clock_that_fell() {
        assert_eq!(after(&[(7, 100, 1), (8, 900, 1)]), 0);
        assert_eq!(after(&[(7, 100, 1), (7, 900, 2)]), 0);
        assert_eq!(after(&[(7, 900, 1), (7, 100, 1)]), 0);
    }

    #[test]
    fn wall_time_that_went_back_is_not_past_anything() {
        let day = Duration::from_secs(86_400);
        assert!(!WallTime::from_millis(5).is_past(WallTime::from_millis(100), day));
        assert!(WallTime::from_millis(86_400_100).is_past(WallTime::from_millis(100), day));
    }
}
