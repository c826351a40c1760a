//! The mark in the first record of a batch that says when its request was meant to leave. [pure]
//!
//! A batch's own timestamps have milliseconds; a difference of latencies needs more.

use aquifer_storage::format::record_batch::BATCH_HEADER_BYTES;

/// Bytes of a stamp: it opens the value of a batch's first record.
pub const BYTES: usize = 16;

const MAGIC: [u8; 8] = *b"AQBENCH1";

/// The stamp of a time in microseconds since the Unix epoch.
pub fn encode(micros: u64) -> [u8; BYTES] {
    let mut stamp = [0; BYTES];
    stamp[..8].copy_from_slice(&MAGIC);
    stamp[8..].copy_from_slice(&micros.to_be_bytes());
    stamp
}

/// The time in the stamp of an uncompressed batch; `None` when it has none.
pub fn of_batch(batch: &[u8]) -> Option<u64> {
    let mut rest = batch.get(BATCH_HEADER_BYTES..)?;
    let _record_bytes = varint(&mut rest)?;
    rest = rest.get(1..)?; // Attributes.
    let _timestamp_delta = varint(&mut rest)?;
    let _offset_delta = varint(&mut rest)?;
    let key_bytes = varint(&mut rest)?;
    rest = rest.get(usize::try_from(key_bytes).unwrap_or(0)..)?;
    let value_bytes = varint(&mut rest)?;
    let stamp = rest.first_chunk::<BYTES>().filter(|_| BYTES as i64 <= value_bytes)?;
    let (magic, micros) = stamp.split_first_chunk::<8>()?;
    let micros = micros.first_chunk::<8>()?;
    (*magic == MAGIC).then(|| u64::from_be_bytes(*micros))
}

/// A zigzag varint of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(record: &[u8]) -> Vec<u8> {
        [&[0; BATCH_HEADER_BYTES][..], record].concat()
    }

    #[test]
    fn a_stamp_is_found_behind_a_key_and_behind_none() {
        let stamp = encode(1_700_000_000_123_456);
        let without_key = [&[46, 0, 0, 0, 1, 32][..], &stamp, &[0]].concat();
        assert_eq!(of_batch(&batch(&without_key)), Some(1_700_000_000_123_456));
        let with_key = [&[50, 0, 0, 0, 4, 7, 7, 32][..], &stamp, &[0]].concat();
        assert_eq!(of_batch(&batch(&with_key)), Some(1_700_000_000_123_456));
    }

    #[test]
    fn a_batch_without_a_stamp_has_none_wherever_it_is_cut() {
        let stamp = encode(77);
        let whole = batch(&[&[46, 0, 0, 0, 1, 32][..], &stamp].concat());
        assert_eq!(of_batch(&whole), Some(77));
        assert!((0..whole.len()).all(|end| of_batch(&whole[..end]).is_none()));
        let other = batch(&[&[46, 0, 0, 0, 1, 32][..], &[9; 17]].concat());
        assert_eq!(of_batch(&other), None);
        let endless = batch(&[0xff; 40]);
        assert_eq!(of_batch(&endless), None);
    }
}
