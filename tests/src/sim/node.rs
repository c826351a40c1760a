//! A metadata node in the simulated world: the real one, over a disk that forgets what was not
//! synced.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::{
    machine::Genesis,
    node::{MetadataNode, NodeConfig, Tuning, expiry::OffsetExpiry, folder::Home},
    service,
    wal::{
        Drive, Wal, WalConfig,
        disk::{Disk as _, memory::MemoryDisk},
    },
};
use aquifer_storage::{format::checksum::Crc32c, model::Lineage, seam::Seams};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    disk::ProcessDisk,
    process::{Machine, Process, Universe},
    rng::SimRng,
    temperament::Temperament,
};
use crate::history::replicas::{Led, LogCopy, LogEntry, Look};

/// The state is hashed this often: replicas are compared at every one of these indexes.
const HASH_ENTRIES: u64 = 16;
/// Opening a copy of a log prepares the next segment: of the smallest size.
const COPY_SEGMENT_BYTES: u32 = 16 << 10;
/// How often replicas are looked at, all at the same moments.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A disk that runs full has room for so many bytes more.
const LAST_BYTES: u64 = 96 << 10;
const CLUSTER_ID: &str = "simulated";
/// Where nodes listen.
pub const PORT: u16 = 9340;

/// The machine of a metadata node.
pub struct NodeMachine {
    machine: Machine,
    node_id: u64,
    /// The voters of the group, by node id; alone, just this one.
    founders: BTreeMap<u64, String>,
    disk: MemoryDisk,
    process: Option<Process>,
    lives: u64,
    rng: SimRng,
    universe: Universe,
    tuning: Tuning,
    /// What a sync takes.
    sync_time: Duration,
    /// Its disk was broken on purpose: that it stops is right.
    excused: Arc<AtomicBool>,
}

impl NodeMachine {
    /// A machine that never ran, of the group of `founders`.
    pub fn new(
        universe: &Universe,
        temperament: &Temperament,
        machine: Machine,
        (node_id, founders): (u64, BTreeMap<u64, String>),
    ) -> Self {
        let rng = SimRng::stream(universe.seed, &format!("{} disk", machine.name));
        let (disk, universe) = (MemoryDisk::default(), universe.clone());
        universe.disks.lock().expect("no holder panics").insert(node_id, disk.clone());
        // Small, so that restarts begin from snapshots and late followers need one.
        let tuning = Tuning {
            snapshot_entries: temperament.snapshot_entries,
            entries_kept: temperament.entries_kept,
            hash_entries: HASH_ENTRIES,
            ..Tuning::default()
        };
        let sync_time = rng.between(Duration::from_millis(1), temperament.sync_max);
        Self {
            machine,
            node_id,
            founders,
            disk,
            process: None,
            lives: 0,
            rng,
            universe,
            tuning,
            sync_time,
            excused: Arc::default(),
        }
    }

    /// With committed offsets that expire so.
    #[must_use]
    pub fn with_expiry(mut self, expiry: OffsetExpiry) -> Self {
        self.tuning.offset_expiry = expiry;
        self
    }

    /// Stops its process for a while.
    pub fn pause(&self, wakes: Instant) {
        if let Some(process) = &self.process {
            self.universe.trace.note(|| format!("stop {}", self.machine.name));
            process.pause.until(wakes);
        }
    }

    /// Leaves its disk little room.
    pub fn fill_disk(&self) {
        self.universe.trace.note(|| format!("{} has little room", self.machine.name));
        self.excused.store(true, Ordering::Relaxed);
        self.disk.limit_bytes(Some(self.disk.used_bytes() + LAST_BYTES));
    }

    /// Lets its disk fail after so many operations more.
    pub fn break_disk(&self, operations: u64) {
        let name = &self.machine.name;
        self.universe.trace.note(|| format!("{name}'s disk fails after {operations}"));
        self.excused.store(true, Ordering::Relaxed);
        self.disk.fail_after(Some(operations));
    }

    /// Gives it a disk that works and has room, and starts its process anew, as somebody would.
    pub fn mend_disk(&mut self) {
        self.universe.trace.note(|| format!("{}'s disk is mended", self.machine.name));
        self.disk.limit_bytes(None);
        self.disk.fail_after(None);
        let was_running = self.is_running();
        self.kill(true);
        self.excused = Arc::default();
        if was_running {
            self.start();
        }
    }

    /// Adds what its log holds now to what was seen of the replicas.
    pub fn note_log(&self) {
        if let Some(log) = self.log() {
            self.universe.replicas.lock().expect("no holder of this lock panics").logs.push(log);
        }
    }

