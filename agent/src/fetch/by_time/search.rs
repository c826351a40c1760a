//! The record of a row that is looked for by its time [pure].
//!
//! # Non-obvious
//! - Records that cannot be read (the default checks look at headers only, so a client may have
//!   sent anything) count as one, at their batch's first offset and with its largest timestamp: a
//!   reader that starts there misses nothing.

use std::cmp::Reverse;

use aquifer_metadata::machine::{effect::Run, query::TimeSpec};
use aquifer_storage::{
    cache::{block::CachedSlice, plan::WHOLE_OBJECT_BYTES_MAX},
    format::record_batch::{
        StoredBatch,
        records::{Depth, RecordHead, walk_records},
    },
    model::{Offset, Timestamp},
};

use crate::fetch::reader::{RowDamaged, pieces::split_slices};

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::fetch) struct Sought {
    /// By its time.
    pub time: TimeSpec,
    /// Below it nothing can be read.
    pub floor: Offset,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub offset: Offset,
    pub timestamp: Timestamp,
}

/// Looks through a row, whose bytes are `slices`.
pub(super) fn search(
    run: &Run,
    slices: &[CachedSlice],
    sought: Sought,
) -> Result<Option<Found>, RowDamaged> {
    let mut batches = batches(run, slices)?;
    batches.retain(|(base, batch)| {
        let count = batch.header.offset_count().expect("the splitter checks the count");
        base.checked_add(count).is_some_and(|next| sought.floor < next)
    });
    let is_append_time = |batch: &StoredBatch| batch.header.attributes.is_append_time();
    match sought.time {
        TimeSpec::Since(oldest) => {
            let later = batches.iter().filter(|(_, one)| oldest <= one.header.max_timestamp);
            let is_it = |one: &Found| sought.floor <= one.offset && oldest <= one.timestamp;
            Ok(later.flat_map(|(base, batch)| records(*base, batch)).find(is_it))
        }
        TimeSpec::Newest => {
            // The likeliest first; the first of those that are alike.
            batches.sort_by_key(|(base, one)| (Reverse(one.header.max_timestamp), *base));
            let mut newest = None::<Found>;
            for (base, batch) in &batches {
                let most = batch.header.max_timestamp;
                if newest.is_some_and(|found| most < found.timestamp) {
                    break;
                }
                for one in records(*base, batch).filter(|one| sought.floor <= one.offset) {
                    let is_newer = newest.is_none_or(|known| {
                        (known.timestamp, Reverse(known.offset))
                            < (one.timestamp, Reverse(one.offset))
                    });
                    newest = if is_newer { Some(one) } else { newest };
                    if is_append_time(batch) || one.timestamp == most {
                        break;
                    }
                }
            }
            Ok(newest)
        }
    }
}

/// The batches of a row with their final base offsets.
fn batches(run: &Run, slices: &[CachedSlice]) -> Result<Vec<(Offset, StoredBatch)>, RowDamaged> {
    let outside = |base: i64| RowDamaged::Outside { base };
    let unchecked = run.object.merged || WHOLE_OBJECT_BYTES_MAX < run.object_bytes;
    let mut batches = Vec::new();
    let mut end = run.offsets.base;
    for placed in split_slices(slices, 0) {
        let batch = placed?.batch;
        let count = batch.header.offset_count().expect("the splitter checks the count");
        let stored = batch.header.base_offset;
        let base = if run.offsets_final { Offset::new(stored) } else { Some(end) };
        let base = base.filter(|base| end <= *base).ok_or_else(|| outside(stored))?;
        end = base.checked_add(count).ok_or_else(|| outside(stored))?;
        if run.offsets.next < end {
            return Err(outside(base.value()));
        }
        if unchecked {
            batch.clone().check()?;
        }
        batches.push((base, batch));
    }
    if !run.offsets_final && end != run.offsets.next {
        return Err(RowDamaged::Short { end, next: run.offsets.next });
    }
    Ok(batches)
}

/// The records of a batch that begins at `base`; one in place of those that cannot be read.
fn records(base: Offset, batch: &StoredBatch) -> impl Iterator<Item = Found> {
    let unreadable = Found { offset: base, timestamp: batch.header.max_timestamp };
    let walk = walk_records(&batch.header, &batch.bytes, Depth::Heads);
    let (walk, damaged) = match walk {
        Ok(walk) => (Some(walk), None),
        Err(_) => (None, Some(unreadable)),
    };
    let found = move |head: RecordHead| {
        let offset = head.offset(base)?;
        Some(Found { offset, timestamp: head.timestamp })
    };
    let walked = walk.into_iter().flatten();
    walked.filter_map(move |head| head.map_or(Some(unreadable), found)).chain(damaged)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
