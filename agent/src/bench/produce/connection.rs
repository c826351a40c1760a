//! One connection of the load: a thread that writes, a thread that reads.

use std::{
    io::BufReader,
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};

use super::{
    Load,
    in_flight::{InFlight, Sent},
    request::{self, RequestShape, RequestTemplate},
    schedule::Schedule,
    stats::Answer,
    template::BatchVariables,
};
use crate::{
    bench::client::{Connection, ProducerLease, Topic, decode_response, leader_moved, read_frame},
    wire::messages::{ProduceRequest, ProduceResponse},
};

/// How long a request may take before its connection counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts to reach a broker that is gone.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// The last version that names topics.
const LAST_WITH_NAMES: i16 = 12;

/// A thread needs no more: its buffers are on the heap.
pub const STACK_BYTES: usize = 256 * 1024;

/// Where a connection goes and what it writes.
#[derive(Debug)]
pub struct Lane {
    /// Which of all connections it is, from 0.
    pub index: usize,
    connection: Connection,
    version: i16,
    partitions: Vec<i32>,
    producer: ProducerLease,
}

/// What became of a connection's requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneTotals {
    /// Due before the end, but never written: the connection was behind its schedule.
    pub not_sent: u64,
    /// Written, but never answered.
    pub unanswered: u64,
    /// Connections that ended early.
    pub lost: u64,
}

/// Where the writing of a connection stands.
#[derive(Debug)]
struct Progress {
    /// Requests begun, by which the schedule counts.
    begun: u64,
    /// Batches begun, by which partitions take turns.
    batches: usize,
    correlation_id: i32,
    /// The next sequence of each partition.
    sequences: Vec<i32>,
    generation: u32,
    totals: LaneTotals,
}

impl Lane {
    /// Connects the `index`-th connection to a leader of `topic`, connections taking turns.
    ///
    /// # Errors
    /// The broker cannot be reached, speaks no version that we do, or leads too few partitions.
    pub fn open(load: &Load, topic: &Topic, index: usize) -> anyhow::Result<Self> {
        let leaders = topic.by_leader();
        let turn = index % leaders.len();
        let (leader, partitions) = leaders.into_iter().nth(turn).expect("a topic has leaders");
        anyhow::ensure!(
            load.batches_per_request <= partitions.len(),
            "{leader} leads {} partitions: too few for {} batches in a request",
            partitions.len(),
            load.batches_per_request
        );
        let mut connection = Connection::open(leader)?;
        let max = topic.version_max(LAST_WITH_NAMES).min(*request::VERSIONS.end());
        let version = connection.version_of::<ProduceRequest>(*request::VERSIONS.start()..=max)?;
        let producer = match load.is_idempotent {
            true => load.cluster.producer_lease()?,
            false => ProducerLease::NONE,
        };
        connection.wait_forever().context("cannot set up a socket")?;
        Ok(Self { index, connection, version, partitions, producer })
    }

    /// The version of its Produce requests.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Keeps to the schedule until the end of the load; reconnects when it is told to.
    pub fn run(mut self, load: &Load) -> LaneTotals {
        let mut progress = Progress {
            begun: 0,
            batches: self.index * self.partitions.len() / load.connections,
            correlation_id: 0,
            sequences: vec![0; self.partitions.len()],
            generation: 0,
            totals: LaneTotals::default(),
        };
        while let Err(error) = self.run_connected(load, &mut progress) {
            load.note_failure(self.connection.broker(), &error);
            if !load.reconnect || !self.reopen(load) {
                progress.totals.not_sent = self.due_after(load, progress.begun);
                progress.totals.lost = 1;
                break;
            }
            progress.sequences = vec![0; self.partitions.len()];
        }
        progress.totals
    }

    /// Finds the leaders again; false when the load has ended before one could be reached.
    fn reopen(&mut self, load: &Load) -> bool {
        while load.clock.now_micros() < load.window.end {
            thread::sleep(RECONNECT_AFTER);
            let opened = load.cluster.topic(&load.topic_name).and_then(|mut topic| {
                topic.leaders.retain(|partition, _| *partition < load.partitions);
                Self::open(load, &topic, self.index)
            });
            match opened {
                Ok(lane) => {
                    *self = lane;
                    return true;
                }
                Err(error) => tracing::debug!("reconnecting: {error:#}"),
            }
        }
        false
    }

