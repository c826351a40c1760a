//! The last 20 bytes of an object: where its footer is.

use super::{ByteRange, ObjectDamaged};
use crate::format::checksum::Crc32c;

/// Length of the trailer of every object version.
pub const TRAILER_BYTES: usize = 20;

/// The version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;

/// No writer makes a longer footer; a longer one is damage, and is not fetched.
pub const FOOTER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The last 8 bytes of every object.
const MAGIC: [u8; 8] = *b"AQUIFER1";

/// A decoded trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Length of the footer in front of it.
    pub footer_bytes: u32,
    /// CRC-32C of the footer.
    pub footer_checksum: Crc32c,
}

impl Trailer {
    /// Decodes the last [`TRAILER_BYTES`] of an object.
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, ObjectDamaged> {
        let [l0, l1, l2, l3, c0, c1, c2, c3, v0, v1, _, _, magic @ ..] = *bytes;
        if magic != MAGIC {
            return Err(ObjectDamaged::Magic);
        }
        let version = u16::from_be_bytes([v0, v1]);
        if FORMAT_VERSION < version {
            return Err(ObjectDamaged::NewerFormat { version });
        }
        let footer_bytes = u32::from_be_bytes([l0, l1, l2, l3]);
        if FOOTER_BYTES_MAX < u64::from(footer_bytes) {
            return Err(ObjectDamaged::FooterTooLarge { footer_bytes: footer_bytes.into() });
        }
        let footer_checksum = Crc32c::new(u32::from_be_bytes([c0, c1, c2, c3]));
        Ok(Self { footer_bytes, footer_checksum })
    }

    /// The trailer as bytes.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[0..4].copy_from_slice(&self.footer_bytes.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.footer_checksum.value().to_be_bytes());
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes[12..20].copy_from_slice(&MAGIC);
        bytes
    }

    /// Where the footer is in an object of `object_bytes`.
    pub fn footer_range(&self, object_bytes: u64) -> Result<ByteRange, ObjectDamaged> {
        let end = object_bytes.checked_sub(TRAILER_BYTES as u64);
        let start = end.and_then(|end| end.checked_sub(self.footer_bytes.into()));
        match (start, end) {
            (Some(start), Some(end)) => Ok(ByteRange { start, end }),
            _ => Err(ObjectDamaged::TooShort { object_bytes }),
        }
    }
}
