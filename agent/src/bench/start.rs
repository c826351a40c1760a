//! Cold start: from the start of a broker's process to its listening socket and to the first
//! record that is durable; and what the process costs while nobody uses it.

use std::{
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::{
    client::{Cluster, Connection, NewTopic, ProducerLease, Topic, check},
    clock::BenchClock,
    process::CpuReading,
    produce::template::{BatchShape, BatchTemplate, BatchVariables},
    report,
};
use crate::wire::{
    Records,
    messages::{
        ProduceRequest, ProduceRequestTopicData, ProduceRequestTopicDataPartitionData,
        ProduceResponse,
    },
};

/// How long a broker may take.
const START_MAX: Duration = Duration::from_secs(120);

/// Between two looks at the port: below what is to be told apart.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// The highest version that names topics, so that one request fits every broker.
const PRODUCE_VERSION_MAX: i16 = 12;

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Where the broker will listen: host:port.
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Starts measured.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// A folder to remove before every start, so that each is a first one.
    #[arg(long)]
    fresh: Option<PathBuf>,
    /// Seconds the last process is left idle, to see its CPU time and memory.
    #[arg(long, default_value_t = 5.0)]
    idle: f64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// The broker's command line.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

/// What was seen, in milliseconds from the start of the process.
#[derive(Debug, Serialize)]
struct StartReport {
    listening_ms: Spread,
    first_ack_ms: Spread,
    idle_cpu_percent: f64,
    idle_rss_mib: f64,
}

/// Least, middle and most of a few figures.
#[derive(Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        Self { min: at(0), median: at(last / 2), max: at(last) }
    }
}

/// Runs it.
///
/// # Errors
/// The broker does not start, or does not take the record.
pub async fn run(args: StartArgs) -> anyhow::Result<()> {
    // Everything here blocks, and nothing else runs beside it.
    tokio::task::block_in_place(|| measure(&args))
}

fn measure(args: &StartArgs) -> anyhow::Result<()> {
    let (mut listening, mut first_acks) = (Vec::new(), Vec::new());
    let (mut idle_cpu_percent, mut idle_rss_mib) = (0.0, 0.0);
    for round in 1..=args.repeat {
        if let Some(folder) = args.fresh.as_ref().filter(|folder| folder.exists()) {
            std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        ensure!(TcpStream::connect(&args.kafka).is_err(), "{} is in use", args.kafka);
        let from = Instant::now();
        let mut broker = Broker::start(&args.command)?;
        broker.wait_listening(&args.kafka, from)?;
        listening.push(millis_since(from));
        first_ack(&args.kafka)?;
        first_acks.push(millis_since(from));
        if round == args.repeat {
            let pids = [broker.0.id()];
            thread::sleep(Duration::from_secs(2)); // What follows a start is over by then.
            let before = CpuReading::take(&pids)?;
            thread::sleep(Duration::from_secs_f64(args.idle));
            let used = before.until(&CpuReading::take(&pids)?);
            (idle_cpu_percent, idle_rss_mib) = (100.0 * used[0].cpu_s / args.idle, used[0].rss_mib);
        }
    }
    let report = StartReport {
        listening_ms: Spread::of(listening),
        first_ack_ms: Spread::of(first_acks),
        idle_cpu_percent,
        idle_rss_mib,
    };
    report::print(&report, args.json)
}

fn millis_since(from: Instant) -> f64 {
    from.elapsed().as_secs_f64() * 1000.0
}

/// The broker's process, ended when dropped.
struct Broker(Child);

impl Broker {
    fn start(command: &[String]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }

    fn wait_listening(&mut self, address: &str, from: Instant) -> anyhow::Result<()> {
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.0.try_wait()? {
                anyhow::bail!("the broker ended before it listened: {status}");
            }
            ensure!(from.elapsed() < START_MAX, "nobody listens on {address}");
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A clean end, so that the next start does not repair anything; else a kill.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if asked.is_ok_and(|status| status.success()) {
            let from = Instant::now();
            while matches!(self.0.try_wait(), Ok(None)) && from.elapsed() < START_MAX {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Produces one record with acks=all, to a topic that is made when it is not there.
fn first_ack(broker: &str) -> anyhow::Result<()> {
    let cluster = Cluster::new(broker)?;
    let topic = cluster.ensure_topic(&NewTopic {
        name: "bench-start".to_owned(),
        partitions: 1,
        replication_factor: -1,
    })?;
    let mut connection = Connection::open(broker)?;
    let shape = BatchShape { batch_bytes: 1100, record_bytes: 1000, seed: 1 };
    let template = BatchTemplate::new(&shape)?;
    let mut batch = vec![0; template.head_bytes()];
    let producer = ProducerLease::NONE;
    let intended_micros = BenchClock::start().now_micros();
    template.seal(&mut batch, &BatchVariables { producer, base_sequence: -1, intended_micros });
    batch.extend_from_slice(template.tail());
    let version = connection.version_of::<ProduceRequest>(3..=PRODUCE_VERSION_MAX)?;
    let request = produce_request(&topic, batch);
    let answer: ProduceResponse = connection.call_version(version, &request)?;
    let rows = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    for row in rows {
        check(row.error_code).context("the first record")?;
    }
    Ok(())
}

fn produce_request(topic: &Topic, batch: Vec<u8>) -> ProduceRequest {
    let records = Some(Records::from(Bytes::from(batch)));
    let partition = ProduceRequestTopicDataPartitionData { index: 0, records };
    let data = ProduceRequestTopicData {
        name: topic.name.clone(),
        partition_data: vec![partition],
        ..ProduceRequestTopicData::default()
    };
    ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data: vec![data] }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_least_middle_and_most() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0, 9.0, 4.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 9.0));
    }
}
