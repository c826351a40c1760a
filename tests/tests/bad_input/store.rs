//! An object store that misbehaves: never an acknowledgement without a stored record, never a
//! record twice, and everything that needs no store goes on.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use aquifer_storage::format::test_batch::TestBatch;
use aquifer_tests::{
    process::{Place, Process, s3_environment},
    raw::{
        Bytes, Connection, Fields, Heard, Produced, Request, fetch, fetched, key, metadata,
        metadata_topics, produce, produced,
    },
    stub::StoreStub,
};

use super::{
    heartbeat,
    world::{create, expect_records},
};

const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const REQUEST_TIMED_OUT: i16 = 7;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const KAFKA_STORAGE_ERROR: i16 = 56;

/// How long a store may need after it healed: an attempt that hangs is given up after 10 s.
const HEALED_MAX: Duration = Duration::from_secs(40);

/// What needs no store is answered within this time.
const CONTROL_MAX: Duration = Duration::from_secs(2);

/// A stub of S3 whose faults are set by hand, and a process on it.
struct Stormy {
    place: Place,
    process: Process,
    log: PathBuf,
    store: StoreStub,
    _folder: tempfile::TempDir,
}

impl Stormy {
    fn start(topics: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = StoreStub::start()?;
        let log = folder.path().join("log");
        let mut place = Place::new(folder.path().join("data"))?;
        place.store = Some("s3://aquifer/test".to_owned());
        place.environment = s3_environment(store.address);
        place.log = Some(log.clone());
        let process = place.up()?;
        for topic in topics {
            create(place.kafka, topic)?;
        }
        Ok(Self { place, process, log, store, _folder: folder })
    }

    /// Replaces the faults: (method, action, how often).
    fn faults(&self, rules: &[(&str, &str, Option<u32>)]) -> anyhow::Result<()> {
        let rules = rules.iter().map(|(method, action, count)| {
            serde_json::json!({"method": method, "action": action, "count": count})
        });
        self.store.fail(&rules.collect::<serde_json::Value>().to_string())
    }

    fn heal(&self) -> anyhow::Result<()> {
        self.faults(&[])
    }

    /// A counter of the stub.
    fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let counters = self.store.counters()?;
        counters[name].as_u64().with_context(|| format!("no {name} in {counters}"))
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.place.kafka)
    }

    /// The process lives and the log is no flood.
    fn end(mut self) -> anyhow::Result<()> {
        self.process.expect_alive()?;
        let log = std::fs::read_to_string(&self.log)?;
        ensure!(!log.contains("panicked"), "{log}");
        ensure!(log.lines().count() < 60, "{} lines logged:\n{log}", log.lines().count());
        Ok(())
    }
}

/// An idempotent producer with one connection to topic "t".
struct Producer {
    connection: Connection,
    id: i64,
}

impl Producer {
    fn new(stormy: &Stormy) -> anyhow::Result<Self> {
        let mut connection = stormy.connect()?;
        let init = Request::new(key::INIT_PRODUCER_ID, 1, Bytes::new().i16(-1).i32(60_000));
        let answer = connection.call(&init)?;
        let mut fields = Fields::new(&answer);
        let (_throttle, code, id) = (fields.i32()?, fields.i16()?, fields.i64()?);
        ensure!(code == 0, "InitProducerId answers code {code}");
        Ok(Self { connection, id })
    }

    /// Sends the record of this sequence, the same bytes every time.
    fn send(&mut self, sequence: i32, timeout: Duration) -> anyhow::Result<Produced> {
        let value = value(self.id, sequence).into_bytes();
        let producer = (self.id, 0, sequence);
        let records = TestBatch { value, producer, ..TestBatch::default() }.bytes();
        let request = produce(-1, timeout.as_millis() as i32, &[("t", 0, Some(&records))]);
        self.connection.patience(timeout + Duration::from_secs(10))?;
        produced(&self.connection.call(&request)?)?.pop().context("no row")
    }

