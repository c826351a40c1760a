//! The messages, generated from `messages.txt` at build time.
//!
//! A struct inside a message is named after the message and the path of fields to it:
//! `responses` of `ProduceResponse` holds `ProduceResponseResponses`. Fields have Kafka's names
//! in snake case; one that may be null in some version is an `Option`. `Default` is Kafka's:
//! empty, zero, or what the table says, and null only where it says null.
//!
//! Encoding drops the value of a field that the version does not have, and sends null as empty
//! where the version does not allow null.
#![allow(unused_variables, clippy::field_reassign_with_default, clippy::too_many_lines)]
#![allow(clippy::derivable_impls, clippy::nonminimal_bool)]

use bytes::Bytes;

use super::{
    api_key::ApiKey,
    codec::{
        DecodeError, Element, Nullable, Reader, Records, Str, TagWriter, Uuid, Writer,
        read_null_if, write_null_if,
    },
};

/// A request or a response.
pub trait Message: Element + Default {
    /// The API it belongs to.
    const KEY: ApiKey;
    /// The versions it can be read and written in.
    const VERSIONS: std::ops::RangeInclusive<i16>;
    /// The first version with compact lengths and tagged fields.
    const FIRST_FLEXIBLE: Option<i16>;

    /// Whether `version` has compact lengths and tagged fields.
    fn is_flexible(version: i16) -> bool {
        Self::FIRST_FLEXIBLE.is_some_and(|first| first <= version)
    }

    /// Reads a body of `version`; what follows it is left unread, as Kafka does.
    ///
    /// # Errors
    /// Another version, or malformed bytes.
    fn decode_body(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::UnsupportedVersion);
        }
        Self::read(r, version, Self::is_flexible(version))
    }

    /// Writes a body of `version`.
    fn encode_body(&self, version: i16, w: &mut Writer) {
        debug_assert!(Self::VERSIONS.contains(&version), "{:?} {version}", Self::KEY);
        self.write(w, version, Self::is_flexible(version));
    }
}

/// A message of the table.
#[derive(Clone, Copy, Debug)]
pub struct MessageSpec {
    /// Its API key.
    pub key: i16,
    /// Whether it is the request.
    pub is_request: bool,
    /// The name of its struct.
    pub name: &'static str,
    /// Its first and its last version.
    pub versions: (i16, i16),
    /// The first version with compact lengths and tagged fields.
    pub first_flexible: Option<i16>,
}

/// Which message, in which version.
#[derive(Clone, Copy, Debug)]
pub struct MessageId {
    /// Its API key.
    pub key: i16,
    /// Whether it is the request.
    pub is_request: bool,
    /// Its version.
    pub version: i16,
}

fn recode_as<M: Message>(
    version: i16,
    r: &mut Reader,
    w: Option<&mut Writer>,
) -> Result<(), DecodeError> {
    let message = M::decode_body(r, version)?;
    if let Some(w) = w {
        message.encode_body(version, w);
    }
    Ok(())
}

/// A struct that may be null has a byte in front: negative is null.
macro_rules! nullable_struct {
    () => {
        fn read_nullable(
            r: &mut Reader,
            version: i16,
            flexible: bool,
        ) -> Result<Option<Self>, DecodeError> {
            if i8::read(r, version, flexible)? < 0 {
                return Ok(None);
            }
            Self::read(r, version, flexible).map(Some)
        }

        fn write_nullable(value: Option<&Self>, w: &mut Writer, version: i16, flexible: bool) {
            match value {
                None => (-1i8).write(w, version, flexible),
                Some(value) => {
                    1i8.write(w, version, flexible);
                    value.write(w, version, flexible);
                }
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
