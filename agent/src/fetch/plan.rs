//! What a fetch reads [pure]: rows and byte limits in, rows to read out. The reader executes it.

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::model::Offset;

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
}

/// The rows of `input` that hold its offsets, cut at its byte limit.
pub fn plan_partition(input: &PartitionInput<'_>) -> PartitionPlan {
    let mut plan = PartitionPlan {
        offset: input.offset,
        bound: input.bound,
        bytes_max: input.bytes_max,
        runs: Vec::new(),
        bytes_available: 0,
    };
    let first = input.runs.partition_point(|run| run.offsets.next <= input.offset);
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

/// Shares the answer's bytes: each partition in turn gets what those before it leave. The first
/// with data always gives something.
pub fn share_bytes(plans: &mut [PartitionPlan], bytes_max: usize) {
    let mut left = bytes_max;
    let mut is_first = true;
    for plan in plans {
        if plan.runs.is_empty() {
            continue;
        }
        if left == 0 && !is_first {
            plan.runs.clear();
            continue;
        }
        plan.bytes_max = plan.bytes_max.min(left);
        left -= plan.bytes_max.min(plan.bytes_available);
        is_first = false;
    }
}

/// The first plan with rows: the one that gives at least one batch.
pub fn first_with_rows(plans: &[PartitionPlan]) -> Option<usize> {
    plans.iter().position(|plan| !plan.runs.is_empty())
}

#[cfg(test)]
mod tests;