    /// Retries as a client does, until the record is acknowledged.
    fn send_until_acked(&mut self, sequence: i32) -> anyhow::Result<i64> {
        let deadline = Instant::now() + HEALED_MAX;
        loop {
            let row = self.send(sequence, Duration::from_secs(20))?;
            match row.code {
                0 => return Ok(row.base_offset),
                REQUEST_TIMED_OUT | KAFKA_STORAGE_ERROR => {}
                code => bail!("a retry of sequence {sequence} answers code {code}"),
            }
            ensure!(Instant::now() < deadline, "not healed after {HEALED_MAX:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn value(producer: i64, sequence: i32) -> String {
    format!("{producer}/{sequence}")
}

/// Produces while `action` meets every PUT, which must not be acknowledged, then heals.
fn unacknowledged_until_healed(action: &str) -> anyhow::Result<()> {
    let stormy = Stormy::start(&["t"])?;
    let mut old = Producer::new(&stormy)?;
    let mut stored = BTreeMap::new();
    stored.insert(old.send_until_acked(0)?, value(old.id, 0));
    stormy.faults(&[("PUT", action, None)])?;
    // One producer with a history, and one whose very first object fails.
    let mut fresh = Producer::new(&stormy)?;
    let begun = Instant::now();
    for (producer, sequence) in [(&mut old, 1), (&mut fresh, 0)] {
        for _ in 0..2 {
            let row = producer.send(sequence, Duration::from_millis(1500))?;
            let told = (row.code, row.base_offset);
            let honest = [(REQUEST_TIMED_OUT, -1), (KAFKA_STORAGE_ERROR, -1)];
            ensure!(honest.contains(&told), "{action}: {row:?}");
        }
    }
    ensure!(begun.elapsed() < Duration::from_secs(10), "answers took {:?}", begun.elapsed());
    expect_records(stormy.place.kafka, "t", &stored)?;
    stormy.heal()?;
    stored.insert(old.send_until_acked(1)?, value(old.id, 1));
    stored.insert(fresh.send_until_acked(0)?, value(fresh.id, 0));
    ensure!(stored.len() == 3, "an offset was told twice: {stored:?}");
    // A retry after the acknowledgement changes nothing, a gap is refused, the next one is taken.
    let again = fresh.send(0, Duration::from_secs(20))?;
    ensure!(again.code == 0 && stored.contains_key(&again.base_offset), "{again:?}");
    let gap = fresh.send(5, Duration::from_secs(20))?;
    ensure!(gap.code == OUT_OF_ORDER_SEQUENCE_NUMBER, "{gap:?}");
    stored.insert(fresh.send_until_acked(1)?, value(fresh.id, 1));
    expect_records(stormy.place.kafka, "t", &stored)?;
    stormy.end()
}

#[test]
fn what_a_store_that_forbids_did_not_take_is_not_acknowledged_and_its_retry_is_stored_once()
-> anyhow::Result<()> {
    unacknowledged_until_healed("status:403")
}

#[test]
fn what_a_store_that_lost_its_bucket_did_not_take_is_not_acknowledged_and_its_retry_is_stored_once()
-> anyhow::Result<()> {
    unacknowledged_until_healed("status:404")
}

#[test]
fn what_an_overloaded_store_did_not_take_is_not_acknowledged_and_its_retry_is_stored_once()
-> anyhow::Result<()> {
    unacknowledged_until_healed("status:503")
}

#[test]
fn what_a_hanging_store_did_not_take_is_not_acknowledged_and_its_retry_is_stored_once()
-> anyhow::Result<()> {
    unacknowledged_until_healed("hang")
}

#[test]
fn what_a_store_that_resets_did_not_take_is_not_acknowledged_and_its_retry_is_stored_once()
-> anyhow::Result<()> {
    unacknowledged_until_healed("reset")
}

/// Requests that need no store, with where their error code is and what it must be.
fn control() -> Vec<(&'static str, Request, usize, i16)> {
    let join = Bytes::new().string("g").i32(30_000).i32(30_000).string("").i16(-1);
    let join = join.string("consumer").i32(1).string("range").bytes(Some(b"subscription"));
    let commit = Bytes::new().string("simple").i32(-1).string("").i16(-1);
    let commit = commit.i32(1).string("t").i32(1).i32(0).i64(7).i32(-1).string("");
    vec![
        ("ApiVersions", Request::new(key::API_VERSIONS, 0, Bytes::new()), 0, 0),
        ("Heartbeat", heartbeat(), 4, 25),
        ("JoinGroup", Request::new(key::JOIN_GROUP, 5, join), 4, 79),
        // Throttle time, one topic of the name "t", one partition 0: then its code.
        ("OffsetCommit", Request::new(key::OFFSET_COMMIT, 7, commit), 19, 0),
        (
            "FindCoordinator",
            Request::new(key::FIND_COORDINATOR, 2, Bytes::new().string("g").i8(0)),
            4,
            0,
        ),
    ]
}

#[test]
fn while_the_store_hangs_whatever_needs_no_store_is_answered() -> anyhow::Result<()> {
    let stormy = Stormy::start(&["t"])?;
    stormy.faults(&[("*", "hang", None)])?;
    // Enough producers that wait, each on a connection of its own.
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut connection = stormy.connect()?;
        let records = TestBatch { records: 2000, ..TestBatch::default() }.bytes();
        connection.ask(&produce(-1, 3000, &[("t", 0, Some(&records))]))?;
        waiting.push(connection);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        for (name, request, at, code) in control() {
            let begun = Instant::now();
            let answer = stormy.connect()?.call(&request)?;
            ensure!(begun.elapsed() < CONTROL_MAX, "{name} took {:?}", begun.elapsed());
            let told = Fields::new(answer.get(at..).context("a short answer")?).i16()?;
            ensure!(told == code, "{name} answers code {told}");
        }
        let begun = Instant::now();
        let topics = metadata_topics(&stormy.connect()?.call(&metadata(&["t"], false))?)?;
        ensure!(topics == [("t".to_owned(), 0)], "{topics:?}");
        ensure!(begun.elapsed() < CONTROL_MAX, "Metadata took {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    stormy.end()
}

#[test]
fn what_cannot_be_read_is_an_error_or_nothing_yet_and_is_read_once_the_store_healed()
-> anyhow::Result<()> {
    let mut stormy = Stormy::start(&["t"])?;
    let mut producer = Producer::new(&stormy)?;
    let mut stored = BTreeMap::new();
    for sequence in 0..5 {
        stored.insert(producer.send_until_acked(sequence)?, value(producer.id, sequence));
    }
    for action in ["status:503", "status:403", "hang"] {
        // Nothing is cached in a new process.
        stormy.process.kill()?;
        stormy.process = stormy.place.up()?;
        stormy.faults(&[("GET", action, None)])?;
        let mut connection = stormy.connect()?;
        connection.ask(&fetch("t", 0, 0, 500))?;
        for _ in 0..20 {
            let begun = Instant::now();
            stormy.connect()?.call(&metadata(&["t"], false))?;
            ensure!(begun.elapsed() < CONTROL_MAX, "Metadata took {:?}", begun.elapsed());
        }
        // Below what clients wait by default, 30 s.
        connection.patience(Duration::from_secs(25))?;
        let Heard::Frame(answer) = connection.hear()? else { bail!("{action}: no answer") };
        let answer = fetched(&answer[4..])?;
        let told = [0, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR];
        ensure!(answer.batches.is_empty() && told.contains(&answer.code), "{action}: {answer:?}");
        stormy.heal()?;
        let deadline = Instant::now() + HEALED_MAX;
        while let Err(error) = expect_records(stormy.place.kafka, "t", &stored) {
            ensure!(Instant::now() < deadline, "{action}: {error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    stormy.end()
}

#[test]
fn a_put_whose_answer_was_lost_leads_to_one_copy() -> anyhow::Result<()> {
    let stormy = Stormy::start(&["t"])?;
    let mut producer = Producer::new(&stormy)?;
    let mut stored = BTreeMap::new();
    let before = stormy.counter("faults")?;
    for sequence in 0..10 {
        if sequence % 3 == 0 {
            stormy.faults(&[("PUT", "drop-answer", Some(1))])?;
        }
        let offset = producer.send_until_acked(sequence)?;
        ensure!(offset == i64::from(sequence), "sequence {sequence} went to offset {offset}");
        stored.insert(offset, value(producer.id, sequence));
    }
    ensure!(4 <= stormy.counter("faults")? - before, "the faults were never met");
    expect_records(stormy.place.kafka, "t", &stored)?;
    stormy.end()
}
