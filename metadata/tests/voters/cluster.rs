//! Metadata nodes of one group in this process, on real sockets and folders.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use aquifer_metadata::{
    client::{
        CallError, Metadata,
        cluster::Operator,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::{
        Genesis,
        command::{Command, HostPort, RegisterSession, Reply},
    },
    node::{MetadataNode, NodeConfig, StartError, Timings, Tuning, folder::Home},
    service,
};
use aquifer_storage::{
    model::{Lineage, SessionId},
    seam::{Seams, system},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    small_disk::{Rooms, SmallDisk},
    world::{OUTSIDE, World},
};

/// Slow enough for a machine that does much else.
pub const CALM: Timings = Timings { heartbeat_ms: 100, election_ms_min: 300, election_ms_max: 600 };

pub struct Running {
    pub node: MetadataNode,
    stop: oneshot::Sender<()>,
}

pub struct Cluster {
    pub world: World,
    pub tuning: Tuning,
    pub addresses: BTreeMap<u64, SocketAddr>,
    folders: BTreeMap<u64, TempDir>,
    pub running: BTreeMap<u64, Running>,
    /// What the log of each node may still grow by.
    pub room: Rooms,
}

pub fn lineage(number: u32) -> Lineage {
    Lineage { number, nonce: 9 }
}

impl Cluster {
    /// Nothing runs yet; each founder has an address.
    pub async fn new(founders: u64, tuning: Tuning) -> Self {
        let mut cluster = Self {
            world: World::default(),
            tuning,
            addresses: BTreeMap::new(),
            folders: BTreeMap::new(),
            running: BTreeMap::new(),
            room: Rooms::default(),
        };
        for id in 1..=founders {
            cluster.place(id).await;
        }
        cluster
    }

    /// Three voters that have a leader.
    pub async fn of_three(tuning: Tuning) -> Self {
        let mut cluster = Self::new(3, tuning).await;
        for id in 1..=3 {
            cluster.start(id).await.unwrap();
        }
        cluster.leader().await;
        cluster
    }

    pub fn calm() -> Tuning {
        Tuning { timings: CALM, ..Tuning::default() }
    }

