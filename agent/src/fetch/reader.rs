//! Executes a plan: reads rows through the caches and cuts them into answers at batch bounds.

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{
    cache::{ObjectReader, ReadError, plan::WHOLE_OBJECT_BYTES_MAX},
    error::Outcome,
    format::record_batch::{patched_header, split_batches},
    model::Offset,
};
use bytes::Bytes;

use super::{FetchRefused, plan::PartitionPlan};

/// Rows further than this behind the end are history: they must not evict the tail.
const TAIL_RECORDS: i64 = 1_000_000;

/// The batches of a plan, each as a patched header and a slice of the cache. At least one when the
/// plan has rows and `at_least_one`.
pub(super) async fn read(
    reader: &ObjectReader,
    plan: &PartitionPlan,
    pointers: &Pointers,
    at_least_one: bool,
) -> Result<Vec<Bytes>, FetchRefused> {
    let mut cut = Cut { plan, pointers, chunks: Vec::new(), bytes: 0, at_least_one, full: false };
    for run in &plan.runs {
        if cut.full {
            break;
        }
        match row(reader, run, pointers).await {
            Ok(bytes) => cut.take(run, bytes)?,
            // What was read before is a good answer; the client asks for the rest again.
            Err(_) if !cut.chunks.is_empty() => break,
            Err(refused) => return Err(refused),
        }
    }
    Ok(cut.chunks)
}

async fn row(reader: &ObjectReader, run: &Run, pointers: &Pointers) -> Result<Bytes, FetchRefused> {
    let start = u64::from(run.position);
    let range = start..start + u64::from(run.length);
    let behind = pointers.high_watermark.value() - run.offsets.next.value();
    let read = if behind < TAIL_RECORDS {
        reader.read(run.object, run.object_bytes, range).await
    } else {
        reader.read_catch_up(run.object, run.object_bytes, range).await
    };
    read.map_err(|error| refusal(run, &error))
}

fn refusal(run: &Run, error: &ReadError) -> FetchRefused {
    if error.outcome() == Outcome::Corrupt {
        tracing::error!(object = %run.object, %error, "stored bytes are damaged");
        return FetchRefused::Corrupt;
    }
    if error.is_not_found() {
        tracing::error!(object = %run.object, %error, "a referenced object is not in the bucket");
    } else {
        tracing::warn!(object = %run.object, %error, "cannot read an object now");
    }
    FetchRefused::Unavailable
}

/// An answer under construction.
struct Cut<'a> {
    plan: &'a PartitionPlan,
    pointers: &'a Pointers,
    chunks: Vec<Bytes>,
    bytes: usize,
    at_least_one: bool,
    full: bool,
}

impl Cut<'_> {
    /// Adds the batches of a row that the client wants, until the limit.
    fn take(&mut self, run: &Run, bytes: Bytes) -> Result<(), FetchRefused> {
        // Others were checked as a whole when they entered the cache.
        let unchecked = run.object.merged || WHOLE_OBJECT_BYTES_MAX < run.object_bytes;
        let mut base = run.offsets.base;
        for batch in split_batches(bytes) {
            let batch = batch.map_err(|error| damaged(run, &error))?;
            let count = batch.header.offset_count().expect("split_batches checks the count");
            if run.offsets_final {
                base = Offset::new(batch.header.base_offset).ok_or(FetchRefused::Corrupt)?;
            }
            let next = base.checked_add(count).ok_or(FetchRefused::Corrupt)?;
            if base < run.offsets.base || run.offsets.next < next {
                tracing::error!(object = %run.object, %base, "a batch lies outside its row");
                return Err(FetchRefused::Corrupt);
            }
            if self.plan.bound <= base {
                self.full = true;
                return Ok(());
            }
            if self.plan.offset < next {
                let first = self.chunks.is_empty();
                let fits = self.bytes + batch.bytes.len() <= self.plan.bytes_max;
                if !(fits || first && self.at_least_one) {
                    self.full = true;
                    return Ok(());
                }
                let header = patched_header(&batch.bytes, base, self.pointers.leader_epoch);
                self.bytes += batch.bytes.len();
                let body = batch.bytes.slice(header.len()..);
                if unchecked {
                    batch.check().map_err(|error| damaged(run, &error))?;
                }
                self.chunks.push(Bytes::copy_from_slice(&header));
                self.chunks.push(body);
            }
            base = next;
        }
        Ok(())
    }
}

fn damaged(run: &Run, error: &dyn std::fmt::Display) -> FetchRefused {
    tracing::error!(object = %run.object, %error, "a stored batch is damaged");
    FetchRefused::Corrupt
}
