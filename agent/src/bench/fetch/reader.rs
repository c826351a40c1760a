//! One connection's worth of reading: a thread that asks, waits and walks.

use std::{collections::BTreeMap, io::Read as _, sync::atomic::Ordering, thread, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;

use super::{
    ReadControl, ReadPlan,
    scan::{Expected, scan},
    session::{FetchSession, is_session_lost},
};
use crate::{
    bench::{
        client::{
            Connection, OffsetAt, Topic, decode_response, error_name, explained, leader_moved,
            read_length,
        },
        delivery::DeliveryLog,
        report::micros_histogram,
        stamp,
    },
    wire::{
        ErrorCode,
        messages::{FetchRequest, FetchResponse, FetchResponseResponsesPartitions},
    },
};

/// The versions to choose from.
const VERSION_MIN: i16 = 4;

/// The last version that names topics.
const LAST_WITH_NAMES: i16 = 12;

/// Between two attempts on a broker that refuses or is gone.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What readers saw.
#[derive(Clone, Debug)]
pub struct ReadTotals {
    /// Bytes of whole batches, warm-up included.
    pub bytes_ever: u64,
    /// Those that arrived in the window.
    pub bytes: u64,
    /// Batches in the window.
    pub batches: u64,
    /// Records in the window.
    pub records: u64,
    /// Answers in the window.
    pub fetches: u64,
    /// Those of them without records.
    pub empty_fetches: u64,
    /// From request to whole answer, of answers with records in the window.
    pub fetch: Histogram<u64>,
    /// From the stamp of a batch to its arrival, of stamps in the window.
    pub end_to_end: Histogram<u64>,
    /// Batches behind a gap of offsets, in the run.
    pub holes: u64,
    /// Batches with offsets that were there before, in the run.
    pub duplicates: u64,
    /// Errors by name, in the run.
    pub errors: BTreeMap<String, u64>,
    /// Offsets that were there at the end but not read, by what brokers said last.
    pub lag: u64,
    /// When the last records arrived.
    pub last_arrival_micros: u64,
    /// Offsets before the end that was set, but not read.
    pub unread: u64,
    /// Connections lost, and why.
    pub failures: Vec<String>,
    /// Readers that ended early.
    pub lost: u64,
}

impl Default for ReadTotals {
    fn default() -> Self {
        Self {
            bytes_ever: 0,
            bytes: 0,
            batches: 0,
            records: 0,
            fetches: 0,
            empty_fetches: 0,
            fetch: micros_histogram(),
            end_to_end: micros_histogram(),
            holes: 0,
            duplicates: 0,
            errors: BTreeMap::new(),
            lag: 0,
            last_arrival_micros: 0,
            unread: 0,
            failures: Vec::new(),
            lost: 0,
        }
    }
}

impl ReadTotals {
    /// Adds what another reader saw.
    pub fn merge(&mut self, other: Self) {
        let bounds = "all histograms have the same bounds";
        self.fetch.add(&other.fetch).expect(bounds);
        self.end_to_end.add(&other.end_to_end).expect(bounds);
        self.bytes_ever += other.bytes_ever;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.records += other.records;
        self.fetches += other.fetches;
        self.empty_fetches += other.empty_fetches;
        self.holes += other.holes;
        self.duplicates += other.duplicates;
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.lag += other.lag;
        self.last_arrival_micros = self.last_arrival_micros.max(other.last_arrival_micros);
        self.unread += other.unread;
        self.failures.extend(other.failures);
        self.lost += other.lost;
    }

    fn count_error(&mut self, code: i16) {
        *self.errors.entry(error_name(code)).or_default() += 1;
    }
}

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
struct Position {
    next: i64,
    is_aligned: bool,
    high_watermark: i64,
}

/// A broker and what is asked of it.
#[derive(Debug)]
struct Link {
    connection: Connection,
    version: i16,
    session: FetchSession,
}

/// What one thread reads: a link at first, more once leaders have moved.
#[derive(Debug)]
pub struct Lane {
    positions: BTreeMap<i32, Position>,
    links: Vec<Link>,
}

impl Lane {
    /// Connects to the leaders of the partitions.
    ///
    /// # Errors
    /// One cannot be reached.
    pub fn open(
        plan: &ReadPlan,
        topic: &Topic,
        offsets: BTreeMap<i32, i64>,
    ) -> anyhow::Result<Self> {
        let at = |next| Position {
            next,
            is_aligned: plan.from == OffsetAt::Latest,
            high_watermark: next,
        };
        let positions = offsets.into_iter().map(|(partition, next)| (partition, at(next)));
        let mut lane = Self { positions: positions.collect(), links: Vec::new() };
        lane.links = lane.links_to(topic)?;
        Ok(lane)
    }

    fn links_to(&self, topic: &Topic) -> anyhow::Result<Vec<Link>> {
        let mut links = Vec::new();
        for (leader, partitions) in topic.by_leader() {
            let at = |partition| Some((partition, self.positions.get(&partition)?.next));
            let positions: BTreeMap<_, _> = partitions.into_iter().filter_map(at).collect();
            if positions.is_empty() {
                continue;
            }
            let connection = Connection::open(leader)?;
            let max = topic.version_max(LAST_WITH_NAMES);
            let version = connection.version_of::<FetchRequest>(VERSION_MIN..=max)?;
            let session = FetchSession::new(topic.name.clone(), topic.id, positions);
            links.push(Link { connection, version, session });
        }
        Ok(links)
    }
}

/// The thread.
#[derive(Debug)]
pub struct Reader<'a> {
    plan: &'a ReadPlan,
    control: &'a ReadControl,
    delivery: Option<&'a DeliveryLog>,
    lane: Lane,
    /// Where to end, once that is known.
    ends: Option<BTreeMap<i32, i64>>,
    /// Kept as large as the largest answer: a page touched first costs more than its bytes.
    buffer: BytesMut,
    totals: ReadTotals,
}

