//! Laws of reworked batches.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::format::{
    record_batch::{Codec, compression::unpack_some, validate_produced},
    test_batch::TestBatch,
};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn packing(codec: Codec) -> Packing {
    Packing { codec, level: if codec == Codec::Gzip { -1 } else { 3 } }
}

fn validated(batch: &TestBatch) -> ValidatedBatch {
    validate_produced(batch.bytes(), usize::MAX).unwrap()
}

fn records(batch: &ValidatedBatch) -> Vec<u8> {
    let codec = batch.header().attributes.codec().unwrap();
    let mut records = Vec::new();
    let packed = &batch.bytes()[BATCH_HEADER_BYTES..];
    io::copy(&mut unpack(codec, packed).unwrap(), &mut records).unwrap();
    records
}

proptest! {
    #[test]
    fn repacked_records_are_the_same_and_nothing_else_of_the_batch_differs(
        count in 1..500_u32,
        value in proptest::collection::vec(any::<u8>(), 0..32),
        (from, to) in (0..5_usize, 0..5_usize),
        append_time in any::<bool>(),
    ) {
        let attributes = if append_time { 0x18 } else { 0x10 };
        let plain = validated(&TestBatch {
            records: count,
            producer: (7, 3, 11),
            attributes,
            value,
            ..TestBatch::default()
        });
        let first = repacked(&plain, packing(CODECS[from]), usize::MAX).unwrap();
        let second = repacked(&first, packing(CODECS[to]), usize::MAX).unwrap();
        // As it would come from a client.
        let read = validate_produced(second.bytes().clone(), usize::MAX).unwrap();
        prop_assert_eq!(&read, &second);
        prop_assert_eq!(records(&read), records(&plain));
        prop_assert_eq!(read.header().attributes.codec(), Some(CODECS[to]));
        let mut header = *read.header();
        header.attributes = plain.header().attributes;
        (header.crc, header.batch_length) = (plain.header().crc, plain.header().batch_length);
        prop_assert_eq!(&header, plain.header());
        check_records(&read, RecordRules::default()).unwrap();
    }

    #[test]
    fn no_bytes_behind_a_header_make_a_walk_panic_or_go_on_for_ever(
        codec in 0..8_u16,
        count in 1..2000_i32,
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        is_framed in any::<bool>(),
    ) {
        let mut bytes = TestBatch { attributes: codec, ..TestBatch::default() }.bytes().to_vec();
        bytes.truncate(BATCH_HEADER_BYTES);
        if is_framed {
            bytes.extend_from_slice(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        }
        bytes.extend_from_slice(&tail);
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let header = crate::format::record_batch::BatchHeader::parse(&bytes).unwrap();
        for depth in [Depth::Heads, Depth::Whole] {
            if let Ok(walk) = walk_records(&header, &bytes, depth) {
                prop_assert!(walk.count() <= count as usize + 1);
            }
        }
    }
}

#[test]
fn a_batch_above_the_limit_once_it_is_repacked_is_refused_with_its_size() {
    let plain = validated(&TestBatch { records: 2000, ..TestBatch::default() });
    let packed = repacked(&plain, packing(Codec::Zstd), plain.bytes().len()).unwrap();
    let limit = packed.bytes().len();
    assert!(limit < plain.bytes().len() / 5);
    assert_eq!(repacked(&plain, packing(Codec::Zstd), limit).unwrap(), packed);
    let refused = RecordsRejected::TooLarge { batch_bytes: limit as u64 };
    assert_eq!(repacked(&plain, packing(Codec::Zstd), limit - 1), Err(refused));
    let refused = RecordsRejected::TooLarge { batch_bytes: plain.bytes().len() as u64 };
    assert_eq!(repacked(&packed, packing(Codec::None), limit), Err(refused));
}

#[test]
fn records_without_key_and_out_of_time_are_named_by_their_place() {
    let batch = validated(&TestBatch { records: 3, timestamp_ms: 50, ..TestBatch::default() });
    let check = |keyed, timestamps: Option<(i64, i64)>| {
        let within = |(oldest, newest)| TimestampRule::Within(oldest, newest);
        let timestamps = timestamps.map_or(TimestampRule::Any, within);
        check_records(&batch, RecordRules { keyed, timestamps })
    };
    let newest = Ok(Timestamp::from_millis(50));
    let all = |why: RecordFault| {
        let at = |index| RecordRejected { index, offset_delta: index as i32, why };
        Err(RecordsRejected::Records(vec![at(0), at(1), at(2)]))
    };
    let late = RecordFault::Timestamp(Timestamp::from_millis(50));
    assert_eq!(check(false, None), newest);
    assert_eq!(check(true, Some((51, 60))), all(RecordFault::NoKey));
    assert_eq!(check(false, Some((50, 50))), newest);
    assert_eq!(check(false, Some((51, 60))), all(late));
    assert_eq!(check(false, Some((0, 49))), all(late));
    let timeless = validated(&TestBatch { timestamp_ms: -1, ..TestBatch::default() });
    let rules = RecordRules { keyed: false, timestamps: TimestampRule::Within(10, 20) };
    assert_eq!(check_records(&timeless, rules), Ok(Timestamp::NONE));
    let rules = RecordRules { keyed: false, timestamps: TimestampRule::NotOfAppend };
    assert_eq!(check_records(&batch, rules), newest);
    let claims = batch.with_append_time(Timestamp::from_millis(60));
    let why = RecordFault::AppendTime { timestamp: Timestamp::from_millis(60), sizes: (0, 5) };
    assert_eq!(check_records(&claims, rules), all(why));
}

#[test]
fn records_that_end_early_go_on_or_lie_about_their_length_are_damaged() {
    let good = TestBatch { records: 2, ..TestBatch::default() }.bytes();
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        edit(&mut bytes);
        let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        TestBatch::reseal(&mut bytes);
        let batch = validate_produced(bytes.into(), usize::MAX).unwrap();
        check_records(&batch, RecordRules::default()).unwrap_err()
    };
    let surplus = edited(&|bytes| bytes.push(0));
    assert_eq!(surplus, RecordsRejected::Damaged(RecordsDamaged::Surplus));
    let short = edited(&|bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(short, RecordsRejected::Damaged(RecordsDamaged::Short));
    // The first record says that it is a byte longer.
    let size = edited(&|bytes| bytes[BATCH_HEADER_BYTES] += 2);
    let lies = RecordsDamaged::Size { expected: 12, read: 11 };
    assert_eq!(size, RecordsRejected::Damaged(lies));
}

#[test]
fn a_bomb_ends_with_an_error_and_not_in_memory() {
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4, Codec::Snappy] {
        let mut bytes = TestBatch::default().bytes()[..BATCH_HEADER_BYTES].to_vec();
        pack(packing(codec), &mut io::repeat(0).take(1_000_000), &mut bytes).unwrap();
        let packed = &bytes[BATCH_HEADER_BYTES..];
        let read =
            |limit| io::copy(&mut unpack_some(codec, packed, limit).unwrap(), &mut io::sink());
        assert_eq!(read(1_000_000).unwrap(), 1_000_000, "{codec:?}");
        assert!(is_too_long(&read(999_999).unwrap_err()), "{codec:?}");
    }
}

#[test]
fn a_snappy_block_that_promises_more_than_it_can_hold_gets_no_memory() {
    // Four gigabytes out of six bytes.
    let promise = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x06".to_vec();
    framed.extend(promise);
    for packed in [&promise[..], &framed] {
        let read = io::copy(&mut unpack(Codec::Snappy, packed).unwrap(), &mut io::sink());
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
