//! Requests of one connection take effect in order (RELIABILITY H6), over a store whose PUTs wait.

use std::{ops::Range, sync::atomic::AtomicU64};

use aquifer_metadata::{
    client::{Metadata, cluster::Operator},
    machine::command::HostPort,
    watch::{Catalog, CatalogTopic, WatchEvent},
};
use aquifer_storage::{
    budget::Budgets,
    cache::{ObjectReader, history::History, memory::LruCache},
    error::StoreError,
    format::test_batch::TestBatch,
    model::{Lineage, TopicId},
    seam::system,
    store::{Listed, MemoryStore, Store},
};
use async_trait::async_trait;
use bytes::BufMut;
use tokio::{
    io::{AsyncReadExt, DuplexStream},
    sync::Semaphore,
};

use super::*;
use crate::{
    config::ServerOptions,
    fetch::{FetchDeps, FetchLimits, Fetcher},
    metrics::Metrics,
    produce::{
        FlushLimits, Producer, ProducerConfig, ProducerDeps, PutBudget, testing::ModelMetadata,
    },
    session::{Session, SessionConfig},
    view::View,
};

const LINEAGE: Lineage = Lineage { number: 1, nonce: 9 };

/// A memory store in which each PUT takes one of the permits that the test gives.
struct HeldStore {
    inner: MemoryStore,
    started: AtomicU64,
    permits: Semaphore,
}

#[async_trait]
impl Store for HeldStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.permits.acquire().await.expect("the test keeps it open").forget();
        self.inner.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.inner.delete_many(keys).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, start_after, limit).await
    }
}

/// One connection to an agent that knows the topic "t".
struct World {
    client: DuplexStream,
    store: Arc<HeldStore>,
    metadata: Arc<ModelMetadata>,
    seams: Seams,
}

