//! What a fetch reads [pure]: rows and byte limits in, rows to read out. The reader executes it.

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{cache::plan::plan_blocks, model::Offset};

use super::place::Place;

/// A reader this many rows behind the end, or fewer, reads the tail. Rows of a partition lie in
/// different objects, so it is also how many objects are the tail.
pub const TAIL_ROWS: usize = 16;

/// An answer's bytes are split evenly only as long as each partition gets this much, which is what
/// most consumers ask of one.
const EVEN_SHARE_BYTES_MIN: usize = 1 << 20;

/// A slice that keeps more than this many times its own bytes in memory is copied instead.
pub const KEPT_TIMES_MAX: u64 = 4;

/// Counted for each border of two cached blocks inside a row: the batch that it cuts is copied
/// together, and both blocks may be kept as well. Kafka's default of `max.message.bytes`; with a
/// larger batch there, more of the row is copied.
const JOINED_BATCH_BYTES: u64 = 1_048_588;

/// Which records a consumer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    /// The first offset that may not be read.
    pub fn bound(self, pointers: &Pointers) -> Offset {
        match self {
            Self::ReadUncommitted => pointers.high_watermark,
            Self::ReadCommitted => pointers.last_stable,
        }
    }
}

/// One partition to be read.
#[derive(Clone, Debug)]
pub struct PartitionInput<'a> {
    /// The first offset wanted.
    pub offset: Offset,
    /// At most this many bytes, but for the first batch of an answer.
    pub bytes_max: usize,
    /// Rows in order; those below `offset` are skipped.
    pub runs: &'a [Run],
    /// Whether more rows follow than are in `runs`.
    pub rows_follow: bool,
    /// The first offset not to be read.
    pub bound: Offset,
}

/// What to read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPlan {
    /// The first offset wanted: batches wholly below it are dropped after the read.
    pub offset: Offset,
    /// The first offset not to be sent.
    pub bound: Offset,
    /// What may be sent, but for the answer's first batch.
    pub bytes_max: usize,
    /// The rows to read, in order.
    pub runs: Vec<Run>,
    /// About how many bytes they hold for this reader.
    pub bytes_available: usize,
    /// Whether an unknown number of bytes follows them.
    pub more: bool,
    /// Whether they are history: more than [`TAIL_ROWS`] behind the end.
    pub is_behind: bool,
    /// Where in its first row the reader goes on, if that is known.
    pub place: Option<Place>,
}

impl PartitionPlan {
    /// Nothing to read from `offset` on.
    pub fn nothing(offset: Offset, bound: Offset) -> Self {
        let (bytes_max, runs, bytes_available) = (0, Vec::new(), 0);
        let (more, is_behind) = (false, false);
        Self { offset, bound, bytes_max, runs, bytes_available, more, is_behind, place: None }
    }

    /// The most memory its records can keep, whichever of its batches are sent.
    pub fn held_bytes_max(&self) -> u64 {
        self.runs.iter().map(held_bytes_max).sum()
    }

    /// Drops the last rows until the rest keeps at most `bytes` in memory; whether one is left.
    pub fn fit(&mut self, bytes: u64) -> bool {
        let mut held = 0;
        let fits = self.runs.iter().take_while(|run| {
            held += held_bytes_max(run);
            held <= bytes
        });
        let fits = fits.count();
        self.runs.truncate(fits);
        0 < fits
    }
}

/// The most memory that batches of a row may keep: of each cached block that the row touches, its
/// own bytes where those are few enough to be copied, else all of the block. Which pieces of memory
/// a block has is known only once it is read, and then the reader keeps to this.
pub fn held_bytes_max(run: &Run) -> u64 {
    let (start, own) = (u64::from(run.position), u64::from(run.length));
    let range = start..start + own;
    if run.object_bytes < range.end {
        return own; // Never read.
    }
    let (mut held, mut borders, mut is_any_kept) = (0, 0, false);
    for block in plan_blocks(run.object, run.object_bytes, range.clone()) {
        let part = block.part_of(&range);
        let (own, kept) = (part.end - part.start, block.block_bytes());
        let is_copied = is_copied(own, kept);
        held += if is_copied { own } else { kept };
        borders += u64::from(block.range.end < range.end);
        is_any_kept |= !is_copied;
    }
    if is_any_kept { held + borders * JOINED_BATCH_BYTES } else { held }
}

