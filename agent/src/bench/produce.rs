//! Produce load over raw Kafka frames: what it costs is the broker's, not the generator's.
//!
//! Batches are encoded once. Per request a header, a stamp and a checksum of some 90 bytes change;
//! the payload is written from one place by all connections and is never looked at again.
//!
//! In an open loop requests are due at uniform intervals whatever the broker does, and latency
//! counts from then. An error is counted by name and not retried; an idempotent connection then
//! goes on with another producer id, so that one refused batch does not refuse all behind it.

mod connection;
mod in_flight;
mod request;
mod schedule;
mod stats;
mod summary;
pub mod template;
mod timeline;

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};

use self::{
    connection::{Lane, LaneTotals},
    stats::AckStats,
    summary::{Failure, ProduceReport},
    template::{BatchShape, BatchTemplate},
    timeline::Timeline,
};
use super::{
    client::{Cluster, NewTopic, OffsetAt, Topic},
    clock::{BenchClock, Window},
    delivery::DeliveryLog,
    fetch::{ReadControl, ReadPlan, ReadTotals, Readers, session::FetchLimits},
    process::CpuReading,
    report,
};
use crate::wire::Uuid;

/// Between the last connection made and the first request due.
const START_AFTER_MICROS: u64 = 100_000;

/// How long after the last acknowledgement readers may take to have read everything.
const READ_WITHIN_MICROS: u64 = 30_000_000;

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// Brokers to ask first: host:port,...
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Ask these brokers, in turn, for all partitions, whoever leads them; readers too.
    #[arg(long)]
    pin: bool,
    /// Topic; created when missing [default: bench- and the time]
    #[arg(long)]
    topic: Option<String>,
    /// Partitions to produce to: the topic's first ones.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Of a topic that is created; -1 is the broker's default.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    replication_factor: i16,
    /// Begin once every leader serves its partitions: Kafka names it before.
    #[arg(long)]
    await_leaders: bool,
    /// Connections; those to the same leader take turns over all its partitions.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests on their way per connection at most.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Bytes of a batch on the wire.
    #[arg(long, default_value_t = 65_536)]
    batch_bytes: usize,
    /// Bytes of a record's value; the last one of a batch takes what is left.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Batches in a request, each of another partition.
    #[arg(long, default_value_t = 1)]
    batches_per_request: usize,
    /// Requests a second of all connections, due at uniform intervals; 0: as in-flight lets.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// When a batch counts as written.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Produce as clients do by default: a producer id per connection, sequences per partition.
    #[arg(long)]
    idempotent: bool,
    /// Only none: the payload is random and would not compress.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// What the payload is drawn from.
    #[arg(long, default_value_t = 1)]
    payload_seed: u64,
    /// Make up for a lost connection instead of ending it; losses are still reported.
    #[arg(long)]
    reconnect: bool,
    /// Read everything back at the same time.
    #[arg(long)]
    tail: bool,
    /// Brokers that the reader asks first [default: those of --bootstrap]
    #[arg(long)]
    read_bootstrap: Option<String>,
    /// Connections of each reading group.
    #[arg(long, default_value_t = 1)]
    read_connections: usize,
    /// Groups that each read everything.
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Report what each interval of so many seconds saw, warm-up included.
    #[arg(long, value_name = "SECONDS")]
    timeline: Option<f64>,
    /// Processes whose CPU time counts as the broker's.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// When a batch counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// By all replicas in sync.
    All,
    /// By the leader.
    #[value(name = "1")]
    One,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all.
    None,
}

/// What all connections share.
#[derive(Debug)]
struct Load {
    cluster: Cluster,
    topic_name: String,
    topic_id: Uuid,
    partitions: i32,
    batch: BatchTemplate,
    batches_per_request: usize,
    connections: usize,
    in_flight: usize,
    /// 0 for a closed loop.
    per_second: f64,
    acks: i16,
    is_idempotent: bool,
    reconnect: bool,
    clock: BenchClock,
    start_micros: u64,
    window: Window,
    acks_seen: AckStats,
    timeline: Option<Timeline>,
    delivery: Option<DeliveryLog>,
    failures: Mutex<Vec<Failure>>,
}

impl Load {
    fn note_failure(&self, broker: &str, error: &anyhow::Error) {
        let at_s = self.clock.now_micros().saturating_sub(self.start_micros) as f64 / 1e6;
        let failure = Failure { broker: broker.to_owned(), reason: format!("{error:#}"), at_s };
        tracing::warn!("{broker}: {error:#}");
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }
}

/// What a load left behind.
#[derive(Debug)]
struct Outcome {
    lanes: LaneTotals,
    cpu: (CpuReading, CpuReading),
    read: Option<ReadTotals>,
}

/// Runs it.
///
/// # Errors
/// A broker cannot be reached, or the figures are not to be trusted: a connection failed, requests
/// stayed without an answer, or the reader found a hole. The report is printed before.
pub async fn run(args: ProduceArgs) -> anyhow::Result<()> {
    // Its threads block; the runtime's have nothing else to do.
    tokio::task::block_in_place(|| run_blocking(&args))
}