    /// A folder and an address for node `id`.
    pub async fn place(&mut self, id: u64) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.folders.insert(id, tempfile::tempdir().unwrap());
        self.addresses.insert(id, address);
        address
    }

    /// Node `id` loses its folder.
    pub fn wipe(&mut self, id: u64) {
        self.folders.insert(id, tempfile::tempdir().unwrap());
    }

    pub fn config(&self, id: u64, cluster_id: &str, lineage: Lineage) -> NodeConfig {
        NodeConfig {
            node_id: id,
            data_dir: self.folders[&id].path().to_path_buf(),
            genesis: Genesis { cluster_id: cluster_id.into(), lineage },
            tuning: self.tuning,
        }
    }

    pub fn founders(&self) -> BTreeMap<u64, String> {
        let founders = self.addresses.iter().filter(|(id, _)| **id <= 99);
        founders.map(|(id, address)| (*id, address.to_string())).collect()
    }

    pub async fn start(&mut self, id: u64) -> Result<(), StartError> {
        let config = self.config(id, "test", lineage(0));
        self.start_as(config, self.founders()).await
    }

    pub async fn start_as(
        &mut self,
        config: NodeConfig,
        founders: BTreeMap<u64, String>,
    ) -> Result<(), StartError> {
        let id = config.node_id;
        let seams = self.world.seams(id);
        for _ in 0..300 {
            match self.open(&config, &seams).await {
                Ok(node) => {
                    let running = self.serve(id, node, &seams).await;
                    running.node.form(founders.clone());
                    self.running.insert(id, running);
                    return Ok(());
                }
                // Its life before lets go of the folder a moment later.
                Err(StartError::Folder(error)) if error.to_string().contains("in use") => {
                    seams.sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error),
            }
        }
        panic!("the folder stays locked");
    }

    async fn open(&self, config: &NodeConfig, seams: &Seams) -> Result<MetadataNode, StartError> {
        let room = self.room.entry(config.node_id);
        let home = Home::lock(&config.data_dir, |disk| Arc::new(SmallDisk::new(disk, room)))?;
        MetadataNode::start_member_in(home, config.clone(), seams.clone()).await
    }

    pub fn operator(&self) -> Operator {
        let addresses = self.running.keys().map(|id| self.addresses[id].to_string()).collect();
        Operator::new(addresses, self.world.seams(OUTSIDE))
    }

    /// A new node joins as a learner.
    pub async fn join(&mut self) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::lock(folder.path(), |disk| Arc::new(disk)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let incarnation = home.incarnation(&*system::seams().rng).unwrap();
        let admission = self.operator().join(&address.to_string(), incarnation).await.unwrap();
        let again = self.operator().join(&address.to_string(), incarnation).await.unwrap();
        assert_eq!(admission, again, "asking again is harmless");
        self.folders.insert(admission.id, folder);
        self.addresses.insert(admission.id, address);
        let config = self.config(admission.id, &admission.cluster_id, admission.lineage);
        let seams = self.world.seams(admission.id);
        let node = MetadataNode::start_member_in(home, config, seams.clone()).await.unwrap();
        let running = self.serve(admission.id, node, &seams).await;
        self.running.insert(admission.id, running);
        admission.id
    }

    pub async fn serve(&self, id: u64, node: MetadataNode, seams: &Seams) -> Running {
        let mut listener = seams.net.listen(self.addresses[&id]).await;
        for _ in 0..300 {
            if listener.is_ok() {
                break;
            }
            seams.sleep(Duration::from_millis(10)).await;
            listener = seams.net.listen(self.addresses[&id]).await;
        }
        let (stop, stopped) = oneshot::channel();
        let served = node.clone();
        let serving = async move {
            let stopped = async {
                let _ = stopped.await;
            };
            service::serve(listener.unwrap(), served, stopped).await.unwrap();
        };
        tokio::spawn(serving);
        Running { node, stop }
    }

    /// As `kill -9`: nobody hears another word of it.
    pub async fn kill(&mut self, id: u64) {
        self.world.kill(id);
        let Running { node, stop } = self.running.remove(&id).unwrap();
        let _ = stop.send(());
        node.halt().await;
    }

    /// As a stop in order.
    pub async fn stop(&mut self, id: u64) {
        let Running { node, stop } = self.running.remove(&id).unwrap();
        node.step_aside().await;
        let _ = stop.send(());
        node.shutdown().await;
        self.world.kill(id);
    }

    pub fn node(&self, id: u64) -> &MetadataNode {
        &self.running[&id].node
    }

    /// The node that leads, once one does.
    pub async fn leader(&self) -> u64 {
        let ids: Vec<u64> = self.running.keys().copied().collect();
        self.leader_of(&ids).await
    }

    pub async fn leader_of(&self, ids: &[u64]) -> u64 {
        until("a leader", || {
            ids.iter().copied().find(|id| self.node(*id).leadership().term().is_ok())
        })
        .await
    }

    /// A client that knows all addresses, those of nodes that do not run too.
    pub fn client(&self) -> RemoteClient {
        self.client_of(self.addresses.keys().copied())
    }

    pub fn client_of(&self, ids: impl IntoIterator<Item = u64>) -> RemoteClient {
        let addresses = ids.into_iter().map(|id| self.addresses[&id].to_string()).collect();
        let config = RemoteConfig { addresses, ..RemoteConfig::default() };
        RemoteClient::new(config, self.world.seams(OUTSIDE))
    }

    /// Waits until all running nodes have applied as much as the leader, and compares them.
    pub async fn agree(&self) {
        let hashes = || {
            let status = self.running.values().map(|one| one.node.status(true));
            let status: Vec<_> = status.map(|one| (one.applied_index, one.state_hash)).collect();
            status.iter().all(|one| *one == status[0]).then_some(())
        };
        until("all replicas to be equal", hashes).await;
    }
}

/// Waits for `found` to find something.
pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(found) = found() {
            return found;
        }
        system::seams().sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain for {what}");
}

pub async fn register(client: &impl Metadata, number: u16) -> Result<SessionId, CallError> {
    let advertised = HostPort { host: "localhost".into(), port: number };
    let request = u64::from(number);
    let command = Command::RegisterSession(RegisterSession { request, advertised, zone: None });
    match client.propose(command).await?.reply {
        Reply::Registered(registered) => Ok(registered.session),
        other => panic!("{other:?}"),
    }
}
