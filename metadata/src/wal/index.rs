//! Where every entry is, and the payloads of the newest. Pure.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;

use super::LogId;

/// A byte of the log: segment by segment, offset by offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
}

/// An entry's id without its index, and its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) node_id: u64,
    pub(super) place: Place,
    pub(super) frame_bytes: u32,
}

/// The entries `[first, next)`, without holes.
///
/// # Invariants
/// - The cached payloads are those of the last `cache.len()` entries.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: u64,
    slots: VecDeque<Slot>,
    cache: VecDeque<Bytes>,
    cached_bytes: usize,
}

impl Index {
    pub(super) fn starting_at(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?).ok()
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(self.position(index)?)
    }

    pub(super) fn id(&self, index: u64) -> Option<LogId> {
        self.slot(index).map(|slot| LogId { term: slot.term, node_id: slot.node_id, index })
    }

    /// The payload, when it is in memory.
    pub(super) fn payload(&self, index: u64) -> Option<&Bytes> {
        let cached_first = self.slots.len() - self.cache.len();
        self.cache.get(self.position(index)?.checked_sub(cached_first)?)
    }

    /// The oldest segment that holds an entry.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.place.segment)
    }

    pub(super) fn push(&mut self, slot: Slot, payload: Option<Bytes>) {
        self.slots.push_back(slot);
        match payload {
            Some(payload) => {
                self.cached_bytes += payload.len();
                self.cache.push_back(payload);
            }
            None => {
                self.cache.clear();
                self.cached_bytes = 0;
            }
        }
    }

    /// Removes the entries from `next` on. Entries below `first` may be unknown during a replay:
    /// then the index is empty at `next`.
    pub(super) fn truncate_from(&mut self, next: u64) {
        let kept = self.position(next).unwrap_or(0).min(self.slots.len());
        let removed = self.slots.len() - kept;
        self.slots.truncate(kept);
        for _ in 0..removed {
            let payload = self.cache.pop_back();
            self.cached_bytes -= payload.map_or(0, |payload| payload.len());
        }
        self.first = self.first.min(next);
    }

    /// Removes the entries below `first`.
    pub(super) fn purge_below(&mut self, first: u64) {
        while self.first < first && self.slots.pop_front().is_some() {
            self.first += 1;
        }
        while self.slots.len() < self.cache.len() {
            self.evict();
        }
        if self.slots.is_empty() {
            self.first = self.first.max(first);
        }
    }

    /// Drops the oldest payloads above `bytes_max`, of entries that are on disk before `durable`.
    pub(super) fn shrink(&mut self, bytes_max: usize, durable: Place) {
        while bytes_max < self.cached_bytes {
            let oldest = self.slots.len() - self.cache.len();
            if self.slots.get(oldest).is_none_or(|slot| durable <= slot.place) {
                return;
            }
            self.evict();
        }
    }

    fn evict(&mut self) {
        let payload = self.cache.pop_front();
        self.cached_bytes -= payload.map_or(0, |payload| payload.len());
    }

    /// The part of `range` that is here.
    pub(super) fn clip(&self, range: Range<u64>) -> Range<u64> {
        range.start.max(self.first)..range.end.min(self.next())
    }
}