/// Whether `own` bytes are copied out of memory they would keep.
pub const fn is_copied(own: u64, kept: u64) -> bool {
    own.saturating_mul(KEPT_TIMES_MAX) < kept
}

/// The rows of `input` that hold its offsets, cut at its byte limit.
pub fn plan_partition(input: &PartitionInput<'_>) -> PartitionPlan {
    let mut plan = PartitionPlan {
        offset: input.offset,
        bound: input.bound,
        bytes_max: input.bytes_max,
        runs: Vec::new(),
        bytes_available: 0,
        more: false,
        is_behind: false,
        place: None,
    };
    let first = input.runs.partition_point(|run| run.offsets.next <= input.offset);
    plan.more = input.rows_follow
        && input.runs[first..].last().is_some_and(|last| last.offsets.next < input.bound);
    plan.is_behind = input.rows_follow || TAIL_ROWS < input.runs.len() - first;
    for run in &input.runs[first..] {
        let enough = input.bytes_max.max(1) <= plan.bytes_available;
        if input.bound <= run.offsets.base || enough {
            break;
        }
        plan.bytes_available += available(run, input.offset, input.bound);
        plan.runs.push(*run);
    }
    plan
}

/// About how many of a row's bytes hold offsets in `[from, bound)`: rows do not say where their
/// batches begin, so records are taken to be of one size.
fn available(run: &Run, from: Offset, bound: Offset) -> usize {
    let (start, end) = (run.offsets.base.value(), run.offsets.next.value());
    let wanted = (end.min(bound.value()) - start.max(from.value())).max(0);
    let bytes = i128::from(run.length) * i128::from(wanted) / i128::from((end - start).max(1));
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

/// Shares the answer's bytes: each partition in turn gets what those before it leave for certain,
/// but, as long as that is not little, no more than its even part: partitions that lie in the same
/// objects are then read in step, and each object once. The first with data always gives something;
/// its place is returned. What a row holds below the offset counts as sent, since rows do not say
/// where that ends.
pub fn share_bytes<'a>(
    plans: impl IntoIterator<Item = &'a mut PartitionPlan>,
    bytes_max: usize,
) -> Option<usize> {
    let mut left = bytes_max;
    let mut first = None;
    let mut plans: Vec<_> = plans.into_iter().enumerate().collect();
    plans.retain(|(_, plan)| !plan.runs.is_empty());
    let count = plans.len();
    for (turn, (place, plan)) in plans.into_iter().enumerate() {
        if first.is_some() && (left == 0 || plan.bytes_max == 0) {
            plan.runs.clear();
            continue;
        }
        first.get_or_insert(place);
        let even = (left / (count - turn)).max(EVEN_SHARE_BYTES_MIN);
        plan.bytes_max = plan.bytes_max.min(left).min(even);
        let row_bytes: usize = plan.runs.iter().map(|run| run.length as usize).sum();
        left -= plan.bytes_max.min(row_bytes);
    }
    first
}

/// Keeps the rows that fit together into `bytes` of memory, in order, and returns how much that
/// is. The first row stays in any case.
pub fn share_memory<'a>(plans: impl IntoIterator<Item = &'a mut PartitionPlan>, bytes: u64) -> u64 {
    let (mut left, mut held) = (bytes, 0);
    for plan in plans.into_iter().filter(|plan| !plan.runs.is_empty()) {
        let first = plan.runs[0];
        if !plan.fit(left) && held == 0 {
            plan.runs.push(first);
        }
        let more = plan.held_bytes_max();
        left = left.saturating_sub(more);
        held += more;
    }
    held
}

#[cfg(test)]
mod tests;
