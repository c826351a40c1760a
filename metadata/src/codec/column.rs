//! Numbers in columns: protobuf's packed varints, read back with every bound checked.

use aquifer_storage::model::{Offset, Timestamp};

use super::{CodecError, narrow, offset};

/// Signed numbers near zero as small unsigned ones.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The step from one timestamp to the next; wraps, so every pair has one.
pub(crate) fn timestamp_step(from: Timestamp, to: Timestamp) -> u64 {
    zigzag(to.millis().wrapping_sub(from.millis()))
}

/// Reads a column from its front.
pub(super) struct Column<'a> {
    values: std::slice::Iter<'a, u64>,
    what: &'static str,
}

impl<'a> Column<'a> {
    /// Reads `values`; `what` names them in errors.
    pub fn new(values: &'a [u64], what: &'static str) -> Self {
        Self { values: values.iter(), what }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    /// Numbers left: no row count can be larger.
    pub fn remaining(&self) -> usize {
        self.values.len()
    }

    /// The next number.
    pub fn next(&mut self) -> Result<u64, CodecError> {
        self.values.next().copied().ok_or(CodecError::Missing(self.what))
    }

    /// The next number, as a narrower type.
    pub fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, CodecError> {
        narrow(self.next()?, self.what)
    }

    /// The next number, as an offset.
    pub fn offset(&mut self) -> Result<Offset, CodecError> {
        offset(self.narrow()?)
    }

    /// The next number, as a step from `previous`.
    pub fn timestamp(&mut self, previous: Timestamp) -> Result<Timestamp, CodecError> {
        let step = unzigzag(self.next()?);
        Ok(Timestamp::from_millis(previous.millis().wrapping_add(step)))
    }
}
