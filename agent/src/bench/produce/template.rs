//! A record batch whose changing part is its head, so that sealing it costs the same at any size.
//! [pure]
//!
//! The head is the batch header and the start of the first record up to a stamp: the microsecond
//! at which the request was meant to leave. All behind it is random, the same in every batch and
//! shared by all connections. A CRC is linear, so that of the whole is the head's, moved over the
//! tail's length by 32 precomputed words, plus the tail's.

use aquifer_storage::{
    format::{
        checksum::Crc32c,
        record_batch::{Attributes, BATCH_HEADER_BYTES, BatchHeader},
    },
    model::{LeaderEpoch, Timestamp},
};
use bytes::Bytes;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};

use crate::bench::{client::ProducerLease, stamp};

/// Where a batch's CRC starts to count.
const CRC_COVERS_FROM: usize = 21;

/// What stands before the length of a batch ends.
const BATCH_LENGTH_COUNTS_FROM: usize = 12;

/// The largest batch to build.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Sizes of a batch and its records.
#[derive(Clone, Copy, Debug)]
pub struct BatchShape {
    /// Bytes of the whole batch on the wire.
    pub batch_bytes: usize,
    /// Bytes of each record's value; the last record takes what is left.
    pub record_bytes: usize,
    /// What the payload is drawn from.
    pub seed: u64,
}

/// Sizes that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeRefused {
    /// A record does not hold its stamp.
    #[error("a record of {record_bytes} B is below the {min} B of a stamp")]
    RecordTooSmall {
        /// As asked.
        record_bytes: usize,
        /// The least.
        min: usize,
    },
    /// A batch does not hold a record.
    #[error("a batch of {batch_bytes} B is not within {min}..={max} B")]
    BatchBytes {
        /// As asked.
        batch_bytes: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
}

/// What differs between two batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchVariables {
    /// Who produces it.
    pub producer: ProducerLease,
    /// Sequence of its first record, -1 for none.
    pub base_sequence: i32,
    /// When its request was meant to leave, in microseconds since the Unix epoch.
    pub intended_micros: u64,
}

/// A batch to be sealed again and again.
#[derive(Clone, Debug)]
pub struct BatchTemplate {
    /// The start of the first record, up to its stamp.
    record_start: Vec<u8>,
    tail: Bytes,
    tail_crc: Crc32c,
    moved_bit: [u32; 32],
    records: i32,
}

impl BatchTemplate {
    /// Draws the payload and lays out the records.
    ///
    /// # Errors
    /// The sizes cannot be.
    pub fn new(shape: &BatchShape) -> Result<Self, ShapeRefused> {
        let lengths = value_lengths(shape)?;
        let mut random = StdRng::seed_from_u64(shape.seed);
        let mut bytes = Vec::with_capacity(shape.batch_bytes);
        let mut record_start_bytes = 0;
        for (delta, length) in lengths.iter().enumerate() {
            put_record_start(&mut bytes, delta, *length);
            if delta == 0 {
                record_start_bytes = bytes.len();
            }
            let value_at = bytes.len();
            bytes.resize(value_at + length, 0);
            random.fill_bytes(&mut bytes[value_at..]);
            bytes.push(0); // No headers.
        }
        let tail = bytes.split_off(record_start_bytes + stamp::BYTES);
        bytes.truncate(record_start_bytes);
        let move_bit = |bit| {
            let moved = Crc32c::new(1_u32 << bit).followed_by(Crc32c::EMPTY, tail.len() as u64);
            moved.value()
        };
        Ok(Self {
            record_start: bytes,
            tail_crc: Crc32c::of(&tail),
            moved_bit: std::array::from_fn(move_bit),
            tail: tail.into(),
            records: i32::try_from(lengths.len()).expect("a batch is below 256 MiB"),
        })
    }

