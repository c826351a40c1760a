//! Requests of one connection take effect in order (RELIABILITY H6), over a store whose PUTs wait.

use std::{collections::VecDeque, ops::Range, sync::atomic::AtomicU64};

use aquifer_metadata::{
    client::{CallError, CommitStream, Heartbeat, Metadata, WatchStream, cluster::Operator},
    machine::{
        Elapsed, WallTime,
        command::{AppliedReply, Command, GroupReply, HostPort, Reply},
        group::{
            Groups,
            command::{GroupAction, GroupCommand},
            query::GroupAsk,
        },
        query::{Answer as QueryAnswer, Query},
    },
    watch::{Catalog, CatalogTopic, WatchEvent},
};
use aquifer_storage::{
    budget::Budgets,
    cache::{ObjectReader, history::History, memory::LruCache},
    error::{Outcome, StoreError},
    format::test_batch::TestBatch,
    model::{Lineage, LogIndex, SessionId, TopicId, TopicPartition},
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

mod group_heartbeats;

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

/// The model, in which each command of a group takes one of the permits that the test gives.
/// Heartbeats of consumer groups are applied at once.
struct HeldGroups {
    inner: Arc<ModelMetadata>,
    /// As they came.
    asked: std::sync::Mutex<Vec<GroupAction>>,
    permits: Semaphore,
    groups: std::sync::Mutex<Groups>,
    /// How the next heartbeats of consumer groups fail.
    failing: std::sync::Mutex<VecDeque<Outcome>>,
}

impl HeldGroups {
    fn over(inner: Arc<ModelMetadata>) -> Self {
        Self {
            inner,
            asked: Default::default(),
            permits: Semaphore::new(0),
            groups: Default::default(),
            failing: Default::default(),
        }
    }

    /// One whose outcome will not be known takes effect.
    fn hear(&self, command: GroupCommand) -> Result<GroupReply, CallError> {
        let failing = self.failing.lock().unwrap().pop_front();
        self.asked.lock().unwrap().push(command.action.clone());
        let failed = |outcome| CallError { call: "test", outcome, reason: "as asked".to_owned() };
        let failed = failing.map(failed);
        if failing.is_none_or(|outcome| outcome == Outcome::Indefinite) {
            let (now, wall) = (Elapsed::from_millis(1), WallTime::from_millis(1));
            let every = |_: TopicPartition| true;
            let reply = self.groups.lock().unwrap().apply(&command, now, wall, &every).reply;
            return failed.map_or(Ok(reply), Err);
        }
        Err(failed.expect("it fails"))
    }
}

#[async_trait]
impl Metadata for HeldGroups {
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        let Command::Group(group) = command else { return self.inner.propose(command).await };
        let reply = match &group.action {
            GroupAction::ConsumerHeartbeat(_) => {
                let reply = Reply::Group(self.hear(group)?);
                return Ok(AppliedReply { index: LogIndex::new(1), reply });
            }
            GroupAction::Leave { members } => GroupReply::Leave(vec![Ok(()); members.len()]),
            GroupAction::CommitOffsets(_) => GroupReply::CommitOffsets(Ok(Vec::new())),
            other => panic!("{other:?}"),
        };
        self.asked.lock().unwrap().push(group.action);
        self.permits.acquire().await.expect("the test keeps it open").forget();
        Ok(AppliedReply { index: LogIndex::new(1), reply: Reply::Group(reply) })
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.inner.read_index().await
    }

    async fn query(&self, query: Query) -> Result<(LogIndex, QueryAnswer), CallError> {
        if let Query::Group(query) = query {
            let answer = match &query.ask {
                GroupAsk::ConsumerHeartbeat(_) => {
                    self.groups.lock().unwrap().query(&query, &|_: TopicPartition| true)
                }
                other => panic!("{other:?}: what changes a group is one call"),
            };
            return Ok((LogIndex::new(1), QueryAnswer::Group(answer)));
        }
        self.inner.query(query).await
    }

    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        self.inner.heartbeat(session).await
    }

    async fn open_commits(&self, session: SessionId) -> Result<CommitStream, CallError> {
        self.inner.open_commits(session).await
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        self.inner.open_watch(seen).await
    }
}

/// One connection to an agent that knows the topic "t".
struct World {
    client: DuplexStream,
    store: Arc<HeldStore>,
    metadata: Arc<ModelMetadata>,
    groups: Arc<HeldGroups>,
    seams: Seams,
}

