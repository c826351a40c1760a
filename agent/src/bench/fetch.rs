//! A reader over raw Kafka frames: incremental fetch sessions as a client keeps them, but records
//! are looked at no further than their batch headers.
//!
//! Every partition's offsets must be contiguous: a hole or a duplicate fails the run.

mod reader;
pub mod scan;
pub mod session;
pub mod summary;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Args;

pub use self::reader::ReadTotals;
use self::{
    reader::{Lane, Reader},
    session::FetchLimits,
    summary::FetchReport,
};
use super::{
    client::{Cluster, OffsetAt, Topic},
    clock::{BenchClock, Window},
    delivery::DeliveryLog,
    process::CpuReading,
    report,
};

/// How often the end of a run is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct FetchArgs {
    /// Brokers to ask first: host:port,...
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Ask these brokers, in turn, for all partitions, whoever leads them.
    #[arg(long)]
    pin: bool,
    /// Topic to read.
    #[arg(long)]
    topic: String,
    /// Where to begin.
    #[arg(long, value_enum, default_value_t = OffsetAt::Earliest)]
    from: OffsetAt,
    /// Groups that each read everything.
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Connections of each group, which share its partitions.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// The most an answer should hold.
    #[arg(long, default_value_t = 50 << 20)]
    max_bytes: i32,
    /// The most of one partition in an answer.
    #[arg(long, default_value_t = 1 << 20)]
    partition_max_bytes: i32,
    /// What an answer waits for.
    #[arg(long, default_value_t = 1)]
    min_bytes: i32,
    /// Milliseconds that it waits at most.
    #[arg(long, default_value_t = 500)]
    max_wait: i32,
    /// End after so many bytes of all groups.
    #[arg(long, group = "end")]
    bytes: Option<u64>,
    /// End after so many seconds, not counting the warm-up.
    #[arg(long, group = "end")]
    duration: Option<f64>,
    /// End where the partitions ended when the run began [default]
    #[arg(long, group = "end")]
    until_end: bool,
    /// Seconds of reading before the measurement.
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
    /// Check the CRC of every batch.
    #[arg(long)]
    verify_crc: bool,
    /// Make up for a lost connection instead of ending it; losses are still reported.
    #[arg(long)]
    reconnect: bool,
    /// Processes whose CPU time counts as the broker's.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    /// The cluster.
    pub cluster: Cluster,
    /// The topic.
    pub topic_name: String,
    /// Its partitions; all without.
    pub partitions: Option<Vec<i32>>,
    /// Where to begin.
    pub from: OffsetAt,
    /// Groups that each read everything.
    pub groups: usize,
    /// Connections of each.
    pub connections: usize,
    /// Of each request.
    pub limits: FetchLimits,
    /// Whether to check every CRC.
    pub verify_crc: bool,
    /// Whether to make up for a lost connection.
    pub reconnect: bool,
    /// What arrivals are told by.
    pub clock: BenchClock,
}

impl ReadPlan {
    /// The topic as it is led now, without partitions that are not read.
    ///
    /// # Errors
    /// It is not there.
    fn topic(&self) -> anyhow::Result<Topic> {
        let mut topic = self.cluster.topic(&self.topic_name)?;
        if let Some(partitions) = &self.partitions {
            topic.leaders.retain(|partition, _| partitions.binary_search(partition).is_ok());
        }
        Ok(topic)
    }
}

/// How a run is told to end, and how far it is.
#[derive(Debug)]
pub struct ReadControl {
    window: Window,
    stop: AtomicBool,
    finish: AtomicBool,
    finish_by_micros: AtomicU64,
    bytes: AtomicU64,
}

impl ReadControl {
    /// A run whose arrivals count within `window`.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            stop: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            finish_by_micros: AtomicU64::new(u64::MAX),
            bytes: AtomicU64::new(0),
        }
    }

    /// Ends it now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Ends it where the partitions end now, or at `by_micros` if that is not reached.
    pub fn finish(&self, by_micros: u64) {
        self.finish_by_micros.store(by_micros, Ordering::Release);
        self.finish.store(true, Ordering::Release);
    }
}

/// Readers with their connections made and their first offsets known.
#[derive(Debug)]
pub struct Readers {
    plan: ReadPlan,
    lanes: Vec<Lane>,
}

impl Readers {
    /// Connects them.
    ///
    /// # Errors
    /// A leader cannot be reached or does not say its offsets.
    pub fn open(plan: ReadPlan) -> anyhow::Result<Self> {
        ensure!(0 < plan.groups && 0 < plan.connections, "there is a group and a connection");
        let topic = plan.topic()?;
        let offsets = plan.cluster.offsets(&topic, plan.from)?;
        let shares = shares(&topic, plan.connections);
        let mut lanes = Vec::new();
        for share in std::iter::repeat_n(&shares, plan.groups).flatten() {
            let position = |partition: &i32| Some((*partition, *offsets.get(partition)?));
            let positions: Option<BTreeMap<_, _>> = share.iter().map(position).collect();
            let positions = positions.context("a partition has no offset")?;
            lanes.push(Lane::open(&plan, &topic, positions)?);
        }
        Ok(Self { plan, lanes })
    }