    fn run_connected(&mut self, load: &Load, progress: &mut Progress) -> anyhow::Result<()> {
        let shared = Shared {
            in_flight: InFlight::new(load.in_flight),
            generation: AtomicU32::new(progress.generation),
            leader_moved: AtomicBool::new(false),
        };
        let reader =
            AnswerReader { load, lane: self.index, version: self.version, shared: &shared };
        let socket = self.connection.stream().try_clone().context("cannot share a socket")?;
        thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let read = move || reader.run(socket);
            let reading = builder.spawn_scoped(scope, read).context("cannot start a thread")?;
            let written = self
                .write_all(load, progress, &shared)
                .and_then(|()| shared.in_flight.wait_until_empty(PATIENCE));
            // Ends the reader, which otherwise waits for an answer that is not to come. A socket
            // that the peer has closed already is not connected any more.
            let _ = self.connection.stream().shutdown(Shutdown::Both);
            let _ = reading.join();
            progress.totals.unanswered += shared.in_flight.count() as u64;
            written
        })
    }

    fn write_all(
        &mut self,
        load: &Load,
        progress: &mut Progress,
        shared: &Shared,
    ) -> anyhow::Result<()> {
        let mut request = RequestTemplate::new(&self.request_shape(load), &load.batch);
        loop {
            let intended = match self.schedule(load) {
                None => None,
                Some(schedule) => {
                    let at = load.start_micros + schedule.after_micros(progress.begun);
                    if load.window.end <= at {
                        return Ok(());
                    }
                    load.clock.sleep_until(at);
                    Some(at)
                }
            };
            shared.in_flight.wait_for_room(PATIENCE)?;
            if load.reconnect && shared.leader_moved.load(Ordering::Acquire) {
                shared.in_flight.wait_until_empty(PATIENCE)?;
                anyhow::bail!("a partition is led elsewhere");
            }
            let generation = shared.generation.load(Ordering::Acquire);
            if generation != progress.generation {
                self.producer = load.cluster.producer_lease()?;
                progress.generation = generation;
                progress.sequences.fill(0);
            }
            let now = load.clock.now_micros();
            if load.window.end <= now {
                progress.totals.not_sent = self.due_after(load, progress.begun);
                return Ok(());
            }
            progress.begun += 1;
            progress.correlation_id = progress.correlation_id.wrapping_add(1);
            let sent = Sent {
                correlation_id: progress.correlation_id,
                intended_micros: intended.unwrap_or(now),
                written_micros: now,
                generation: progress.generation,
            };
            self.fill(load, &mut request, (progress, &sent));
            shared.in_flight.push(sent);
            request.write_to(self.connection.stream())?;
        }
    }

    fn fill(
        &self,
        load: &Load,
        request: &mut RequestTemplate<'_>,
        (progress, sent): (&mut Progress, &Sent),
    ) {
        request.set_correlation_id(sent.correlation_id);
        for index in 0..load.batches_per_request {
            let turn = progress.batches % self.partitions.len();
            progress.batches += 1;
            let sequence = &mut progress.sequences[turn];
            let variables = BatchVariables {
                producer: self.producer,
                base_sequence: if load.is_idempotent { *sequence } else { -1 },
                intended_micros: sent.intended_micros,
            };
            *sequence = sequence_after(*sequence, load.batch.records());
            request.set_batch(index, self.partitions[turn], &variables);
        }
    }

    fn request_shape(&self, load: &Load) -> RequestShape {
        RequestShape {
            version: self.version,
            topic_name: load.topic_name.as_str().into(),
            topic_id: load.topic_id,
            acks: load.acks,
            timeout_ms: i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX),
            batches: load.batches_per_request,
        }
    }

    fn schedule(&self, load: &Load) -> Option<Schedule> {
        (load.per_second > 0.0).then_some(Schedule {
            per_second: load.per_second,
            connections: load.connections,
            connection: self.index,
        })
    }

    /// How many requests are due before the end beyond those begun.
    fn due_after(&self, load: &Load, begun: u64) -> u64 {
        let schedule = self.schedule(load);
        let due = schedule.map(|s| s.due_before(load.window.end - load.start_micros));
        due.unwrap_or(begun).saturating_sub(begun)
    }
}

/// The sequence after a batch, which starts over behind the largest as in Kafka.
fn sequence_after(sequence: i32, records: i32) -> i32 {
    let next = i64::from(sequence) + i64::from(records);
    i32::try_from(next % (1 << 31)).expect("a remainder of 2^31 fits")
}

/// What the halves of a connection share.
#[derive(Debug)]
struct Shared {
    in_flight: InFlight,
    /// How many producer ids were given up, each for a refused batch.
    generation: AtomicU32,
    leader_moved: AtomicBool,
}

/// The reading half of a connection.
#[derive(Debug)]
struct AnswerReader<'a> {
    load: &'a Load,
    lane: usize,
    version: i16,
    shared: &'a Shared,
}

impl AnswerReader<'_> {
    fn run(self, socket: TcpStream) {
        let mut socket = BufReader::with_capacity(16 * 1024, socket);
        loop {
            if let Err(error) = self.read_one(&mut socket) {
                return self.shared.in_flight.fail(format!("{error:#}"));
            }
        }
    }

    fn read_one(&self, socket: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
        let frame = read_frame(socket)?;
        let answered_micros = self.load.clock.now_micros();
        let sent = self.shared.in_flight.pop().ok_or_else(|| anyhow!("an answer to no request"))?;
        let answer: ProduceResponse = decode_response(frame, self.version, sent.correlation_id)?;
        let partitions = || answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let codes: Vec<i16> = partitions().map(|partition| partition.error_code).collect();
        let wanted = self.load.batches_per_request;
        anyhow::ensure!(codes.len() == wanted, "{} answers to {wanted} batches", codes.len());
        let is_outdated = sent.generation < self.shared.generation.load(Ordering::Acquire);
        if self.load.is_idempotent && !is_outdated && codes.iter().any(|code| *code != 0) {
            self.shared.generation.store(sent.generation + 1, Ordering::Release);
        }
        if codes.iter().any(|code| leader_moved(*code)) {
            self.shared.leader_moved.store(true, Ordering::Release);
        }
        if let Some(delivery) = &self.load.delivery {
            let measured = self.load.window.contains(sent.intended_micros);
            for partition in partitions().filter(|p| measured && p.error_code == 0) {
                delivery.acked(partition.index, partition.base_offset, answered_micros);
            }
        }
        let answer = Answer { sent, answered_micros, codes, is_outdated };
        if let Some(timeline) = &self.load.timeline {
            timeline.add(&answer);
        }
        self.load.acks_seen.add(self.lane, &answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_start_over_behind_the_largest() {
        assert_eq!(sequence_after(0, 3), 3);
        assert_eq!(sequence_after(i32::MAX - 2, 3), 0);
        assert_eq!(sequence_after(i32::MAX, 3), 2);
    }
}
