//! Laws of codec.

use bytes::Bytes;

use super::*;
use crate::wire::messages::{
    FetchResponse, FetchResponseResponses, FetchResponseResponsesPartitions, Message,
    MetadataRequest,
};

fn reader(bytes: &'static [u8]) -> Reader {
    Reader::new(Bytes::from_static(bytes))
}

#[test]
fn a_varint_has_at_most_five_bytes_and_32_bits() {
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).uvarint(), Ok(u32::MAX));
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(), Err(DecodeError::BadVarint));
    assert_eq!(reader(&[0x80; 6]).uvarint(), Err(DecodeError::BadVarint));
    assert_eq!(reader(&[0x80]).uvarint(), Err(DecodeError::Truncated));
}

#[test]
fn any_negative_length_is_null_where_null_is_allowed() {
    let minus_two = &[0xff, 0xff, 0xff, 0xfe];
    assert_eq!(Vec::<i32>::read_nullable(&mut reader(minus_two), 0, false), Ok(None));
    let refused = Vec::<i32>::read(&mut reader(minus_two), 0, false);
    assert_eq!(refused, Err(DecodeError::UnexpectedNull));
}

#[test]
fn a_count_above_what_the_frame_can_hold_is_refused_unallocated() {
    let refused = Vec::<i64>::read(&mut reader(&[0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]), 0, false);
    assert_eq!(refused, Err(DecodeError::Truncated));
}

#[test]
fn decoding_stops_at_its_budget() {
    let frame = Bytes::from([&[0, 0, 0, 100][..], &[0; 200]].concat());
    let mut within = Reader::with_budget(frame.clone(), 100 * size_of::<Str>());
    assert_eq!(Vec::<Str>::read(&mut within, 0, false).map(|names| names.len()), Ok(100));
    let mut beyond = Reader::with_budget(frame, 100 * size_of::<Str>() - 1);
    assert_eq!(Vec::<Str>::read(&mut beyond, 0, false), Err(DecodeError::TooLarge));
}

#[test]
fn strings_are_slices_of_the_frame_and_bad_utf8_is_replaced() {
    let frame = Bytes::from_static(b"\x00\x02ab");
    let text = Str::read(&mut Reader::new(frame.clone()), 0, false).unwrap();
    assert_eq!(text.as_bytes().as_ptr(), frame[2..].as_ptr());
    assert_eq!(Str::read(&mut reader(b"\x00\x02a\xff"), 0, false).unwrap(), "a\u{fffd}");
}

#[test]
fn a_string_ends_at_32767_bytes() {
    assert_eq!(
        Str::read(&mut reader(&[0x81, 0x80, 0x02]), 0, true),
        Err(DecodeError::StringTooLong)
    );
    let mut w = Writer::default();
    Str::from("ö".repeat(20_000)).write(&mut w, 0, true);
    let written = w.into_bytes();
    let text = Str::read(&mut Reader::new(written), 0, true).unwrap();
    assert_eq!(text.len(), 32_766);
}

#[test]
fn tags_are_few_and_of_the_length_they_announce() {
    assert_eq!(reader(&[65; 200]).skip_tags(), Err(DecodeError::TooManyTags));
    assert_eq!(reader(&[5, 0, 0, 1, 0]).skip_tags(), Err(DecodeError::Truncated));
    assert_eq!(reader(&[1, 7, 3, 1, 2, 3]).skip_tags(), Ok(()));
    let mut r = reader(&[1, 0, 2, 9, 9]);
    let mut tags = r.tags().unwrap();
    assert_eq!(tags.next(&mut r), Ok(Some(0)));
    i8::read(&mut r, 0, true).unwrap();
    assert_eq!(tags.next(&mut r), Err(DecodeError::BadTagLength));
}

#[test]
fn records_leave_as_the_chunks_they_came_in() {
    let body = Bytes::from(vec![7; 100_000]);
    let records = Records::from(vec![Bytes::from(vec![1; 61]), body.clone()]);
    let partition =
        FetchResponseResponsesPartitions { records: Some(records), ..Default::default() };
    let topic = FetchResponseResponses { partitions: vec![partition], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let mut w = Writer::default();
    w.put(&[0; 4]);
    response.encode(12, &mut w);
    let chunks = w.into_frame();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == body.as_ptr()));
    let frame = Bytes::from(chunks.concat());
    assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
    let read = FetchResponse::decode(&mut Reader::new(frame.slice(4..)), 12).unwrap();
    assert_eq!(read, response);
}

#[test]
fn null_is_sent_as_empty_where_a_version_has_no_null() {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let mut w = Writer::default();
    request.encode(0, &mut w);
    assert_eq!(&*w.into_bytes(), &[0; 4]);
    assert!(MetadataRequest::decode(&mut reader(&[0xff; 4]), 0).is_err());
    let read = MetadataRequest::decode(&mut reader(&[0xff; 4]), 1).unwrap();
    assert_eq!(read.topics, None);
}

#[test]
fn a_version_out_of_range_is_not_decoded() {
    let refused = MetadataRequest::decode_body(&mut reader(&[0; 8]), 14);
    assert_eq!(refused, Err(DecodeError::UnsupportedVersion));
}
