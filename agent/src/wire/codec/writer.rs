//! Collects a message as a list of chunks, so that cached records are never copied.

use bytes::{BufMut, Bytes, BytesMut};

/// A chunk below this is copied: a slot of a vectored write costs more than the bytes do.
const CHUNK_BYTES_MIN: usize = 512;

/// Where messages are encoded to.
#[derive(Debug, Default)]
pub struct Writer {
    /// The first bytes, kept writable so that a length in front can be set at the end.
    head: Option<BytesMut>,
    chunks: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes in `head` and `chunks`.
    sealed_bytes: usize,
}

impl Writer {
    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.tail.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` by copying them.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
    }

    /// Writes an unsigned variable-length integer.
    pub fn put_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    /// Writes the length of a byte field or an array; `None` is null.
    pub fn put_length(&mut self, length: Option<usize>, flexible: bool) {
        let length = length.map(|n| i32::try_from(n).expect("a field is below 2 GiB"));
        if flexible {
            self.put_uvarint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.put(&length.unwrap_or(-1).to_be_bytes());
        }
    }

    /// Writes `bytes` as a chunk of their own, unless they are few.
    pub fn put_chunk(&mut self, bytes: Bytes) {
        if bytes.len() < CHUNK_BYTES_MIN {
            return self.put(&bytes);
        }
        self.seal();
        self.sealed_bytes += bytes.len();
        self.chunks.push(bytes);
    }

    /// Writes what another writer holds.
    pub fn append(&mut self, other: Self) {
        for chunk in other.into_chunks() {
            self.put_chunk(chunk);
        }
    }

    /// Everything written, in order.
    pub fn into_chunks(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.seal();
        }
        let head = self.head.map(BytesMut::freeze).filter(|head| !head.is_empty());
        if let Some(head) = head {
            self.chunks.insert(0, head);
        }
        self.chunks
    }

    /// Everything written as one slice; copies unless it is one chunk.
    pub fn into_bytes(self) -> Bytes {
        let mut chunks = self.into_chunks();
        if chunks.len() == 1 {
            return chunks.remove(0);
        }
        Bytes::from(chunks.concat())
    }

    /// Everything written as one frame: its first four bytes are overwritten with the length of
    /// the rest.
    ///
    /// # Panics
    /// If fewer than four bytes were written, or 2 GiB.
    pub fn into_frame(mut self) -> Vec<Bytes> {
        let length = self.len().checked_sub(4).and_then(|length| i32::try_from(length).ok());
        let length = length.expect("a frame starts with room for its length and is below 2 GiB");
        self.head.as_mut().unwrap_or(&mut self.tail)[..4].copy_from_slice(&length.to_be_bytes());
        self.into_chunks()
    }

    fn seal(&mut self) {
        let filled = self.tail.split();
        self.sealed_bytes += filled.len();
        if self.head.is_none() {
            self.head = Some(filled);
        } else if !filled.is_empty() {
            self.chunks.push(filled.freeze());
        }
    }
}
