//! CRC-32C, the checksum of record batches, extents and footers, and its algebra.
//!
//! A CRC is linear, so the checksum of a whole follows from the checksums and lengths of its
//! parts, and the checksum of a changed head needs no second pass over the tail.

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bits of any length in bytes.
const POWER_COUNT: usize = 67;

/// `x^(2^n)` modulo the polynomial.
const POWERS: [u32; POWER_COUNT] = {
    let mut powers = [1 << 30; POWER_COUNT];
    let mut n = 1;
    while n < POWER_COUNT {
        powers[n] = product(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The product of two polynomials, modulo the polynomial.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            sum ^= b;
        }
        bit >>= 1;
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    sum
}

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
        Self(self.moved_over(tail_bytes).0 ^ tail.0)
    }

    /// This part's share in the checksum of a whole in which `tail_bytes` bytes follow it.
    ///
    /// A multiplication per set bit of the length, 0.4 to 1.1 us; the library's matrix squaring
    /// takes 25 to 200 us, which is more than hashing most batches.
    #[must_use]
    pub fn moved_over(self, tail_bytes: u64) -> Self {
        let (mut share, mut rest) = (self.0, tail_bytes);
        // A byte is eight bits: the first power is x^8.
        let mut powers = POWERS[3..].iter();
        while rest != 0 {
            let power = powers.next().expect("64 powers for 64 bits of a length");
            if rest & 1 == 1 {
                share = product(*power, share);
            }
            rest >>= 1;
        }
        Self(share)
    }

    /// The checksum after the head of the bytes changed from `old` to `new`, both of the same
    /// length, with `tail_bytes` unchanged bytes behind it.
    #[must_use]
    pub fn with_head_replaced(self, old: Self, new: Self, tail_bytes: u64) -> Self {
        Self(self.0 ^ Self(old.0 ^ new.0).moved_over(tail_bytes).0)
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
        fn parts_of_any_length_combine_as_the_library_combines_them(
            head: u32, tail: u32, tail_bytes in prop_oneof![0..100u64, 0..1u64 << 30, any::<u64>()],
        ) {
            let theirs = crc_fast::checksum_combine(
                crc_fast::CrcAlgorithm::Crc32Iscsi,
                u64::from(head),
                u64::from(tail),
                tail_bytes,
            );
            let ours = Crc32c(head).followed_by(Crc32c(tail), tail_bytes);
            prop_assert_eq!(u64::from(ours.value()), theirs);
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
