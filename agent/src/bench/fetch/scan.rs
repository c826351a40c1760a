//! Walks fetched records by their batch headers. [pure]

use aquifer_storage::format::{
    checksum::Crc32c,
    record_batch::{BATCH_HEADER_BYTES, BatchDamaged, BatchHeader},
};

/// Where a batch's CRC starts to count.
const CRC_COVERS_FROM: usize = 21;

/// What is expected of a partition's records.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The offset that was asked for.
    pub next: i64,
    /// Whether it is known to be the first of a batch; the log start may be inside one.
    pub is_aligned: bool,
    /// Whether to check every CRC.
    pub verify_crc: bool,
}

/// What a partition's records held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The offset to ask for next.
    pub next: i64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the whole batches.
    pub bytes: u64,
    /// Batches that started behind the expected offset.
    pub holes: u64,
    /// Batches with offsets that were there before.
    pub duplicates: u64,
}

/// Walks `records`; `on_batch` sees each new whole batch. A batch cut off at the end is normal: a
/// broker fills an answer up to its limit.
///
/// # Errors
/// A batch is damaged, or not even the first is whole.
pub fn scan(
    records: &[u8],
    expected: &Expected,
    mut on_batch: impl FnMut(&BatchHeader, &[u8]),
) -> Result<Scanned, BatchDamaged> {
    let mut scanned = Scanned { next: expected.next, ..Scanned::default() };
    let mut rest = records;
    while !rest.is_empty() {
        let (header, batch) = match first_batch(rest) {
            Err(BatchDamaged::Truncated { .. }) if scanned.batches != 0 => break,
            other => other?,
        };
        if expected.verify_crc && Crc32c::of(&batch[CRC_COVERS_FROM..]) != header.crc {
            return Err(BatchDamaged::Checksum);
        }
        rest = &rest[batch.len()..];
        let is_first = scanned.batches == 0;
        scanned.batches += 1;
        scanned.bytes += batch.len() as u64;
        let next = header.base_offset.saturating_add(i64::from(header.last_offset_delta) + 1);
        if next <= scanned.next {
            scanned.duplicates += 1;
            continue;
        }
        scanned.holes += u64::from(scanned.next < header.base_offset);
        let may_overlap = is_first && !expected.is_aligned;
        scanned.duplicates += u64::from(header.base_offset < scanned.next && !may_overlap);
        scanned.records += u64::from(header.count.unsigned_abs());
        scanned.next = next;
        on_batch(&header, batch);
    }
    Ok(scanned)
}

fn first_batch(bytes: &[u8]) -> Result<(BatchHeader, &[u8]), BatchDamaged> {
    let header = BatchHeader::parse(bytes)?;
    if header.magic != 2 {
        return Err(BatchDamaged::Magic { magic: header.magic });
    }
    let batch_length = header.batch_length;
    let length = header.batch_bytes().ok_or(BatchDamaged::LengthTooShort { batch_length })?;
    debug_assert!(BATCH_HEADER_BYTES <= length, "a batch is no shorter than its header");
    let batch = bytes.get(..length);
    let batch = batch.ok_or(BatchDamaged::Truncated { remaining_bytes: bytes.len() })?;
    if header.offset_count().is_none() || header.count < 0 {
        let BatchHeader { last_offset_delta, count, .. } = header;
        return Err(BatchDamaged::Counts { last_offset_delta, count });
    }
    Ok((header, batch))
}

#[cfg(test)]
mod tests {
    use aquifer_storage::format::test_batch::TestBatch;

    use super::*;

    fn batch(base_offset: i64, records: u32) -> Vec<u8> {
        TestBatch { base_offset, records, ..TestBatch::default() }.bytes().to_vec()
    }

    fn expect(next: i64) -> Expected {
        Expected { next, is_aligned: true, verify_crc: true }
    }

    fn counts(records: &[u8], expected: &Expected) -> (u64, u64, u64, i64) {
        let scanned = scan(records, expected, |_, _| ()).unwrap();
        (scanned.batches, scanned.holes, scanned.duplicates, scanned.next)
    }

    #[test]
    fn contiguous_batches_have_neither_holes_nor_duplicates() {
        let bytes = [batch(7, 3), batch(10, 1), batch(11, 2)].concat();
        let mut seen = Vec::new();
        let scanned = scan(&bytes, &expect(7), |header, batch| {
            seen.push((header.base_offset, batch.len()));
        });
        let scanned = scanned.unwrap();
        assert_eq!((scanned.records, scanned.bytes), (6, bytes.len() as u64));
        assert_eq!(counts(&bytes, &expect(7)), (3, 0, 0, 13));
        assert_eq!(seen.iter().map(|(base, _)| *base).collect::<Vec<_>>(), [7, 10, 11]);
    }

    #[test]
    fn a_gap_is_a_hole_and_a_repeat_is_a_duplicate() {
        let gap = [batch(0, 3), batch(4, 1)].concat();
        assert_eq!(counts(&gap, &expect(0)), (2, 1, 0, 5));
        let repeat = [batch(0, 3), batch(0, 3), batch(3, 1)].concat();
        assert_eq!(counts(&repeat, &expect(0)), (3, 0, 1, 4));
        let overlap = [batch(0, 3), batch(2, 3)].concat();
        assert_eq!(counts(&overlap, &expect(0)), (2, 0, 1, 5));
    }

    #[test]
    fn only_a_start_that_may_be_inside_a_batch_excuses_an_overlap() {
        let unaligned = Expected { is_aligned: false, ..expect(2) };
        assert_eq!(counts(&batch(0, 3), &unaligned), (1, 0, 0, 3));
        assert_eq!(counts(&batch(0, 3), &expect(2)), (1, 0, 1, 3));
    }

    #[test]
    fn a_cut_off_last_batch_is_left_for_the_next_answer() {
        let bytes = [batch(0, 3), batch(3, 1)].concat();
        let first = batch(0, 3).len();
        for end in first..bytes.len() {
            assert_eq!(counts(&bytes[..end], &expect(0)), (1, 0, 0, 3), "cut at {end}");
        }
        for end in 1..first {
            scan(&bytes[..end], &expect(0), |_, _| ()).unwrap_err();
        }
    }

    #[test]
    fn a_flipped_bit_is_found_only_when_crcs_are_checked() {
        let mut bytes = batch(0, 1);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(scan(&bytes, &expect(0), |_, _| ()), Err(BatchDamaged::Checksum));
        let trusting = Expected { verify_crc: false, ..expect(0) };
        assert_eq!(counts(&bytes, &trusting), (1, 0, 0, 1));
    }
}
