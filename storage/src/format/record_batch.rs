//! A Kafka v2 record batch seen through its 61-byte header. Records stay compressed and unread,
//! except where a topic or a lookup by time asks for them (`records`, `rework`).
//!
//! The batch's CRC covers `attributes` to the end, so base offset and leader epoch can be patched
//! on the way out without touching it ([`patched_header`]).
//!
//! # Invariants
//! - A [`CheckedBatch`] is one whole batch whose CRC matched; only this module makes one.
//! - A [`ValidatedBatch`] also keeps the rules for *produced* batches.
//!
//! # Not here
//! Kafka's error codes (`agent::wire`).

pub mod compression;
mod header;
mod hole;
pub mod records;
pub mod rework;
mod split;
mod validate;

pub use header::{Attributes, BATCH_HEADER_BYTES, BatchHeader, BatchProducer, Codec};
pub use hole::{HOLE_OFFSETS_MAX, hole_batch};
pub use split::{BatchDamaged, SplitBatches, StoredBatch, split_batches};
pub use validate::{BatchRejected, RejectedAs, ValidatedBatch, validate_produced};

use bytes::{Bytes, BytesMut};

use super::checksum::Crc32c;
use crate::model::{LeaderEpoch, Offset, Timestamp};

/// One whole batch whose CRC matched its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl CheckedBatch {
    /// A copy of the bytes.
    fn detached(self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ..self }
    }

    /// Checks the CRC of one whole batch; `None` when it does not match.
    fn check(header: BatchHeader, bytes: Bytes) -> Option<Self> {
        (Crc32c::of(&bytes[header::CRC_COVERS_FROM..]) == header.crc)
            .then_some(Self { header, bytes })
    }

    /// The parsed header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The checksum of the whole batch, from the batch's own CRC without a pass over the records.
    pub fn checksum(&self) -> Crc32c {
        let (head, rest) = self.bytes.split_at(header::CRC_COVERS_FROM);
        Crc32c::of(head).followed_by(self.header.crc, rest.len() as u64)
    }

    /// The batch with another append-time flag and max timestamp: one copy, no second CRC pass.
    #[must_use]
    fn restamped(&self, append_time: bool, max_timestamp: Timestamp) -> Self {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let tail_bytes = (bytes.len() - BATCH_HEADER_BYTES) as u64;
        let old = Crc32c::of(&bytes[header::CRC_COVERS_FROM..BATCH_HEADER_BYTES]);
        let attributes = self.header.attributes.with_append_time(append_time);
        header::write_attributes(&mut bytes, attributes);
        header::write_max_timestamp(&mut bytes, max_timestamp);
        let new = Crc32c::of(&bytes[header::CRC_COVERS_FROM..BATCH_HEADER_BYTES]);
        let crc = self.header.crc.with_head_replaced(old, new, tail_bytes);
        header::write_crc(&mut bytes, crc);
        let header = BatchHeader { crc, attributes, max_timestamp, ..self.header };
        Self { header, bytes: bytes.freeze() }
    }
}

/// The header of a stored batch with its final base offset and leader epoch, for a vectored
/// answer: this header, then the batch's bytes from [`BATCH_HEADER_BYTES`] on.
///
/// # Panics
/// When `batch` is shorter than a header: the caller got it from [`split_batches`].
pub fn patched_header(
    batch: &[u8],
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
) -> [u8; BATCH_HEADER_BYTES] {
    let mut head: [u8; BATCH_HEADER_BYTES] =
        batch[..BATCH_HEADER_BYTES].try_into().expect("the slice has the length of a header");
    header::write_base_offset(&mut head, base_offset);
    header::write_leader_epoch(&mut head, leader_epoch);
    head
}

#[cfg(test)]
mod tests;
