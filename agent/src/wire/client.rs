//! What a Kafka client needs beside the messages: the version to speak, and reading an answer.
//!
//! No sockets here: the benchmark's blocking client and the command line's async one share it.

use std::{fmt, ops::RangeInclusive};

use bytes::Bytes;

use super::{
    api_key::ApiKey,
    codec::{DecodeError, Element as _, Reader},
    error_code::ErrorCode,
    header::response_header_is_flexible,
    messages::{ApiVersionsResponse, Message},
};

/// No broker answers with more bytes; a larger length is not Kafka's.
pub const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// The least a response can be: its correlation id.
const RESPONSE_BYTES_MIN: usize = 4;

/// The length of a response frame by its first 4 bytes; `None` when no response has it.
pub fn response_bytes(length: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(i32::from_be_bytes(length)).ok();
    length.filter(|length| (RESPONSE_BYTES_MIN..=RESPONSE_BYTES_MAX).contains(length))
}

/// The versions that a broker says it speaks.
#[derive(Clone, Debug, Default)]
pub struct BrokerVersions(Vec<(i16, RangeInclusive<i16>)>);

/// A broker and this client have no version of an API in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionRefused {
    /// The broker does not have the API at all.
    #[error("it has no {}", .0.name())]
    Absent(ApiKey),
    /// It has the API, in other versions.
    #[error("it speaks {} {theirs:?}, this client {ours:?}", key.name())]
    Disjoint {
        /// The API.
        key: ApiKey,
        /// The broker's versions.
        theirs: RangeInclusive<i16>,
        /// The client's.
        ours: RangeInclusive<i16>,
    },
}

impl BrokerVersions {
    /// The versions of an answer to ApiVersions.
    pub fn of(answer: &ApiVersionsResponse) -> Self {
        let apis = answer.api_keys.iter();
        Self(apis.map(|api| (api.api_key, api.min_version..=api.max_version)).collect())
    }

    /// Whether the broker has the API in any version.
    pub fn has(&self, key: ApiKey) -> bool {
        self.0.iter().any(|(api, _)| *api == key.code())
    }

    /// The highest version that the broker, `ours` and the codec have of an API.
    ///
    /// # Errors
    /// There is none.
    pub fn choose<M: Message>(&self, ours: RangeInclusive<i16>) -> Result<i16, VersionRefused> {
        let theirs = self.0.iter().find(|(api, _)| *api == M::KEY.code());
        let (_, theirs) = theirs.ok_or(VersionRefused::Absent(M::KEY))?;
        let max = *ours.end().min(theirs.end()).min(M::VERSIONS.end());
        let min = *ours.start().max(theirs.start()).max(M::VERSIONS.start());
        if max < min {
            let theirs = theirs.clone();
            return Err(VersionRefused::Disjoint { key: M::KEY, theirs, ours });
        }
        Ok(max)
    }
}

/// A frame that is not the answer it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseRefused {
    /// It answers something else.
    #[error("an answer to request {answered} came for {asked}")]
    Unasked {
        /// The request it answers.
        answered: i32,
        /// The one that was asked.
        asked: i32,
    },
    /// Its bytes are no such message.
    #[error("the answer makes no sense: {0}")]
    Malformed(#[from] DecodeError),
}

/// Decodes a response and checks that it answers `correlation_id`.
///
/// # Errors
/// It answers another request, or is malformed.
pub fn decode_response<R: Message>(
    frame: Bytes,
    version: i16,
    correlation_id: i32,
) -> Result<R, ResponseRefused> {
    let mut reader = Reader::new(frame);
    let answered = i32::read(&mut reader, 0, false)?;
    if answered != correlation_id {
        return Err(ResponseRefused::Unasked { answered, asked: correlation_id });
    }
    if response_header_is_flexible(R::KEY, version) {
        reader.skip_tags()?;
    }
    Ok(R::decode_body(&mut reader, version)?)
}

/// Kafka's name of a code, also of one this client does not know.
pub fn error_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("ERROR_{code}"), |e| e.name().to_owned())
}

/// Whether a partition is led elsewhere now, so that metadata should be asked again.
pub fn leader_moved(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::UnknownLeaderEpoch
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::ReplicaNotAvailable
        )
    )
}

/// A broker's address as `host:port`, with an IPv6 host in brackets.
pub fn address_of(host: impl fmt::Display, port: i32) -> String {
    let host = host.to_string();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{ApiVersionsResponseApiKeys, MetadataRequest};

    fn versions(min_version: i16, max_version: i16) -> BrokerVersions {
        let api_key = ApiKey::Metadata.code();
        let api = ApiVersionsResponseApiKeys { api_key, min_version, max_version };
        BrokerVersions::of(&ApiVersionsResponse { api_keys: vec![api], ..Default::default() })
    }

    #[test]
    fn the_highest_common_version_is_chosen_and_none_is_an_error_that_names_both() {
        assert_eq!(versions(0, 99).choose::<MetadataRequest>(4..=12), Ok(12));
        assert_eq!(versions(0, 8).choose::<MetadataRequest>(4..=12), Ok(8));
        let refused = versions(0, 3).choose::<MetadataRequest>(4..=12).unwrap_err();
        assert_eq!(refused.to_string(), "it speaks Metadata 0..=3, this client 4..=12");
        let none = BrokerVersions::default().choose::<MetadataRequest>(4..=12).unwrap_err();
        assert_eq!(none.to_string(), "it has no Metadata");
    }

    #[test]
    fn a_length_that_no_response_has_is_told_before_any_byte_of_it_is_read() {
        assert_eq!(response_bytes(4i32.to_be_bytes()), Some(4));
        for bad in [*b"HTTP", 3i32.to_be_bytes(), (-1i32).to_be_bytes()] {
            assert_eq!(response_bytes(bad), None);
        }
    }
}
