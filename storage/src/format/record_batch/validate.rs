//! The rules for a batch that a client produces. The order of the checks is Kafka's, because
//! clients see which one failed first.

use bytes::Bytes;

use super::{
    BatchHeader, CheckedBatch,
    header::{BATCH_HEADER_BYTES, Codec, LENGTH_PREFIX_BYTES, MAGIC_AT},
};
use crate::model::Timestamp;

/// The shortest record of any format before v2, behind the length field. Kafka calls a shorter
/// one corrupt before it looks at the magic.
const LEGACY_RECORD_BYTES_MIN: i32 = 14;

/// A v2 record has at least a length, attributes, two deltas, key and value lengths and a header
/// count.
const RECORD_BYTES_MIN: u64 = 7;

/// What a client is told about a rejected batch; `agent::wire` knows the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectedAs {
    /// INVALID_RECORD: the client built something that it may not.
    InvalidRecord,
    /// CORRUPT_MESSAGE: the bytes were damaged; a retry may help.
    Corrupt,
    /// MESSAGE_TOO_LARGE.
    TooLarge,
}

/// Why a produced batch was not taken. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchRejected {
    /// No whole batch in the records field.
    #[error("records hold no whole batch ({record_bytes} B)")]
    Empty {
        /// Length of the records field.
        record_bytes: usize,
    },
    /// The length field points past the end of the records field.
    #[error("batch of {batch_bytes} B in a records field of {record_bytes} B")]
    LengthPastEnd {
        /// What the length field claims, in all.
        batch_bytes: u64,
        /// What is there.
        record_bytes: usize,
    },
    /// The length field is shorter than a header.
    #[error("batch length {batch_length} is shorter than a header")]
    LengthTooShort {
        /// As written.
        batch_length: i32,
    },
    /// Magic 0 or 1.
    #[error("magic {magic} is older than 2")]
    OlderMagic {
        /// As written.
        magic: i8,
    },
    /// A magic that no client writes.
    #[error("unknown magic {magic}")]
    UnknownMagic {
        /// As written.
        magic: i8,
    },
    /// More than one batch.
    #[error("more than one batch for one partition")]
    SecondBatch,
    /// Above the topic's limit.
    #[error("batch of {batch_bytes} B is above the limit of {max_bytes} B")]
    TooLarge {
        /// The batch.
        batch_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The CRC does not match.
    #[error("batch checksum does not match its bytes")]
    Checksum,
    /// A compression codec that does not exist.
    #[error("unknown compression codec {code}")]
    UnknownCodec {
        /// As written.
        code: u16,
    },
    /// A control batch, which only a broker may write.
    #[error("clients may not write control batches")]
    Control,
    /// Record count and offset range differ, or there are no records.
    #[error("{count} records for offsets up to +{last_offset_delta}")]
    CountMismatch {
        /// As written.
        count: i32,
        /// As written.
        last_offset_delta: i32,
    },
    /// More records than the bytes can hold.
    #[error("{count} records cannot stand in {record_bytes} B")]
    CountTooLarge {
        /// As written.
        count: i32,
        /// Bytes behind the header.
        record_bytes: usize,
    },
    /// A producer id with a negative epoch or sequence.
    #[error("producer {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    NegativeProducerField {
        /// As written.
        producer_id: i64,
        /// As written.
        producer_epoch: i16,
        /// As written.
        base_sequence: i32,
    },
    /// The transactional flag without a producer id.
    #[error("transactional batch without a producer id")]
    TransactionalWithoutProducer,
}

impl BatchRejected {
    /// What the client is told.
    pub const fn rejected_as(&self) -> RejectedAs {
        match self {
            Self::Empty { .. }
            | Self::LengthPastEnd { .. }
            | Self::OlderMagic { .. }
            | Self::SecondBatch
            | Self::Control
            | Self::CountMismatch { .. }
            | Self::CountTooLarge { .. }
            | Self::NegativeProducerField { .. }
            | Self::TransactionalWithoutProducer => RejectedAs::InvalidRecord,
            Self::LengthTooShort { .. }
            | Self::UnknownMagic { .. }
            | Self::Checksum
            | Self::UnknownCodec { .. } => RejectedAs::Corrupt,
            Self::TooLarge { .. } => RejectedAs::TooLarge,
        }
    }
}

/// A produced batch that kept every rule that its header shows. Only [`validate_produced`] makes
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedBatch {
    checked: CheckedBatch,
}

impl ValidatedBatch {
    /// The parsed header.
    pub const fn header(&self) -> &BatchHeader {
        self.checked.header()
    }

    /// Exactly the batch, header included; trailing bytes are gone.
    pub const fn bytes(&self) -> &Bytes {
        self.checked.bytes()
    }

    /// Number of records, which is also the number of offsets the batch takes; at least 1.
    pub fn record_count(&self) -> u32 {
        self.header().offset_count().expect("a validated batch takes at least one offset")
    }

    /// Whether the client set the append-time flag: an error on a `LogAppendTime` topic, to be
    /// cleared on a `CreateTime` one.
    pub const fn has_client_append_time(&self) -> bool {
        self.header().attributes.is_append_time()
    }

    /// A validated batch whose records were compressed anew.
    pub(super) const fn reworked(checked: CheckedBatch) -> Self {
        Self { checked }
    }

    /// The batch as a `LogAppendTime` topic stores it: flag set, `max_timestamp` = `now`.
    #[must_use]
    pub fn with_append_time(&self, now: Timestamp) -> Self {
        Self { checked: self.checked.restamped(true, now) }
    }

