//! Walks stored bytes batch by batch.

use bytes::Bytes;

use super::{BatchHeader, CheckedBatch};

/// Stored bytes that are not a sequence of whole, sound v2 batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchDamaged {
    /// The bytes end inside a batch.
    #[error("the bytes end inside a batch, {remaining_bytes} B before its end are left")]
    Truncated {
        /// What is left.
        remaining_bytes: usize,
    },
    /// The length field is shorter than a header.
    #[error("batch length {batch_length} is shorter than a header")]
    LengthTooShort {
        /// As written.
        batch_length: i32,
    },
    /// A batch of another format.
    #[error("batch magic {magic} is not 2")]
    Magic {
        /// As written.
        magic: i8,
    },
    /// A negative offset delta or record count.
    #[error("batch takes offsets up to +{last_offset_delta} with {count} records")]
    Counts {
        /// As written.
        last_offset_delta: i32,
        /// As written.
        count: i32,
    },
    /// The CRC does not match.
    #[error("batch checksum does not match its bytes")]
    Checksum,
}

/// One whole batch of stored bytes. Its frame is sound; its CRC was not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The parsed header.
    pub header: BatchHeader,
    /// The whole batch, header included.
    pub bytes: Bytes,
}

impl StoredBatch {
    /// Checks the CRC.
    pub fn check(self) -> Result<CheckedBatch, BatchDamaged> {
        CheckedBatch::check(self.header, self.bytes).ok_or(BatchDamaged::Checksum)
    }
}

/// The batches of stored bytes, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct SplitBatches {
    rest: Bytes,
}

/// Splits stored bytes (an extent, or a run's part of one) into whole batches without copying.
pub fn split_batches(bytes: Bytes) -> SplitBatches {
    SplitBatches { rest: bytes }
}

impl SplitBatches {
    /// The bytes not walked yet.
    pub fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    fn split_first(&mut self) -> Result<StoredBatch, BatchDamaged> {
        let header = BatchHeader::parse(&self.rest)?;
        if header.magic != 2 {
            return Err(BatchDamaged::Magic { magic: header.magic });
        }
        let batch_bytes = header
            .batch_bytes()
            .ok_or(BatchDamaged::LengthTooShort { batch_length: header.batch_length })?;
        if self.rest.len() < batch_bytes {
            return Err(BatchDamaged::Truncated { remaining_bytes: self.rest.len() });
        }
        if header.offset_count().is_none() || header.count < 0 {
            let BatchHeader { last_offset_delta, count, .. } = header;
            return Err(BatchDamaged::Counts { last_offset_delta, count });
        }
        Ok(StoredBatch { header, bytes: self.rest.split_to(batch_bytes) })
    }
}

impl Iterator for SplitBatches {
    type Item = Result<StoredBatch, BatchDamaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = self.split_first();
        if batch.is_err() {
            self.rest = Bytes::new();
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for SplitBatches {}
