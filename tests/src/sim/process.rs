//! One life of a process: its seams, its tasks, and what its death cuts off.
//!
//! Libraries start tasks that nobody can end from outside. They do no harm: a dead process's
//! network, disk and store do nothing any more, so whatever still runs of it runs unseen.

use std::{
    collections::BTreeMap,
    future::pending,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::wal::disk::memory::MemoryDisk;
use aquifer_storage::{
    model::Timestamp,
    seam::{BoxFuture, Clock, MonoTime, Seams, Spawn},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    aim::Aim,
    net::Network,
    pause::{Gated, Pause},
    rng::SimRng,
    trace::Trace,
};
use crate::history::replicas::Replicas;

/// The wall clock when a run begins: 2026.
const WALL_ZERO_MS: i64 = 1_790_000_000_000;

/// What all processes of a run share.
#[derive(Clone)]
pub struct Universe {
    /// The seed everything is drawn from.
    pub seed: u64,
    /// The network.
    pub network: Network,
    /// What happens.
    pub trace: Trace,
    /// When the run began.
    pub zero: Instant,
    /// Panics of tasks.
    pub panics: Arc<Mutex<Vec<String>>>,
    /// The disks of the metadata nodes, by node id.
    pub disks: Arc<Mutex<BTreeMap<u64, MemoryDisk>>>,
    /// The moment that somebody waits for.
    pub aim: Aim,
    /// What was seen of the metadata nodes.
    pub replicas: Arc<Mutex<Replicas>>,
}

#[cfg(test)]
impl Universe {
    /// One in which nothing runs.
    pub fn for_test() -> Self {
        let trace = Trace::new(false);
        Self {
            seed: 0,
            network: Network::new(SimRng::new(0), trace.clone(), Aim::default()),
            trace,
            zero: Instant::now(),
            panics: Arc::default(),
            disks: Arc::default(),
            aim: Aim::default(),
            replicas: Arc::default(),
        }
    }
}

/// A machine: what outlives its processes.
#[derive(Clone)]
pub struct Machine {
    /// Its name in traces.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// How far its wall clock is off, in milliseconds.
    pub wall_skew_ms: Arc<AtomicI64>,
    /// How fast its monotonic clock goes, in thousandths of true time; at least 1.
    pub rate_per_mille: u32,
    universe: Universe,
}

impl Machine {
    /// A machine without processes.
    pub fn new(universe: &Universe, name: impl Into<String>, address: IpAddr) -> Self {
        Self {
            name: name.into(),
            address,
            wall_skew_ms: Arc::default(),
            rate_per_mille: 1000,
            universe: universe.clone(),
        }
    }

    /// With a monotonic clock that goes wrong.
    #[must_use]
    pub fn with_rate(mut self, rate_per_mille: u32) -> Self {
        self.rate_per_mille = rate_per_mille;
        self
    }

    /// Starts a process; `life` counts the lives of this machine.
    pub fn start(&self, life: u64) -> Process {
        let Universe { seed, network, zero, .. } = &self.universe;
        let alive = Arc::new(AtomicBool::new(true));
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let pause = Pause::default();
        let clock = SimClock {
            zero: *zero,
            wall_skew_ms: self.wall_skew_ms.clone(),
            rate_per_mille: self.rate_per_mille,
        };
        let spawn = SimSpawn {
            machine: self.name.clone(),
            alive: alive.clone(),
            pause: pause.clone(),
            tasks: tasks.clone(),
            panics: self.universe.panics.clone(),
        };
        let rng = SimRng::stream(*seed, &format!("{}/{life}", self.name));
        let seams = Seams {
            clock: Arc::new(clock),
            rng: Arc::new(rng),
            spawn: Arc::new(spawn),
            net: network.of(self.address, alive.clone(), pause.clone()),
        };
        Process { machine: self.clone(), alive, pause, tasks, seams }
    }
}

/// A running process.
pub struct Process {
    machine: Machine,
    /// Whether it still runs.
    pub alive: Arc<AtomicBool>,
    /// Whether it is stopped.
    pub pause: Pause,
    /// Its view of the world.
    pub seams: Seams,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Process {
    /// Its machine's name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Ends it between two instructions, as `kill -9` does; or, without power, its machine too,
    /// until [`Network::power`].
    pub fn kill(&self, with_power: bool) {
        self.alive.store(false, Ordering::Relaxed);
        self.tasks.lock().expect("no holder of this lock panics").abort_all();
        self.machine.universe.network.kill(self.machine.address, &self.alive, with_power);
    }
}

struct SimClock {
    zero: Instant,
    wall_skew_ms: Arc<AtomicI64>,
    rate_per_mille: u32,
}

impl Clock for SimClock {
    fn mono(&self) -> MonoTime {
        let shown = self.zero.elapsed() * self.rate_per_mille / 1000;
        MonoTime::from_zero(shown)
    }

    fn wall(&self) -> Timestamp {
        let since = i64::try_from(self.zero.elapsed().as_millis()).expect("a run is short");
        Timestamp::from_millis(WALL_ZERO_MS + since + self.wall_skew_ms.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
        // Deadlines of centuries mean never.
        let shown = deadline.since_zero().min(Duration::from_secs(1 << 30));
        // A nanosecond more: rounded down, the clock would not show the deadline yet.
        let exact = shown * 1000 / self.rate_per_mille;
        let round = if self.rate_per_mille == 1000 { 0 } else { 2 };
        match self.zero.checked_add(exact + Duration::from_nanos(round)) {
            Some(at) => Box::pin(sleep_until(at)),
            None => Box::pin(pending()),
        }
    }
}

struct SimSpawn {
    machine: String,
    alive: Arc<AtomicBool>,
    pause: Pause,
    tasks: Arc<Mutex<JoinSet<()>>>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Spawn for SimSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        if !self.alive.load(Ordering::Relaxed) {
            return; // The dead start nothing.
        }
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                let what = format!("a task of {} panicked: {error}", self.machine);
                self.panics.lock().expect("no holder of this lock panics").push(what);
            }
        }
        let _ = name;
        tasks.spawn(Gated::new(self.pause.clone(), task));
    }
}
