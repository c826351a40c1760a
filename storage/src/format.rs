//! Byte formats, all pure: no I/O, no clock, no randomness, and no allocation sized by a number
//! that was read before the bytes behind it were seen.

pub mod checksum;
pub mod cluster_file;
pub mod object;
pub mod object_key;
pub mod record_batch;
#[cfg(any(test, feature = "test-util"))]
pub mod test_batch;
