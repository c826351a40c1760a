//! Which partition a record goes to: as Kafka's Java client chooses, so that keys stay together
//! whoever produces them. Pure.

/// A partition is kept for keyless records until it got so many bytes, as Kafka's `batch.size`.
const STICKY_BYTES: usize = 16 * 1024;

/// The partition of a key among `count`.
pub fn partition_of_key(key: &[u8], count: i32) -> i32 {
    // The sign is cut off, not negated: murmur2 may give the least number there is.
    (murmur2(key) & i32::MAX) % count
}

/// Keeps keyless records together in batches, and goes on to the next partition then.
#[derive(Clone, Copy, Debug)]
pub struct Sticky {
    partition: i32,
    bytes: usize,
}

impl Sticky {
    /// Begins at a partition that a random number chooses, so that many short runs spread.
    pub fn new(random: u64, count: i32) -> Self {
        let count = u64::try_from(count).unwrap_or(1).max(1);
        Self { partition: i32::try_from(random % count).unwrap_or(0), bytes: 0 }
    }

    /// The partition of a keyless record of `bytes`, among `count`.
    pub fn next(&mut self, bytes: usize, count: i32) -> i32 {
        if STICKY_BYTES <= self.bytes {
            self.partition += 1;
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.partition %= count;
        self.partition
    }
}

/// Kafka's variant of MurmurHash2, with its seed.
fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `org.apache.kafka.common.utils.Utils.murmur2` of Kafka 4.3.1.
    const JAVA: &[(&str, i32)] = &[
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
        ("", 275_646_681),
    ];

    #[test]
    fn keys_hash_as_the_java_client_hashes_them() {
        for (key, hash) in JAVA {
            assert_eq!(murmur2(key.as_bytes()), *hash, "{key}");
        }
        assert_eq!(partition_of_key(b"21", 6), (-973_932_308 & i32::MAX) % 6);
    }

    #[test]
    fn keyless_records_stay_together_and_then_move_on() {
        let mut sticky = Sticky::new(7, 3);
        let first: Vec<i32> = (0..16).map(|_| sticky.next(1024, 3)).collect();
        assert!(first.iter().all(|partition| *partition == 1), "{first:?}");
        assert_eq!(sticky.next(1024, 3), 2);
        assert_eq!(sticky.next(STICKY_BYTES, 3), 2);
        assert_eq!(sticky.next(1, 3), 0);
    }
}
