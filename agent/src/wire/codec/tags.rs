//! The tagged fields at the end of a struct of a flexible version.

use super::{
    reader::{DecodeError, Reader},
    writer::Writer,
};

/// Goes through the tagged fields of one struct; nothing of an unknown one is kept.
#[derive(Debug)]
pub struct TagReader {
    left: u32,
    /// What [`Reader::remaining`] must be when the current field was read.
    end: Option<usize>,
}

impl TagReader {
    pub(super) fn new(count: u32) -> Self {
        Self { left: count, end: None }
    }

    /// The number of the next field, whose value the reader now stands on.
    ///
    /// # Errors
    /// It is malformed, or the previous value was not read to its end.
    pub fn next(&mut self, r: &mut Reader) -> Result<Option<u32>, DecodeError> {
        if self.end.take().is_some_and(|end| end != r.remaining()) {
            return Err(DecodeError::BadTagLength);
        }
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let tag = r.uvarint()?;
        let length = r.uvarint()? as usize;
        self.end = Some(r.remaining().checked_sub(length).ok_or(DecodeError::Truncated)?);
        Ok(Some(tag))
    }

    /// Steps over the current field.
    ///
    /// # Errors
    /// None that [`TagReader::next`] has not reported.
    pub fn skip(&mut self, r: &mut Reader) -> Result<(), DecodeError> {
        let length = self.end.map_or(0, |end| r.remaining().saturating_sub(end));
        r.skip(length)
    }
}

/// Collects the tagged fields that differ from their defaults.
#[derive(Debug, Default)]
pub struct TagWriter {
    count: u32,
    fields: Option<Writer>,
}

impl TagWriter {
    /// Adds a field; tags must rise.
    pub fn put(&mut self, tag: u32, value: impl FnOnce(&mut Writer)) {
        let fields = self.fields.get_or_insert_default();
        let mut body = Writer::default();
        value(&mut body);
        self.count += 1;
        fields.put_uvarint(tag);
        fields.put_uvarint(u32::try_from(body.len()).expect("a tagged field is below 4 GiB"));
        fields.append(body);
    }

    /// Writes the count and the fields.
    pub fn finish(self, w: &mut Writer) {
        w.put_uvarint(self.count);
        if let Some(fields) = self.fields {
            w.append(fields);
        }
    }
}
