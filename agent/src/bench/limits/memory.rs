//! What a thread does to bytes without any system call: sum, copy, touch.

use std::{hint::black_box, time::Duration};

use super::{figures::Sample, meter::Meter};

/// Fits the first-level cache of every machine we know, twice.
const CACHE_BYTES: usize = 16 << 10;
/// Far larger than a core's own caches.
const RAM_BYTES: usize = 64 << 20;
/// The clock is read once per this many bytes.
const STEP_BYTES: usize = 8 << 20;
/// Fresh memory, large enough that every allocator takes it from the kernel.
const FRESH_BYTES: usize = 256 << 20;
/// One write per this many bytes touches every page of every machine.
const PAGE_BYTES: usize = 4 << 10;

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the core's first cache.
    Cache,
    /// Outside the core's own caches.
    Ram,
}

impl Place {
    /// All.
    pub const ALL: [Self; 2] = [Self::Cache, Self::Ram];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Ram => "ram",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Cache => CACHE_BYTES,
            Self::Ram => RAM_BYTES,
        }
    }
}

/// Repeats `step`, which handles `step_bytes`, for `run`.
fn repeat(step_bytes: usize, run: Duration, mut step: impl FnMut()) -> Sample {
    let steps_per_look = STEP_BYTES.div_ceil(step_bytes);
    let mut meter = Meter::warming(run);
    while !meter.is_over(run) {
        for _ in 0..steps_per_look {
            step();
        }
        meter.add(steps_per_look * step_bytes);
    }
    meter.sample()
}

/// CRC-32C of bytes in `place`.
pub fn crc32c(place: Place, run: Duration) -> Sample {
    let bytes = vec![0x5a_u8; place.bytes()];
    repeat(bytes.len(), run, || {
        black_box(crc_fast::crc32_iscsi(black_box(&bytes)));
    })
}

/// Copying from `place` to `place`.
pub fn copy(place: Place, run: Duration) -> Sample {
    let from = vec![0x5a_u8; place.bytes()];
    let mut to = vec![1_u8; place.bytes()];
    repeat(from.len(), run, || {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    })
}

/// Writing to pages for the first time. Taking the address range and giving it back is not timed.
pub fn first_touch(run: Duration) -> Sample {
    let (mut bytes, mut cpu, mut wall) = (0, Duration::ZERO, Duration::ZERO);
    while wall < run {
        // Zeroed and this large, it is promised by the kernel and not yet there.
        let mut fresh = black_box(vec![0_u8; FRESH_BYTES]);
        let mut meter = Meter::now();
        for page in fresh.chunks_exact_mut(PAGE_BYTES) {
            page[0] = 1;
        }
        black_box(&mut fresh);
        meter.add(FRESH_BYTES);
        let touched = meter.sample();
        bytes += touched.bytes;
        cpu += touched.cpu;
        wall += touched.wall;
    }
    Sample { bytes, cpu, wall }
}
