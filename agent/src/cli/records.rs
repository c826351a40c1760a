//! Records and the v2 batches they travel in. Pure.
//!
//! # Invariants
//! - Nothing in a fetched batch is believed before its CRC matched, and no count or length in it
//!   sizes an allocation by itself.
//! - No batch is unpacked beyond what `storage` lets one hold.

use std::io::Read as _;

use aquifer_storage::{
    format::{
        checksum::Crc32c,
        record_batch::{
            Attributes, BATCH_HEADER_BYTES, BatchHeader, BatchProducer, Codec,
            compression::{Packing, UNPACKED_BYTES_MAX, Unpacked, is_too_long, pack, unpack},
        },
    },
    model::{LeaderEpoch, Timestamp},
};
use bytes::{Buf as _, Bytes};

/// The CRC covers a batch from its attributes on.
const CRC_COVERS_FROM: usize = 21;
/// Base offset and length, which the length does not count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// A record on the wire has seven fields of a byte at least.
const RECORD_BYTES_MIN: usize = 7;

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, text by Kafka's rules.
    pub key: Bytes,
    /// Its value, if any.
    pub value: Option<Bytes>,
}

/// A record as a client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What keeps records together.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; -1 is none.
    pub timestamp: i64,
}

impl Record {
    /// Bytes it takes in a batch, at most.
    pub fn bytes_max(&self) -> usize {
        // Five bytes a length, ten a timestamp.
        let header = |header: &Header| 10 + header.key.len() + length(header.value.as_ref());
        let headers: usize = self.headers.iter().map(header).sum();
        40 + length(self.key.as_ref()) + length(self.value.as_ref()) + headers
    }
}

fn length(bytes: Option<&Bytes>) -> usize {
    bytes.map_or(0, Bytes::len)
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Whether the timestamp is the broker's, not the producer's.
    pub is_append_time: bool,
    /// The record.
    pub record: Record,
}

/// Bytes that are no batch of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsDamaged {
    /// A batch of the formats before Kafka 0.11.
    #[error("the batch at offset {offset} has format {magic}, which only Kafka before 4.0 reads")]
    OldFormat {
        /// Its base offset.
        offset: i64,
        /// Its format's number.
        magic: i8,
    },
    /// The bytes changed on their way.
    #[error("the batch at offset {offset} does not match its checksum")]
    Checksum {
        /// Its base offset.
        offset: i64,
    },
    /// It is compressed by something unknown.
    #[error("the batch at offset {offset} is compressed with codec {code}, which is none")]
    UnknownCodec {
        /// Its base offset.
        offset: i64,
        /// The codec's number.
        code: u16,
    },
    /// It cannot be unpacked.
    #[error("the batch at offset {offset} cannot be unpacked ({codec:?}): {reason}")]
    Unpack {
        /// Its base offset.
        offset: i64,
        /// How it is compressed.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
    /// A record's fields do not fit.
    #[error("the batch at offset {offset} is malformed: {reason}")]
    Malformed {
        /// Its base offset.
        offset: i64,
        /// What does not fit.
        reason: &'static str,
    },
}

/// A batch whose CRC matched.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its header.
    pub header: BatchHeader,
    bytes: Bytes,
}

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The producer's transaction was aborted.
    Abort,
    /// It was committed, or something that concerns no reader.
    Other,
}

impl Batch {
    /// Takes the next batch off `bytes`; `None` at the end, where a broker may cut one off.
    ///
    /// # Errors
    /// What follows is no batch.
    pub fn take(bytes: &mut Bytes) -> Result<Option<Self>, RecordsDamaged> {
        let Ok(header) = BatchHeader::parse(bytes) else {
            bytes.clear();
            return Ok(None);
        };
        let offset = header.base_offset;
        if header.magic != 2 {
            return Err(RecordsDamaged::OldFormat { offset, magic: header.magic });
        }
        let reason = "its length is too small for its header";
        let length = header.batch_bytes().ok_or(RecordsDamaged::Malformed { offset, reason })?;
        if bytes.len() < length {
            bytes.clear();
            return Ok(None);
        }
        let batch = Self { header, bytes: bytes.split_to(length) };
        match Crc32c::of(&batch.bytes[CRC_COVERS_FROM..]) == header.crc {
            true => Ok(Some(batch)),
            false => Err(RecordsDamaged::Checksum { offset }),
        }
    }

    /// The first offset that the batch does not cover.
    pub fn next_offset(&self) -> i64 {
        let delta = i64::from(self.header.last_offset_delta);
        self.header.base_offset.saturating_add(delta).saturating_add(1)
    }