async fn world() -> World {
    let seams = system::seams();
    let (metadata, mut opened) = ModelMetadata::new(seams.clone());
    let groups = Arc::new(HeldGroups::over(metadata.clone()));
    let shared: Arc<dyn Metadata> = groups.clone();
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
        has_given_defaults: false,
        num_partitions: 1,
        zone: None,
        connections: AtomicU64::new(0),
        group_requests: AtomicU64::new(0),
        reworks: tokio::sync::Semaphore::new(crate::broker::REWORKS_MAX).into(),
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
    World { client, store, metadata, groups, seams }
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
    let topics = [(id, Arc::new(topic))].into();
    Catalog { topics, lineage: Some(LINEAGE), ..Catalog::default() }
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

/// OffsetCommit v2 of partition 0 of "t" by nobody's member.
fn offset_commit(correlation: i32, offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(1);
    body.put_slice(b"g");
    body.put_i32(-1);
    body.put_i16(1);
    body.put_slice(b"m");
    body.put_i64(-1);
    body.put_i32(1);
    body.put_i16(1);
    body.put_slice(b"t");
    body.put_i32(1);
    body.put_i32(0);
    body.put_i64(offset);
    body.put_i16(-1);
    frame(8, 2, correlation, &body)
}

/// LeaveGroup v0.
fn leave_group(correlation: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(1);
    body.put_slice(b"g");
    body.put_i16(1);
    body.put_slice(b"m");
    frame(13, 0, correlation, &body)
}

impl World {
    async fn send(&mut self, frames: &[Vec<u8>]) {
        self.client.write_all(&frames.concat()).await.expect("it reads");
    }

    /// The correlation id of the next answer.
    async fn answer(&mut self) -> i32 {
        self.whole_answer().await.get_i32()
    }

    /// The next answer, from its correlation id on.
    async fn whole_answer(&mut self) -> Bytes {
        let length = self.client.read_i32().await.expect("an answer");
        let mut rest = vec![0; usize::try_from(length).expect("positive")];
        self.client.read_exact(&mut rest).await.expect("a whole answer");
        rest.into()
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

/// What a consumer sends that closes behind two `commitAsync`.
#[tokio::test]
async fn two_commits_of_offsets_and_a_leave_in_one_write_take_effect_in_that_order() {
    let mut world = world().await;
    world.send(&[offset_commit(1, 10), offset_commit(2, 20), leave_group(3)]).await;
    for begun in 1..=3 {
        while world.groups.asked.lock().unwrap().len() < begun {
            world.seams.sleep(Duration::from_millis(2)).await;
        }
        // Metadata does not answer yet, and whatever overlaps would get there now.
        world.seams.sleep(Duration::from_millis(50)).await;
        let asked = world.groups.asked.lock().unwrap().len();
        assert_eq!(asked, begun, "request {begun} is not answered, and another took effect");
        let early = world.seams.timeout(Duration::from_millis(1), world.client.read_u8()).await;
        assert!(early.is_none(), "request {begun} is answered before it took effect");
        world.groups.permits.add_permits(1);
        let seams = world.seams.clone();
        let answer = seams.timeout(Duration::from_secs(60), world.answer()).await;
        assert_eq!(answer, i32::try_from(begun).ok());
    }
    let asked = world.groups.asked.lock().unwrap();
    let offsets = |action: &GroupAction| match action {
        GroupAction::CommitOffsets(commit) => commit.offsets[0].1.offset.value(),
        GroupAction::Leave { .. } => -1,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked.iter().map(offsets).collect::<Vec<_>>(), [10, 20, -1]);
}

/// So a client sees a restore by a higher epoch, and by nothing else (RELIABILITY E7).
#[tokio::test]
async fn metadata_tells_the_lineage_as_the_leader_epoch_of_every_partition() {
    let mut world = world().await;
    let mut asked = Vec::new();
    asked.put_i32(1);
    asked.put_i16(1);
    asked.put_slice(b"t");
    asked.put_u8(0);
    world.send(&[frame(3, 7, 1, &asked)]).await;
    let mut answer = world.whole_answer().await;
    answer.advance(8); // Correlation id, throttle time.
    assert_eq!(answer.get_i32(), 0, "no brokers here");
    let cluster_id = usize::try_from(answer.get_i16()).unwrap_or(0);
    answer.advance(cluster_id + 4); // And the controller.
    assert_eq!(answer.get_i32(), 1, "one topic");
    answer.advance(2 + 2 + 1 + 1); // Its error, its name, whether it is internal.
    assert_eq!(answer.get_i32(), 1, "one partition");
    answer.advance(2 + 4 + 4); // Its error, its index, its leader.
    assert_eq!(answer.get_i32(), i32::try_from(LINEAGE.number).unwrap());
}
