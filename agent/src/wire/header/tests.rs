//! Laws of header.

use super::*;
use crate::wire::{
    error_code::ErrorCode,
    messages::{ApiVersionsResponse, HeartbeatResponse},
    versions,
};

#[test]
fn a_header_round_trips_without_its_prefix() {
    for (version, flexible) in [(3, false), (4, true)] {
        let header = RequestHeader { correlation_id: 7, client_id: Some("client".into()) };
        let mut w = Writer::default();
        header.encode(ApiKey::Heartbeat, version, &mut w);
        let mut r = Reader::new(w.into_bytes().slice(4..));
        let read = RequestHeader::decode(&mut r, ApiKey::Heartbeat, version, false).unwrap();
        assert_eq!(read, header);
        assert_eq!((r.remaining(), is_flexible(ApiKey::Heartbeat, version)), (0, flexible));
    }
}

#[test]
fn a_header_has_a_limit_before_authentication() {
    let header = RequestHeader { correlation_id: 7, client_id: Some("x".repeat(3000).into()) };
    let mut w = Writer::default();
    header.encode(ApiKey::Metadata, 9, &mut w);
    let bytes = w.into_bytes().slice(4..);
    let read = |authenticated| {
        let mut r = Reader::new(bytes.clone());
        RequestHeader::decode(&mut r, ApiKey::Metadata, 9, authenticated)
    };
    assert_eq!(read(false), Err(DecodeError::HeaderTooLarge));
    assert_eq!(read(true), Ok(header));
}

#[test]
fn the_apiversions_response_header_is_never_flexible() {
    assert!(is_flexible(ApiKey::ApiVersions, 3));
    for version in 0..=4 {
        assert!(!response_header_is_flexible(ApiKey::ApiVersions, version));
    }
    let frame = response_frame(1, 4, &HeartbeatResponse::default()).concat();
    assert_eq!(frame, [0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_unknown_apiversions_version_is_answered_in_version_0_with_one_key() {
    let frame = response_frame(9, 0, &versions::unsupported_api_versions()).concat();
    let mut r = Reader::new(Bytes::from(frame).slice(8..));
    let read = ApiVersionsResponse::decode(&mut r, 0).unwrap();
    assert_eq!(read.error_code, ErrorCode::UnsupportedVersion.code());
    let keys: Vec<_> = read.api_keys.iter().map(|key| (key.api_key, key.max_version)).collect();
    assert_eq!(keys, [(18, 4)]);
}

#[test]
fn no_advertised_version_is_beyond_the_table_of_messages() {
    for range in versions::ADVERTISED {
        let index =
            MESSAGES.iter().position(|spec| spec.key == range.key.code() && spec.is_request);
        let (first, last) = MESSAGES[index.expect("every advertised key is in the table")].versions;
        assert!(first <= range.served_min && range.max <= last, "{range:?}");
    }
}

#[test]
fn numbers_and_names_agree() {
    for code in -1..=133 {
        let error = ErrorCode::from_code(code).expect("every code has an error");
        assert_eq!(error.code(), code);
        assert!(!error.name().is_empty());
    }
    assert_eq!(ErrorCode::from_code(-2), None);
    assert_eq!(ErrorCode::from_code(134), None);
    assert_eq!(ErrorCode::NotLeaderOrFollower.name(), "NOT_LEADER_OR_FOLLOWER");
    for key in ApiKey::ALL {
        assert_eq!(ApiKey::from_code(key.code()), Some(*key));
    }
}
