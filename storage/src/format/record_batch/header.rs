//! The 61 bytes in front of every v2 record batch.

use std::fmt;

use super::BatchDamaged;
use crate::{
    format::checksum::Crc32c,
    model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

/// Length of a v2 batch header.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Base offset and length field: what stands before the bytes that the length counts.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the magic byte stands, in v2 as in the formats before it.
pub(super) const MAGIC_AT: usize = 16;
/// The batch's CRC covers its bytes from here to the end.
pub(super) const CRC_COVERS_FROM: usize = 21;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;

const CODEC_MASK: u16 = 0b111;
const APPEND_TIME_BIT: u16 = 1 << 3;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
const DELETE_HORIZON_BIT: u16 = 1 << 6;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// snappy in the framing of the Java library.
    Snappy,
    /// The lz4 frame format.
    Lz4,
    /// zstd.
    Zstd,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(u16);

impl Attributes {
    /// Wraps the bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits, for encoding.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The codec; `None` for the codes 5 to 7, which name none.
    pub const fn codec(self) -> Option<Codec> {
        match self.0 & CODEC_MASK {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The codec's number, also when it names none.
    pub const fn codec_code(self) -> u16 {
        self.0 & CODEC_MASK
    }

    /// Whether `max_timestamp` is the time of the append, and the time of every record.
    pub const fn is_append_time(self) -> bool {
        self.0 & APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a control record, such as a transaction marker.
    pub const fn is_control(self) -> bool {
        self.0 & CONTROL_BIT != 0
    }

    /// Whether `base_timestamp` is the time at which compaction may drop the tombstones.
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON_BIT != 0
    }

    /// The same bits with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Self {
        let code = match codec {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        };
        Self(self.0 & !CODEC_MASK | code)
    }

    /// The same bits with the append-time bit set or cleared.
    #[must_use]
    pub const fn with_append_time(self, append_time: bool) -> Self {
        if append_time { Self(self.0 | APPEND_TIME_BIT) } else { Self(self.0 & !APPEND_TIME_BIT) }
    }
}

/// Who produced a batch, when the producer is idempotent or transactional.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the batch's first record.
    pub base_sequence: Sequence,
}

/// A parsed batch header. Fields are as written; nothing is checked beyond their presence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Final only in merged objects; a producer's guess elsewhere.
    pub base_offset: i64,
    /// Bytes of the batch behind the length field.
    pub batch_length: i32,
    /// Leader epoch of the append.
    pub leader_epoch: LeaderEpoch,
    /// Format version: 2.
    pub magic: i8,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: Crc32c,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record (inclusive) less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, or the delete horizon.
    pub base_timestamp: Timestamp,
    /// The largest timestamp in the batch.
    pub max_timestamp: Timestamp,
    /// Producer id as written; -1 is "none".
    pub producer_id: i64,
    /// Producer epoch as written; -1 is "none".
    pub producer_epoch: i16,
    /// First sequence as written; -1 is "none".
    pub base_sequence: i32,
    /// Number of records; below `last_offset_delta + 1` after compaction.
    pub count: i32,
}