    /// The batch with the largest timestamp that its records have.
    #[must_use]
    pub fn with_max_timestamp(self, newest: Timestamp) -> Self {
        if self.header().max_timestamp == newest {
            return self;
        }
        let append_time = self.has_client_append_time();
        Self { checked: self.checked.restamped(append_time, newest) }
    }

    /// The batch in memory of its own, no longer a part of the frame it came in.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { checked: self.checked.detached() }
    }

    /// The batch as a `CreateTime` topic stores it: the client's append-time flag cleared.
    #[must_use]
    pub fn with_create_time(self) -> Self {
        if !self.has_client_append_time() {
            return self;
        }
        let max_timestamp = self.header().max_timestamp;
        Self { checked: self.checked.restamped(false, max_timestamp) }
    }
}

impl From<ValidatedBatch> for CheckedBatch {
    fn from(batch: ValidatedBatch) -> Self {
        batch.checked
    }
}

/// Checks the records field of a Produce request for one partition: exactly one sound v2 batch of
/// at most `max_bytes`. A trailing piece that is no whole batch is cut off, as in Kafka.
pub fn validate_produced(
    records: Bytes,
    max_bytes: usize,
) -> Result<ValidatedBatch, BatchRejected> {
    let batch_bytes = match next_batch(&records)? {
        NextBatch::Whole { batch_bytes } => batch_bytes,
        NextBatch::Cut { batch_bytes } => {
            return Err(BatchRejected::LengthPastEnd { batch_bytes, record_bytes: records.len() });
        }
        NextBatch::None => return Err(BatchRejected::Empty { record_bytes: records.len() }),
    };
    let magic = i8::from_be_bytes([records[MAGIC_AT]]);
    if magic != 2 {
        return Err(BatchRejected::OlderMagic { magic });
    }
    if let NextBatch::Whole { .. } = next_batch(&records[batch_bytes..])? {
        return Err(BatchRejected::SecondBatch);
    }
    if max_bytes < batch_bytes {
        return Err(BatchRejected::TooLarge { batch_bytes, max_bytes });
    }
    let bytes = records.slice(..batch_bytes);
    let too_short = BatchRejected::LengthTooShort {
        batch_length: i32::try_from(batch_bytes - LENGTH_PREFIX_BYTES).unwrap_or(i32::MAX),
    };
    let header = BatchHeader::parse(&bytes).map_err(|_| too_short)?;
    let checked = CheckedBatch::check(header, bytes).ok_or(BatchRejected::Checksum)?;
    check_header(&header, batch_bytes - BATCH_HEADER_BYTES)?;
    Ok(ValidatedBatch { checked })
}

/// What stands at the front of a records field.
enum NextBatch {
    /// A batch that is all there.
    Whole { batch_bytes: usize },
    /// A batch whose end is missing.
    Cut { batch_bytes: u64 },
    /// Too few bytes to tell.
    None,
}

/// Finds the next batch as Kafka's log input stream does.
fn next_batch(bytes: &[u8]) -> Result<NextBatch, BatchRejected> {
    if bytes.len() < LENGTH_PREFIX_BYTES {
        return Ok(NextBatch::None);
    }
    let length = bytes[8..].first_chunk().expect("the length field was just seen to be there");
    let batch_length = i32::from_be_bytes(*length);
    if batch_length < LEGACY_RECORD_BYTES_MIN {
        return Err(BatchRejected::LengthTooShort { batch_length });
    }
    let Some(&magic) = bytes.get(MAGIC_AT) else {
        return Ok(NextBatch::None);
    };
    let magic = i8::from_be_bytes([magic]);
    if !(0..=2).contains(&magic) {
        return Err(BatchRejected::UnknownMagic { magic });
    }
    let batch_bytes = u64::from(batch_length.unsigned_abs()) + LENGTH_PREFIX_BYTES as u64;
    Ok(match usize::try_from(batch_bytes) {
        Ok(batch_bytes) if batch_bytes <= bytes.len() => NextBatch::Whole { batch_bytes },
        _ => NextBatch::Cut { batch_bytes },
    })
}

/// Checks what the header of a sound batch says.
fn check_header(header: &BatchHeader, record_bytes: usize) -> Result<(), BatchRejected> {
    let attributes = header.attributes;
    let Some(codec) = attributes.codec() else {
        return Err(BatchRejected::UnknownCodec { code: attributes.codec_code() });
    };
    if attributes.is_control() {
        return Err(BatchRejected::Control);
    }
    let &BatchHeader { count, last_offset_delta, .. } = header;
    let record_count = match header.offset_count() {
        Some(offsets) if u32::try_from(count) == Ok(offsets) => offsets,
        _ => return Err(BatchRejected::CountMismatch { count, last_offset_delta }),
    };
    // Compression has no useful ratio limit: equal records shrink to less than a byte each.
    let bytes_min =
        if codec == Codec::None { u64::from(record_count) * RECORD_BYTES_MIN } else { 1 };
    if (record_bytes as u64) < bytes_min {
        return Err(BatchRejected::CountTooLarge { count, record_bytes });
    }
    let has_producer = 0 <= header.producer_id;
    if has_producer && header.producer().is_none() {
        let &BatchHeader { producer_id, producer_epoch, base_sequence, .. } = header;
        return Err(BatchRejected::NegativeProducerField {
            producer_id,
            producer_epoch,
            base_sequence,
        });
    }
    if attributes.is_transactional() && !has_producer {
        return Err(BatchRejected::TransactionalWithoutProducer);
    }
    Ok(())
}
