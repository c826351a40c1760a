//! Seeded randomness. Each user has a stream of its own, so that one more draw here changes
//! nothing there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::seam::Rng;

/// A stream of random numbers (SplitMix64). Clones share it.
#[derive(Clone, Debug)]
pub struct SimRng(Arc<Mutex<u64>>);

impl SimRng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed ^ 0x6a09_e667_f3bc_c908)))
    }

    /// A stream of its own for `label`, the same whenever it is asked for.
    pub fn stream(seed: u64, label: &str) -> Self {
        // FNV-1a: labels are few, and it needs no key.
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(mix(seed.wrapping_add(hash)))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }

    /// A number below `bound`; 0 when `bound` is.
    pub fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `of` times.
    pub fn one_in(&self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// A duration of these, in whole milliseconds above `min`.
    pub fn between(&self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_millis();
        min + Duration::from_millis(self.below(u64::try_from(span).unwrap_or(u64::MAX) + 1))
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).expect("an index")]
    }
}

const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl Rng for SimRng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