fn run_blocking(args: &ProduceArgs) -> anyhow::Result<()> {
    args.check()?;
    let clock = BenchClock::start();
    let cluster = Cluster::new(&args.bootstrap)?.pinned(args.pin);
    let name = args.topic.clone();
    let name = name.unwrap_or_else(|| format!("bench-{}", clock.now_micros() / 1000));
    let topic = cluster.ensure_topic(&NewTopic {
        name,
        partitions: args.partitions,
        replication_factor: args.replication_factor,
    })?;
    if args.await_leaders {
        cluster.await_leaders(&topic)?;
    }
    let leaders = topic.by_leader().len();
    ensure!(
        leaders <= args.connections,
        "the partitions have {leaders} leaders: use as many connections at least"
    );
    let mut load = args.load(clock, cluster, &topic)?;
    let lanes = (0..args.connections)
        .map(|index| Lane::open(&load, &topic, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let version = lanes.first().map_or(0, Lane::version);
    let readers = args.tail.then(|| args.readers(&topic, clock)).transpose()?;
    load.schedule_from(clock.now_micros() + START_AFTER_MICROS, args);
    let outcome = drive(&load, lanes, readers, &args.pid)?;
    let report = ProduceReport::new(args, &load, &outcome, version);
    report::print(&report, args.json)?;
    report.verdict()
}

impl ProduceArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(0 < self.partitions, "--partitions is at least 1");
        ensure!(0 < self.connections && self.connections <= 100_000, "--connections is 1..=100000");
        ensure!(0 < self.in_flight, "--in-flight is at least 1");
        ensure!(0 < self.batches_per_request, "--batches-per-request is at least 1");
        ensure!(0.0 <= self.rate && self.rate.is_finite(), "--rate is not negative");
        for seconds in [self.duration, self.warmup] {
            ensure!((0.0..1e6).contains(&seconds), "--duration and --warmup are seconds");
        }
        if let Some(seconds) = self.timeline {
            let all = self.duration + self.warmup;
            ensure!(
                0.01 <= seconds && all / seconds <= timeline::INTERVALS_MAX as f64,
                "--timeline is 0.01 s at least, and gives {} intervals at most",
                timeline::INTERVALS_MAX
            );
        }
        let partitions = usize::try_from(self.partitions)?;
        if partitions < self.batches_per_request {
            bail!("--batches-per-request {} needs as many partitions", self.batches_per_request);
        }
        ensure!(
            self.batches_per_request.saturating_mul(self.batch_bytes) < 1 << 30,
            "a request is below 1 GiB"
        );
        Ok(())
    }

    fn load(&self, clock: BenchClock, cluster: Cluster, topic: &Topic) -> anyhow::Result<Load> {
        let shape = BatchShape {
            batch_bytes: self.batch_bytes,
            record_bytes: self.record_bytes.min(self.batch_bytes),
            seed: self.payload_seed,
        };
        let window = Window { start: 0, end: 0 };
        Ok(Load {
            cluster,
            topic_name: topic.name.to_string(),
            topic_id: topic.id,
            partitions: self.partitions,
            batch: BatchTemplate::new(&shape)?,
            batches_per_request: self.batches_per_request,
            connections: self.connections,
            in_flight: self.in_flight,
            per_second: self.rate,
            acks: if self.acks == Acks::All { -1 } else { 1 },
            is_idempotent: self.idempotent,
            reconnect: self.reconnect,
            clock,
            start_micros: 0,
            window,
            acks_seen: AckStats::new(window, self.connections),
            timeline: None,
            delivery: self.tail.then(DeliveryLog::default),
            failures: Mutex::default(),
        })
    }

    fn readers(&self, topic: &Topic, clock: BenchClock) -> anyhow::Result<Readers> {
        let bootstrap = self.read_bootstrap.as_ref().unwrap_or(&self.bootstrap);
        Readers::open(ReadPlan {
            cluster: Cluster::new(bootstrap)?.pinned(self.pin),
            topic_name: topic.name.to_string(),
            partitions: Some(topic.leaders.keys().copied().collect()),
            from: OffsetAt::Latest,
            groups: self.groups,
            connections: self.read_connections,
            limits: FetchLimits {
                max_bytes: 50 << 20,
                partition_max_bytes: 10 << 20,
                min_bytes: 1,
                max_wait_ms: 500,
            },
            verify_crc: false,
            reconnect: self.reconnect,
            clock,
        })
    }
}

impl Load {
    fn schedule_from(&mut self, start_micros: u64, args: &ProduceArgs) {
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let start = start_micros + micros(args.warmup);
        self.start_micros = start_micros;
        self.window = Window { start, end: start + micros(args.duration) };
        self.acks_seen = AckStats::new(self.window, args.connections);
        let from_start = Window { start: start_micros, ..self.window };
        self.timeline = args.timeline.map(|seconds| Timeline::new(from_start, micros(seconds)));
    }
}

fn drive(
    load: &Load,
    lanes: Vec<Lane>,
    readers: Option<Readers>,
    pids: &[u32],
) -> anyhow::Result<Outcome> {
    let control = ReadControl::new(load.window);
    thread::scope(|scope| {
        let reading = readers.map(|r| scope.spawn(|| r.run(&control, load.delivery.as_ref())));
        let mut running = Vec::new();
        for lane in lanes {
            let builder = thread::Builder::new().stack_size(connection::STACK_BYTES);
            let spawned = builder.spawn_scoped(scope, move || {
                load.clock.sleep_until(load.start_micros);
                lane.run(load)
            });
            running.push(spawned.context("cannot start a thread")?);
        }
        load.clock.sleep_until(load.window.start);
        let from = CpuReading::take(pids);
        load.clock.sleep_until(load.window.end);
        let to = CpuReading::take(pids);
        let mut lanes = LaneTotals::default();
        for lane in running {
            let totals = lane.join().expect("a lane does not panic");
            lanes.not_sent += totals.not_sent;
            lanes.unanswered += totals.unanswered;
            lanes.lost += totals.lost;
        }
        control.finish(load.clock.now_micros() + READ_WITHIN_MICROS);
        let read = reading.map(|reading| reading.join().expect("a reader does not panic"));
        Ok(Outcome { lanes, cpu: (from?, to?), read })
    })
}
