//! Offsets, epochs, sequences and times. Ranges are half-open.

use std::fmt;

/// An offset within a partition; never negative. Whether a bound is inclusive is in the name of
/// the field that holds it: `base`, `last` (inclusive), `next` (exclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// Wraps an offset; `None` when negative (Kafka's sentinels are not offsets).
    pub const fn new(value: i64) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The number, for encoding.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// The offset `count` records later; `None` when it would pass `i64::MAX`.
    pub const fn checked_add(self, count: u32) -> Option<Self> {
        match self.0.checked_add(count as i64) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Offsets `[base, next)`: `next` is the first offset *not* covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetRange {
    /// The first offset covered.
    pub base: Offset,
    /// The first offset not covered.
    pub next: Offset,
}

impl OffsetRange {
    /// Whether `offset` is covered.
    pub fn contains(&self, offset: Offset) -> bool {
        self.base <= offset && offset < self.next
    }
}

/// A partition's leader epoch: the lineage number, so it changes only with a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(i32);

/// A producer's epoch, 0 to 32767.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(i16);

/// A producer's sequence number, 0 to 2^31-1; wraps to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(i32);

/// Milliseconds since 1970-01-01 UTC; -1 is "none", as in a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl LeaderEpoch {
    /// Wraps an epoch.
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The number, for encoding.
    pub const fn value(self) -> i32 {
        self.0
    }
}

impl ProducerEpoch {
    /// Wraps an epoch; `None` when negative.
    pub const fn new(value: i16) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The number, for encoding.
    pub const fn value(self) -> i16 {
        self.0
    }
}

impl Sequence {
    /// The sequence a new producer epoch starts at.
    pub const ZERO: Self = Self(0);

    /// Wraps a sequence; `None` when negative.
    pub const fn new(value: i32) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The number, for encoding.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// The sequence `count` records later, wrapping past 2^31-1 to 0 as Kafka does.
    #[must_use]
    pub const fn advance(self, count: u32) -> Self {
        Self(((self.0 as u64 + count as u64) & 0x7fff_ffff) as i32)
    }
}

impl Timestamp {
    /// "No timestamp", as a record batch says it.
    pub const NONE: Self = Self(-1);

    /// Wraps milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
