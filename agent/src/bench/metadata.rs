//! What a metadata group commits in a second and what a run costs it: line B9; and what its
//! coordinator of consumer groups does: `coordinator`.
//!
//! Nodes run in this process, on a folder of a disk or of tmpfs; their clients are the ones that
//! agents use. The disk's own fdatasync is measured in the same run, right before each load.
//!
//! # Non-obvious
//! - CPU is that of the whole process: making the commits and reading their answers is in it.
//! - Commits wait in a closed loop: a latency is what a committer waits, not what an arrival would.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use aquifer_storage::seam::{Seams, system};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

pub mod alone;
pub mod coordinator;
pub mod drive;
pub mod group;
pub mod held;
pub mod load;
pub mod sizes;

use super::{
    clock::{BenchClock, Window},
    limits::{
        disk,
        machine::{Machine, MachineWatch},
        meter,
    },
    report::{self, Latency},
};
use coordinator::CoordinatorArgs;
use drive::{Client, Pace};
use group::{Group, GroupShape, Proposed};
use held::Held;
use load::LoadShape;
use sizes::LogBytes;

/// How long the disk alone is measured before each load.
const RAW_SYNC_RUN: Duration = Duration::from_millis(500);
/// Bytes of each of its appends: those of an entry of a few commits.
const RAW_SYNC_BYTES: usize = 4 << 10;
/// Pools fill and the log's first segment is made meanwhile.
const WARM_UP: Duration = Duration::from_millis(500);
/// Entries a partition can hold in tests of hours; more is a mistyped number.
const RUNS_HELD_MAX: u64 = 100_000_000;

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct MetadataArgs {
    /// A folder on the disk to measure; a folder of ours is made in it and removed.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    data: PathBuf,
    /// Voters of the group, all in this process; three are asked over gRPC.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    voters: u8,
    /// Commits that wait at once, over all agents; each is measured for --seconds.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    committers: Vec<usize>,
    /// Agents with a session and a commit stream each.
    #[arg(long, default_value_t = 64)]
    agents: u32,
    /// Partitions that one commit appends to.
    #[arg(long, default_value_t = 8)]
    runs_per_commit: u32,
    /// Batches of each of them.
    #[arg(long, default_value_t = 2)]
    batches_per_run: u32,
    /// Topics.
    #[arg(long, default_value_t = 4)]
    topics: u32,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 256)]
    partitions: u32,
    /// Batches without an idempotent producer.
    #[arg(long)]
    plain: bool,
    /// Commits over gRPC on loopback, a connection per agent, instead of in process.
    #[arg(long)]
    grpc: bool,
    /// How long each load is measured.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Fills a machine with so many runs and measures its memory and snapshot; 0 for none.
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    held: u64,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coordinator: CoordinatorArgs,
}

