//! Merging what the stream tells of one partition [pure].

use std::sync::Arc;

use aquifer_metadata::{
    machine::effect::{Pointers, Run},
    watch::{PartitionState, WINDOW_RUNS_MAX},
};
use aquifer_storage::model::{LogIndex, Offset};

use super::PartitionSnapshot;

/// An advance of a partition from one index to another.
pub(super) struct Advance {
    pub(super) from_index: LogIndex,
    pub(super) index: LogIndex,
    pub(super) from: Offset,
    pub(super) runs: Vec<Run>,
    pub(super) pointers: Pointers,
}

/// What to do with the held snapshot.
#[derive(Debug, PartialEq)]
pub(super) enum Merge {
    /// It stays: the news is not newer.
    Keep,
    /// It becomes this.
    Replace(PartitionSnapshot),
    /// It stays, but something was missed: ask for the whole partition again.
    Resync,
}

/// Takes a whole state. An older one never replaces a newer one.
pub(super) fn merge_state(held: &PartitionSnapshot, mut state: PartitionState) -> Merge {
    if let PartitionSnapshot::Known(held) = held
        && (state.index < held.index || goes_back(&held.pointers, &state.pointers))
    {
        return Merge::Keep;
    }
    trim(&mut state.runs);
    Merge::Replace(PartitionSnapshot::Known(Arc::new(state)))
}

/// Takes an advance. Rows from `from` on are as of `index` whatever was held there, so an advance
/// that begins at or before the held index and ends after it fits; a later one leaves a gap.
pub(super) fn merge_advance(held: &PartitionSnapshot, advance: Advance) -> Merge {
    let PartitionSnapshot::Known(held) = held else {
        // Pending: the whole state is on its way. Gone: a stale push.
        return Merge::Keep;
    };
    if advance.index <= held.index {
        return Merge::Keep;
    }
    // Rows begin where the log ended: one that begins later has another before it.
    let skips = held.pointers.high_watermark < advance.from;
    if held.index < advance.from_index || skips || goes_back(&held.pointers, &advance.pointers) {
        return Merge::Resync;
    }
    let mut runs: Vec<Run> = held
        .runs
        .iter()
        .filter(|run| run.offsets.base < advance.from)
        .filter(|run| advance.pointers.log_start < run.offsets.next)
        .copied()
        .collect();
    let joins = match (runs.last(), advance.runs.first()) {
        (Some(last), Some(first)) => last.offsets.next <= first.offsets.base,
        _ => true,
    };
    if !joins {
        return Merge::Resync;
    }
    let readable = |run: &Run| advance.pointers.log_start < run.offsets.next;
    runs.extend(advance.runs.into_iter().filter(readable));
    trim(&mut runs);
    Merge::Replace(PartitionSnapshot::Known(Arc::new(PartitionState {
        partition: held.partition,
        index: advance.index,
        runs,
        pointers: advance.pointers,
    })))
}

/// Whether any pointer would fall.
fn goes_back(held: &Pointers, news: &Pointers) -> bool {
    news.leader_epoch == held.leader_epoch
        && (news.log_start < held.log_start
            || news.last_stable < held.last_stable
            || news.high_watermark < held.high_watermark)
}

/// Keeps the last rows only.
fn trim(runs: &mut Vec<Run>) {
    let surplus = runs.len().saturating_sub(WINDOW_RUNS_MAX);
    drop(runs.drain(..surplus));
}