impl BatchHeader {
    /// Parses the first [`BATCH_HEADER_BYTES`] of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchDamaged> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchDamaged::Truncated { remaining_bytes: bytes.len() });
        };
        Ok(Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: i32::from_be_bytes(field(head, LENGTH_AT)),
            leader_epoch: LeaderEpoch::new(i32::from_be_bytes(field(head, LEADER_EPOCH_AT))),
            magic: i8::from_be_bytes(field(head, MAGIC_AT)),
            crc: Crc32c::new(u32::from_be_bytes(field(head, CRC_AT))),
            attributes: Attributes(u16::from_be_bytes(field(head, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(field(head, LAST_OFFSET_DELTA_AT)),
            base_timestamp: Timestamp::from_millis(i64::from_be_bytes(field(
                head,
                BASE_TIMESTAMP_AT,
            ))),
            max_timestamp: Timestamp::from_millis(i64::from_be_bytes(field(
                head,
                MAX_TIMESTAMP_AT,
            ))),
            producer_id: i64::from_be_bytes(field(head, PRODUCER_ID_AT)),
            producer_epoch: i16::from_be_bytes(field(head, PRODUCER_EPOCH_AT)),
            base_sequence: i32::from_be_bytes(field(head, BASE_SEQUENCE_AT)),
            count: i32::from_be_bytes(field(head, COUNT_AT)),
        })
    }

    /// The header as bytes, for batches that we write ourselves (markers, emptied batches).
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut head = [0; BATCH_HEADER_BYTES];
        put(&mut head, 0, self.base_offset.to_be_bytes());
        put(&mut head, LENGTH_AT, self.batch_length.to_be_bytes());
        write_leader_epoch(&mut head, self.leader_epoch);
        put(&mut head, MAGIC_AT, self.magic.to_be_bytes());
        write_crc(&mut head, self.crc);
        write_attributes(&mut head, self.attributes);
        put(&mut head, LAST_OFFSET_DELTA_AT, self.last_offset_delta.to_be_bytes());
        put(&mut head, BASE_TIMESTAMP_AT, self.base_timestamp.millis().to_be_bytes());
        write_max_timestamp(&mut head, self.max_timestamp);
        put(&mut head, PRODUCER_ID_AT, self.producer_id.to_be_bytes());
        put(&mut head, PRODUCER_EPOCH_AT, self.producer_epoch.to_be_bytes());
        put(&mut head, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(&mut head, COUNT_AT, self.count.to_be_bytes());
        head
    }

    /// How many offsets the batch takes; `None` when the delta is negative or `i32::MAX`.
    pub fn offset_count(&self) -> Option<u32> {
        let count = self.last_offset_delta.checked_add(1)?;
        u32::try_from(count).ok().filter(|&count| count != 0)
    }

    /// Bytes of the whole batch, header included; `None` when shorter than a header.
    pub fn batch_bytes(&self) -> Option<usize> {
        let bytes = usize::try_from(self.batch_length).ok()?.checked_add(LENGTH_PREFIX_BYTES)?;
        (BATCH_HEADER_BYTES <= bytes).then_some(bytes)
    }

    /// The producer; `None` without a producer id, or when one of its numbers is negative.
    pub fn producer(&self) -> Option<BatchProducer> {
        if self.producer_id < 0 {
            return None;
        }
        Some(BatchProducer {
            id: ProducerId::new(self.producer_id),
            epoch: ProducerEpoch::new(self.producer_epoch)?,
            base_sequence: Sequence::new(self.base_sequence)?,
        })
    }

    /// The last offset (inclusive) that the batch takes when its base offset is final.
    pub fn last_offset(&self) -> Option<Offset> {
        Offset::new(self.base_offset.checked_add(i64::from(self.last_offset_delta))?)
    }
}

impl fmt::Debug for BatchHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BatchHeader(base {}, +{}, {} records, {} B, attributes {:#x}, max {}, producer \
             {}/{}/{}, crc {:08x}, epoch {}, magic {}, from {})",
            self.base_offset,
            self.last_offset_delta,
            self.count,
            self.batch_length,
            self.attributes.0,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.crc.value(),
            self.leader_epoch.value(),
            self.magic,
            self.base_timestamp,
        )
    }
}

/// The `N` bytes at `at`, as a big-endian field.
fn field<const N: usize>(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("every field lies inside the header")
}

fn put<const N: usize>(head: &mut [u8], at: usize, value: [u8; N]) {
    head[at..at + N].copy_from_slice(&value);
}

pub(super) fn write_base_offset(head: &mut [u8], offset: Offset) {
    put(head, 0, offset.value().to_be_bytes());
}

pub(super) fn write_leader_epoch(head: &mut [u8], epoch: LeaderEpoch) {
    put(head, LEADER_EPOCH_AT, epoch.value().to_be_bytes());
}

pub(super) fn write_crc(head: &mut [u8], crc: Crc32c) {
    put(head, CRC_AT, crc.value().to_be_bytes());
}

pub(super) fn write_attributes(head: &mut [u8], attributes: Attributes) {
    put(head, ATTRIBUTES_AT, attributes.0.to_be_bytes());
}

pub(super) fn write_max_timestamp(head: &mut [u8], timestamp: Timestamp) {
    put(head, MAX_TIMESTAMP_AT, timestamp.millis().to_be_bytes());
}
