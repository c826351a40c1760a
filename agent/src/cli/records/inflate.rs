//! Unpacking a batch's records: the one place of the command line that knows the codecs.

use std::io::{self, Read};

use aquifer_storage::format::record_batch::Codec;
use bytes::Bytes;

/// What the Java library puts before its snappy blocks: a name, a version, a compatible version.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// Unpacks `packed`, into `bytes_max` bytes at most.
///
/// # Errors
/// What is wrong with it, or that it is larger.
pub fn decompress(codec: Codec, packed: Bytes, bytes_max: usize) -> Result<Bytes, String> {
    match codec {
        Codec::None => Ok(packed),
        Codec::Gzip => limited(flate2::read::MultiGzDecoder::new(&packed[..]), bytes_max),
        Codec::Lz4 => limited(lz4_flex::frame::FrameDecoder::new(&packed[..]), bytes_max),
        Codec::Zstd => zstd::stream::read::Decoder::new(&packed[..])
            .map_err(|error| error.to_string())
            .and_then(|reader| limited(reader, bytes_max)),
        Codec::Snappy => snappy(&packed, bytes_max),
    }
}

fn limited(reader: impl Read, bytes_max: usize) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    let read: io::Result<usize> = reader.take(bytes_max as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| error.to_string())?;
    if bytes_max < unpacked.len() {
        return Err(too_large(bytes_max));
    }
    Ok(unpacked.into())
}

fn too_large(bytes_max: usize) -> String {
    format!("it is larger than {bytes_max} bytes when unpacked")
}

/// Snappy's blocks as the Java library frames them, or one bare block as others send it.
fn snappy(packed: &[u8], bytes_max: usize) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    let mut append = |block: &[u8]| {
        // The length is in the block's first bytes: it is looked at before anything is allocated.
        let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
        let from = unpacked.len();
        if bytes_max - from < length {
            return Err(too_large(bytes_max));
        }
        unpacked.resize(from + length, 0);
        let written = snap::raw::Decoder::new().decompress(block, &mut unpacked[from..]);
        written.map(drop).map_err(|error| error.to_string())
    };
    if !packed.starts_with(XERIAL_MAGIC) {
        append(packed)?;
        return Ok(unpacked.into());
    }
    let mut rest = packed.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let block = after.get(..length).ok_or("a block is cut off")?;
        append(block)?;
        rest = &after[length..];
    }
    Ok(unpacked.into())
}
