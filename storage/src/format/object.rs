//! The object, version 1: what one PUT writes.
//!
//! ```text
//! extents     whole record batches, one extent per topic partition, in (topic id, partition) order
//! footer      one entry per extent, then optional sections
//! trailer     20 bytes: footer length u32, footer CRC-32C u32, format version u16, 0 u16, magic
//! ```
//! Numbers are big-endian. The extents fill the object from its first byte to the footer without
//! a gap, so a footer that was read says where every byte belongs.
//!
//! # Invariants
//! - Extents are in strictly ascending order of topic partition and contiguous from byte 0.
//! - A section that a reader does not know is skipped unless its kind has the top bit set.
//! - Encoding is canonical: equal contents give equal bytes.
//!
//! # Not here
//! Keys ([`super::object_key`]), reading from a store, choosing when an object is full.

mod builder;
mod footer;
mod trailer;

pub use builder::{BatchPosition, BuiltObject, ObjectBuilder};
pub use footer::{AbortedTransaction, ByteRange, ExtentEntry, Footer, IndexPoint};
pub use trailer::{FOOTER_BYTES_MAX, FORMAT_VERSION, TRAILER_BYTES, Trailer};

use bytes::Bytes;

use super::checksum::Crc32c;
use crate::model::TopicPartition;

/// An object whose bytes are not what the format says. Never retried in a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectDamaged {
    /// Shorter than its trailer, or its footer reaches before its start.
    #[error("object of {object_bytes} B is too short for what it claims")]
    TooShort {
        /// Length of the object.
        object_bytes: u64,
    },
    /// The last 8 bytes are not ours.
    #[error("trailer has no aquifer magic")]
    Magic,
    /// Written by a newer version.
    #[error("object format {version} is newer than {FORMAT_VERSION}: upgrade this agent")]
    NewerFormat {
        /// As written.
        version: u16,
    },
    /// The footer is longer than any writer makes it.
    #[error("footer of {footer_bytes} B is above the limit of {FOOTER_BYTES_MAX} B")]
    FooterTooLarge {
        /// As written.
        footer_bytes: u64,
    },
    /// The footer's CRC does not match.
    #[error("footer checksum does not match its bytes")]
    FooterChecksum,
    /// The footer ends inside a field, or bytes are left behind its last.
    #[error("footer does not parse: {what}")]
    Footer {
        /// The rule that is broken.
        what: &'static str,
    },
    /// A section that must be understood.
    #[error("footer section {kind:#x} is not known: upgrade this agent")]
    UnknownSection {
        /// As written.
        kind: u16,
    },
    /// An extent's CRC does not match.
    #[error("extent {partition} checksum does not match its bytes")]
    ExtentChecksum {
        /// Whose extent.
        partition: TopicPartition,
    },
}

/// Reads the footer of a whole object held in memory and checks every extent's CRC.
pub fn check_whole(object: &Bytes) -> Result<Footer, ObjectDamaged> {
    let footer = read_footer(object)?;
    for extent in &footer.extents {
        let range = extent.range.as_usize_range().ok_or(ObjectDamaged::Footer { what: "range" })?;
        let bytes = object.get(range).ok_or(ObjectDamaged::Footer { what: "range" })?;
        if Crc32c::of(bytes) != extent.checksum {
            return Err(ObjectDamaged::ExtentChecksum { partition: extent.partition });
        }
    }
    Ok(footer)
}

/// Reads the footer of a whole object held in memory.
pub fn read_footer(object: &[u8]) -> Result<Footer, ObjectDamaged> {
    let object_bytes = object.len() as u64;
    let too_short = ObjectDamaged::TooShort { object_bytes };
    let (front, trailer) = object.split_last_chunk().ok_or(too_short)?;
    let trailer = Trailer::decode(trailer)?;
    let footer_at = trailer.footer_range(object_bytes)?.start;
    let footer_at = usize::try_from(footer_at).expect("lies inside the object in memory");
    Footer::decode(&front[footer_at..], &trailer, object_bytes)
}

#[cfg(test)]
mod tests;
