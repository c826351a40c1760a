//! What this machine can do at best, so that what the system does is read as a share of it.
//!
//! Figures per CPU-second survive a busy machine, those per wall second do not: the report says
//! how much of the machine others used meanwhile. Rounds are interleaved, so that a noisy minute
//! falls on every limit.
//!
//! # Non-obvious
//! - CPU is that of the one thread a limit is about, system time included; its peers are free.
//! - PUT and GET go through the bare client: no retry, no hedge, one request per sample.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

pub mod disk;
pub mod figures;
pub mod machine;
pub mod memory;
pub mod meter;
pub mod sockets;
pub mod store;

use super::report::{self, Latency};
use figures::{Cost, RoundTrip, Samples, Throughput};
use machine::{Machine, MachineWatch};
use store::{StoreArgs, StoreFigure};

/// Sizes of the relay's requests in bytes.
const RELAY_BYTES: [usize; 5] = [1 << 10, 16 << 10, 64 << 10, 512 << 10, 1 << 20];
/// Sizes of sends in bytes.
const SEND_BYTES: [usize; 2] = [64 << 10, 1 << 20];
/// Sizes of appends in bytes.
const APPEND_BYTES: [usize; 2] = [4 << 10, 64 << 10];

/// Arguments.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Measures only these; PUT, GET and fsync need --store and --data all the same.
    #[arg(long, value_delimiter = ',', value_name = "LIMIT,...")]
    only: Vec<Limit>,
    #[command(flatten)]
    store: StoreArgs,
    /// A folder on the disk whose fdatasync counts. Without it that limit is skipped.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long each limit is measured in each round.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    seconds: f64,
    /// Rounds. Throughputs are the median of them, latencies are of all together.
    #[arg(long, value_name = "R", default_value_t = 3)]
    repeat: u32,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Limit {
    /// Receive, checksum, buffer, send: what a byte costs a broker at least.
    Relay,
    /// Send only: what a byte costs a reader's broker at least.
    Send,
    /// 64 bytes there and back.
    Rtt,
    /// CRC-32C.
    Crc,
    /// Copying.
    Memcpy,
    /// Touching memory for the first time.
    Touch,
    /// Appending and fdatasync.
    Fsync,
    /// One PUT.
    Put,
    /// One GET.
    Get,
}

/// What is printed. Keys are sizes, or where the bytes were.
#[derive(Debug, Default, Serialize)]
struct LimitsReport {
    machine: Machine,
    /// Only the relay's thread counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    relay: BTreeMap<String, Throughput>,
    /// Only the sender's thread counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    send: BTreeMap<String, Throughput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_64_bytes: Option<RoundTrip>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    crc32c: BTreeMap<String, Throughput>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    memcpy: BTreeMap<String, Throughput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_touch: Option<Cost>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fsync: BTreeMap<String, Latency>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    put: BTreeMap<String, StoreFigure>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    get: BTreeMap<String, StoreFigure>,
    /// What was not measured, and the flag that would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<&'static str>,
}

/// Checked arguments.
#[derive(Clone, Debug)]
struct Plan {
    only: Vec<Limit>,
    data: Option<PathBuf>,
    run: Duration,
    rounds: u32,
}

impl Plan {
    fn of(args: &LimitsArgs) -> anyhow::Result<Self> {
        let seconds = args.seconds;
        anyhow::ensure!((0.01..=600.0).contains(&seconds), "--seconds {seconds} is 0.01 to 600");
        let rounds = args.repeat;
        anyhow::ensure!((1..=1000).contains(&rounds), "--repeat {rounds} is not 1 to 1000");
        Ok(Self {
            only: args.only.clone(),
            data: args.data.clone(),
            run: Duration::from_secs_f64(seconds),
            rounds,
        })
    }

    fn wants(&self, limit: Limit) -> bool {
        self.only.is_empty() || self.only.contains(&limit)
    }

    fn wants_store(&self) -> bool {
        self.wants(Limit::Put) || self.wants(Limit::Get)
    }
}

