//! Executes a plan: reads rows through the caches and cuts them into answers at batch bounds.

pub(super) mod pieces;

use std::pin::{Pin, pin};

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{
    cache::{ObjectReader, ReadError, block::CachedSlice, plan::WHOLE_OBJECT_BYTES_MAX},
    error::Outcome,
    format::record_batch::{BATCH_HEADER_BYTES, BatchDamaged, StoredBatch, patched_header},
    model::{ObjectName, Offset},
    planted::{self, Bug},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use self::pieces::{PlacedBatch, split_slices};
use super::{
    FetchRefused,
    catch_up::Ahead,
    place::Place,
    plan::{PartitionPlan, held_bytes_max, is_copied},
};

/// Rows of the tail read at the same time, when they are not in memory.
const TAIL_ROWS_MAX: usize = 4;
/// Batches that are smaller on average are copied together: two chunks each would cost more.
const SCATTERED_BATCH_BYTES: usize = 1024;
/// Damaged bytes are fetched once more before anyone is told: a cache may be what damaged them.
const READ_ATTEMPTS: usize = 2;

/// What a plan gave.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    /// Headers and bodies of whole batches, in order.
    pub chunks: Vec<Bytes>,
    /// Length of the chunks.
    pub bytes: usize,
    /// Memory that the chunks keep.
    pub held_bytes: u64,
    /// Rows that were read, from the plan's first on.
    pub rows: usize,
    /// The first offset behind the batches; `None` without any.
    pub next: Option<Offset>,
    /// Where that is, unless it is the end of a row.
    pub place: Option<Place>,
}

/// Why a plan gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFailed {
    /// The object is not in the bucket: was it replaced?
    Missing(ObjectName),
    /// Asking metadata does not help.
    Refused(FetchRefused),
}

/// A row and its bytes do not fit each other.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowDamaged {
    #[error(transparent)]
    Batch(#[from] BatchDamaged),
    #[error("a batch at offset {base} lies outside its row or overlaps another")]
    Outside { base: i64 },
    #[error("the batches end at {end}, their row at {next}")]
    Short { end: Offset, next: Offset },
}

/// The batches of a plan. At least one when the plan has rows and `at_least_one`. With `ahead` it
/// is history, of which that has all fetched that fits into memory.
pub(super) async fn read(
    reader: &ObjectReader,
    plan: &PartitionPlan,
    pointers: &Pointers,
    at_least_one: bool,
    ahead: Option<&Ahead<'_>>,
) -> Result<Cutting, ReadFailed> {
    let mut cut = Cut { plan, pointers, at_least_one, full: false, out: Cutting::default() };
    let source = Source { reader, is_history: ahead.is_some() };
    let mut warm = pin!(source.warm(plan.runs.get(1..).unwrap_or_default()));
    for run in &plan.runs {
        if cut.full {
            break;
        }
        if let Some(ahead) = ahead {
            ahead.hold_from(run.offsets.base).await;
        }
        let taken = beside(source.take_row(run, &mut cut), warm.as_mut()).await;
        match taken {
            Ok(()) => cut.out.rows += 1,
            // What was read before is a good answer; the client asks for the rest again.
            Err(_) if !cut.out.chunks.is_empty() => break,
            Err(failed) => return Err(failed),
        }
    }
    Ok(cut.out)
}

/// The same of a plan whose rows are all in memory and sound; `None` otherwise.
pub(super) fn read_cached(
    reader: &ObjectReader,
    plan: &PartitionPlan,
    pointers: &Pointers,
    at_least_one: bool,
) -> Option<Cutting> {
    let mut cut = Cut { plan, pointers, at_least_one, full: false, out: Cutting::default() };
    for run in &plan.runs {
        if cut.full {
            break;
        }
        let start = u64::from(run.position);
        let range = start..start + u64::from(run.length);
        let row = reader.cached(run.object, run.object_bytes, range)?;
        cut.take(run, &row).ok()?;
        cut.out.rows += 1;
    }
    Some(cut.out)
}

