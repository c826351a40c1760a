//! The records inside a batch [pure]: walked one by one, without their keys and values.
//!
//! # Not here
//! Which records a topic takes (`rework`).

use std::io::{self, BufRead};

use super::{
    BatchHeader,
    compression::{Unpacked, is_too_long, unpack},
    header::BATCH_HEADER_BYTES,
};
use crate::model::{Offset, Timestamp};

/// Headers of one record; Kafka has no limit, a record of 100 MiB holds no more.
const HEADERS_MAX: i32 = 50_000_000;

/// What a walk sees of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp; in a batch with the time of its append, that.
    pub timestamp: Timestamp,
    /// Whether it has a key.
    pub has_key: bool,
    /// Lengths of key and value in bytes, of none 0; of the value only in [`Depth::Whole`].
    pub sizes: (i32, i32),
}

/// Records that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsDamaged {
    /// The compressed form is broken.
    #[error("the compressed records are damaged")]
    Compression,
    /// They hold more than [`super::compression::UNPACKED_BYTES_MAX`].
    #[error("the records take too many bytes uncompressed")]
    TooLong,
    /// They end before the batch's count.
    #[error("Incorrect declared batch size, premature EOF reached")]
    Short,
    /// There is more behind the last of them.
    #[error("Incorrect declared batch size, records still remaining in file")]
    Surplus,
    /// A length inside a record leads out of it.
    #[error("Found invalid record structure")]
    Structure,
    /// A record does not end where its length says.
    #[error("Invalid record size: expected {expected} bytes in record payload, but read {read}")]
    Size {
        /// As written.
        expected: i32,
        /// What its parts take.
        read: i64,
    },
}

/// How closely a walk looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// As far as a record's key; the rest is passed over.
    Heads,
    /// Every length, and what is behind the last record.
    Whole,
}

/// The records of a batch in order; ends after the first error.
pub struct RecordWalk<'a> {
    records: Unpacked<'a>,
    header: BatchHeader,
    left: i32,
    depth: Depth,
    /// Bytes of the present record that were read.
    read: i64,
}

/// Walks the records of `batch`, whose header was parsed.
///
/// # Errors
/// The compressed form does not even begin as one, or its codec has no name.
pub fn walk_records<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    depth: Depth,
) -> Result<RecordWalk<'a>, RecordsDamaged> {
    let codec = header.attributes.codec().ok_or(RecordsDamaged::Compression)?;
    let records = batch.get(BATCH_HEADER_BYTES..).ok_or(RecordsDamaged::Short)?;
    let records = unpack(codec, records).map_err(|_| RecordsDamaged::Compression)?;
    Ok(RecordWalk { records, header: *header, left: header.count, depth, read: 0 })
}

impl RecordHead {
    /// Its offset in a batch that begins at `base`.
    pub fn offset(&self, base: Offset) -> Option<Offset> {
        base.checked_add(u32::try_from(self.offset_delta).ok()?)
    }
}

impl Iterator for RecordWalk<'_> {
    type Item = Result<RecordHead, RecordsDamaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let is_end = self.left < 0 || self.depth == Depth::Heads;
            self.left = -1;
            return match (is_end, self.records.fill_buf()) {
                (true, _) => None,
                (false, Ok([])) => None,
                (false, Ok(_)) => Some(Err(RecordsDamaged::Surplus)),
                (false, Err(error)) => Some(Err(damaged(&error))),
            };
        }
        self.left -= 1;
        let head = self.next_record();
        if head.is_err() {
            self.left = -1;
        }
        Some(head)
    }
}

impl RecordWalk<'_> {
    fn next_record(&mut self) -> Result<RecordHead, RecordsDamaged> {
        let length = self.varint()?;
        if length < 0 {
            return Err(RecordsDamaged::Structure);
        }
        self.read = 0;
        self.skip(1)?; // Attributes: none are in use.
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        let key_bytes = self.varint()?;
        let value_bytes = match self.depth {
            Depth::Heads => {
                self.skip(i64::from(length) - self.read)?;
                0
            }
            Depth::Whole => self.rest_of_record(key_bytes)?,
        };
        if self.read != i64::from(length) {
            return Err(RecordsDamaged::Size { expected: length, read: self.read });
        }
        let timestamp = match self.header.attributes.is_append_time() {
            true => self.header.max_timestamp,
            false => {
                let base = self.header.base_timestamp.millis();
                Timestamp::from_millis(base.wrapping_add(timestamp_delta))
            }
        };
        let sizes = (key_bytes.max(0), value_bytes.max(0));
        Ok(RecordHead { offset_delta, timestamp, has_key: 0 <= key_bytes, sizes })
    }

    /// Passes over key, value and headers; returns the value's length.
    fn rest_of_record(&mut self, key_bytes: i32) -> Result<i32, RecordsDamaged> {
        self.skip_nullable(key_bytes)?;
        let value_bytes = self.varint()?;
        self.skip_nullable(value_bytes)?;
        let headers = self.varint()?;
        if !(0..=HEADERS_MAX).contains(&headers) {
            return Err(RecordsDamaged::Structure);
        }
        for _ in 0..headers {
            let name_bytes = self.varint()?;
            self.skip(i64::from(name_bytes))?;
            let bytes = self.varint()?;
            self.skip_nullable(bytes)?;
        }
        Ok(value_bytes)
    }

    /// Passes over a field whose length -1 (in Kafka any negative one) says that there is none.
    fn skip_nullable(&mut self, bytes: i32) -> Result<(), RecordsDamaged> {
        self.skip(i64::from(bytes.max(0)))
    }

    fn skip(&mut self, bytes: i64) -> Result<(), RecordsDamaged> {
        let mut left = u64::try_from(bytes).map_err(|_| RecordsDamaged::Structure)?;
        while 0 < left {
            let there = self.records.fill_buf().map_err(|error| damaged(&error))?.len();
            if there == 0 {
                return Err(RecordsDamaged::Short);
            }
            let passed = usize::try_from(left).unwrap_or(usize::MAX).min(there);
            self.records.consume(passed);
            left -= passed as u64;
        }
        self.read += bytes;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, RecordsDamaged> {
        let there = self.records.fill_buf().map_err(|error| damaged(&error))?;
        let byte = *there.first().ok_or(RecordsDamaged::Short)?;
        self.records.consume(1);
        self.read += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<i32, RecordsDamaged> {
        i32::try_from(self.zigzag(5)?).map_err(|_| RecordsDamaged::Structure)
    }

    fn varlong(&mut self) -> Result<i64, RecordsDamaged> {
        self.zigzag(10)
    }

    fn zigzag(&mut self, bytes_max: u32) -> Result<i64, RecordsDamaged> {
        let mut value = 0_u64;
        for place in 0..bytes_max {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(RecordsDamaged::Structure)
    }
}

fn damaged(error: &io::Error) -> RecordsDamaged {
    if is_too_long(error) { RecordsDamaged::TooLong } else { RecordsDamaged::Compression }
}