    /// Bytes of the part that changes.
    pub fn head_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.record_start.len() + stamp::BYTES
    }

    /// The part that never changes.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// Bytes of the whole batch.
    pub fn batch_bytes(&self) -> usize {
        self.head_bytes() + self.tail.len()
    }

    /// Records in it.
    pub fn records(&self) -> i32 {
        self.records
    }

    /// Writes the head of a batch.
    ///
    /// # Panics
    /// When `head` does not have [`BatchTemplate::head_bytes`].
    pub fn seal(&self, head: &mut [u8], variables: &BatchVariables) {
        let millis = i64::try_from(variables.intended_micros / 1000).unwrap_or(i64::MAX);
        let timestamp = Timestamp::from_millis(millis);
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(self.batch_bytes() - BATCH_LENGTH_COUNTS_FROM)
                .expect("a batch is below 256 MiB"),
            leader_epoch: LeaderEpoch::new(-1),
            magic: 2,
            crc: Crc32c::EMPTY,
            attributes: Attributes::from_bits(0),
            last_offset_delta: self.records - 1,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id: variables.producer.id,
            producer_epoch: variables.producer.epoch,
            base_sequence: variables.base_sequence,
            count: self.records,
        };
        let (header_part, rest) = head.split_at_mut(BATCH_HEADER_BYTES);
        let (record_start, stamp_part) = rest.split_at_mut(self.record_start.len());
        header_part.copy_from_slice(&header.encode());
        record_start.copy_from_slice(&self.record_start);
        stamp_part.copy_from_slice(&stamp::encode(variables.intended_micros));
        let head_crc = Crc32c::of(&head[CRC_COVERS_FROM..]);
        header.crc = Crc32c::new(self.moved(head_crc) ^ self.tail_crc.value());
        head[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    }

    /// The CRC of a head as it counts in the CRC of the whole.
    fn moved(&self, head: Crc32c) -> u32 {
        let mut left = head.value();
        let mut moved = 0;
        while left != 0 {
            moved ^= self.moved_bit[left.trailing_zeros() as usize];
            left &= left - 1;
        }
        moved
    }
}

fn value_lengths(shape: &BatchShape) -> Result<Vec<usize>, ShapeRefused> {
    let BatchShape { batch_bytes, record_bytes, .. } = *shape;
    if record_bytes < stamp::BYTES {
        return Err(ShapeRefused::RecordTooSmall { record_bytes, min: stamp::BYTES });
    }
    let min = BATCH_HEADER_BYTES + record_length(0, stamp::BYTES);
    if !(min..=BATCH_BYTES_MAX).contains(&batch_bytes) {
        return Err(ShapeRefused::BatchBytes { batch_bytes, min, max: BATCH_BYTES_MAX });
    }
    let mut left = batch_bytes - BATCH_HEADER_BYTES;
    let mut lengths = Vec::new();
    loop {
        let delta = lengths.len();
        let full = record_length(delta, record_bytes);
        if left < full + record_length(delta + 1, record_bytes) {
            lengths.push(longest_value(delta, left));
            return Ok(lengths);
        }
        left -= full;
        lengths.push(record_bytes);
    }
}

/// The longest value whose record fits into `room`; up to two bytes of room may stay unused, where
/// a length takes one byte more.
fn longest_value(delta: usize, room: usize) -> usize {
    let mut value = room.saturating_sub(record_length(delta, 0));
    while room < record_length(delta, value) {
        value -= 1;
    }
    value
}

/// Bytes of a record, its length field included.
fn record_length(delta: usize, value_bytes: usize) -> usize {
    let body = record_body(delta, value_bytes);
    varint_bytes(body) + body
}

fn record_body(delta: usize, value_bytes: usize) -> usize {
    // Attributes, timestamp delta, key length -1 and header count take a byte each.
    4 + varint_bytes(delta) + varint_bytes(value_bytes) + value_bytes
}

/// What stands before a record's value.
fn put_record_start(bytes: &mut Vec<u8>, delta: usize, value_bytes: usize) {
    put_varint(bytes, record_body(delta, value_bytes));
    bytes.extend_from_slice(&[0, 0]); // Attributes, timestamp delta.
    put_varint(bytes, delta);
    bytes.push(1); // Key length -1: no key.
    put_varint(bytes, value_bytes);
}

/// Writes a number that is not negative as a zigzag varint.
fn put_varint(bytes: &mut Vec<u8>, value: usize) {
    let mut left = value << 1;
    while 0x80 <= left {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - (value << 1).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests;