    /// Its records, unpacked.
    ///
    /// # Errors
    /// They cannot be unpacked, or are no records.
    pub fn records(&self) -> Result<Vec<PlacedRecord>, RecordsDamaged> {
        let offset = self.header.base_offset;
        let packed = self.bytes.slice(BATCH_HEADER_BYTES..);
        let code = self.header.attributes.codec_code();
        let codec = self.header.attributes.codec();
        let codec = codec.ok_or(RecordsDamaged::UnknownCodec { offset, code })?;
        let mut bytes = decompress(codec, packed).map_err(|reason| RecordsDamaged::Unpack {
            offset,
            codec,
            reason,
        })?;
        let malformed = |reason| RecordsDamaged::Malformed { offset, reason };
        let count = usize::try_from(self.header.count).map_err(|_| malformed("negative count"))?;
        if bytes.len() / RECORD_BYTES_MIN < count {
            return Err(malformed("it has more records than bytes for them"));
        }
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(self.record(&mut bytes).ok_or_else(|| malformed("a record is cut off"))?);
        }
        Ok(records)
    }

    /// What a control batch says; `None` for records.
    pub fn marker(&self) -> Option<Marker> {
        if !self.header.attributes.is_control() {
            return None;
        }
        let records = self.records().unwrap_or_default();
        // The key is a version and a type, both of 16 bits; type 0 is an abort.
        let key = records.first().and_then(|first| first.record.key.as_deref());
        Some(if key.is_some_and(|key| key.get(2..4) == Some(&[0, 0])) {
            Marker::Abort
        } else {
            Marker::Other
        })
    }

    fn record(&self, bytes: &mut Bytes) -> Option<PlacedRecord> {
        let length = usize::try_from(take_varint(bytes)?).ok()?;
        let mut bytes = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        bytes.try_get_u8().ok()?; // Attributes, of which there are none.
        let timestamp =
            self.header.base_timestamp.millis().checked_add(take_varint(&mut bytes)?)?;
        let offset = self.header.base_offset.checked_add(take_varint(&mut bytes)?)?;
        let (key, value) = (take_bytes(&mut bytes)?, take_bytes(&mut bytes)?);
        let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let mut headers = Vec::with_capacity(count.min(bytes.len() / 2));
        for _ in 0..count {
            let (key, value) = (take_bytes(&mut bytes)??, take_bytes(&mut bytes)?);
            headers.push(Header { key, value });
        }
        let is_append_time = self.header.attributes.is_append_time();
        let append_time = self.header.max_timestamp.millis();
        let timestamp = if is_append_time { append_time } else { timestamp };
        let record = Record { key, value, headers, timestamp };
        Some(PlacedRecord { offset, is_append_time, record })
    }
}

/// The records of a batch as they are without their codec.
fn decompress(codec: Codec, packed: Bytes) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    let read = unpack(codec, &packed).and_then(|mut reader| match &mut reader {
        Unpacked::Plain(_) => Ok(0),
        Unpacked::Packed(reader) => reader.read_to_end(&mut unpacked),
    });
    match read {
        Ok(_) if codec == Codec::None => Ok(packed),
        Ok(_) => Ok(unpacked.into()),
        Err(error) if is_too_long(&error) => {
            Err(format!("it is larger than {UNPACKED_BYTES_MAX} bytes when unpacked"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A batch of `records` as an idempotent producer sends it.
///
/// # Panics
/// Without records, or with more than 2 GiB of them: whoever cuts batches keeps far below.
pub fn encode_batch(records: &[Record], producer: BatchProducer, codec: Codec) -> Bytes {
    let base = records.first().expect("a batch has records").timestamp;
    let max = records.iter().map(|record| record.timestamp).max().unwrap_or(base);
    let (mut plain, mut body) = (Vec::new(), Vec::new());
    for (delta, record) in (0i64..).zip(records) {
        body.clear();
        body.push(0); // Attributes.
        put_varint(&mut body, record.timestamp.wrapping_sub(base));
        put_varint(&mut body, delta);
        put_bytes(&mut body, record.key.as_deref());
        put_bytes(&mut body, record.value.as_deref());
        put_varint(&mut body, record.headers.len() as i64);
        for header in &record.headers {
            put_bytes(&mut body, Some(&header.key));
            put_bytes(&mut body, header.value.as_deref());
        }
        put_varint(&mut plain, body.len() as i64);
        plain.extend_from_slice(&body);
    }
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    // Kafka's own levels.
    let level = if codec == Codec::Zstd { 3 } else { -1 };
    pack(Packing { codec, level }, &mut plain.as_slice(), &mut bytes)
        .expect("memory is read and written without errors");
    let count = i32::try_from(records.len()).expect("a batch has few records");
    let length = i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).expect("a batch is small");
    let header = BatchHeader {
        base_offset: 0,
        batch_length: length,
        leader_epoch: LeaderEpoch::new(-1),
        magic: 2,
        crc: Crc32c::EMPTY,
        attributes: Attributes::from_bits(code(codec)),
        last_offset_delta: count - 1,
        base_timestamp: Timestamp::from_millis(base),
        max_timestamp: Timestamp::from_millis(max),
        producer_id: producer.id.value(),
        producer_epoch: producer.epoch.value(),
        base_sequence: producer.base_sequence.value(),
        count,
    };
    bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    let crc = Crc32c::of(&bytes[CRC_COVERS_FROM..]);
    bytes[..BATCH_HEADER_BYTES].copy_from_slice(&BatchHeader { crc, ..header }.encode());
    bytes.into()
}

const fn code(codec: Codec) -> u16 {
    match codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
    }
}

fn put_bytes(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    put_varint(bytes, value.map_or(-1, |value| value.len() as i64));
    bytes.extend_from_slice(value.unwrap_or_default());
}

/// Writes a zigzag varint.
fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while 0x80 <= left {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

/// Takes a zigzag varint; `None` when it is cut off or longer than 64 bits.
fn take_varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Takes a length and as many bytes; the inner `None` is null.
fn take_bytes(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let length = take_varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    (length <= bytes.len()).then(|| Some(bytes.split_to(length)))
}

#[cfg(test)]
mod tests;
