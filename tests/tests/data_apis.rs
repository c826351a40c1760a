//! Offsets by time, deleted records and what topics ask of records, on a running broker and after
//! its restart.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use anyhow::ensure;
use aquifer_storage::format::{
    record_batch::{
        BatchHeader, Codec, ValidatedBatch, compression::Packing, records::Depth,
        records::walk_records, rework::repacked, split_batches, validate_produced,
    },
    test_batch::TestBatch,
};
use aquifer_tests::{
    process::Place,
    raw::{Bytes, Connection, Fields, Produced, Request, fetch, fetched, key, produce, produced},
};

/// When every batch here begins.
const TIME: i64 = 1_700_000_000_000;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn create(
    connection: &mut Connection,
    topic: &str,
    configs: &[(&str, &str)],
) -> anyhow::Result<()> {
    let mut body = Bytes::new().i32(1).string(topic).i32(1).i16(1).i32(0).i32(configs.len() as i32);
    for (name, value) in configs {
        body = body.string(name).string(value);
    }
    let answer = connection.call(&Request::new(key::CREATE_TOPICS, 4, body.i32(10_000).i8(0)))?;
    let mut fields = Fields::new(&answer);
    let (_throttle, _count, _name) = (fields.i32()?, fields.count()?, fields.string()?);
    let code = fields.i16()?;
    ensure!(code == 0, "{topic} is not created: {code}");
    Ok(())
}

fn write(connection: &mut Connection, topic: &str, batch: &[u8]) -> anyhow::Result<Produced> {
    let answer = connection.call(&produce(-1, 10_000, &[(topic, 0, Some(batch))]))?;
    Ok(produced(&answer)?.remove(0))
}

/// ListOffsets v5 of partition 0: code, timestamp, offset.
fn list(connection: &mut Connection, topic: &str, time: i64) -> anyhow::Result<(i16, i64, i64)> {
    let body = Bytes::new().i32(-1).i8(0).i32(1).string(topic).i32(1).i32(0).i32(-1).i64(time);
    let answer = connection.call(&Request::new(key::LIST_OFFSETS, 5, body))?;
    let mut fields = Fields::new(&answer);
    let _throttle = fields.i32()?;
    let _names = (fields.count()?, fields.string()?, fields.count()?, fields.i32()?);
    Ok((fields.i16()?, fields.i64()?, fields.i64()?))
}

/// DeleteRecords v1 of partition 0: low watermark, code.
fn delete(connection: &mut Connection, topic: &str, before: i64) -> anyhow::Result<(i64, i16)> {
    let body = Bytes::new().i32(1).string(topic).i32(1).i32(0).i64(before).i32(10_000);
    let answer = connection.call(&Request::new(key::DELETE_RECORDS, 1, body))?;
    let mut fields = Fields::new(&answer);
    let _throttle = fields.i32()?;
    let _names = (fields.count()?, fields.string()?, fields.count()?, fields.i32()?);
    Ok((fields.i64()?, fields.i16()?))
}

fn sound(batch: TestBatch) -> ValidatedBatch {
    validate_produced(batch.bytes(), usize::MAX).expect("a test batch is sound")
}

