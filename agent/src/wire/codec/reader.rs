//! A cursor over one frame, with a budget for what a decode may allocate.

use bytes::Bytes;

use super::tags::TagReader;

/// Structures may take this many times their bytes on the wire (names of a few bytes cost 32).
const BUDGET_FACTOR: usize = 16;

/// What a decode may always allocate: a small frame needs no counting.
const BUDGET_SLACK_BYTES: usize = 64 * 1024;

/// More tagged fields than this in one struct are refused: Kafka's own have at most four.
const TAGS_MAX: u32 = 64;

/// Why bytes are not the message they should be. Closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A length, a count or a value asks for more bytes than there are.
    #[error("the message ends inside a field")]
    Truncated,
    /// A field that may not be null is.
    #[error("a field that may not be null is null")]
    UnexpectedNull,
    /// A variable-length integer has more than five bytes or more than 32 bits.
    #[error("a variable-length integer is too long")]
    BadVarint,
    /// A string is longer than Kafka's 32,767 bytes.
    #[error("a string is longer than 32767 bytes")]
    StringTooLong,
    /// A struct has more tagged fields than could be meant.
    #[error("too many tagged fields")]
    TooManyTags,
    /// A tagged field does not have the length it was announced with.
    #[error("a tagged field has another length than announced")]
    BadTagLength,
    /// A request header is larger than its limit.
    #[error("the request header is too large")]
    HeaderTooLarge,
    /// The decoded message would take more memory than its frame allows.
    #[error("the decoded message would be too large")]
    TooLarge,
    /// The message does not exist in this version.
    #[error("unknown message or version")]
    UnsupportedVersion,
}

/// Reads one message from the front of its bytes. Strings and byte fields are slices of them.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    budget_bytes: usize,
}

impl Reader {
    /// Reads `bytes` with the budget that a frame of their length has.
    pub fn new(bytes: Bytes) -> Self {
        let budget_bytes = bytes.len().saturating_mul(BUDGET_FACTOR) + BUDGET_SLACK_BYTES;
        Self::with_budget(bytes, budget_bytes)
    }

    /// Reads `bytes`; decoding may allocate `budget_bytes`.
    pub fn with_budget(bytes: Bytes, budget_bytes: usize) -> Self {
        Self { bytes, position: 0, budget_bytes }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// What may still be allocated.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Takes `bytes` off the budget.
    ///
    /// # Errors
    /// The budget has less left.
    pub fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.budget_bytes = self.budget_bytes.checked_sub(bytes).ok_or(DecodeError::TooLarge)?;
        Ok(())
    }

    /// The next `length` bytes, as a slice of the frame.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let start = self.position;
        self.skip(length)?;
        // An empty slice must not keep the frame alive.
        Ok(if length == 0 { Bytes::new() } else { self.bytes.slice(start..self.position) })
    }

    /// Steps over `length` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn skip(&mut self, length: usize) -> Result<(), DecodeError> {
        if self.remaining() < length {
            return Err(DecodeError::Truncated);
        }
        self.position += length;
        Ok(())
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let chunk = self.bytes[self.position..].first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.position += N;
        Ok(*chunk)
    }

    /// An unsigned variable-length integer of 32 bits.
    ///
    /// # Errors
    /// It is cut off or too long.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::BadVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadVarint)
    }

    /// The length of a byte field or an array; `None` is null. Any negative length is, as in Kafka.
    ///
    /// # Errors
    /// It is cut off or too long.
    pub fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        Ok(usize::try_from(i32::from_be_bytes(self.array()?)).ok())
    }

    /// The length of a string; `None` is null.
    ///
    /// # Errors
    /// It is cut off or above what Kafka reads.
    pub fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if !flexible {
            return Ok(usize::try_from(i16::from_be_bytes(self.array()?)).ok());
        }
        match self.length(true)? {
            Some(length) if length > i16::MAX as usize => Err(DecodeError::StringTooLong),
            length => Ok(length),
        }
    }

    /// The number of elements of an array, each of which takes `min_bytes` or more; `None` is null.
    ///
    /// # Errors
    /// More are announced than the bytes left can hold.
    pub fn count(
        &mut self,
        flexible: bool,
        min_bytes: usize,
    ) -> Result<Option<usize>, DecodeError> {
        match self.length(flexible)? {
            Some(count) if count > self.remaining() / min_bytes => Err(DecodeError::Truncated),
            count => Ok(count),
        }
    }

    /// Starts on the tagged fields of a struct.
    ///
    /// # Errors
    /// More are announced than the bytes left can hold, or than could be meant.
    pub fn tags(&mut self) -> Result<TagReader, DecodeError> {
        let count = self.uvarint()?;
        // A tag takes its number and its length.
        if count as usize > self.remaining() / 2 {
            return Err(DecodeError::Truncated);
        }
        if count > TAGS_MAX {
            return Err(DecodeError::TooManyTags);
        }
        Ok(TagReader::new(count))
    }

    /// Steps over the tagged fields of a struct that has none of its own.
    ///
    /// # Errors
    /// They are malformed.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        let mut tags = self.tags()?;
        while tags.next(self)?.is_some() {
            tags.skip(self)?;
        }
        Ok(())
    }
}
