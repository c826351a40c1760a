//! The metadata nodes that are measured, in this process, with their syncs counted.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aquifer_metadata::{
    client::remote::{RemoteClient, RemoteConfig},
    machine::Genesis,
    node::{MetadataNode, NodeConfig, Tuning, folder::Home},
    service::{self, ServeError},
    wal::disk::{Disk, WalFile},
};
use aquifer_storage::{model::Lineage, seam::Seams};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::drive::Client;

/// What the log asked of its disk since the start.
#[derive(Debug, Default)]
pub struct DiskUse {
    syncs: AtomicU64,
    sync_nanos: AtomicU64,
    written: AtomicU64,
}

/// What it had asked at one moment.
#[derive(Clone, Copy, Debug)]
pub struct DiskReading {
    /// Syncs of files.
    pub syncs: u64,
    /// Time they took.
    pub sync_nanos: u64,
    /// Bytes written.
    pub written: u64,
}

impl DiskUse {
    /// Now.
    pub fn read(&self) -> DiskReading {
        DiskReading {
            syncs: self.syncs.load(Ordering::Relaxed),
            sync_nanos: self.sync_nanos.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
        }
    }
}

/// A disk that counts.
struct Counted<D> {
    inner: D,
    usage: Arc<DiskUse>,
}

impl<D> Counted<D> {
    fn file(&self, inner: Arc<dyn WalFile>) -> Arc<dyn WalFile> {
        Arc::new(Counted { inner, usage: self.usage.clone() })
    }
}

impl<D: Disk> Disk for Counted<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.open(name)?))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        self.inner.folder(name)
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        self.inner.remove_folder(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
}

impl WalFile for Counted<Arc<dyn WalFile>> {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.usage.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let from = Instant::now();
        let synced = self.inner.sync();
        let nanos = u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.usage.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.usage.syncs.fetch_add(1, Ordering::Relaxed);
        synced
    }
}

/// How many nodes, and how they are asked.
#[derive(Clone, Copy, Debug)]
pub struct GroupShape {
    /// Voters; more than one are asked over gRPC.
    pub voters: u8,
    /// Whether agents ask over gRPC.
    pub grpc: bool,
}

/// Nodes over folders that go with them.
pub struct Group {
    members: Vec<Member>,
    /// What the logs asked of the disk, all nodes together.
    pub disk: Arc<DiskUse>,
    grpc: bool,
    folder: Scratch,
}

struct Member {
    node: MetadataNode,
    service: Option<Service>,
}

struct Service {
    address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// A folder that is removed when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder stays behind");
        }
    }
}

/// What nodes proposed since their start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proposed {
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Commands in them.
    pub commands: u64,
}

impl Group {
    /// Starts it in a new folder.
    ///
    /// # Errors
    /// The folder is in use, or cannot be written.
    pub async fn start(folder: PathBuf, seams: &Seams, shape: GroupShape) -> anyhow::Result<Self> {
        anyhow::ensure!(!folder.exists(), "{} is in the way", folder.display());
        let folder = Scratch(folder);
        let lineage = Lineage { number: 0, nonce: seams.rng.next_u64() };
        let genesis = Genesis { cluster_id: "bench".to_owned(), lineage };
        let disk = Arc::new(DiskUse::default());
        let mut listeners = Vec::new();
        let mut founders = BTreeMap::new();
        for node_id in 1..=u64::from(shape.voters) {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            founders.insert(node_id, listener.local_addr()?.to_string());
            listeners.push((node_id, listener));
        }
        let grpc = shape.grpc || 1 < shape.voters;
        let mut members = Vec::new();
        for (node_id, listener) in listeners {
            let config = NodeConfig {
                node_id,
                data_dir: folder.0.join(node_id.to_string()),
                genesis: genesis.clone(),
                tuning: Tuning::default(),
            };
            let usage = disk.clone();
            let count = move |inner| Arc::new(Counted { inner, usage }) as Arc<dyn Disk>;
            let node = if shape.voters == 1 {
                MetadataNode::start_through(config, seams.clone(), count).await?
            } else {
                let home = Home::lock(&config.data_dir, count)?;
                MetadataNode::start_member_in(home, config, seams.clone()).await?
            };
            let service = if grpc { Some(serve(listener, &node)?) } else { None };
            members.push(Member { node, service });
        }
        if 1 < members.len() {
            members.iter().for_each(|member| member.node.form(founders.clone()));
        }
        Ok(Self { members, disk, grpc, folder })
    }

    /// A client as an agent has it: in process, or with connections of its own.
    pub fn client(&self) -> Client {
        let first = &self.members[0].node;
        if !self.grpc {
            return Arc::new(first.client());
        }
        let services = self.members.iter().filter_map(|member| member.service.as_ref());
        let config = RemoteConfig {
            addresses: services.map(|service| service.address.clone()).collect(),
            deadline: Duration::from_secs(30),
            ..RemoteConfig::default()
        };
        Arc::new(RemoteClient::new(config, first.seams().clone()))
    }

    /// What was proposed, by whoever led.
    pub fn proposed(&self) -> Proposed {
        self.members.iter().fold(Proposed::default(), |sum, member| {
            let metrics = member.node.metrics();
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            Proposed {
                entries: sum.entries + read(&metrics.entries_proposed),
                entry_bytes: sum.entry_bytes + read(&metrics.entry_bytes_proposed),
                commands: sum.commands + read(&metrics.commands_proposed),
            }
        })
    }

    /// Stops it and removes its folder.
    ///
    /// # Errors
    /// A service failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        for Member { node, service } in self.members {
            if let Some(service) = service {
                let _ = service.stop.send(()); // It may have failed, which is told below.
                service.serving.await.context("the metadata service")??;
            }
            node.shutdown().await;
        }
        drop(self.folder);
        Ok(())
    }
}

fn serve(listener: TcpListener, node: &MetadataNode) -> anyhow::Result<Service> {
    let address = listener.local_addr()?.to_string();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await; // An error: dropped, which means the same.
    };
    let serving = tokio::spawn(service::serve(listener, node.clone(), shutdown));
    Ok(Service { address, stop, serving })
}