#[test]
fn records_are_found_by_time_and_deleted_for_good() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let process = place.up()?;
    let mut connection = Connection::open(place.kafka)?;
    create(&mut connection, "t", &[])?;
    // Ten records a batch, a second apart: 0 to 9 s, 10 to 19 s, ...
    for (number, codec) in (0..).zip(CODECS) {
        let timestamp_ms = TIME + number * 10_000;
        let batch = TestBatch {
            records: 10,
            timestamp_ms,
            timestamp_step_ms: 1000,
            ..TestBatch::default()
        };
        let batch = repacked(&sound(batch), Packing { codec, level: 1 }, usize::MAX)?;
        ensure!(write(&mut connection, "t", batch.bytes())?.code == 0, "{codec:?}");
    }
    for second in 0..50 {
        for since in [TIME + second * 1000 - 999, TIME + second * 1000] {
            let found = list(&mut connection, "t", since)?;
            ensure!(found == (0, TIME + second * 1000, second), "second {second}: {found:?}");
        }
    }
    ensure!(list(&mut connection, "t", TIME + 49_001)? == (0, -1, -1), "behind the last");
    for (before, expected) in [(51, (-1, 1)), (-7, (-1, 1)), (13, (13, 0)), (5, (13, 0))] {
        let deleted = delete(&mut connection, "t", before)?;
        ensure!(deleted == expected, "before {before}: {deleted:?}");
    }
    let check = |connection: &mut Connection| -> anyhow::Result<()> {
        ensure!(list(connection, "t", -2)? == (0, -1, 13), "the log start");
        ensure!(list(connection, "t", 0)? == (0, TIME + 13_000, 13), "the oldest that is left");
        let below = fetched(&connection.call(&fetch("t", 0, 12, 0))?)?;
        ensure!(below.code == 1, "{below:?}");
        let at = fetched(&connection.call(&fetch("t", 0, 13, 0))?)?;
        ensure!((at.code, at.high_watermark) == (0, 50), "{at:?}");
        Ok(())
    };
    check(&mut connection)?;
    ensure!(process.terminate()?, "SIGTERM drains and ends with success");
    let _process = place.up()?;
    let mut connection = Connection::open(place.kafka)?;
    check(&mut connection)?;
    ensure!(delete(&mut connection, "t", -1)? == (50, 0), "all of them");
    ensure!(list(&mut connection, "t", 0)? == (0, -1, -1), "there is none");
    let next = write(&mut connection, "t", &TestBatch::default().bytes())?;
    ensure!((next.code, next.base_offset) == (0, 50), "offsets go on: {next:?}");
    Ok(())
}

/// The header of the first batch at `offset`, and whether its records can be read.
fn stored(connection: &mut Connection, topic: &str) -> anyhow::Result<BatchHeader> {
    let answer = connection.call(&fetch(topic, 0, 0, 0))?;
    // What stands before the records, of one topic and one partition: see `fetched`.
    let head = 4 + 2 + 4 + 4 + (2 + topic.len()) + 4 + 4 + 2 + 8 + 8 + 8 + 4 + 4 + 4;
    let batches = bytes::Bytes::copy_from_slice(&answer[head..]);
    let first = split_batches(batches).next().expect("there is a batch")?;
    let walk = walk_records(&first.header, &first.bytes, Depth::Whole)?;
    let records = walk.collect::<Result<Vec<_>, _>>()?;
    ensure!(records.len() == first.header.count as usize, "{:?}", first.header);
    Ok(first.check()?.header().to_owned())
}

#[test]
fn topics_get_the_codec_the_time_and_the_keys_that_they_ask_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let _process = place.up()?;
    let mut connection = Connection::open(place.kafka)?;
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    let batch = TestBatch { records: 100, timestamp_ms: TIME, ..TestBatch::default() };
    for (name, codec) in names.into_iter().zip(CODECS) {
        create(&mut connection, name, &[("compression.type", name)])?;
        for sent in CODECS {
            let sent =
                repacked(&sound(batch.clone()), Packing { codec: sent, level: 1 }, usize::MAX)?;
            ensure!(write(&mut connection, name, sent.bytes())?.code == 0, "{name}");
        }
        let header = stored(&mut connection, name)?;
        ensure!(header.attributes.codec() == Some(codec), "{name}: {header:?}");
        ensure!(header.max_timestamp.millis() == TIME, "{name}: {header:?}");
    }
    create(&mut connection, "now", &[("message.timestamp.type", "LogAppendTime")])?;
    ensure!(write(&mut connection, "now", &batch.bytes())?.code == 0, "at the time of its append");
    let header = stored(&mut connection, "now")?;
    let now = header.max_timestamp.millis();
    ensure!(header.attributes.is_append_time() && TIME + 1_000_000 < now, "{header:?}");
    ensure!(list(&mut connection, "now", now)? == (0, now, 0), "every record has that time");
    create(&mut connection, "keyed", &[("cleanup.policy", "compact")])?;
    ensure!(write(&mut connection, "keyed", &batch.bytes())?.code == 87, "there is no key");
    ensure!(delete(&mut connection, "keyed", 0)? == (-1, 44), "compaction alone deletes");
    create(&mut connection, "full", &[("aquifer.validate", "full")])?;
    let mut lies = batch.bytes().to_vec();
    lies[61] += 2;
    TestBatch::reseal(&mut lies);
    ensure!(write(&mut connection, "full", &lies)?.code == 87, "a record's length lies");
    Ok(())
}
