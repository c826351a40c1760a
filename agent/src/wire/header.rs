//! Request and response headers.

use bytes::Bytes;

use super::{
    api_key::ApiKey,
    codec::{DecodeError, Element, Nullable, Reader, Str, Writer},
    messages::{MESSAGES, Message},
};

/// The most a request header may take before authentication, and its tagged fields ever.
pub const HEADER_BYTES_MAX: usize = 2048;

/// What stands in front of every request, after its API key and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Chosen by the client and sent back.
    pub correlation_id: i32,
    /// Who the client says it is.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the header of a request whose key and version were read with the frame's prefix.
    ///
    /// # Errors
    /// It is malformed or too large.
    pub fn decode(
        r: &mut Reader,
        key: ApiKey,
        version: i16,
        authenticated: bool,
    ) -> Result<Self, DecodeError> {
        let start = r.position();
        let correlation_id = i32::read(r, version, false)?;
        // Also of a flexible version: the header's client id was never made compact.
        let client_id = Str::read_nullable(r, version, false)?;
        let tags_start = r.position();
        if is_flexible(key, version) {
            r.skip_tags()?;
        }
        let limited_from = if authenticated { tags_start } else { start };
        if r.position() - limited_from > HEADER_BYTES_MAX {
            return Err(DecodeError::HeaderTooLarge);
        }
        Ok(Self { correlation_id, client_id })
    }

    /// Reads no more than the correlation id, the same in all versions there will ever be.
    ///
    /// # Errors
    /// It is cut off.
    pub fn decode_correlation_id(r: &mut Reader) -> Result<i32, DecodeError> {
        i32::read(r, 0, false)
    }

    /// Writes a header as a client does, key and version included.
    pub fn encode(&self, key: ApiKey, version: i16, w: &mut Writer) {
        key.code().write(w, version, false);
        version.write(w, version, false);
        self.correlation_id.write(w, version, false);
        Str::write_nullable(self.client_id.as_ref(), w, version, false);
        if is_flexible(key, version) {
            w.put_uvarint(0);
        }
    }
}

/// Whether requests of this API and version have compact lengths and tagged fields. So has their
/// header; the response's has too, except that of ApiVersions, which a client reads before it
/// knows what the broker speaks.
pub fn is_flexible(key: ApiKey, version: i16) -> bool {
    let spec =
        MESSAGES.binary_search_by_key(&(key.code(), false), |spec| (spec.key, !spec.is_request));
    let first = spec.ok().and_then(|index| MESSAGES[index].first_flexible);
    first.is_some_and(|first| first <= version)
}

/// Whether the response's header ends in tagged fields: response header v1.
pub fn response_header_is_flexible(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && is_flexible(key, version)
}

/// A response as a frame for a vectored write: length, header, body.
pub fn response_frame<M: Message>(correlation_id: i32, version: i16, body: &M) -> Vec<Bytes> {
    let mut w = Writer::default();
    w.put(&[0; 4]);
    correlation_id.write(&mut w, version, false);
    if response_header_is_flexible(M::KEY, version) {
        w.put_uvarint(0);
    }
    body.encode_body(version, &mut w);
    w.into_frame()
}

/// A request as a frame, as a client sends it.
pub fn request_frame<M: Message>(header: &RequestHeader, version: i16, body: &M) -> Vec<Bytes> {
    let mut w = Writer::default();
    w.put(&[0; 4]);
    header.encode(M::KEY, version, &mut w);
    body.encode_body(version, &mut w);
    w.into_frame()
}

#[cfg(test)]
mod tests;
