//! Record batches that Kafka refuses, and requests around them.

use anyhow::ensure;
use aquifer_storage::format::test_batch::TestBatch;
use aquifer_tests::raw::{Bytes, Heard, Part, Request, key, metadata, produce, produced};

use super::world::{World, batch, expect_records};

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_REQUIRED_ACKS: i16 = 21;
const INVALID_TIMESTAMP: i16 = 32;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_TOPIC_ID: i16 = 100;

/// A batch of two records with `bytes` written at `at`, and the right checksum.
fn edited(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = TestBatch { records: 2, ..TestBatch::default() }.bytes().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    TestBatch::reseal(&mut batch);
    batch
}

fn built(change: impl FnOnce(&mut TestBatch)) -> Vec<u8> {
    let mut batch = TestBatch::default();
    change(&mut batch);
    batch.bytes().to_vec()
}

/// Every bad records field with its code.
fn bad() -> Vec<(&'static str, Option<Vec<u8>>, i16)> {
    let good = batch("good");
    let bytes = good.len() as i32;
    let mut damaged = good.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    vec![
        ("null", None, INVALID_RECORD),
        ("empty", Some(Vec::new()), INVALID_RECORD),
        ("half a header", Some(good[..30].to_vec()), INVALID_RECORD),
        ("two batches", Some([good.clone(), good.clone()].concat()), INVALID_RECORD),
        ("damaged", Some(damaged), CORRUPT_MESSAGE),
        ("length past the end", Some(edited(8, &(bytes + 100).to_be_bytes())), INVALID_RECORD),
        ("length 2^31-1", Some(edited(8, &i32::MAX.to_be_bytes())), INVALID_RECORD),
        ("length 10", Some(edited(8, &10i32.to_be_bytes())), CORRUPT_MESSAGE),
        ("length -1", Some(edited(8, &(-1i32).to_be_bytes())), CORRUPT_MESSAGE),
        ("magic 0", Some(edited(16, &[0])), INVALID_RECORD),
        ("magic 1", Some(edited(16, &[1])), INVALID_RECORD),
        ("magic 3", Some(edited(16, &[3])), CORRUPT_MESSAGE),
        ("magic -1", Some(edited(16, &[0xff])), CORRUPT_MESSAGE),
        ("codec 5", Some(built(|batch| batch.attributes = 5)), CORRUPT_MESSAGE),
        ("codec 7", Some(built(|batch| batch.attributes = 7)), CORRUPT_MESSAGE),
        ("base offset 1", Some(built(|batch| batch.base_offset = 1)), INVALID_RECORD),
        ("control", Some(built(|batch| batch.attributes = 0x20)), INVALID_RECORD),
        (
            "transactional, no producer",
            Some(built(|batch| batch.attributes = 0x10)),
            INVALID_RECORD,
        ),
        (
            "transactional, no transaction",
            Some(built(|batch| (batch.attributes, batch.producer) = (0x10, (7, 0, 0)))),
            TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        ("negative sequence", Some(built(|batch| batch.producer = (7, 0, -1))), INVALID_RECORD),
        ("negative epoch", Some(built(|batch| batch.producer = (7, -1, 0))), INVALID_RECORD),
        ("count 1 of 2", Some(edited(57, &1i32.to_be_bytes())), INVALID_RECORD),
        ("count 2^31-1", Some(edited(57, &i32::MAX.to_be_bytes())), INVALID_RECORD),
        ("count -1", Some(edited(57, &(-1i32).to_be_bytes())), INVALID_RECORD),
        ("last offset delta 5", Some(edited(23, &5i32.to_be_bytes())), INVALID_RECORD),
        ("last offset delta -1", Some(edited(23, &(-1i32).to_be_bytes())), INVALID_RECORD),
        ("a billion records", Some(billion()), INVALID_RECORD),
        ("in a far future", Some(built(|batch| batch.timestamp_ms = i64::MAX)), INVALID_TIMESTAMP),
        (
            "above max.message.bytes",
            Some(built(|batch| batch.records = 120_000)),
            MESSAGE_TOO_LARGE,
        ),
    ]
}

/// Count and offset range agree, but the bytes cannot hold so many.
fn billion() -> Vec<u8> {
    let mut batch = edited(57, &1_000_000_000i32.to_be_bytes());
    batch[23..27].copy_from_slice(&999_999_999i32.to_be_bytes());
    TestBatch::reseal(&mut batch);
    batch
}

#[test]
fn a_bad_batch_gets_kafkas_error_and_its_neighbour_in_the_request_is_stored() -> anyhow::Result<()>
{
    let world = World::start(&["bad", "good"])?;
    let mut connection = world.connect()?;
    let mut stored = std::collections::BTreeMap::new();
    for (index, (what, records, code)) in bad().into_iter().enumerate() {
        let value = format!("good {index}");
        let good = batch(&value);
        let parts: [Part<'_>; 2] = [("bad", 0, records.as_deref()), ("good", 0, Some(&good))];
        // The place of the bad one changes nothing.
        let parts = if index % 2 == 0 { parts } else { [parts[1], parts[0]] };
        let rows = produced(&connection.call(&produce(-1, 30_000, &parts))?)?;
        ensure!(rows.len() == 2, "{what}: {rows:?}");
        for row in rows {
            if row.topic == "bad" {
                ensure!((row.code, row.base_offset) == (code, -1), "{what}: {row:?}");
            } else {
                ensure!((row.code, row.base_offset) == (0, index as i64), "{what}: {row:?}");
                stored.insert(row.base_offset, value.clone());
            }
        }
    }
    expect_records(world.place.kafka, "good", &stored)?;
    expect_records(world.place.kafka, "bad", &Default::default())?;
    world.end()
}

#[test]
fn an_unknown_partition_or_topic_fails_alone() -> anyhow::Result<()> {
    let world = World::start(&["good"])?;
    let records = batch("good");
    let mut parts: Vec<Part<'_>> =
        vec![("good", -1, Some(&records)), ("missing", 0, Some(&records))];
    parts.extend([1, 1_000_000, i32::MAX, i32::MIN].map(|index| ("good", index, Some(&*records))));
    parts.push(("good", 0, Some(&records)));
    let rows = produced(&world.call(&produce(-1, 30_000, &parts))?)?;
    let codes: Vec<i16> = rows.iter().map(|row| row.code).collect();
    let unknown = UNKNOWN_TOPIC_OR_PARTITION;
    ensure!(codes == [unknown, unknown, unknown, unknown, unknown, unknown, 0], "{rows:?}");
    let mut by_id = Bytes::new().uvarint(0).i16(-1).i32(1000).uvarint(2).raw(&[7; 16]).uvarint(2);
    by_id = by_id.i32(0).uvarint(records.len() as u32 + 1).raw(&records).raw(&[0; 3]);
    let answer = world.call(&Request::flexible(key::PRODUCE, 13, by_id))?;
    // Header tags, one topic with the id asked for, one partition: index and error code.
    let expected = Bytes::new().raw(&[0, 2]).raw(&[7; 16]).raw(&[2]).i32(0).i16(UNKNOWN_TOPIC_ID).0;
    ensure!(answer.starts_with(&expected), "{answer:?}");
    expect_records(world.place.kafka, "good", &[(0, "good".to_owned())].into())?;
    world.end()
}

#[test]
fn acks_that_do_not_exist_are_refused_and_store_nothing() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let records = batch("refused");
    for acks in [5, 2, -2, i16::MIN, i16::MAX] {
        let rows = produced(&world.call(&produce(acks, 1000, &[("t", 0, Some(&records))]))?)?;
        ensure!(rows[0].code == INVALID_REQUIRED_ACKS, "acks {acks}: {rows:?}");
    }
    expect_records(world.place.kafka, "t", &Default::default())?;
    world.end()
}

#[test]
fn without_acks_a_good_batch_is_silent_and_a_bad_one_closes_the_connection() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let (good, bad) = (batch("good"), edited(57, &[0; 4]));
    let mut connection = world.connect()?;
    connection.ask(&produce(0, 1000, &[("t", 0, Some(&good))]))?;
    connection.call(&metadata(&["t"], false))?; // The next answer is the next request's.
    connection.ask(&produce(0, 1000, &[("t", 0, Some(&bad))]))?;
    ensure!(connection.hear()? == Heard::Closed, "a failure without acks closes");
    expect_records(world.place.kafka, "t", &[(0, "good".to_owned())].into())?;
    world.end()
}

#[test]
fn what_a_client_may_write_strangely_is_stored() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let mut connection = world.connect()?;
    let plain = built(|_| {});
    let trailed = [plain.clone(), vec![0; 8]].concat();
    // The same partition twice in one request: both count, in their order.
    let parts: [Part<'_>; 2] = [("t", 0, Some(&plain)), ("t", 0, Some(&trailed))];
    let rows = produced(&connection.call(&produce(-1, 30_000, &parts))?)?;
    let bases: Vec<_> = rows.iter().map(|row| (row.code, row.base_offset)).collect();
    ensure!(bases == [(0, 0), (0, 1)], "{rows:?}");
    let stored = [(0, "water".to_owned()), (1, "water".to_owned())];
    expect_records(world.place.kafka, "t", &stored.into())?;
    // No partition at all is an answer without rows.
    ensure!(produced(&connection.call(&produce(-1, 1000, &[]))?)?.is_empty(), "rows");
    world.end()
}
