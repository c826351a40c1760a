//! What a topic asks of the records themselves [pure]: each is looked at, and the batch is
//! compressed anew where the topic has a codec of its own.
//!
//! # Not here
//! Which topics ask for it: the default is that a batch's records stay unread.

use std::io::{self, Write};

use bytes::Bytes;

use super::{
    CheckedBatch, ValidatedBatch,
    compression::{Packing, is_too_long, pack, unpack},
    header::{BATCH_HEADER_BYTES, CRC_COVERS_FROM, LENGTH_PREFIX_BYTES, write_crc},
    records::{Depth, RecordsDamaged, walk_records},
};
use crate::{format::checksum::Crc32c, model::Timestamp};

/// Records named in one refusal: an answer may not be a multiple of its request.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// What is asked of every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRules {
    /// Each has a key: the topic is compacted.
    pub keyed: bool,
    /// Which timestamps are taken.
    pub timestamps: TimestampRule,
}

/// Which timestamps records may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampRule {
    /// Any.
    #[default]
    Any,
    /// From the oldest to the newest, in milliseconds, and -1.
    Within(i64, i64),
    /// Those of their client, who leaves the time of the append to the broker.
    NotOfAppend,
}

/// Why records were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsRejected {
    /// They cannot be read.
    #[error(transparent)]
    Damaged(#[from] RecordsDamaged),
    /// Some of them break the topic's rules.
    #[error("{} records break the rules of the topic", .0.len())]
    Records(Vec<RecordRejected>),
    /// Compressed anew the batch is above the topic's limit.
    #[error("the batch takes {batch_bytes} B when it is compressed as the topic says")]
    TooLarge {
        /// What it takes.
        batch_bytes: u64,
    },
}

/// One record that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRejected {
    /// Its place in the batch.
    pub index: u32,
    /// Its offset less the batch's first.
    pub offset_delta: i32,
    /// The rule.
    pub why: RecordFault,
}

/// The rule that a record breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// It has no key.
    NoKey,
    /// It is too old or too new.
    Timestamp(Timestamp),
    /// Its client says when it was appended.
    AppendTime {
        /// What it says.
        timestamp: Timestamp,
        /// Lengths of key and value in bytes.
        sizes: (i32, i32),
    },
}

/// Looks at every record and returns the newest timestamp, -1 without any.
///
/// # Errors
/// Records that break the rules, [`RECORD_ERRORS_MAX`] of them at most.
pub fn check_records(
    batch: &ValidatedBatch,
    rules: RecordRules,
) -> Result<Timestamp, RecordsRejected> {
    let is_of_append = batch.has_client_append_time();
    let mut newest = Timestamp::NONE;
    let mut rejected = Vec::new();
    let walk = walk_records(batch.header(), batch.bytes(), Depth::Whole)?;
    for (index, head) in (0..).zip(walk) {
        let head = head?;
        newest = newest.max(head.timestamp);
        let time = head.timestamp.millis();
        let why = match rules.timestamps {
            _ if rules.keyed && !head.has_key => RecordFault::NoKey,
            TimestampRule::Within(oldest, newest)
                if time != -1 && !(oldest..=newest).contains(&time) =>
            {
                RecordFault::Timestamp(head.timestamp)
            }
            TimestampRule::NotOfAppend if is_of_append => {
                RecordFault::AppendTime { timestamp: head.timestamp, sizes: head.sizes }
            }
            TimestampRule::Any | TimestampRule::Within(..) | TimestampRule::NotOfAppend => continue,
        };
        if rejected.len() < RECORD_ERRORS_MAX {
            rejected.push(RecordRejected { index, offset_delta: head.offset_delta, why });
        }
    }
    if rejected.is_empty() { Ok(newest) } else { Err(RecordsRejected::Records(rejected)) }
}

/// The batch with its records compressed as `packing` says. Everything else stays: producer,
/// sequence, timestamps, keys, values, headers.
///
/// # Errors
/// The records cannot be read, or take more than `bytes_max` with the header.
pub fn repacked(
    batch: &ValidatedBatch,
    packing: Packing,
    bytes_max: usize,
) -> Result<ValidatedBatch, RecordsRejected> {
    let codec = batch.header().attributes.codec().ok_or(RecordsDamaged::Compression)?;
    let mut sink = Sink { bytes: batch.bytes()[..BATCH_HEADER_BYTES].to_vec(), bytes_max, all: 0 };
    let damaged = |error: io::Error| match is_too_long(&error) {
        true => RecordsDamaged::TooLong,
        false => RecordsDamaged::Compression,
    };
    let mut records = unpack(codec, &batch.bytes()[BATCH_HEADER_BYTES..]).map_err(damaged)?;
    pack(packing, &mut records, &mut sink).map_err(damaged)?;
    let batch_bytes = sink.all + BATCH_HEADER_BYTES as u64;
    let length = i32::try_from(batch_bytes - LENGTH_PREFIX_BYTES as u64);
    let (Ok(batch_length), true) = (length, batch_bytes <= bytes_max as u64) else {
        return Err(RecordsRejected::TooLarge { batch_bytes });
    };
    let mut header = *batch.header();
    header.batch_length = batch_length;
    header.attributes = header.attributes.with_codec(packing.codec);
    let mut bytes = sink.bytes;
    bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    header.crc = Crc32c::of(&bytes[CRC_COVERS_FROM..]);
    write_crc(&mut bytes, header.crc);
    Ok(ValidatedBatch::reworked(CheckedBatch { header, bytes: Bytes::from(bytes) }))
}

/// Keeps what fits and counts the rest.
struct Sink {
    bytes: Vec<u8>,
    bytes_max: usize,
    all: u64,
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.all += piece.len() as u64;
        if self.bytes.len() + piece.len() <= self.bytes_max {
            self.bytes.extend_from_slice(piece);
        } else {
            // It will be refused: nothing of it is needed any more.
            self.bytes = Vec::new();
            self.bytes_max = 0;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
