//! The codecs of record batches as streams [pure]: records out of their compressed form a piece at
//! a time, and back into one.
//!
//! # Invariants
//! - Reading never gives more than [`UNPACKED_BYTES_MAX`] bytes, and never sizes an allocation by
//!   a length that the compressed bytes cannot hold.
//!
//! # Non-obvious
//! - snappy comes in two forms: in the blocks of the Java library, or bare as librdkafka writes it.
//! - zstd may ask for a window of up to 128 MiB, as in Kafka: callers bound how many read at once.

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use flate2::{read::MultiGzDecoder, write::GzEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::header::Codec;

/// The most that the records of one batch may hold uncompressed: what a batch of the default size
/// reaches at 256 to 1.
pub const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// Uncompressed bytes looked at together.
const PIECE_BYTES: usize = 32 * 1024;

/// The block of the Java library's snappy stream, and of Kafka's.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version and the oldest version that can read it.
const SNAPPY_HEADER_BYTES: usize = 16;
/// Three bytes of snappy give 64 at most.
const SNAPPY_RATIO_MAX: usize = 32;

/// What a topic's batches are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The codec.
    pub codec: Codec,
    /// Its level, where it has some; gzip takes -1 (its own default) and 1 to 9. lz4 has one only.
    pub level: i32,
}

/// The uncompressed records of a batch.
pub enum Unpacked<'a> {
    /// As they are.
    Plain(&'a [u8]),
    /// Through a decoder.
    Packed(Box<BufReader<Limited<'a>>>),
}

/// A decoder that ends with an error rather than give too much.
pub struct Limited<'a> {
    decoder: Box<dyn Read + 'a>,
    left: u64,
}

/// Whether an error of [`Unpacked`] says that there is more than [`UNPACKED_BYTES_MAX`].
pub fn is_too_long(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

/// The records of a batch, uncompressed as they are read.
///
/// # Errors
/// The compressed form does not even begin as one.
pub fn unpack(codec: Codec, records: &[u8]) -> io::Result<Unpacked<'_>> {
    unpack_some(codec, records, UNPACKED_BYTES_MAX)
}

/// The same, with another limit.
pub(super) fn unpack_some(
    codec: Codec,
    records: &[u8],
    bytes_max: u64,
) -> io::Result<Unpacked<'_>> {
    let decoder: Box<dyn Read + '_> = match codec {
        Codec::None => return Ok(Unpacked::Plain(records)),
        Codec::Gzip => Box::new(MultiGzDecoder::new(records)),
        Codec::Snappy => Box::new(SnappyBlocks::new(records)),
        Codec::Lz4 => Box::new(FrameDecoder::new(records)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(records)?),
    };
    let limited = Limited { decoder, left: bytes_max };
    Ok(Unpacked::Packed(Box::new(BufReader::with_capacity(PIECE_BYTES, limited))))
}

impl Read for Limited<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // One byte more is too much; none is the end.
            return match self.decoder.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::ErrorKind::FileTooLarge.into()),
            };
        }
        let wanted = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.decoder.read(&mut piece[..wanted])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(records) => records.read(piece),
            Self::Packed(decoder) => decoder.read(piece),
        }
    }
}

impl BufRead for Unpacked<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(records) => records.fill_buf(),
            Self::Packed(decoder) => decoder.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Plain(records) => records.consume(count),
            Self::Packed(decoder) => decoder.consume(count),
        }
    }
}

/// Writes what `records` gives, compressed, to `sink`.
///
/// # Errors
/// Of reading `records`; writing to memory has none.
pub fn pack(packing: Packing, records: &mut impl Read, mut sink: impl Write) -> io::Result<()> {
    match packing.codec {
        Codec::None => drop(io::copy(records, &mut sink)?),
        Codec::Gzip => {
            let level = u32::try_from(packing.level).map_or_else(
                |_| flate2::Compression::default(),
                |level| flate2::Compression::new(level.min(9)),
            );
            let mut encoder = GzEncoder::new(sink, level);
            io::copy(records, &mut encoder)?;
            encoder.finish()?;
        }
        Codec::Snappy => pack_snappy(records, &mut sink)?,
        Codec::Lz4 => {
            // As Kafka's: blocks of 64 KiB, each by itself.
            let frame =
                FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, sink);
            io::copy(records, &mut encoder)?;
            encoder.finish()?;
        }
        Codec::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(sink, packing.level)?;
            io::copy(records, &mut encoder)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

fn pack_snappy(records: &mut impl Read, sink: &mut impl Write) -> io::Result<()> {
    sink.write_all(&SNAPPY_MAGIC)?;
    sink.write_all(&[0, 0, 0, 1, 0, 0, 0, 1])?;
    let mut block = Vec::with_capacity(SNAPPY_BLOCK_BYTES);
    loop {
        block.clear();
        records.by_ref().take(SNAPPY_BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let packed = snap::raw::Encoder::new().compress_vec(&block).map_err(io::Error::other)?;
        let length = u32::try_from(packed.len()).expect("a block is small");
        sink.write_all(&length.to_be_bytes())?;
        sink.write_all(&packed)?;
    }
}

/// snappy, in the blocks of the Java library or bare.
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    is_bare: bool,
    block: Cursor<Vec<u8>>,
}

impl<'a> SnappyBlocks<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let is_framed = bytes.starts_with(&SNAPPY_MAGIC) && SNAPPY_HEADER_BYTES <= bytes.len();
        let rest = if is_framed { &bytes[SNAPPY_HEADER_BYTES..] } else { bytes };
        Self { rest, is_bare: !is_framed, block: Cursor::default() }
    }

    fn next_block(&mut self) -> io::Result<&'a [u8]> {
        if self.is_bare {
            return Ok(std::mem::take(&mut self.rest));
        }
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let (length, rest) = self.rest.split_first_chunk().ok_or_else(damaged)?;
        // Streams that were joined begin again with a header.
        if *length == SNAPPY_MAGIC[..4] && rest.starts_with(&SNAPPY_MAGIC[4..]) {
            let begun = rest.get(SNAPPY_HEADER_BYTES - length.len()..).ok_or_else(damaged)?;
            self.rest = begun;
            return Ok(&[]);
        }
        let length = u32::from_be_bytes(*length) as usize;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(block)
    }
}

impl Read for SnappyBlocks<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(piece)?;
            if 0 < read || piece.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            let packed = self.next_block()?;
            if packed.is_empty() {
                continue;
            }
            let bytes = snap::raw::decompress_len(packed).map_err(io::Error::other)?;
            if packed.len().saturating_mul(SNAPPY_RATIO_MAX) < bytes {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let block = snap::raw::Decoder::new().decompress_vec(packed);
            self.block = Cursor::new(block.map_err(io::Error::other)?);
        }
    }
}
