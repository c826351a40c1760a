//! A metadata node in the simulated world: the real one, over a disk that forgets what was not
//! synced.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use aquifer_metadata::{
    machine::Genesis,
    node::{MetadataNode, NodeConfig, Tuning, folder::Home},
    service,
    wal::disk::memory::MemoryDisk,
};
use aquifer_storage::{model::Lineage, seam::Seams};
use tokio::time::sleep;

use super::{
    disk::ProcessDisk,
    process::{Machine, Process, Universe},
    rng::SimRng,
};

/// Snapshots are frequent here, so that restarts begin from them.
const SNAPSHOT_ENTRIES: u64 = 200;
/// A sync takes this long.
const SYNC_TIME: Duration = Duration::from_millis(2);
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
}

impl NodeMachine {
    /// A machine that never ran, of the group of `founders`.
    pub fn new(
        universe: &Universe,
        machine: Machine,
        (node_id, founders): (u64, BTreeMap<u64, String>),
    ) -> Self {
        let rng = SimRng::stream(universe.seed, &format!("{} disk", machine.name));
        let (disk, universe) = (MemoryDisk::default(), universe.clone());
        Self { machine, node_id, founders, disk, process: None, lives: 0, rng, universe }
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
        let disk = ProcessDisk::new(Arc::new(self.disk.clone()), process.alive.clone());
        let home = Home::simulated(Path::new(&self.machine.name), Arc::new(disk), SYNC_TIME);
        let config = NodeConfig {
            node_id: self.node_id,
            data_dir: self.machine.name.clone().into(),
            genesis: Genesis {
                cluster_id: "simulated".to_owned(),
                lineage: Lineage { number: 0, nonce: 7 },
            },
            tuning: Tuning { snapshot_entries: SNAPSHOT_ENTRIES, ..Tuning::default() },
        };
        let (address, universe) = (self.address(), self.universe.clone());
        let (name, seams) = (self.machine.name.clone(), process.seams.clone());
        let founders = self.founders.clone();
        process.seams.spawn("node", async move {
            if let Err(error) = run((home, founders), config, seams, address).await {
                universe.trace.note(|| format!("{name} ends: {error}"));
                let failure = format!("{name}: {error}");
                universe.panics.lock().expect("no holder of this lock panics").push(failure);
            }
        });
        self.process = Some(process);
    }

    /// Kills its process; without power, what the disk had not synced is lost or torn.
    pub fn kill(&mut self, with_power: bool) {
        let Some(process) = self.process.take() else { return };
        self.universe.trace.note(|| format!("kill {} power {with_power}", self.machine.name));
        process.kill(with_power);
        if !with_power {
            let rng = self.rng.clone();
            self.disk.lose_power(&mut || rng.next());
        }
    }
}

async fn run(
    (home, founders): (Home, BTreeMap<u64, String>),
    config: NodeConfig,
    seams: Seams,
    address: SocketAddr,
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
    let serve = service::serve(listener, node.clone(), std::future::pending());
    tokio::select! {
        biased;
        fatal = node.fatal() => Err(format!("stopped: {fatal}")),
        served = serve => served.map_err(|error| error.to_string()),
        () = sleep(Duration::from_secs(1 << 30)) => Ok(()),
    }
}