    /// What its log holds, written or not. `None` when it has none that can be opened.
    fn log(&self) -> Option<LogCopy> {
        let disk = self.disk.fork().folder("raft");
        if !Wal::exists(&*disk).ok()? {
            return None;
        }
        let (wal, recovered) = Wal::open(disk, &copy_config(self.node_id)).ok()?;
        let entries = wal.read(recovered.entries, usize::MAX).ok()?;
        let digest = |payload: &[u8]| u64::from(Crc32c::of(payload).value());
        let entries = entries.into_iter().map(|entry| LogEntry {
            index: entry.id.index,
            term: entry.id.term,
            leader: entry.id.node_id,
            digest: digest(&entry.payload),
        });
        Some(LogCopy {
            node: self.node_id,
            at: self.universe.trace.now(),
            committed: recovered.committed.map(|id| id.index),
            entries: entries.collect(),
        })
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where agents find it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.machine.address, PORT)
    }

    /// Starts its process.
    pub fn start(&mut self) {
        self.lives += 1;
        self.universe.trace.note(|| format!("start {} life {}", self.machine.name, self.lives));
        self.universe.network.power(self.machine.address);
        let process = self.machine.start(self.lives);
        let disk = Arc::new(self.disk.clone());
        let synced = (self.universe.aim.clone(), self.machine.address);
        let disk = ProcessDisk::new(disk, process.alive.clone(), synced);
        let home = Home::simulated(Path::new(&self.machine.name), Arc::new(disk), self.sync_time);
        let config = NodeConfig {
            node_id: self.node_id,
            data_dir: self.machine.name.clone().into(),
            genesis: Genesis {
                cluster_id: CLUSTER_ID.to_owned(),
                lineage: Lineage { number: 0, nonce: 7 },
            },
            tuning: self.tuning,
        };
        let (address, universe) = (self.address(), self.universe.clone());
        let (name, seams) = (self.machine.name.clone(), process.seams.clone());
        let founders = self.founders.clone();
        let (excused, life) = (self.excused.clone(), self.lives);
        process.seams.spawn("node", async move {
            let looks = Looks { universe: universe.clone(), node: config.node_id, life };
            if let Err(error) = run((home, founders), config, (seams, address), looks).await {
                universe.trace.note(|| format!("{name} ends: {error}"));
                if excused.load(Ordering::Relaxed) {
                    return;
                }
                let failure = format!("{name}: {error}");
                universe.panics.lock().expect("no holder of this lock panics").push(failure);
            }
        });
        self.process = Some(process);
    }

    /// Kills its process; without power, what the disk had not synced is lost or torn.
    pub fn kill(&mut self, with_power: bool) {
        let Some(process) = self.process.take() else { return };
        self.note_log();
        self.universe.trace.note(|| format!("kill {} power {with_power}", self.machine.name));
        process.kill(with_power);
        if !with_power {
            let rng = self.rng.clone();
            self.disk.lose_power(&mut || rng.next());
        }
    }
}

/// To open a copy of a node's log.
fn copy_config(node_id: u64) -> WalConfig {
    let mut config = WalConfig::new(CLUSTER_ID, node_id, 1);
    (config.drive, config.segment_bytes) = (Drive::Inline, COPY_SEGMENT_BYTES);
    config
}

/// The vote that a node's disk would hold after a loss of power.
fn durable_vote(node_id: u64, disk: &MemoryDisk) -> Option<(u64, u64)> {
    let disk = disk.fork_durable().folder("raft");
    if !Wal::exists(&*disk).ok()? {
        return None;
    }
    let (_, recovered) = Wal::open(disk, &copy_config(node_id)).ok()?;
    recovered.vote.map(|vote| (vote.term, vote.node_id))
}

async fn run(
    (home, founders): (Home, BTreeMap<u64, String>),
    config: NodeConfig,
    (seams, address): (Seams, SocketAddr),
    looks: Looks,
) -> Result<(), String> {
    let started = if founders.len() == 1 {
        MetadataNode::start_in(home, config, seams.clone()).await
    } else {
        MetadataNode::start_member_in(home, config, seams.clone()).await
    };
    let node = started.map_err(|error| format!("did not start: {error}"))?;
    let listener = seams.net.listen(address).await.map_err(|error| error.to_string())?;
    if 1 < founders.len() {
        node.form(founders);
    }
    seams.spawn("looks", looks.run(node.clone()));
    let serve = service::serve(listener, node.clone(), std::future::pending());
    tokio::select! {
        biased;
        fatal = node.fatal() => Err(format!("stopped: {fatal}")),
        served = serve => served.map_err(|error| error.to_string()),
        () = sleep(Duration::from_secs(1 << 30)) => Ok(()),
    }
}

/// Looks at a replica for as long as its process lives.
struct Looks {
    universe: Universe,
    node: u64,
    life: u64,
}

impl Looks {
    async fn run(self, node: MetadataNode) {
        let Self { universe, node: id, life } = self;
        let mut led = None;
        let interval = u64::try_from(LOOK_INTERVAL.as_nanos()).expect("short");
        loop {
            let next = (universe.trace.now() / interval + 1) * interval;
            sleep_until(universe.zero + Duration::from_nanos(next)).await;
            let look = Look {
                at: universe.trace.now(),
                node: id,
                life,
                leads: node.leadership().term().ok(),
                applied: node.applied_index().value(),
                state: node.checkpoint().map(|(index, hash)| (index.value(), hash)),
            };
            let begins = look.leads.filter(|term| led != Some(*term));
            led = look.leads.or(led);
            let begins = begins.map(|term| {
                let disks = universe.disks.lock().expect("no holder of this lock panics");
                let votes = disks.iter().map(|(voter, disk)| (*voter, durable_vote(*voter, disk)));
                Led { at: look.at, node: id, term, votes: votes.collect() }
            });
            let mut replicas = universe.replicas.lock().expect("no holder of this lock panics");
            replicas.looks.push(look);
            replicas.led.extend(begins);
        }
    }
}
