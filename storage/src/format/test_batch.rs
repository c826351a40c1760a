//! Builds record batches for tests, here and in the packages above.

use bytes::Bytes;

use super::{
    checksum::Crc32c,
    record_batch::{Attributes, BATCH_HEADER_BYTES, BatchHeader},
};
use crate::model::{LeaderEpoch, Timestamp};

/// An uncompressed batch to build.
#[derive(Clone, Debug)]
pub struct TestBatch {
    /// Number of records.
    pub records: u32,
    /// Base offset as written.
    pub base_offset: i64,
    /// Producer id, epoch and first sequence; -1 is "none".
    pub producer: (i64, i16, i32),
    /// Attribute bits.
    pub attributes: u16,
    /// Base and largest timestamp.
    pub timestamp_ms: i64,
    /// How much later each record is than the one before it.
    pub timestamp_step_ms: u32,
    /// Value of every record; at most 32 bytes.
    pub value: Vec<u8>,
}

impl Default for TestBatch {
    fn default() -> Self {
        Self {
            records: 1,
            base_offset: 0,
            producer: (-1, -1, -1),
            attributes: 0,
            timestamp_ms: 1_000,
            timestamp_step_ms: 0,
            value: b"water".to_vec(),
        }
    }
}

impl TestBatch {
    /// The batch's bytes.
    ///
    /// # Panics
    /// When `records` is 0 or `value` is longer than 32 bytes.
    pub fn bytes(&self) -> Bytes {
        assert!(self.value.len() <= 32, "lengths are written as one-byte varints");
        let mut records = Vec::new();
        for delta in 0..self.records {
            let mut record = vec![0]; // Attributes.
            put_varint(&mut record, (delta * self.timestamp_step_ms) << 1);
            put_varint(&mut record, delta << 1);
            record.push(1); // Key length -1: no key.
            put_varint(&mut record, (self.value.len() as u32) << 1);
            record.extend_from_slice(&self.value);
            record.push(0); // No headers.
            put_varint(&mut records, (record.len() as u32) << 1);
            records.extend_from_slice(&record);
        }
        let count = i32::try_from(self.records).expect("a test batch is small");
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: self.base_offset,
            batch_length: i32::try_from(BATCH_HEADER_BYTES - 12 + records.len())
                .expect("a test batch is small"),
            leader_epoch: LeaderEpoch::new(-1),
            magic: 2,
            crc: Crc32c::EMPTY,
            attributes: Attributes::from_bits(self.attributes),
            last_offset_delta: count - 1,
            base_timestamp: Timestamp::from_millis(self.timestamp_ms),
            max_timestamp: Timestamp::from_millis(
                self.timestamp_ms + i64::from(self.timestamp_step_ms) * i64::from(count - 1),
            ),
            producer_id,
            producer_epoch,
            base_sequence,
            count,
        };
        let mut bytes = [&header.encode()[..], &records].concat();
        Self::reseal(&mut bytes);
        Bytes::from(bytes)
    }

    /// Writes the right CRC into an edited batch.
    pub fn reseal(bytes: &mut [u8]) {
        let crc = Crc32c::of(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.value().to_be_bytes());
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while 0x80 <= value {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