impl<'a> Reader<'a> {
    /// A thread about to read a lane.
    pub fn new(
        plan: &'a ReadPlan,
        control: &'a ReadControl,
        delivery: Option<&'a DeliveryLog>,
        lane: Lane,
    ) -> Self {
        Self {
            plan,
            control,
            delivery,
            lane,
            ends: None,
            buffer: BytesMut::new(),
            totals: ReadTotals::default(),
        }
    }

    /// Reads to the end that its control sets.
    pub fn run(mut self) -> ReadTotals {
        loop {
            match self.read_on() {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!("{error:#}");
                    self.totals.failures.push(format!("{error:#}"));
                    if !self.plan.reconnect || !self.reconnect() {
                        self.totals.lost = 1;
                        break;
                    }
                }
            }
        }
        let behind = |p: &Position, end: i64| u64::try_from(end - p.next).unwrap_or(0);
        let positions = &self.lane.positions;
        self.totals.lag = positions.values().map(|p| behind(p, p.high_watermark)).sum();
        let ends = self.ends.iter().flatten();
        let unread = ends.filter_map(|(p, end)| Some(behind(positions.get(p)?, *end)));
        self.totals.unread = unread.sum();
        self.totals
    }

    fn read_on(&mut self) -> anyhow::Result<()> {
        while !self.is_done()? {
            let mut moved = false;
            for index in 0..self.lane.links.len() {
                moved |= self.fetch(index)?;
            }
            if moved {
                thread::sleep(RETRY_AFTER);
                self.lane.links = self.lane.links_to(&self.plan.topic()?)?;
            }
        }
        Ok(())
    }

    fn reconnect(&mut self) -> bool {
        while !self.is_over() {
            thread::sleep(RETRY_AFTER);
            match self.plan.topic().and_then(|topic| self.lane.links_to(&topic)) {
                Ok(links) => {
                    self.lane.links = links;
                    return true;
                }
                Err(error) => tracing::debug!("reconnecting: {error:#}"),
            }
        }
        false
    }

    fn is_over(&self) -> bool {
        let finish_by = self.control.finish_by_micros.load(Ordering::Acquire);
        let stopped = self.control.stop.load(Ordering::Acquire);
        stopped || finish_by < self.plan.clock.now_micros()
    }

    fn is_done(&mut self) -> anyhow::Result<bool> {
        if self.is_over() {
            return Ok(true);
        }
        if self.control.finish.load(Ordering::Acquire) && self.ends.is_none() {
            let mut topic = self.plan.topic()?;
            topic.leaders.retain(|partition, _| self.lane.positions.contains_key(partition));
            self.ends = Some(self.plan.cluster.offsets(&topic, OffsetAt::Latest)?);
        }
        let Some(ends) = &self.ends else { return Ok(false) };
        let positions = &self.lane.positions;
        Ok(ends.iter().all(|(p, end)| positions.get(p).is_none_or(|p| *end <= p.next)))
    }

    /// One request and its answer; true when a partition is led elsewhere now.
    fn fetch(&mut self, index: usize) -> anyhow::Result<bool> {
        let asked_micros = self.plan.clock.now_micros();
        let link = &mut self.lane.links[index];
        let broker = link.connection.broker().to_owned();
        let request = link.session.request(&self.plan.limits);
        let correlation_id =
            link.connection.send(link.version, &request).context(broker.clone())?;
        let frame = read_answer(&mut link.connection, &mut self.buffer).context(broker.clone())?;
        let arrived = self.plan.clock.now_micros();
        let answer: FetchResponse = decode_response(frame.clone(), link.version, correlation_id)
            .with_context(|| format!("{broker}: Fetch"))?;
        let moved = self.take(index, &answer, arrived).with_context(|| broker.clone());
        let has_records =
            answer.responses.iter().flat_map(|topic| &topic.partitions).any(has_records);
        drop(answer);
        // The answer is gone: nothing else holds the frame's memory.
        self.buffer = frame.try_into_mut().unwrap_or_default();
        if self.control.window.contains(arrived) {
            self.totals.fetches += 1;
            match has_records {
                true => self.totals.fetch.saturating_record(arrived - asked_micros),
                false => self.totals.empty_fetches += 1,
            }
        }
        moved
    }

    fn take(&mut self, index: usize, answer: &FetchResponse, arrived: u64) -> anyhow::Result<bool> {
        let session = &mut self.lane.links[index].session;
        if answer.error_code != 0 {
            self.totals.count_error(answer.error_code);
            session.reset();
            if !is_session_lost(answer.error_code) {
                thread::sleep(RETRY_AFTER);
            }
            return Ok(leader_moved(answer.error_code));
        }
        session.answered(answer.session_id);
        let mut moved = false;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code == 0 {
                self.take_partition(index, partition, arrived)?;
            } else {
                moved |= self.take_error(index, partition);
            }
        }
        Ok(moved)
    }

    fn take_partition(
        &mut self,
        link: usize,
        answer: &FetchResponseResponsesPartitions,
        arrived: u64,
    ) -> anyhow::Result<()> {
        let Some(position) = self.lane.positions.get_mut(&answer.partition_index) else {
            return Ok(());
        };
        position.high_watermark = answer.high_watermark;
        let Some(records) = answer.records.as_ref().filter(|records| !records.is_empty()) else {
            return Ok(());
        };
        let (partition, window) = (answer.partition_index, self.control.window);
        let expected = Expected {
            next: position.next,
            is_aligned: position.is_aligned,
            verify_crc: self.plan.verify_crc,
        };
        let (totals, delivery) = (&mut self.totals, self.delivery);
        let scanned = scan(&records.to_bytes(), &expected, |header, batch| {
            let stamped = stamp::of_batch(batch).filter(|stamp| window.contains(*stamp));
            if let Some(stamp) = stamped {
                totals.end_to_end.saturating_record(arrived.saturating_sub(stamp));
                if let Some(delivery) = delivery {
                    delivery.read(partition, header.base_offset, arrived);
                }
            }
        });
        let scanned = scanned
            .with_context(|| format!("partition {partition} from offset {}", expected.next))?;
        position.next = scanned.next;
        position.is_aligned = true;
        self.lane.links[link].session.advance(partition, scanned.next);
        self.totals.holes += scanned.holes;
        self.totals.duplicates += scanned.duplicates;
        self.totals.bytes_ever += scanned.bytes;
        self.totals.last_arrival_micros = arrived;
        if window.contains(arrived) {
            self.totals.bytes += scanned.bytes;
            self.totals.batches += scanned.batches;
            self.totals.records += scanned.records;
        }
        self.control.bytes.fetch_add(scanned.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts an error; true when the partition is led elsewhere now.
    fn take_error(&mut self, link: usize, answer: &FetchResponseResponsesPartitions) -> bool {
        self.totals.count_error(answer.error_code);
        let partition = answer.partition_index;
        if let Some(position) = self.lane.positions.get_mut(&partition)
            && answer.error_code == ErrorCode::OffsetOutOfRange.code()
            && position.next < answer.log_start_offset
        {
            // Retention went past us.
            (position.next, position.is_aligned) = (answer.log_start_offset, false);
            self.lane.links[link].session.advance(partition, answer.log_start_offset);
        } else {
            thread::sleep(RETRY_AFTER);
        }
        leader_moved(answer.error_code)
    }
}

fn has_records(partition: &FetchResponseResponsesPartitions) -> bool {
    partition.records.as_ref().is_some_and(|records| !records.is_empty())
}

/// Reads an answer into `buffer`'s memory, which the caller gives back.
fn read_answer(connection: &mut Connection, buffer: &mut BytesMut) -> anyhow::Result<Bytes> {
    let stream = connection.stream();
    let length = read_length(stream)?;
    let mut filled = 0;
    while filled < length {
        // Memory grows with what arrives, not with what is announced.
        if buffer.len() <= filled {
            buffer.resize(length.min((2 * filled).max(1 << 20)), 0);
        }
        let end = buffer.len().min(length);
        let read = stream.read(&mut buffer[filled..end]).map_err(explained)?;
        ensure!(read != 0, "the broker closed the connection");
        filled += read;
    }
    let frame = std::mem::take(buffer).freeze();
    Ok(frame.slice(..length))
}
