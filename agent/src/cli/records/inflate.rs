//! Unpacking a batch's records, as much as is wanted.

use std::io::Read;

use aquifer_storage::format::record_batch::{
    Codec,
    compression::{is_too_long, unpack_at_most},
};
use bytes::Bytes;

/// Unpacks `packed`, into `bytes_max` bytes at most.
///
/// # Errors
/// What is wrong with it, or that it is larger.
pub fn decompress(codec: Codec, packed: Bytes, bytes_max: usize) -> Result<Bytes, String> {
    if codec == Codec::None {
        return Ok(packed);
    }
    let mut unpacked = Vec::new();
    let read = unpack_at_most(codec, &packed, bytes_max as u64)
        .and_then(|mut reader| reader.read_to_end(&mut unpacked));
    match read {
        Ok(_) => Ok(unpacked.into()),
        Err(error) if is_too_long(&error) => {
            Err(format!("it is larger than {bytes_max} bytes when unpacked"))
        }
        Err(error) => Err(error.to_string()),
    }
}
