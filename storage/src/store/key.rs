//! What every store checks before it touches the world.

use std::ops::Range;

use crate::error::{Outcome, StoreCondition, StoreError};

/// The longest key that every store takes.
const KEY_BYTES_MAX: usize = 900;

/// An operation on one key: makes the errors that name them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation<'a> {
    pub(super) name: &'static str,
    pub(super) key: &'a str,
}

impl Operation<'_> {
    pub(super) fn error(
        self,
        outcome: Outcome,
        condition: StoreCondition,
        reason: impl ToString,
    ) -> StoreError {
        StoreError {
            operation: self.name,
            key: self.key.to_owned(),
            outcome,
            condition,
            reason: reason.to_string(),
        }
    }

    pub(super) fn not_found(self) -> StoreError {
        self.error(Outcome::Rejected, StoreCondition::NotFound, "no such object")
    }

    pub(super) fn already_exists(self) -> StoreError {
        self.error(Outcome::Rejected, StoreCondition::AlreadyExists, "the key exists")
    }

    pub(super) fn short(self, range: &Range<u64>, got_bytes: u64) -> StoreError {
        let reason = format!("bytes {}..{} asked, {got_bytes} B got", range.start, range.end);
        self.error(Outcome::Corrupt, StoreCondition::Other, reason)
    }

    /// Refuses keys that some store would spell otherwise, or that would leave the prefix.
    pub(super) fn check_key(self) -> Result<(), StoreError> {
        if is_key(self.key) {
            Ok(())
        } else {
            Err(self.rejected("key is not in the alphabet of keys"))
        }
    }

    /// Refuses list prefixes that are not whole segments.
    pub(super) fn check_prefix(self) -> Result<(), StoreError> {
        if self.key.is_empty() { Ok(()) } else { self.check_key() }
    }

    /// Refuses empty and reversed ranges, which stores read in different ways.
    pub(super) fn check_range(self, range: &Range<u64>) -> Result<(), StoreError> {
        if range.start < range.end { Ok(()) } else { Err(self.rejected("range covers no byte")) }
    }

    fn rejected(self, reason: &str) -> StoreError {
        self.error(Outcome::Rejected, StoreCondition::Other, reason)
    }
}

/// Whether `key` is `/`-separated segments that every store spells the same way.
pub(super) fn is_key(key: &str) -> bool {
    key.len() <= KEY_BYTES_MAX && key.split('/').all(is_segment)
}

/// Whether `key` lies under `prefix`, which is a list of whole segments.
pub(super) fn is_under(key: &str, prefix: &str) -> bool {
    prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

fn is_segment(segment: &str) -> bool {
    let in_alphabet =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(in_alphabet)
}
