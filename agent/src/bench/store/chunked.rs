//! Takes `aws-chunked` apart, the frames that SDKs put around a body to sign or check it [pure].
//!
//! # Not here
//! Checking signatures and checksums: nobody tampers with a benchmark on its own machine.

use bytes::{Buf, Bytes};

/// A size line with a signature has about a hundred bytes.
const LINE_BYTES_MAX: usize = 1024;
/// A body ends with a few checksums and a signature.
const TRAILER_LINES_MAX: usize = 32;

/// Frames that do not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not aws-chunked")]
pub struct NotChunked;

/// Takes frames off as they come.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a line with the next chunk's size.
    Size,
    /// In a chunk of which this many bytes are to come.
    Chunk(u64),
    /// In the empty line behind a chunk.
    ChunkEnd,
    /// In the lines behind the last chunk, this many of which were read.
    Trailers(usize),
    /// Behind the empty line that ends a body.
    Ended,
}

impl ChunkedDecoder {
    /// At the begin of a body.
    pub fn start() -> Self {
        Self { state: State::Size, line: Vec::new() }
    }

    /// Hands the payload in `piece` to `take`, in slices of it.
    ///
    /// # Errors
    /// [`NotChunked`].
    pub fn feed(
        &mut self,
        mut piece: Bytes,
        mut take: impl FnMut(Bytes),
    ) -> Result<(), NotChunked> {
        while piece.has_remaining() {
            if let State::Chunk(left) = self.state {
                let length =
                    usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
                take(piece.split_to(length));
                let left = left - length as u64;
                self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
            } else {
                self.line_byte(piece.get_u8())?;
            }
        }
        Ok(())
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), NotChunked> {
        if byte != b'\n' {
            if self.line.len() == LINE_BYTES_MAX || self.state == State::Ended {
                return Err(NotChunked);
            }
            self.line.push(byte);
            return Ok(());
        }
        let line = self.line.strip_suffix(b"\r").ok_or(NotChunked)?;
        self.state = match self.state {
            State::Size => match chunk_bytes(line)? {
                0 => State::Trailers(0),
                chunk_bytes => State::Chunk(chunk_bytes),
            },
            State::ChunkEnd if line.is_empty() => State::Size,
            State::Trailers(_) if line.is_empty() => State::Ended,
            State::Trailers(lines) if lines < TRAILER_LINES_MAX => State::Trailers(lines + 1),
            _ => return Err(NotChunked),
        };
        self.line.clear();
        Ok(())
    }

    /// Whether the body may end here. Some clients leave the last empty line out.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Ended | State::Trailers(_)) && self.line.is_empty()
    }
}

fn chunk_bytes(line: &[u8]) -> Result<u64, NotChunked> {
    let line = std::str::from_utf8(line).map_err(|_| NotChunked)?;
    let (size, _) = line.split_once(';').unwrap_or((line, ""));
    if size.starts_with('+') {
        return Err(NotChunked);
    }
    u64::from_str_radix(size, 16).map_err(|_| NotChunked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload of `body` that comes in pieces of `step` bytes.
    fn decoded(body: &[u8], step: usize) -> Result<(Vec<u8>, bool), NotChunked> {
        let mut decoder = ChunkedDecoder::start();
        let mut payload = Vec::new();
        for piece in body.chunks(step) {
            let piece = Bytes::copy_from_slice(piece);
            decoder.feed(piece, |slice| payload.extend_from_slice(&slice))?;
        }
        Ok((payload, decoder.may_end()))
    }

    const BODY: &[u8] =
        b"4;chunk-signature=ab\r\nwell\r\nA\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:a==\r\n\r\n";

    #[test]
    fn the_payload_is_the_same_however_it_is_cut() {
        for step in 1..=BODY.len() {
            assert_eq!(decoded(BODY, step), Ok((b"well0123456789".to_vec(), true)), "{step}");
        }
        assert_eq!(decoded(b"0\r\n\r\n", 1), Ok((Vec::new(), true)));
        assert_eq!(decoded(b"0\r\n", 1), Ok((Vec::new(), true)));
    }

    #[test]
    fn a_body_that_is_cut_short_has_no_end() {
        let last_chunk = BODY.windows(3).position(|bytes| bytes == b"0\r\n").unwrap();
        for length in 0..last_chunk + 3 {
            let (_, may_end) = decoded(&BODY[..length], 7).unwrap();
            assert!(!may_end, "{length}");
        }
    }

    #[test]
    fn other_bodies_are_refused() {
        let long = vec![b'0'; LINE_BYTES_MAX + 1];
        let trailers = format!("0\r\n{}", "a:b\r\n".repeat(TRAILER_LINES_MAX + 1));
        let bodies: [&[u8]; 9] = [
            b"hello\r\n",
            b"4\nwell",
            b"+4\r\nwell",
            b"-1\r\n",
            b"\r\n",
            b"10000000000000000\r\n",
            b"4\r\nwellx\r\n0\r\n",
            b"0\r\n\r\nmore",
            &long,
        ];
        for body in bodies.into_iter().chain([trailers.as_bytes()]) {
            assert_eq!(decoded(body, 3), Err(NotChunked), "{}", body.escape_ascii());
        }
        assert!(!decoded(b"ffffffffffffffff\r\nx", 5).unwrap().1);
    }
}