/// Waits for a row, and drives what follows it only if it has to wait.
async fn beside<T>(row: impl Future<Output = T>, mut next: Pin<&mut impl Stream<Item = ()>>) -> T {
    let mut row = pin!(row);
    loop {
        tokio::select! {
            biased; // As long as rows are in memory nothing is to be warmed.
            row = &mut row => return row,
            Some(()) = next.next() => {}
        }
    }
}

/// Where rows come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    reader: &'a ObjectReader,
    is_history: bool,
}

impl Source<'_> {
    async fn read(&self, run: &Run) -> Result<Vec<CachedSlice>, ReadError> {
        let start = u64::from(run.position);
        let range = start..start + u64::from(run.length);
        if self.is_history {
            self.reader.read_catch_up(run.object, run.object_bytes, range).await
        } else {
            self.reader.read(run.object, run.object_bytes, range).await
        }
    }

    /// Brings the next rows of the tail into the cache, a few at a time, and keeps none of them.
    fn warm<'b>(&'b self, runs: &'b [Run]) -> impl Stream<Item = ()> + 'b {
        let runs = if self.is_history { &[] } else { runs };
        let rows = futures::stream::iter(runs).map(async |run| {
            let _ = self.read(run).await; // Whoever needs the row is told.
        });
        rows.buffer_unordered(TAIL_ROWS_MAX - 1)
    }

    async fn take_row(&self, run: &Run, cut: &mut Cut<'_>) -> Result<(), ReadFailed> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let row = match self.read(run).await {
                Err(error) if error.is_not_found() && planted::is(Bug::SkipOn404) => return Ok(()),
                row => row.map_err(|error| failed(run, &error))?,
            };
            let Err(error) = cut.take(run, &row) else { return Ok(()) };
            let start = u64::from(run.position);
            let range = start..start + u64::from(run.length);
            self.reader.forget(run.object, run.object_bytes, range).await;
            if READ_ATTEMPTS <= attempts {
                let (object, base) = (run.object, run.offsets.base);
                tracing::error!(%object, %base, %error, "a row is damaged");
                return Err(ReadFailed::Refused(FetchRefused::Corrupt));
            }
        }
    }
}

/// What a failed read of a row means.
pub(super) fn failed(run: &Run, error: &ReadError) -> ReadFailed {
    if error.is_not_found() {
        return ReadFailed::Missing(run.object);
    }
    // A row that does not lie inside its object is damage too, of what metadata says. A store that
    // refuses, as one does whose credentials expired, says nothing of the bytes.
    let refused = matches!(error, ReadError::Store { .. }) && error.outcome() != Outcome::Corrupt;
    if !refused {
        tracing::error!(object = %run.object, %error, "stored bytes are damaged");
        return ReadFailed::Refused(FetchRefused::Corrupt);
    }
    tracing::warn!(object = %run.object, %error, "cannot read an object now");
    ReadFailed::Refused(FetchRefused::Unavailable)
}

/// An answer under construction.
struct Cut<'a> {
    plan: &'a PartitionPlan,
    pointers: &'a Pointers,
    at_least_one: bool,
    full: bool,
    out: Cutting,
}

/// A batch to be sent, its final base offset, and which of the row's slices it lies in.
struct Taken {
    batch: StoredBatch,
    base: Offset,
    slice: Option<usize>,
}