    /// Reads until `control` says so.
    pub fn run(self, control: &ReadControl, delivery: Option<&DeliveryLog>) -> ReadTotals {
        let plan = &self.plan;
        thread::scope(|scope| {
            let mut totals = ReadTotals::default();
            let mut running = Vec::new();
            for lane in self.lanes {
                let builder = thread::Builder::new().stack_size(1 << 20);
                let read = move || Reader::new(plan, control, delivery, lane).run();
                match builder.spawn_scoped(scope, read) {
                    Ok(reader) => running.push(reader),
                    Err(error) => {
                        totals.failures.push(format!("cannot start a thread: {error}"));
                        totals.lost += 1;
                    }
                }
            }
            for reader in running {
                totals.merge(reader.join().expect("a reader does not panic"));
            }
            totals
        })
    }
}

/// Splits the partitions over connections so that each has one leader to talk to, at first.
fn shares(topic: &Topic, connections: usize) -> Vec<Vec<i32>> {
    let by_leader = topic.by_leader();
    let mut shares = Vec::new();
    for (index, partitions) in by_leader.values().enumerate() {
        // Connections left over go to the first leaders; a leader always has one.
        let own =
            connections / by_leader.len() + usize::from(index < connections % by_leader.len());
        let own = own.clamp(1, partitions.len());
        for turn in 0..own {
            shares.push(partitions.iter().copied().skip(turn).step_by(own).collect());
        }
    }
    shares
}

/// Runs it.
///
/// # Errors
/// A broker cannot be reached or failed, or offsets were not contiguous. The report is printed
/// before.
pub async fn run(args: FetchArgs) -> anyhow::Result<()> {
    // Its threads block; the runtime's have nothing else to do.
    tokio::task::block_in_place(|| run_blocking(&args))
}

fn run_blocking(args: &FetchArgs) -> anyhow::Result<()> {
    for seconds in [args.duration.unwrap_or(0.0), args.warmup] {
        ensure!((0.0..1e6).contains(&seconds), "--duration and --warmup are seconds");
    }
    let clock = BenchClock::start();
    let readers = Readers::open(args.plan(clock)?)?;
    let connections = readers.lanes.len();
    let micros = |seconds: f64| (seconds * 1e6) as u64;
    let start = clock.now_micros() + micros(args.warmup);
    let end = args.duration.map_or(u64::MAX, |seconds| start + micros(seconds));
    let window = Window { start, end };
    let control = ReadControl::new(window);
    if args.duration.is_none() && args.bytes.is_none() {
        control.finish(u64::MAX);
    }
    let (totals, cpu) = thread::scope(|scope| {
        let reading = scope.spawn(|| readers.run(&control, None));
        clock.sleep_until(start);
        let from = CpuReading::take(&args.pid)?;
        while !reading.is_finished() {
            let enough = args.bytes.is_some_and(|b| b <= control.bytes.load(Ordering::Relaxed));
            if end <= clock.now_micros() || enough {
                break;
            }
            thread::sleep(POLL);
        }
        let to = CpuReading::take(&args.pid)?;
        control.stop();
        Ok::<_, anyhow::Error>((reading.join().expect("a reader does not panic"), (from, to)))
    })?;
    let report = FetchReport::new((args, connections), &window, &totals, &cpu);
    report::print(&report, args.json)?;
    report.verdict()
}

impl FetchArgs {
    fn plan(&self, clock: BenchClock) -> anyhow::Result<ReadPlan> {
        Ok(ReadPlan {
            cluster: Cluster::new(&self.bootstrap)?.pinned(self.pin),
            topic_name: self.topic.clone(),
            partitions: None,
            from: self.from,
            groups: self.groups,
            connections: self.connections,
            limits: FetchLimits {
                max_bytes: self.max_bytes,
                partition_max_bytes: self.partition_max_bytes,
                min_bytes: self.min_bytes,
                max_wait_ms: self.max_wait,
            },
            verify_crc: self.verify_crc,
            reconnect: self.reconnect,
            clock,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Str, Uuid};

    fn topic(leaders: &[&str]) -> Topic {
        let of = |(partition, leader): (usize, &&str)| (partition as i32, (*leader).to_owned());
        let leaders = leaders.iter().enumerate().map(of).collect();
        Topic { name: Str::from_static("t"), id: Uuid::ZERO, leaders }
    }

    #[test]
    fn connections_share_the_partitions_of_a_leader() {
        let topic = topic(&["a"; 5]);
        assert_eq!(shares(&topic, 1), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(shares(&topic, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(shares(&topic, 9).len(), 5);
    }

    #[test]
    fn every_leader_has_a_connection_and_none_has_two_leaders() {
        let topic = topic(&["a", "b", "a", "c"]);
        assert_eq!(shares(&topic, 1), [vec![0, 2], vec![1], vec![3]]);
        assert_eq!(shares(&topic, 4), [vec![0], vec![2], vec![1], vec![3]]);
    }
}
