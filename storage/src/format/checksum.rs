//! CRC-32C, the checksum of record batches, extents and footers, and its algebra.
//!
//! A CRC is linear, so the checksum of a whole follows from the checksums and lengths of its
//! parts, and the checksum of a changed head needs no second pass over the tail.

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// A length in bytes is taken apart into so many digits of four bits.
const DIGITS: usize = 16;

/// `x^(8 d 16^n)` modulo the polynomial, by `n` and `d`: how far digit `d` at place `n` of a length
/// in bytes moves a checksum.
const MOVES: [[u32; 16]; DIGITS] = {
    let mut moves = [[ONE; 16]; DIGITS];
    let mut n = 0;
    // x^8, which is a byte.
    let mut unit = ONE >> 8;
    while n < DIGITS {
        let mut d = 1;
        while d < 16 {
            moves[n][d] = product(moves[n][d - 1], unit);
            d += 1;
        }
        unit = product(moves[n][15], unit);
        n += 1;
    }
    moves
};

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// What the four highest powers of a polynomial come down to when it is multiplied by `x^4`.
const REDUCED: [u32; 16] = {
    let mut reduced = [0; 16];
    let mut d = 0;
    while d < 16 {
        reduced[d] = times_x(times_x(times_x(times_x(d as u32))));
        d += 1;
    }
    reduced
};

/// The polynomial multiplied by `x`.
const fn times_x(a: u32) -> u32 {
    (a >> 1) ^ (POLYNOMIAL & (a & 1).wrapping_neg())
}

/// The product of two polynomials, modulo the polynomial.
const fn product(a: u32, b: u32) -> u32 {
    // The multiples of b by every polynomial of four powers.
    let mut multiples = [0; 16];
    multiples[8] = b;
    multiples[4] = times_x(b);
    multiples[2] = times_x(multiples[4]);
    multiples[1] = times_x(multiples[2]);
    let mut d: usize = 3;
    while d < 16 {
        let low = d & d.wrapping_neg();
        multiples[d] = multiples[low] ^ multiples[d ^ low];
        d += 1;
    }
    let (mut sum, mut rest, mut digit) = (0, a, 0);
    while digit < 8 {
        sum = (sum >> 4) ^ REDUCED[(sum & 15) as usize] ^ multiples[(rest & 15) as usize];
        rest >>= 4;
        digit += 1;
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
    /// A multiplication per four bits of the length, 0.1 us in all; the library's matrix squaring
    /// takes 25 to 200 us, which is more than hashing most batches.
    #[must_use]
    pub fn moved_over(self, tail_bytes: u64) -> Self {
        let (mut share, mut rest, mut place) = (self.0, tail_bytes, 0);
        while rest != 0 && share != 0 {
            let digit = (rest & 15) as usize;
            if digit != 0 {
                share = product(share, MOVES[place][digit]);
            }
            (rest, place) = (rest >> 4, place + 1);
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
