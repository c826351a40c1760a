//! How far ahead of a reader of history the store is read [pure]: a window that opens while the
//! reader goes on, and the byte ranges that lie in it. The executor is `catch_up`.
//!
//! # Invariants
//! - The window is closed until a reader has gone on once where it stopped, and after every seek.
//! - It never opens beyond [`WINDOW_BYTES_MAX`], and what is named of it lies in rows that are
//!   given: below the high watermark.

use aquifer_metadata::machine::effect::Run;
use aquifer_storage::{cache::read_ahead::WantedRange, model::Offset};

/// The window as it first opens, B of the partition.
pub const WINDOW_BYTES_MIN: u64 = 512 << 10;
/// The widest window, B of the partition: at 100 ms for a GET, 320 MiB/s.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// Where a reader stands, and how far ahead of it the store is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// `None` before the first answer.
    next: Option<Offset>,
    bytes: u64,
}

impl Window {
    /// Whether a reader at `offset` goes on where it stopped.
    pub fn goes_on_at(&self, offset: Offset) -> bool {
        self.next == Some(offset)
    }

    /// How wide it is, B.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The reader got `answer_bytes`, which hold the offsets from `from` to `next`: the window
    /// becomes twice as wide, and at least twice the answer, or closes when that was a seek.
    pub fn read(&mut self, from: Offset, next: Offset, answer_bytes: u64) {
        self.bytes = if self.goes_on_at(from) {
            let bytes = self.bytes.max(answer_bytes).saturating_mul(2);
            bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
        } else {
            0
        };
        self.next = Some(next);
    }

    /// As wide as it may be now: for the answer to a reader that seeks it is closed already.
    pub fn bytes_at(&self, from: Offset) -> u64 {
        if self.goes_on_at(from) { self.bytes } else { 0 }
    }
}

/// What a reader at `from` will want: first the `rows` that begin below `due_next`, which the
/// answer being made needs, then those that begin in `window_bytes` behind them, not further.
pub fn wanted_ranges(
    rows: &[Run],
    from: Offset,
    due_next: Offset,
    window_bytes: u64,
) -> Vec<WantedRange> {
    let first = rows.partition_point(|run| run.offsets.next <= from);
    let mut left = window_bytes;
    let mut wanted = Vec::new();
    for run in &rows[first..] {
        let is_due = run.offsets.base < due_next;
        let mut bytes = u64::from(run.length);
        if !is_due {
            bytes = bytes.min(left);
            left -= bytes;
        }
        if bytes == 0 {
            break;
        }
        let start = u64::from(run.position);
        let (object, object_bytes) = (run.object, run.object_bytes);
        wanted.push(WantedRange { object, object_bytes, range: start..start + bytes, is_due });
    }
    wanted
}

#[cfg(test)]
mod tests;
