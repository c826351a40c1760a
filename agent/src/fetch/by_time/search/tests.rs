//! Laws of looking a record up by its time.

use aquifer_storage::{
    cache::block::{CachedBlock, CachedSlice},
    format::{
        record_batch::{
            Codec, compression::Packing, rework::repacked, split_batches, validate_produced,
        },
        test_batch::TestBatch,
    },
    model::OffsetRange,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::fetch::testing::{object_name, offset};

/// Batches one behind the other, as a row.
fn row(batches: &[Bytes]) -> (Run, Vec<CachedSlice>) {
    let bytes = Bytes::from(batches.concat());
    let headers: Vec<_> = split_batches(bytes.clone()).map(|batch| batch.unwrap().header).collect();
    let count: u32 = headers.iter().map(|header| header.offset_count().unwrap()).sum();
    let run = Run {
        offsets: OffsetRange { base: offset(100), next: offset(100 + i64::from(count)) },
        object: object_name(1, false),
        object_bytes: bytes.len() as u64,
        position: 0,
        length: bytes.len() as u32,
        max_timestamp: headers.iter().map(|header| header.max_timestamp).max().unwrap(),
        offsets_final: false,
    };
    let block = CachedBlock::written(std::slice::from_ref(&bytes), 0..bytes.len());
    (run, block.slices(0..bytes.len()).collect())
}

fn packed(batch: &TestBatch, codec: Codec) -> Bytes {
    let batch = validate_produced(batch.bytes(), usize::MAX).unwrap();
    repacked(&batch, Packing { codec, level: 1 }, usize::MAX).unwrap().bytes().clone()
}

fn found(batches: &[Bytes], time: TimeSpec, floor: i64) -> Option<(i64, i64)> {
    let (run, slices) = row(batches);
    let found = search(&run, &slices, Sought { time, floor: offset(floor) }).unwrap();
    found.map(|found| (found.offset.value(), found.timestamp.millis()))
}

const fn since(millis: i64) -> TimeSpec {
    TimeSpec::Since(Timestamp::from_millis(millis))
}

proptest! {
    #[test]
    fn a_lookup_finds_what_a_walk_over_all_records_finds(
        batches in prop::collection::vec((1..6_u32, 0..50_i64, 0..20_u32, 0..5_usize), 1..6),
        oldest in 0..120_i64,
        floor in 95..125_i64,
    ) {
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        let (mut all, mut bytes) = (Vec::new(), Vec::new());
        for (records, timestamp_ms, timestamp_step_ms, codec) in batches {
            let batch = TestBatch { records, timestamp_ms, timestamp_step_ms, ..TestBatch::default() };
            bytes.push(packed(&batch, codecs[codec]));
            for n in 0..records {
                let time = timestamp_ms + i64::from(n * timestamp_step_ms);
                all.push((100 + all.len() as i64, time));
            }
        }
        all.retain(|(offset, _)| floor <= *offset);
        let expected = all.iter().find(|(_, time)| oldest <= *time).copied();
        prop_assert_eq!(found(&bytes, since(oldest), floor), expected);
        let newest = all.iter().map(|(_, time)| *time).max();
        let expected = all.iter().find(|(_, time)| Some(*time) == newest).copied();
        prop_assert_eq!(found(&bytes, TimeSpec::Newest, floor), expected);
    }
}

#[test]
fn in_a_batch_with_the_time_of_its_append_that_is_every_records_time() {
    let batch = TestBatch { records: 3, timestamp_ms: 5, ..TestBatch::default() };
    let batch = validate_produced(batch.bytes(), usize::MAX).unwrap();
    let batch = batch.with_append_time(Timestamp::from_millis(900)).bytes().clone();
    assert_eq!(found(std::slice::from_ref(&batch), since(6), 0), Some((100, 900)));
    assert_eq!(found(std::slice::from_ref(&batch), since(901), 0), None);
    assert_eq!(found(std::slice::from_ref(&batch), TimeSpec::Newest, 102), Some((102, 900)));
}

#[test]
fn records_that_cannot_be_read_are_found_at_their_batchs_first_offset() {
    let good = TestBatch { records: 2, timestamp_ms: 10, ..TestBatch::default() }.bytes();
    let mut bad = TestBatch { records: 2, timestamp_ms: 50, attributes: 1, ..TestBatch::default() }
        .bytes()
        .to_vec();
    TestBatch::reseal(&mut bad);
    let batches = [good, Bytes::from(bad)];
    assert_eq!(found(&batches, since(10), 0), Some((100, 10)));
    assert_eq!(found(&batches, since(11), 0), Some((102, 50)));
    assert_eq!(found(&batches, TimeSpec::Newest, 0), Some((102, 50)));
    assert_eq!(found(&batches, since(51), 0), None);
}

#[test]
fn a_batch_that_exaggerates_its_newest_record_hides_no_other() {
    let mut proud = TestBatch { timestamp_ms: 10, ..TestBatch::default() }.bytes().to_vec();
    proud[35..43].copy_from_slice(&90_i64.to_be_bytes());
    TestBatch::reseal(&mut proud);
    let honest = TestBatch { timestamp_ms: 50, ..TestBatch::default() }.bytes();
    let batches = [Bytes::from(proud), honest];
    assert_eq!(found(&batches, TimeSpec::Newest, 0), Some((101, 50)));
    assert_eq!(found(&batches, since(11), 0), Some((101, 50)));
    assert_eq!(found(&batches, since(60), 0), None);
}