impl MetadataArgs {
    fn shape(&self) -> anyhow::Result<LoadShape> {
        ensure!((0.1..=600.0).contains(&self.seconds), "--seconds is 0.1 to 600");
        ensure!((1..=10_000).contains(&self.agents), "--agents is 1 to 10000");
        ensure!((1..=1024).contains(&self.batches_per_run), "--batches-per-run is 1 to 1024");
        ensure!((1..=1024).contains(&self.topics), "--topics is 1 to 1024");
        ensure!((1..=100_000).contains(&self.partitions), "--partitions is 1 to 100000");
        ensure!(self.held <= RUNS_HELD_MAX, "--held is at most {RUNS_HELD_MAX}");
        ensure!(
            self.committers.iter().all(|committers| (1..=100_000).contains(committers)),
            "--committers are 1 to 100000 each"
        );
        ensure!(self.voters != 2, "--voters is 1 or 3: two cannot lose either");
        let shape = LoadShape {
            topics: self.topics,
            partitions: self.partitions,
            runs: self.runs_per_commit,
            batches: self.batches_per_run,
            idempotent: !self.plain,
        };
        ensure!(
            (1..=shape.partitions_total().min(1000)).contains(&shape.runs),
            "--runs-per-commit is at least 1 and at most 1000 or the partitions there are"
        );
        Ok(shape)
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct MetadataReport {
    machine: Machine,
    client: &'static str,
    voters: u8,
    agents: u32,
    runs_per_commit: u32,
    batches_per_run: u32,
    partitions: u32,
    log_bytes: LogBytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    /// One append and fdatasync of 4 KiB in the same folder.
    raw_fsync: Latency,
    /// By commits that wait at once.
    committers: BTreeMap<String, LoadReport>,
}

/// One load.
#[derive(Debug, Serialize)]
struct LoadReport {
    commits_per_s: f64,
    runs_per_s: f64,
    latency: Latency,
    /// The median divided by two raw syncs and a millisecond: the goal is 1.
    p50_over_goal: f64,
    entries_per_s: f64,
    commits_per_entry: f64,
    syncs_per_s: f64,
    sync_mean_ms: f64,
    entry_bytes_per_commit: f64,
    disk_bytes_per_commit: f64,
    cpu_s_per_1000_commits: f64,
}

/// Runs it.
///
/// # Errors
/// A folder that cannot be used, or a commit that is not applied.
pub async fn run(args: MetadataArgs) -> anyhow::Result<()> {
    let shape = args.shape()?;
    if !args.coordinator.coordinator.is_empty() {
        return coordinator::run(&args).await;
    }
    let watch = MachineWatch::start();
    let (agents, runs) = (args.agents, args.held);
    // First: what is measured by resident memory wants a process that held nothing.
    let held = match runs {
        0 => None,
        runs => Some(tokio::task::block_in_place(|| held::measure(shape, agents, runs))?),
    };
    let seams = system::seams();
    let mut raw_syncs = report::micros_histogram();
    let mut committers = BTreeMap::new();
    for count in &args.committers {
        tokio::task::block_in_place(|| {
            disk::appends(&args.data, RAW_SYNC_BYTES, RAW_SYNC_RUN, &mut raw_syncs)
        })
        .with_context(|| format!("--data {}", args.data.display()))?;
        let load = measure(&args, shape, *count, &seams).await?;
        committers.insert(format!("{count:05}"), load);
    }
    let raw_fsync = Latency::of_micros(&raw_syncs);
    for load in committers.values_mut() {
        load.p50_over_goal = load.latency.p50_ms / (2.0 * raw_fsync.p50_ms + 1.0);
    }
    let report = MetadataReport {
        machine: watch.end(),
        client: if args.grpc || 1 < args.voters { "grpc" } else { "direct" },
        voters: args.voters,
        agents: args.agents,
        runs_per_commit: args.runs_per_commit,
        batches_per_run: args.batches_per_run,
        partitions: shape.partitions_total(),
        log_bytes: LogBytes::of(shape),
        held,
        raw_fsync,
        committers,
    };
    report::print(&report, args.json)
}

/// What the node had done at one moment.
struct Reading {
    cpu: Duration,
    disk: group::DiskReading,
    proposed: Proposed,
}

impl Reading {
    fn take(group: &Group) -> Self {
        Self { cpu: meter::process_cpu(), disk: group.disk.read(), proposed: group.proposed() }
    }
}

async fn measure(
    args: &MetadataArgs,
    shape: LoadShape,
    committers: usize,
    seams: &Seams,
) -> anyhow::Result<LoadReport> {
    let folder = format!("aquifer-bench-metadata-{}-{committers}", std::process::id());
    let group_shape = GroupShape { voters: args.voters, grpc: args.grpc };
    let group = Group::start(args.data.join(folder), seams, group_shape).await?;
    let clients: Vec<Client> = (0..args.agents).map(|_| group.client()).collect();
    let loads = drive::prepare(&clients, shape).await?;
    let clock = BenchClock::start();
    let start = clock.now_micros() + WARM_UP.as_micros() as u64;
    let window = Window { start, end: start + (args.seconds * 1e6) as u64 };
    let reading = async {
        let wait_until = async |at: u64| {
            let left = at.saturating_sub(clock.now_micros());
            tokio::time::sleep(Duration::from_micros(left)).await;
        };
        wait_until(window.start).await;
        let first = Reading::take(&group);
        wait_until(window.end).await;
        (first, Reading::take(&group))
    };
    let pace = Pace { committers, window, clock };
    let (driven, readings) = tokio::join!(drive::drive(&clients, loads, pace), reading);
    let report = summary(&driven?, &readings, (window, shape));
    drop(clients);
    group.stop().await?;
    Ok(report)
}

fn summary(
    latencies: &Histogram<u64>,
    (first, last): &(Reading, Reading),
    (window, shape): (Window, LoadShape),
) -> LoadReport {
    let seconds = window.seconds();
    let per_second = |from: u64, to: u64| (to - from) as f64 / seconds;
    // Everything proposed in the window is a commit, but for a rare tick.
    let commits = (last.proposed.commands - first.proposed.commands) as f64;
    let per_commit = |from: u64, to: u64| (to - from) as f64 / commits;
    let syncs = (last.disk.syncs - first.disk.syncs) as f64;
    LoadReport {
        commits_per_s: commits / seconds,
        runs_per_s: commits * f64::from(shape.runs) / seconds,
        latency: Latency::of_micros(latencies),
        p50_over_goal: f64::NAN,
        entries_per_s: per_second(first.proposed.entries, last.proposed.entries),
        commits_per_entry: commits / (last.proposed.entries - first.proposed.entries) as f64,
        syncs_per_s: syncs / seconds,
        sync_mean_ms: (last.disk.sync_nanos - first.disk.sync_nanos) as f64 / syncs / 1e6,
        entry_bytes_per_commit: per_commit(first.proposed.entry_bytes, last.proposed.entry_bytes),
        disk_bytes_per_commit: per_commit(first.disk.written, last.disk.written),
        cpu_s_per_1000_commits: (last.cpu - first.cpu).as_secs_f64() * 1000.0 / commits,
    }
}

#[cfg(test)]
mod tests;
