//! A batch without records that takes offsets: how a reader is led over a hole in a log.

use bytes::Bytes;

use super::{Attributes, BATCH_HEADER_BYTES, BatchHeader, CheckedBatch, header::CRC_COVERS_FROM};
use crate::{
    format::checksum::Crc32c,
    model::{LeaderEpoch, Timestamp},
};

/// The most offsets one such batch takes.
pub const HOLE_OFFSETS_MAX: u32 = i32::MAX.unsigned_abs();

/// A batch of no record that takes `offsets` offsets, as a compaction leaves one that removed every
/// record. Clients go on behind it.
///
/// # Panics
/// When `offsets` is 0 or above [`HOLE_OFFSETS_MAX`]: the header cannot say it.
pub fn hole_batch(offsets: u32) -> CheckedBatch {
    let last_offset_delta = i32::try_from(offsets).ok().and_then(|offsets| offsets.checked_sub(1));
    let mut header = BatchHeader {
        base_offset: 0,
        batch_length: (BATCH_HEADER_BYTES - super::header::LENGTH_PREFIX_BYTES) as i32,
        leader_epoch: LeaderEpoch::new(-1),
        magic: 2,
        crc: Crc32c::EMPTY,
        attributes: Attributes::default(),
        last_offset_delta: last_offset_delta
            .filter(|delta| 0 <= *delta)
            .expect("a hole has from 1 to 2^31-1 offsets"),
        base_timestamp: Timestamp::NONE,
        max_timestamp: Timestamp::NONE,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count: 0,
    };
    header.crc = Crc32c::of(&header.encode()[CRC_COVERS_FROM..]);
    let bytes = Bytes::copy_from_slice(&header.encode());
    CheckedBatch::check(header, bytes).expect("the checksum was just computed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record_batch::split_batches;

    #[test]
    fn a_hole_is_one_sound_batch_that_takes_its_offsets_and_holds_no_record() {
        for offsets in [1, 1_000_000_000, HOLE_OFFSETS_MAX] {
            let hole = hole_batch(offsets);
            let mut split = split_batches(hole.bytes().clone());
            let stored = split.next().unwrap().unwrap().check().unwrap();
            assert_eq!(stored, hole);
            assert_eq!(stored.header().offset_count(), Some(offsets));
            assert_eq!(stored.header().count, 0);
            assert_eq!(split.next(), None);
        }
    }
}