/// Runs it.
///
/// # Errors
/// A store or folder that does not work, or sockets that break.
pub async fn run(args: LimitsArgs) -> anyhow::Result<()> {
    let plan = Plan::of(&args)?;
    // Opened before minutes of measuring: a mistyped address is told at once.
    let store = if plan.wants_store() { args.store.open()? } else { None };
    let watch = MachineWatch::start();
    let local = plan.clone();
    let mut report = tokio::task::spawn_blocking(move || measure_local(&local))
        .await
        .context("measuring ended early")??;
    match store {
        Some(store) => {
            let kinds = store::Kinds { put: plan.wants(Limit::Put), get: plan.wants(Limit::Get) };
            let figures = store::measure(&store, kinds, plan.run, plan.rounds).await?;
            report.put = figures.put;
            report.get = figures.get;
        }
        None if plan.wants_store() => report.skipped.push("put, get: --store"),
        None => {}
    }
    report.machine = watch.end();
    report::print(&report, args.json)
}

/// Samples of every limit that needs no store, by name.
#[derive(Default)]
struct LocalSamples {
    relay: BTreeMap<String, Samples>,
    send: BTreeMap<String, Samples>,
    crc32c: BTreeMap<String, Samples>,
    memcpy: BTreeMap<String, Samples>,
    first_touch: Samples,
}

fn measure_local(plan: &Plan) -> anyhow::Result<LimitsReport> {
    let mut samples = LocalSamples::default();
    let mut round_trips = figures::nanos_histogram();
    let mut fsyncs = BTreeMap::new();
    for _ in 0..plan.rounds {
        measure_sockets(plan, &mut samples)?;
        if plan.wants(Limit::Rtt) {
            sockets::round_trips(plan.run, &mut round_trips).context("round trips")?;
        }
        measure_memory(plan, &mut samples);
        if let Some(folder) = plan.data.as_ref().filter(|_| plan.wants(Limit::Fsync)) {
            for bytes in APPEND_BYTES {
                let name = figures::size_name(bytes);
                let histogram = fsyncs.entry(name).or_insert_with(report::micros_histogram);
                disk::appends(folder, bytes, plan.run, histogram)
                    .with_context(|| format!("--data {}", folder.display()))?;
            }
        }
    }
    let skips_fsync = plan.wants(Limit::Fsync) && plan.data.is_none();
    Ok(LimitsReport {
        relay: throughputs(&samples.relay),
        send: throughputs(&samples.send),
        rtt_64_bytes: (!round_trips.is_empty()).then(|| RoundTrip::of_nanos(&round_trips)),
        crc32c: throughputs(&samples.crc32c),
        memcpy: throughputs(&samples.memcpy),
        first_touch: Cost::of(&samples.first_touch),
        fsync: fsyncs.iter().map(|(name, of)| (name.clone(), Latency::of_micros(of))).collect(),
        skipped: skips_fsync.then_some("fsync: --data").into_iter().collect(),
        ..LimitsReport::default()
    })
}

fn throughputs(samples: &BTreeMap<String, Samples>) -> BTreeMap<String, Throughput> {
    let throughput = |(name, samples): (&String, &Samples)| {
        Throughput::of(samples).map(|throughput| (name.clone(), throughput))
    };
    samples.iter().filter_map(throughput).collect()
}

fn measure_sockets(plan: &Plan, samples: &mut LocalSamples) -> anyhow::Result<()> {
    if plan.wants(Limit::Relay) {
        for bytes in RELAY_BYTES {
            let sample = sockets::relay(bytes, plan.run).context("relay")?;
            samples.relay.entry(figures::size_name(bytes)).or_default().push(sample);
        }
    }
    if plan.wants(Limit::Send) {
        for bytes in SEND_BYTES {
            let sample = sockets::send(bytes, plan.run).context("send")?;
            samples.send.entry(figures::size_name(bytes)).or_default().push(sample);
        }
    }
    Ok(())
}

fn measure_memory(plan: &Plan, samples: &mut LocalSamples) {
    for place in memory::Place::ALL {
        let name = place.name().to_owned();
        if plan.wants(Limit::Crc) {
            samples.crc32c.entry(name.clone()).or_default().push(memory::crc32c(place, plan.run));
        }
        if plan.wants(Limit::Memcpy) {
            samples.memcpy.entry(name).or_default().push(memory::copy(place, plan.run));
        }
    }
    if plan.wants(Limit::Touch) {
        samples.first_touch.push(memory::first_touch(plan.run));
    }
}

#[cfg(test)]
mod tests;
