//! What can stand in a message: numbers, strings, byte fields, arrays and structs.

use std::mem::size_of;

use bytes::Bytes;

use super::{
    reader::{DecodeError, Reader},
    value::{Records, Str, Uuid},
    writer::Writer,
};

/// A value of a message, in the encoding of a version.
pub trait Element: Sized {
    /// The fewest bytes it takes, at least 1: bounds how many of them a frame can hold.
    const MIN_BYTES: usize;

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are no such value.
    fn read(r: &mut Reader, version: i16, flexible: bool) -> Result<Self, DecodeError>;

    /// Writes it.
    fn write(&self, w: &mut Writer, version: i16, flexible: bool);
}

/// A value that has an encoding for null.
pub trait Nullable: Element + Default {
    /// Reads one that may be null.
    ///
    /// # Errors
    /// The bytes are no such value.
    fn read_nullable(
        r: &mut Reader,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Self>, DecodeError>;

    /// Writes one where null is allowed.
    fn write_nullable(value: Option<&Self>, w: &mut Writer, version: i16, flexible: bool);
}

/// Reads a value that may be null in some versions.
///
/// # Errors
/// The bytes are no such value.
pub fn read_null_if<T: Nullable>(
    allowed: bool,
    r: &mut Reader,
    version: i16,
    flexible: bool,
) -> Result<Option<T>, DecodeError> {
    if allowed {
        return T::read_nullable(r, version, flexible);
    }
    T::read(r, version, flexible).map(Some)
}

/// Writes a value that may be null in some versions; in the others null becomes empty.
pub fn write_null_if<T: Nullable>(
    allowed: bool,
    value: &Option<T>,
    w: &mut Writer,
    version: i16,
    flexible: bool,
) {
    match value {
        _ if allowed => T::write_nullable(value.as_ref(), w, version, flexible),
        Some(value) => value.write(w, version, flexible),
        None => T::default().write(w, version, flexible),
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Element for $number {
            const MIN_BYTES: usize = size_of::<$number>();

            fn read(r: &mut Reader, _: i16, _: bool) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(r.array()?))
            }

            fn write(&self, w: &mut Writer, _: i16, _: bool) {
                w.put(&self.to_be_bytes());
            }
        }
    )*};
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Element for bool {
    const MIN_BYTES: usize = 1;

    fn read(r: &mut Reader, _: i16, _: bool) -> Result<Self, DecodeError> {
        let [byte] = r.array()?;
        Ok(byte != 0)
    }

    fn write(&self, w: &mut Writer, _: i16, _: bool) {
        w.put(&[u8::from(*self)]);
    }
}

impl Element for Uuid {
    const MIN_BYTES: usize = 16;

    fn read(r: &mut Reader, _: i16, _: bool) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer, _: i16, _: bool) {
        w.put(self.as_bytes());
    }
}

/// `Element` of a type whose null is a length: what is not null is read and written the same.
macro_rules! element_by_length {
    () => {
        const MIN_BYTES: usize = 1;

        fn read(r: &mut Reader, version: i16, flexible: bool) -> Result<Self, DecodeError> {
            Self::read_nullable(r, version, flexible)?.ok_or(DecodeError::UnexpectedNull)
        }

        fn write(&self, w: &mut Writer, version: i16, flexible: bool) {
            Self::write_nullable(Some(self), w, version, flexible);
        }
    };
}

impl Element for Str {
    element_by_length!();
}

impl Nullable for Str {
    fn read_nullable(r: &mut Reader, _: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        let Some(length) = r.string_length(flexible)? else { return Ok(None) };
        let bytes = r.take(length)?;
        let text = Self::from_utf8_lossy(bytes.clone());
        if text.as_bytes().as_ptr() != bytes.as_ptr() {
            r.charge(text.len())?;
        }
        Ok(Some(text))
    }

    /// A string too long for Kafka is cut.
    fn write_nullable(value: Option<&Self>, w: &mut Writer, _: i16, flexible: bool) {
        let text = value.map(|text| &text[..text.floor_char_boundary(i16::MAX as usize)]);
        if flexible {
            w.put_length(text.map(str::len), true);
        } else {
            let length = text.map_or(-1, |text| text.len() as i16);
            w.put(&length.to_be_bytes());
        }
        w.put(text.unwrap_or_default().as_bytes());
    }
}

impl Element for Bytes {
    element_by_length!();
}

impl Nullable for Bytes {
    fn read_nullable(r: &mut Reader, _: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        let Some(length) = r.length(flexible)? else { return Ok(None) };
        r.take(length).map(Some)
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, _: i16, flexible: bool) {
        w.put_length(value.map(Bytes::len), flexible);
        if let Some(bytes) = value {
            w.put_chunk(bytes.clone());
        }
    }
}

impl Element for Records {
    element_by_length!();
}

impl Nullable for Records {
    fn read_nullable(
        r: &mut Reader,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(bytes) = Bytes::read_nullable(r, version, flexible)? else { return Ok(None) };
        r.charge(size_of::<Bytes>())?;
        Ok(Some(bytes.into()))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, _: i16, flexible: bool) {
        w.put_length(value.map(Records::len), flexible);
        for chunk in value.map_or(&[][..], Records::chunks) {
            w.put_chunk(chunk.clone());
        }
    }
}

impl<T: Element> Element for Vec<T> {
    element_by_length!();
}

impl<T: Element> Nullable for Vec<T> {
    fn read_nullable(
        r: &mut Reader,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.count(flexible, T::MIN_BYTES)? else { return Ok(None) };
        r.charge(count.saturating_mul(size_of::<T>()))?;
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(r, version, flexible)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, version: i16, flexible: bool) {
        w.put_length(value.map(Vec::len), flexible);
        for element in value.map_or(&[][..], Vec::as_slice) {
            element.write(w, version, flexible);
        }
    }
}
