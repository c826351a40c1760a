//! The values that are slices of a frame: strings and records; and Kafka's 16-byte ids.

use std::{
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
    ops::Deref,
};

use aquifer_storage::model::TopicId;
use bytes::Bytes;

/// A string that shares the frame it was read from. [`Str::detached`] before keeping one.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// A string that is part of the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes `bytes` as UTF-8; what is not becomes U+FFFD, as Kafka reads it.
    pub fn from_utf8_lossy(bytes: Bytes) -> Self {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Self(bytes),
            Err(_) => Self::from(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a string is checked when it is made")
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// A copy that does not keep the frame in memory.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl std::borrow::Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

/// Record batches, opaque: a list of chunks that are written one after the other.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<Bytes>);

impl Records {
    /// No records: zero bytes, which is not null.
    pub const EMPTY: Self = Self(Vec::new());

    /// How many bytes they take.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether they take no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The chunks.
    pub fn chunks(&self) -> &[Bytes] {
        &self.0
    }

    /// Adds a chunk at the end.
    pub fn push(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// One slice of them all; copies unless there is one chunk, which decoded records are.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [chunk] => chunk.clone(),
            chunks => Bytes::from(chunks.concat()),
        }
    }
}

impl From<Bytes> for Records {
    fn from(chunk: Bytes) -> Self {
        if chunk.is_empty() { Self::EMPTY } else { Self(vec![chunk]) }
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self(chunks)
    }
}

/// Equal bytes are equal records, however they are cut.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().flatten().eq(other.0.iter().flatten())
    }
}

impl Eq for Records {}

/// Kafka's `uuid`: a topic id, and the ids of directories and clients.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Stands for "none".
    pub const ZERO: Self = Self([0; 16]);

    /// An id of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether it stands for "none".
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl From<TopicId> for Uuid {
    fn from(id: TopicId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<Uuid> for TopicId {
    fn from(id: Uuid) -> Self {
        Self::from_bytes(id.0)
    }
}

/// 22 characters of URL-safe base64, as Kafka writes ids and names clusters.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let number = u128::from_be_bytes(self.0);
        // 128 bits are 21 digits of 6 bits and one of 2, which base64 pads on the right.
        let digit = |place: u32| match place {
            21 => (number << 4) as usize & 63,
            _ => (number >> (122 - 6 * place)) as usize & 63,
        };
        (0..22).try_for_each(|place| f.write_char(char::from(ALPHABET[digit(place)])))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
