//! What runs cost a node that holds them: memory, the time of a snapshot, and how long one entry
//! keeps the machine while a snapshot is written beside it.
//!
//! The pure machine alone is measured: what Raft and the log hold beside it does not grow with
//! runs. Memory is the process's resident set, so this is done before anything else; what the
//! allocator keeps of freed memory is in it unless `_RJEM_MALLOC_CONF=dirty_decay_ms:0` is set.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use aquifer_metadata::{
    codec,
    machine::command::{Command, CreateTopic, HostPort, RegisterSession, Reply},
};
use aquifer_storage::model::CommitSeq;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    super::{
        limits::figures,
        process::CpuReading,
        report::{self, Latency},
    },
    alone::Alone,
    load::{AgentLoad, LoadShape},
};

/// Commits of one entry.
const COMMITS_PER_ENTRY: usize = 64;

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Held {
    runs: u64,
    rss_bytes_per_run: f64,
    /// Of one entry of 64 commits, no snapshot beside it.
    apply: Latency,
    apply_us_per_commit: f64,
    /// The same while a snapshot is encoded: the largest is the longest stall of apply.
    apply_during_snapshot: Latency,
    /// Encoding alone, without the disk.
    snapshot_encode_s: f64,
    snapshot_bytes_per_run: f64,
    /// What a restart waits for.
    snapshot_decode_s: f64,
}

/// Fills a machine with `runs` runs and takes a snapshot of it.
///
/// # Errors
/// The machine refuses what it is given.
pub fn measure(shape: LoadShape, agents: u32, runs: u64) -> anyhow::Result<Held> {
    let mut filler = Filler::new(shape, agents)?;
    let before = resident_bytes()?;
    let mut apply = figures::nanos_histogram();
    while filler.runs < runs {
        filler.apply_entry(&mut apply)?;
    }
    let held = resident_bytes()? - before;
    let runs = filler.runs as f64;
    let filled = filler.runs;
    let snapshot = filler.machine.state.clone();
    let is_encoded = AtomicBool::new(false);
    let mut during = figures::nanos_histogram();
    let (bytes, snapshot_encode_s) = thread::scope(|scope| {
        let encoding = scope.spawn(|| {
            let from = Instant::now();
            let bytes = codec::encode_snapshot(&snapshot);
            let seconds = from.elapsed().as_secs_f64();
            is_encoded.store(true, Ordering::Release);
            (bytes, seconds)
        });
        while !is_encoded.load(Ordering::Acquire) {
            filler.apply_entry(&mut during)?;
        }
        Ok::<_, anyhow::Error>(encoding.join().expect("encoding a snapshot does not panic"))
    })?;
    let from = Instant::now();
    black_box(codec::decode_snapshot(&bytes)?);
    Ok(Held {
        runs: filled,
        rss_bytes_per_run: held / runs,
        apply_us_per_commit: apply.mean() / COMMITS_PER_ENTRY as f64 / 1000.0,
        apply: of_nanos(&apply),
        apply_during_snapshot: of_nanos(&during),
        snapshot_encode_s,
        snapshot_bytes_per_run: bytes.len() as f64 / runs,
        snapshot_decode_s: from.elapsed().as_secs_f64(),
    })
}

/// Latencies are told in milliseconds; entries are applied in fewer.
fn of_nanos(nanos: &Histogram<u64>) -> Latency {
    let mut micros = report::micros_histogram();
    for step in nanos.iter_recorded() {
        let value = (step.value_iterated_to() / 1000).max(1);
        micros.saturating_record_n(value, step.count_at_value());
    }
    Latency::of_micros(&micros)
}

/// The resident set of this process.
///
/// # Errors
/// `/proc` cannot be read.
pub fn resident_bytes() -> anyhow::Result<f64> {
    let reading = CpuReading::take(&[std::process::id()])?;
    Ok(reading.until(&reading).iter().map(|process| process.rss_mib * 1024.0 * 1024.0).sum())
}

/// A machine and the sessions that commit to it.
struct Filler {
    machine: Alone,
    loads: Vec<AgentLoad>,
    next: usize,
    runs: u64,
    runs_per_commit: u64,
    commits: Vec<u64>,
}

impl Filler {
    fn new(shape: LoadShape, agents: u32) -> anyhow::Result<Self> {
        let mut filler = Self {
            machine: Alone::default(),
            loads: Vec::new(),
            next: 0,
            runs: 0,
            runs_per_commit: u64::from(shape.runs),
            commits: vec![0; agents as usize],
        };
        for number in 0..shape.topics {
            filler.machine.apply(vec![Command::CreateTopic(topic(shape, number))]);
        }
        for number in 0..agents {
            let register = Command::RegisterSession(session(number));
            let replies = filler.machine.apply(vec![register]);
            let [Reply::Registered(registered)] = &replies[..] else {
                anyhow::bail!("a session was not registered: {replies:?}");
            };
            filler.loads.push(AgentLoad::new(shape, registered.session));
        }
        Ok(filler)
    }

    fn apply_entry(&mut self, times: &mut Histogram<u64>) -> anyhow::Result<()> {
        let mut commands = Vec::with_capacity(COMMITS_PER_ENTRY);
        for _ in 0..COMMITS_PER_ENTRY {
            let agent = self.next % self.loads.len();
            self.next += 1;
            // Each result is read before the session's next commit.
            let part = self.loads[agent].next_part(CommitSeq::new(self.commits[agent]));
            self.commits[agent] += 1;
            commands.push(Command::Commit(part));
        }
        let (replies, took) = self.machine.apply_timed(commands);
        times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        for reply in replies {
            let Reply::Commit(reply) = reply else { anyhow::bail!("not a commit: {reply:?}") };
            super::drive::check(&reply)?;
        }
        self.runs += COMMITS_PER_ENTRY as u64 * self.runs_per_commit;
        Ok(())
    }
}

/// The command that makes topic `number`.
pub fn topic(shape: LoadShape, number: u32) -> CreateTopic {
    CreateTopic {
        topic: LoadShape::topic(number),
        name: format!("bench-metadata-{number}"),
        partitions: shape.partitions,
        replication_factor: 1,
        configs: std::collections::BTreeMap::new(),
    }
}

/// The registration of agent `number`.
pub fn session(number: u32) -> RegisterSession {
    let port = u16::try_from(number % 50_000).unwrap_or_default() + 10_000;
    RegisterSession {
        request: u64::from(number) + 1,
        advertised: HostPort { host: format!("agent-{number}"), port },
        zone: None,
    }
}