impl Cut<'_> {
    /// Adds the batches of a row that the client wants, until the limit; nothing of a damaged row.
    fn take(&mut self, run: &Run, row: &[CachedSlice]) -> Result<(), RowDamaged> {
        let outside = |base: i64| RowDamaged::Outside { base };
        // Others were checked as a whole when they entered the cache.
        let unchecked = run.object.merged || WHOLE_OBJECT_BYTES_MAX < run.object_bytes;
        let mut taken = Vec::new();
        let mut bytes = self.out.bytes;
        let inside = self.plan.place.and_then(|place| place.inside(run, self.plan.offset));
        let (mut end, mut at) = inside.unwrap_or((run.offsets.base, 0));
        let mut full = false;
        for placed in split_slices(row, at) {
            let PlacedBatch { batch, slice } = placed?;
            let count = batch.header.offset_count().expect("the splitter checks the count");
            let stored = batch.header.base_offset;
            let base = if run.offsets_final { Offset::new(stored) } else { Some(end) };
            let base = base.filter(|base| end <= *base).ok_or_else(|| outside(stored))?;
            let next = base.checked_add(count).filter(|next| *next <= run.offsets.next);
            let next = next.ok_or_else(|| outside(base.value()))?;
            let batch_bytes = batch.bytes.len();
            let fits = bytes + batch_bytes <= self.plan.bytes_max;
            let is_wanted = self.plan.offset < next;
            full = self.plan.bound <= base
                || (is_wanted && !fits && !(bytes == 0 && self.at_least_one));
            if full {
                break;
            }
            end = next;
            at += batch_bytes;
            // A count that is not true would move every offset behind it.
            if unchecked && (is_wanted || !run.offsets_final) {
                batch.clone().check()?;
            }
            if is_wanted {
                bytes += batch_bytes;
                taken.push(Taken { batch, base, slice });
            }
        }
        // Counted up, offsets are right only when every batch was where the row says.
        if !full && !run.offsets_final && end != run.offsets.next {
            return Err(RowDamaged::Short { end, next: run.offsets.next });
        }
        self.full = full;
        if !taken.is_empty() {
            self.out.next = Some(end);
            self.out.place = full.then(|| Place::new(run, end, at));
        }
        self.emit(run, row, &taken);
        Ok(())
    }

    /// Adds a row's batches, as slices of the cache where that keeps no more memory than the plan
    /// has counted for the row.
    fn emit(&mut self, run: &Run, row: &[CachedSlice], taken: &[Taken]) {
        let own: usize = taken.iter().map(|taken| taken.batch.bytes.len()).sum();
        self.out.bytes += own;
        // What the batches may keep besides themselves.
        let mut spare = held_bytes_max(run).saturating_sub(own as u64);
        for together in taken.chunk_by(|one, next| one.slice == next.slice) {
            let own = together.iter().map(|taken| taken.batch.bytes.len()).sum::<usize>();
            let kept = together[0].slice.map_or(own, |slice| row[slice].piece_bytes) as u64;
            let more = kept.saturating_sub(own as u64);
            let scattered = own < together.len() * SCATTERED_BATCH_BYTES;
            if scattered || is_copied(own as u64, kept) || spare < more {
                self.emit_copy(together, own);
                self.out.held_bytes += own as u64;
            } else {
                self.emit_slices(together);
                self.out.held_bytes += kept;
                spare -= more;
            }
        }
    }

    /// Patched headers, in memory that they share, each before a slice of the cache.
    fn emit_slices(&mut self, taken: &[Taken]) {
        let mut headers = Vec::with_capacity(taken.len() * BATCH_HEADER_BYTES);
        taken.iter().for_each(|taken| headers.extend_from_slice(&self.header(taken)));
        let mut headers = Bytes::from(headers);
        self.out.chunks.reserve(2 * taken.len());
        for taken in taken {
            self.out.chunks.push(headers.split_to(BATCH_HEADER_BYTES));
            self.out.chunks.push(taken.batch.bytes.slice(BATCH_HEADER_BYTES..));
        }
    }

    /// One chunk with memory of its own, `bytes` long.
    fn emit_copy(&mut self, taken: &[Taken], bytes: usize) {
        let mut copy = Vec::with_capacity(bytes);
        for taken in taken {
            copy.extend_from_slice(&self.header(taken));
            copy.extend_from_slice(&taken.batch.bytes[BATCH_HEADER_BYTES..]);
        }
        self.out.chunks.push(Bytes::from(copy));
    }

    fn header(&self, taken: &Taken) -> [u8; BATCH_HEADER_BYTES] {
        patched_header(&taken.batch.bytes, taken.base, self.pointers.leader_epoch)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
