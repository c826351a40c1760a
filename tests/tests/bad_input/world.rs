//! One `aquifer up`, a well-behaved client beside the bad ones, and what must hold at the end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_storage::format::test_batch::TestBatch;
use aquifer_tests::{
    process::{Place, Process, http_get},
    raw::{
        Connection, Heard, Request, fetch, fetched, metadata, metadata_topics, produce, produced,
    },
};

/// What bad input may leave behind in memory.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What the neighbour may wait for one answer on a busy machine.
const NEIGHBOUR_WAITS_MAX: Duration = Duration::from_secs(8);

/// A batch of one record.
pub fn batch(value: &str) -> Vec<u8> {
    TestBatch { value: value.as_bytes().to_vec(), ..TestBatch::default() }.bytes().to_vec()
}

/// A running process that bad input is sent to.
pub struct World {
    pub place: Place,
    pub process: Process,
    log: PathBuf,
    resident_bytes: u64,
    neighbour: Neighbour,
    _folder: tempfile::TempDir,
}

impl World {
    /// Starts everything; `topics` exist.
    pub fn start(topics: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(topics, |_| {})
    }

    /// The same, at a place that is not quite the usual one.
    pub fn start_with(topics: &[&str], change: impl FnOnce(&mut Place)) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let mut place = Place::new(folder.path().join("data"))?;
        place.log = Some(log.clone());
        change(&mut place);
        let process = place.up()?;
        for topic in topics.iter().chain(&["neighbour"]) {
            create(place.kafka, topic)?;
        }
        let neighbour = Neighbour::start(place.kafka)?;
        let resident_bytes = process.resident_bytes()?;
        Ok(Self { place, process, log, resident_bytes, neighbour, _folder: folder })
    }

    /// A new connection.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.place.kafka)
    }

    /// What the broker does with `bytes` on a connection of their own.
    pub fn hear(&self, bytes: &[u8]) -> anyhow::Result<Heard> {
        let mut connection = self.connect()?;
        connection.send(bytes)?;
        connection.hear()
    }

    /// The answer to a request on a connection of its own.
    pub fn call(&self, request: &Request) -> anyhow::Result<Vec<u8>> {
        self.connect()?.call(request)
    }

    /// `bytes` must close the connection without an answer.
    pub fn expect_closed(&self, what: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let heard = self.hear(bytes)?;
        ensure!(heard == Heard::Closed, "{what}: {heard:?}");
        Ok(())
    }

    /// A counter of `/metrics`.
    pub fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let (_, text) = http_get(self.place.http, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no counter")?;
        Ok(line.trim().parse()?)
    }

    /// The lines logged about connections that were closed for what they sent.
    pub fn offences(&self) -> anyhow::Result<Vec<String>> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log
            .lines()
            .filter(|line| line.contains("connection closed"))
            .map(str::to_owned)
            .collect())
    }

    /// The process lives, the neighbour lost nothing, memory and log stayed small.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.process.expect_alive()?;
        let grown = self.process.resident_bytes()?.saturating_sub(self.resident_bytes);
        let acked = self.neighbour.finish()?;
        expect_records(self.place.kafka, "neighbour", &acked)?;
        let log = std::fs::read_to_string(&self.log)?;
        ensure!(!log.contains("panicked"), "{log}");
        ensure!(log.lines().count() < 40, "{} lines logged:\n{log}", log.lines().count());
        ensure!(grown < GROWTH_BYTES_MAX, "{} MiB more memory", grown >> 20);
        Ok(())
    }
}

/// Creates a topic and waits until it is there.
pub fn create(address: SocketAddr, topic: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while metadata_topics(&connection.call(&metadata(&[topic], true))?)?[0].1 != 0 {
        ensure!(Instant::now() < deadline, "topic {topic} does not come");
    }
    Ok(())
}

/// `acked` (offset and value) is what partition 0 of `topic` holds, and nothing else.
pub fn expect_records(
    address: SocketAddr,
    topic: &str,
    acked: &BTreeMap<i64, String>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let mut read = BTreeMap::new();
    loop {
        let next = read.last_key_value().map_or(0, |(offset, _)| offset + 1);
        let answer = fetched(&connection.call(&fetch(topic, 0, next, 500))?)?;
        ensure!(answer.code == 0, "fetch answers code {}", answer.code);
        let more = next < answer.high_watermark;
        ensure!(!(more && answer.batches.is_empty()), "nothing at {next} of {topic}");
        for (offset, value) in answer.batches {
            ensure!(next <= offset, "offset {offset} was asked from {next}");
            read.insert(offset, String::from_utf8(value)?);
        }
        let next = read.last_key_value().map_or(0, |(offset, _)| offset + 1);
        if answer.high_watermark <= next {
            break;
        }
    }
    for offset in acked.keys().chain(read.keys()) {
        let (told, found) = (acked.get(offset), read.get(offset));
        ensure!(told == found, "{topic} offset {offset}: told {told:?}, read {found:?}");
    }
    Ok(())
}

/// Produces and fetches, one record after the other, the whole time.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<BTreeMap<i64, String>>>,
}

impl Neighbour {
    fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let connection = Connection::open(address)?; // Before anybody takes its place.
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Ok(Self { stop, thread: std::thread::spawn(move || live(connection, &stopped)) })
    }

    fn finish(self) -> anyhow::Result<BTreeMap<i64, String>> {
        self.stop.store(true, Ordering::Relaxed);
        let acked = self.thread.join().ok().context("the neighbour panicked")?;
        let acked = acked.context("the neighbour")?;
        ensure!(!acked.is_empty(), "the neighbour produced nothing");
        Ok(acked)
    }
}

fn live(mut connection: Connection, stop: &AtomicBool) -> anyhow::Result<BTreeMap<i64, String>> {
    let mut acked = BTreeMap::new();
    loop {
        let value = format!("record {}", acked.len());
        let begun = Instant::now();
        let records = batch(&value);
        let answer = connection.call(&produce(-1, 30_000, &[("neighbour", 0, Some(&records))]))?;
        let row = produced(&answer)?.pop().context("no row")?;
        ensure!(row.code == 0, "produce answers code {}", row.code);
        acked.insert(row.base_offset, value.clone());
        let answer = connection.call(&fetch("neighbour", 0, row.base_offset, 1000))?;
        let found = fetched(&answer)?.batches;
        ensure!(found.first() == Some(&(row.base_offset, value.into_bytes())), "read {found:?}");
        let took = begun.elapsed();
        ensure!(took < NEIGHBOUR_WAITS_MAX, "record {} took {took:?}", acked.len());
        if stop.load(Ordering::Relaxed) {
            return Ok(acked);
        }
    }
}
