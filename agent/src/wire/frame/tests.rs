//! Laws of frame.

use super::*;

fn parse(
    length: i32,
    key: i16,
    version: i16,
    authenticated: bool,
) -> Result<FramePrefix, FrameRefused> {
    let bytes = [&length.to_be_bytes()[..], &key.to_be_bytes(), &version.to_be_bytes()].concat();
    let prefix = *bytes.first_chunk().expect("4 + 2 + 2 bytes");
    FramePrefix::parse(prefix, &FrameLimits::default(), authenticated)
}

#[test]
fn produce_may_be_100_mib_and_not_a_byte_more() {
    let limit = 100 * 1024 * 1024;
    let prefix = parse(limit, 0, 9, true).unwrap();
    assert_eq!((prefix.pool, prefix.rest_bytes), (Pool::Produce, limit as usize - 4));
    assert!(matches!(parse(limit + 1, 0, 9, true), Err(FrameRefused::TooLarge { .. })));
    assert!(matches!(parse(limit, 12, 4, true), Err(FrameRefused::TooLarge { .. })));
}

#[test]
fn before_authentication_frames_are_small_and_of_three_apis() {
    assert!(parse(64 * 1024, 18, 3, false).is_ok());
    assert!(matches!(parse(64 * 1024 + 1, 18, 3, false), Err(FrameRefused::TooLarge { .. })));
    assert!(matches!(parse(100, 3, 9, false), Err(FrameRefused::Unauthenticated { .. })));
}

#[test]
fn only_apiversions_may_have_an_unknown_version() {
    assert_eq!(parse(100, 18, 99, true).map(|p| p.service), Ok(Service::UnknownApiVersions));
    for (key, version) in [(0, 2), (0, 14), (1, 3), (3, -1), (99, 0), (-1, 0), (4, 0)] {
        assert!(matches!(parse(100, key, version, true), Err(FrameRefused::Unserved { .. })));
    }
}

#[test]
fn a_length_below_any_request_is_refused() {
    for length in [i32::MIN, -1, 0, 7] {
        assert_eq!(parse(length, 18, 0, true), Err(FrameRefused::BadLength { length }));
    }
}