async fn world() -> World {
    let seams = system::seams();
    let (metadata, mut opened) = ModelMetadata::new(seams.clone());
    let shared: Arc<dyn Metadata> = metadata.clone();
    let (view, service) = View::new(shared.clone(), seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let advertised = HostPort { host: "agent".to_owned(), port: 9092 };
    let config = SessionConfig { advertised, zone: None };
    let (session, service) = Session::new(config, shared.clone(), seams.clone());
    seams.spawn("session", service.run(std::future::pending()));
    session.registered().await;
    let inner = MemoryStore::default();
    let permits = Semaphore::new(0);
    let store = Arc::new(HeldStore { inner, started: AtomicU64::new(0), permits });
    let deps = ProducerDeps {
        store: store.clone(),
        metadata: shared.clone(),
        session: session.clone(),
        written: Arc::new(()),
        seams: seams.clone(),
    };
    let put_budget = PutBudget { per_second: 0, burst: 1 };
    let interval = Duration::from_millis(5);
    let limits = FlushLimits { put_budget, interval, ..FlushLimits::default() };
    let (producer, service) = Producer::new(ProducerConfig { limits, lineage: LINEAGE }, deps);
    seams.spawn("produce", service.run(std::future::pending()));
    let budgets = Arc::new(Budgets::split(0));
    let (tail, history) = (LruCache::new(1 << 20), History::new(1 << 20));
    let deps = FetchDeps {
        metadata: shared.clone(),
        view: view.clone(),
        reader: ObjectReader::new(store.clone(), Arc::new(tail), history),
        budget: budgets.fetch.clone(),
        seams: seams.clone(),
    };
    let broker = Arc::new(Broker {
        metadata: shared,
        quorum: Arc::new(Operator::new(Vec::new(), seams.clone())),
        view: view.clone(),
        session,
        producer,
        fetcher: Fetcher::new(deps, FetchLimits::default()),
        budgets,
        seams: seams.clone(),
        metrics: Arc::new(Metrics::default()),
        options: ServerOptions::default(),
        num_partitions: 1,
        zone: None,
        connections: AtomicU64::new(0),
        group_requests: AtomicU64::new(0),
    });
    let end = opened.recv().await.expect("the view opens a stream");
    end.events.send(WatchEvent::Catalog(Arc::new(catalog()))).await.expect("the view reads");
    view.ready().await;
    let (client, server) = tokio::io::duplex(1 << 20);
    let refusals = Arc::new(RefusalLog::new(seams.clone()));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let stream = Stream::Boxed(Box::new(server));
    let serving = serve(stream, peer, broker, refusals, CancellationToken::new());
    seams.spawn("serve", async move {
        let _end = end; // The stream stays open for as long as the connection.
        serving.await;
    });
    World { client, store, metadata, seams }
}

fn catalog() -> Catalog {
    let id = TopicId::from_bytes([1; 16]);
    let topic = CatalogTopic {
        id,
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    };
    Catalog { topics: [(id, Arc::new(topic))].into(), ..Catalog::default() }
}

/// A frame: key, version, correlation id, no client id, body.
fn frame(key: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i32(10 + i32::try_from(body.len()).expect("short"));
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(correlation);
    out.put_i16(-1);
    out.put_slice(body);
    out
}

/// Produce v3 of one batch, acks=all.
fn produce(correlation: i32, sequence: i32) -> Vec<u8> {
    let batch = TestBatch { producer: (5, 0, sequence), ..TestBatch::default() }.bytes();
    let mut body = Vec::new();
    body.put_i16(-1);
    body.put_i16(-1);
    body.put_i32(20_000);
    body.put_i32(1);
    body.put_i16(1);
    body.put_slice(b"t");
    body.put_i32(1);
    body.put_i32(0);
    body.put_i32(i32::try_from(batch.len()).expect("short"));
    body.put_slice(&batch);
    frame(0, 3, correlation, &body)
}

/// InitProducerId v0 without a transactional id.
fn init_producer_id(correlation: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(-1);
    body.put_i32(60_000);
    frame(22, 0, correlation, &body)
}

impl World {
    async fn send(&mut self, frames: &[Vec<u8>]) {
        self.client.write_all(&frames.concat()).await.expect("it reads");
    }

    /// The correlation id of the next answer.
    async fn answer(&mut self) -> i32 {
        let length = self.client.read_i32().await.expect("an answer");
        let mut rest = vec![0; usize::try_from(length).expect("positive")];
        self.client.read_exact(&mut rest).await.expect("a whole answer");
        i32::from_be_bytes(*rest.first_chunk().expect("a header"))
    }

    async fn puts(&self, count: u64) {
        while self.store.started.load(std::sync::atomic::Ordering::SeqCst) < count {
            self.seams.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Moves by one with each call of the test, and by more when a producer id was asked for.
    async fn counter(&self) -> u64 {
        self.metadata.read_index().await.expect("it is there").value()
    }
}

#[tokio::test]
async fn what_follows_a_produce_starts_when_it_is_answered() {
    let mut world = world().await;
    let before = world.counter().await;
    let frames = [produce(1, 0), init_producer_id(2), produce(3, 1), init_producer_id(4)];
    world.send(&frames).await;
    world.puts(1).await;
    world.seams.sleep(Duration::from_millis(100)).await;
    assert_eq!(world.counter().await, before + 1, "nobody asked for a producer id");
    let early = world.seams.timeout(Duration::from_millis(1), world.client.read_u8()).await;
    assert!(early.is_none(), "nothing is answered before the first request");
    assert_eq!(world.store.started.load(std::sync::atomic::Ordering::SeqCst), 1);
    world.store.permits.add_permits(2);
    for correlation in 1..=4 {
        assert_eq!(world.answer().await, correlation);
    }
}

#[tokio::test]
async fn produces_overlap_and_are_answered_in_order() {
    let mut world = world().await;
    world.send(&[produce(1, 0)]).await;
    world.puts(1).await;
    world.send(&[produce(2, 1), produce(3, 2)]).await;
    world.puts(2).await; // While the first is under way.
    world.store.permits.add_permits(3);
    for correlation in 1..=3 {
        assert_eq!(world.answer().await, correlation);
    }
}
