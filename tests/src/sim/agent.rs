//! An agent in the simulated world: the real library, put together as the binary does it.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use aquifer_agent::{
    broker::Broker,
    config::ServerOptions,
    fetch::{FetchDeps, FetchLimits, Fetcher},
    metrics::Metrics,
    produce::{FlushLimits, Producer, ProducerConfig, ProducerDeps, PutBudget, WriteThrough},
    server::listener,
    session::{Session, SessionConfig},
    view::View,
};
use aquifer_metadata::{
    client::{
        Metadata,
        cluster::Operator,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::command::HostPort,
};
use aquifer_storage::{
    budget::Budgets,
    cache::{ObjectReader, history::History, memory::LruCache},
    model::ObjectName,
    seam::Seams,
    store::{
        Store,
        hedge::HedgedStore,
        retry::{RetryPolicy, RetryingStore},
    },
};
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    process::{Machine, Process, Universe},
    rng::SimRng,
    store::Bucket,
};

/// Where agents listen.
pub const PORT: u16 = 9092;
/// Small, so that budgets and evictions are felt.
const MEMORY_BYTES: u64 = 256 << 20;
const OBJECT_BYTES: usize = 16 << 10;

/// The machine of an agent.
pub struct AgentMachine {
    machine: Machine,
    bucket: Bucket,
    metadata: Vec<String>,
    process: Option<Process>,
    lives: u64,
    cache_bytes: usize,
    universe: Universe,
}

impl AgentMachine {
    /// A machine that never ran, with the addresses of the metadata nodes.
    pub fn new(
        universe: &Universe,
        machine: Machine,
        bucket: &Bucket,
        metadata: Vec<String>,
        cache_bytes: usize,
    ) -> Self {
        let (bucket, universe) = (bucket.clone(), universe.clone());
        Self { machine, bucket, metadata, process: None, lives: 0, cache_bytes, universe }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.machine.address, PORT)
    }

    /// Starts its process.
    pub fn start(&mut self) {
        self.lives += 1;
        self.universe.trace.note(|| format!("start {} life {}", self.machine.name, self.lives));
        self.universe.network.power(self.machine.address);
        let process = self.machine.start(self.lives);
        let label = format!("{}/{} store", self.machine.name, self.lives);
        let rng = SimRng::stream(self.universe.seed, &label);
        let stored = (self.universe.aim.clone(), self.machine.address);
        let store = self.bucket.of(&process, stored, rng);
        let seams = process.seams.clone();
        let store = HedgedStore::new(store, seams.clone());
        let store = RetryingStore::new(store, RetryPolicy::default(), seams.clone());
        let remote = RemoteConfig { addresses: self.metadata.clone(), ..RemoteConfig::default() };
        let caches = (Arc::new(store) as Arc<dyn Store>, self.cache_bytes);
        let agent = run(self.address(), remote, caches, seams);
        process.seams.spawn("agent", agent);
        self.process = Some(process);
    }

    /// Stops its process for a while.
    pub fn pause(&self, wakes: Instant) {
        if let Some(process) = &self.process {
            self.universe.trace.note(|| format!("stop {}", self.machine.name));
            process.pause.until(wakes);
        }
    }

    /// Kills its process, or its machine.
    pub fn kill(&mut self, with_power: bool) {
        let Some(process) = self.process.take() else { return };
        self.universe.trace.note(|| format!("kill {} power {with_power}", self.machine.name));
        process.kill(with_power);
    }
}

async fn run(
    address: SocketAddr,
    remote: RemoteConfig,
    (store, cache_bytes): (Arc<dyn Store>, usize),
    seams: Seams,
) {
    let services = CancellationToken::new();
    let stop = || services.clone().cancelled_owned();
    let quorum = Arc::new(Operator::new(remote.addresses.clone(), seams.clone()));
    let metadata: Arc<dyn Metadata> = Arc::new(RemoteClient::new(remote, seams.clone()));
    let (view, service) = View::new(Arc::clone(&metadata), seams.clone());
    seams.spawn("view", service.run(stop()));
    let advertised = HostPort { host: address.ip().to_string(), port: address.port() };
    let config = SessionConfig { advertised, zone: None };
    let (session, service) = Session::new(config, Arc::clone(&metadata), seams.clone());
    seams.spawn("session", service.run(stop()));
    session.registered().await;
    view.ready().await;
    view.fresh().await.ok();
    let budgets = Arc::new(Budgets::split(MEMORY_BYTES));
    let tail = Arc::new(LruCache::new(cache_bytes));
    let history = History::new(cache_bytes as u64);
    let reader = ObjectReader::new(Arc::clone(&store), tail, history);
    let lineage = view.catalog().lineage.expect("the catalog names the lineage");
    let limits = FlushLimits {
        object_bytes: OBJECT_BYTES as u64,
        interval: Duration::from_millis(100),
        put_budget: PutBudget { per_second: 50, burst: 100 },
        ..FlushLimits::default()
    };
    let deps = ProducerDeps {
        store,
        metadata: Arc::clone(&metadata),
        session: session.clone(),
        written: Arc::new(CacheWrites { reader: reader.clone(), seams: seams.clone() }),
        seams: seams.clone(),
    };
    let (producer, service) = Producer::new(ProducerConfig { limits, lineage }, deps);
    seams.spawn("producer", service.run(stop()));
    let deps = FetchDeps {
        metadata: Arc::clone(&metadata),
        view: view.clone(),
        reader,
        budget: budgets.fetch.clone(),
        seams: seams.clone(),
    };
    let metrics = Arc::new(Metrics::default());
    let fetcher = Fetcher::new(deps, FetchLimits::default()).counting(metrics.fetch.clone());
    let kafka = seams.net.listen(address).await.expect("a simulated address is free");
    let broker = Arc::new(Broker {
        metadata,
        quorum,
        view,
        session,
        producer,
        fetcher,
        budgets,
        seams,
        metrics,
        options: ServerOptions::default(),
        has_given_defaults: false,
        num_partitions: 1,
        zone: None,
        connections: AtomicU64::new(0),
        group_requests: AtomicU64::new(0),
        reworks: tokio::sync::Semaphore::new(aquifer_agent::broker::REWORKS_MAX).into(),
    });
    listener::run(kafka, broker, CancellationToken::new()).await;
}

/// As the binary does it.
struct CacheWrites {
    reader: ObjectReader,
    seams: Seams,
}

impl WriteThrough for CacheWrites {
    fn written(&self, name: ObjectName, body: &[Bytes]) {
        let insert = self.reader.insert_written(name, body);
        self.seams.spawn("write-through", insert);
    }
}
