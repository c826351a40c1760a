//! CRC-32C, the checksum of record batches, extents and footers, and its algebra.
//!
//! A CRC is linear, so the checksum of a whole follows from the checksums and lengths of its
//! parts, and the checksum of a changed head needs no second pass over the tail.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

/// A CRC-32C (Castagnoli).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The checksum of no bytes.
    pub const EMPTY: Self = Self(0);

    /// Wraps a checksum read from a format.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::crc32_iscsi(bytes))
    }

    /// The number, for encoding.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The checksum of this part followed by `tail_bytes` bytes whose checksum is `tail`.
    #[must_use]
    pub fn followed_by(self, tail: Self, tail_bytes: u64) -> Self {
        if tail_bytes == 0 {
            return self;
        }
        let combined = crc_fast::checksum_combine(
            Crc32Iscsi,
            u64::from(self.0),
            u64::from(tail.0),
            tail_bytes,
        );
        Self(u32::try_from(combined).expect("a CRC-32C has 32 bits"))
    }

    /// The checksum after the head of the bytes changed from `old` to `new`, both of the same
    /// length, with `tail_bytes` unchanged bytes behind it.
    #[must_use]
    pub fn with_head_replaced(self, old: Self, new: Self, tail_bytes: u64) -> Self {
        let old_share = old.followed_by(Self::EMPTY, tail_bytes);
        let new_share = new.followed_by(Self::EMPTY, tail_bytes);
        Self(self.0 ^ old_share.0 ^ new_share.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(Crc32c::of(b"123456789").value(), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_checksum_of_parts_is_the_checksum_of_the_whole(
            head in proptest::collection::vec(any::<u8>(), 0..200),
            tail in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let whole = [head.clone(), tail.clone()].concat();
            let combined = Crc32c::of(&head).followed_by(Crc32c::of(&tail), tail.len() as u64);
            prop_assert_eq!(combined, Crc32c::of(&whole));
        }

        #[test]
        fn replacing_a_head_needs_no_pass_over_the_tail(
            heads in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..100),
            tail in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let (old, new): (Vec<u8>, Vec<u8>) = heads.into_iter().unzip();
            let before = Crc32c::of(&[old.clone(), tail.clone()].concat());
            let after = before.with_head_replaced(
                Crc32c::of(&old),
                Crc32c::of(&new),
                tail.len() as u64,
            );
            prop_assert_eq!(after, Crc32c::of(&[new, tail].concat()));
        }
    }
}
