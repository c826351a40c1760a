//! Splits a row into batches where it lies: in slices of the cache, one behind the other [pure].
//!
//! A batch nearly always lies inside one slice and is a slice itself. Only one that the border of
//! two cached blocks cuts is copied together.

use aquifer_storage::{
    cache::block::CachedSlice,
    format::record_batch::{
        BATCH_HEADER_BYTES, BatchDamaged, BatchHeader, SplitBatches, StoredBatch, split_batches,
    },
};
use bytes::Bytes;

/// A batch and where it lies.
#[derive(Clone, Debug)]
pub(in crate::fetch) struct PlacedBatch {
    pub batch: StoredBatch,
    /// Which of the slices it keeps in memory; `None` when it has memory of its own.
    pub slice: Option<usize>,
}

/// The batches of `slices` from byte `start` on, where one begins: what [`split_batches`] gives for
/// their concatenation.
pub(in crate::fetch) fn split_slices(slices: &[CachedSlice], start: usize) -> SplitSlices<'_> {
    let mut split = SplitSlices { slices, place: 0, at: 0, inside: split_batches(Bytes::new()) };
    split.skip_bytes(start);
    split
}

/// See [`split_slices`]. Ends after the first error.
#[derive(Clone, Debug)]
pub(in crate::fetch) struct SplitSlices<'a> {
    slices: &'a [CachedSlice],
    /// The slice that is walked, and how far.
    place: usize,
    at: usize,
    /// What is left of it.
    inside: SplitBatches,
}

impl SplitSlices<'_> {
    fn enter(&mut self, place: usize, at: usize) {
        let rest = self.slices.get(place).map_or_else(Bytes::new, |slice| slice.bytes.slice(at..));
        (self.place, self.at, self.inside) = (place, at, split_batches(rest));
    }

    /// Nothing follows an error: where the next batch begins is unknown.
    fn end(&mut self) {
        self.enter(self.slices.len(), 0);
    }

    /// The batch that begins in this slice and goes on in the next ones.
    fn join_first(&mut self) -> Result<StoredBatch, BatchDamaged> {
        let head = self.copy_front(BATCH_HEADER_BYTES);
        let batch_bytes = BatchHeader::parse(&head)?.batch_bytes().unwrap_or(BATCH_HEADER_BYTES);
        // Of one that is longer than the row, that is what is left of the row.
        let joined = self.copy_front(batch_bytes);
        let batch = split_batches(joined).next().expect("a header was copied")?;
        self.skip_bytes(batch.bytes.len());
        Ok(batch)
    }

    /// The next bytes, `bytes_max` at most: what a batch says of its length is not yet believed.
    fn copy_front(&self, bytes_max: usize) -> Bytes {
        let rest = self.slices[self.place..].iter().map(|slice| slice.bytes.len()).sum::<usize>();
        let bytes = bytes_max.min(rest - self.at);
        let mut copy = Vec::with_capacity(bytes);
        let mut at = self.at;
        for slice in &self.slices[self.place..] {
            let part = &slice.bytes[at..];
            copy.extend_from_slice(&part[..part.len().min(bytes - copy.len())]);
            at = 0;
            if copy.len() == bytes {
                break;
            }
        }
        Bytes::from(copy)
    }

    /// Goes on `bytes` further; that many follow.
    fn skip_bytes(&mut self, bytes: usize) {
        let (mut place, mut at) = (self.place, self.at + bytes);
        while let Some(slice) = self.slices.get(place).filter(|slice| slice.bytes.len() <= at) {
            at -= slice.bytes.len();
            place += 1;
        }
        self.enter(place, at);
    }
}

impl Iterator for SplitSlices<'_> {
    type Item = Result<PlacedBatch, BatchDamaged>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.place < self.slices.len() {
            let goes_on = self.place + 1 < self.slices.len();
            match self.inside.next() {
                Some(Ok(batch)) => {
                    self.at += batch.bytes.len();
                    return Some(Ok(PlacedBatch { batch, slice: Some(self.place) }));
                }
                Some(Err(BatchDamaged::Truncated { .. })) if goes_on => {
                    let joined = self.join_first();
                    if joined.is_err() {
                        self.end();
                    }
                    return Some(joined.map(|batch| PlacedBatch { batch, slice: None }));
                }
                Some(Err(error)) => {
                    self.end();
                    return Some(Err(error));
                }
                None => self.enter(self.place + 1, 0),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::format::test_batch::TestBatch;
    use proptest::prelude::*;

    use super::*;

    /// Cuts bytes at these places.
    fn cut(bytes: &Bytes, places: &[prop::sample::Index]) -> Vec<CachedSlice> {
        let mut places: Vec<usize> =
            places.iter().map(|place| place.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.dedup();
        let slices = places.windows(2).map(|pair| {
            let bytes = bytes.slice(pair[0]..pair[1]);
            CachedSlice { piece_bytes: bytes.len(), bytes }
        });
        slices.collect()
    }

    proptest! {
        #[test]
        fn slices_give_the_batches_and_the_error_that_their_concatenation_gives(
            records in prop::collection::vec(1_u32..4, 0..6),
            places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            // Damage in any byte, or in a length.
            damage in prop::option::of((any::<prop::sample::Index>(), 1_u8..=255, any::<bool>())),
            lost in 0_usize..3,
        ) {
            let batch = |records: &u32| TestBatch { records: *records, ..TestBatch::default() };
            let mut row: Vec<u8> =
                records.iter().flat_map(|records| batch(records).bytes()).collect();
            row.truncate(row.len().saturating_sub(lost * 7));
            if let Some((place, flip, in_length)) = damage && !row.is_empty() {
                let at = if in_length { 8 + place.index(4) } else { place.index(row.len()) };
                row[at] ^= flip;
            }
            let row = Bytes::from(row);
            let slices = cut(&row, &places);
            let expected: Vec<_> = split_batches(row.clone()).collect();
            let placed: Vec<_> = split_slices(&slices, 0).collect();
            let batches: Vec<_> =
                placed.iter().map(|placed| placed.clone().map(|placed| placed.batch)).collect();
            prop_assert_eq!(batches, expected);
            let inside = |bytes: &Bytes, of: &Bytes| {
                let start = of.as_ptr() as usize;
                (start..=start + of.len() - bytes.len()).contains(&(bytes.as_ptr() as usize))
            };
            for PlacedBatch { batch, slice } in placed.into_iter().flatten() {
                match slice {
                    Some(slice) => prop_assert!(inside(&batch.bytes, &slices[slice].bytes)),
                    None => prop_assert!(!inside(&batch.bytes, &row), "it has its own memory"),
                }
            }
        }
    }

    #[test]
    fn a_length_beyond_the_row_allocates_no_more_than_the_row() {
        let mut row = TestBatch::default().bytes().to_vec();
        row[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        let row = Bytes::from(row);
        let slices: Vec<CachedSlice> = [row.slice(..70), row.slice(70..)]
            .map(|bytes| CachedSlice { piece_bytes: bytes.len(), bytes })
            .into();
        let split = split_slices(&slices, 0);
        assert_eq!(split.copy_front(usize::MAX).len(), row.len());
        let results: Vec<_> = split.map(|placed| placed.map(|placed| placed.slice)).collect();
        assert_eq!(results, [Err(BatchDamaged::Truncated { remaining_bytes: row.len() })]);
    }
}
