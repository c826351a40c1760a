//! The whole write path over a memory store and a model of metadata.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::machine::command::HostPort;
use aquifer_storage::{
    error::{Outcome, StoreCondition, StoreError},
    format::{
        object::check_whole, object_key::object_key, record_batch::validate_produced,
        test_batch::TestBatch,
    },
    model::{Lineage, PartitionIndex, TopicId, TopicPartition},
    seam::{Seams, system},
    store::{Listed, MemoryStore, Store},
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    produce::{
        AppendOutcome, ConnectionId, FlushLimits, PendingAppend, Permit, ProduceBatch, Producer,
        ProducerConfig, ProducerDeps, PutBudget, testing::ModelMetadata,
    },
    session::{Session, SessionConfig},
};

const LINEAGE: Lineage = Lineage { number: 1, nonce: 9 };

/// A memory store that fails as told: 0 works, 1 refuses, 2 hangs, 3 loses its answers.
#[derive(Default)]
struct MoodyStore {
    inner: MemoryStore,
    mood: AtomicU8,
    puts: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for MoodyStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let error = |outcome| StoreError {
            operation: "put",
            key: key.to_owned(),
            outcome,
            condition: StoreCondition::Busy,
            reason: "as told".to_owned(),
        };
        self.puts.lock().unwrap().push(key.to_owned());
        match self.mood.load(Ordering::SeqCst) {
            0 => self.inner.put(key, body).await,
            1 => Err(error(Outcome::Unavailable)),
            2 => std::future::pending().await,
            _ => {
                self.mood.store(0, Ordering::SeqCst);
                self.inner.put(key, body).await?;
                Err(error(Outcome::Indefinite))
            }
        }
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

struct World {
    producer: Producer,
    store: Arc<MoodyStore>,
    metadata: Arc<ModelMetadata>,
    session: Session,
    seams: Seams,
}

async fn world() -> World {
    let seams = system::seams();
    let (metadata, _) = ModelMetadata::new(seams.clone());
    let advertised = HostPort { host: "agent".to_owned(), port: 9092 };
    let config = SessionConfig { advertised, zone: None };
    let client: Arc<dyn aquifer_metadata::client::Metadata> = metadata.clone();
    let (session, service) = Session::new(config, client.clone(), seams.clone());
    seams.spawn("session", service.run(std::future::pending()));
    session.registered().await;
    let store = Arc::new(MoodyStore::default());
    let deps = ProducerDeps {
        store: store.clone(),
        metadata: client,
        session: session.clone(),
        written: Arc::new(()),
        seams: seams.clone(),
    };
    let put_budget = PutBudget { per_second: 0, burst: 1 };
    let interval = Duration::from_millis(5);
    let limits = FlushLimits { put_budget, interval, ..FlushLimits::default() };
    let (producer, service) = Producer::new(ProducerConfig { limits, lineage: LINEAGE }, deps);
    seams.spawn("produce", service.run(std::future::pending()));
    World { producer, store, metadata, session, seams }
}

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex::new(0) }
}

impl World {
    async fn send(&self, sequence: i32, timeout: Duration) -> PendingAppend {
        let bytes = TestBatch { producer: (5, 0, sequence), ..TestBatch::default() }.bytes();
        let batch = validate_produced(bytes, 1 << 20).unwrap();
        let batch = ProduceBatch { partition: partition(), batch };
        self.producer.append(ConnectionId::new(1), timeout, (vec![batch], Permit::none())).await
    }

    async fn append(&self, sequence: i32) -> AppendOutcome {
        self.send(sequence, Duration::from_secs(10)).await.outcomes().await[0]
    }
}

#[tokio::test]
async fn an_acknowledged_batch_is_in_the_bucket_and_in_the_log() {
    let world = world().await;
    let outcome = world.append(0).await;
    assert!(matches!(outcome, AppendOutcome::Appended { base, .. } if base.value() == 0));
    let (session, seq, batch) =
        world.metadata.machine.lock().unwrap().logs[&partition()].appended[0];
    let name = aquifer_storage::model::ObjectName { lineage: LINEAGE, session, seq, merged: false };
    let object = world.store.get(&object_key(&name)).await.unwrap();
    check_whole(&object).unwrap();
    let start = batch.position as usize;
    let bytes = TestBatch { producer: (5, 0, 0), ..TestBatch::default() }.bytes();
    assert_eq!(object.slice(start..start + batch.length as usize), bytes);
}

#[tokio::test]
async fn pipelined_requests_commit_in_order_over_lost_answers() {
    let world = world().await;
    world.metadata.lose_every.store(3, Ordering::SeqCst);
    let mut pending = Vec::new();
    for sequence in 0..60 {
        pending.push(world.send(sequence, Duration::from_secs(20)).await);
        if sequence % 7 == 0 {
            world.seams.sleep(Duration::from_millis(3)).await;
        }
    }
    for (sequence, pending) in (0..).zip(pending) {
        let outcome = pending.outcomes().await[0];
        let in_place =
            matches!(outcome, AppendOutcome::Appended { base, .. } if base.value() == sequence);
        assert!(in_place, "sequence {sequence}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_refusing_store_fails_definitely_and_breaks_the_chain() {
    let world = world().await;
    world.store.mood.store(1, Ordering::SeqCst);
    assert_eq!(world.append(0).await, AppendOutcome::Unavailable);
    world.store.mood.store(0, Ordering::SeqCst);
    assert_eq!(world.append(1).await, AppendOutcome::BrokenChain);
    assert!(matches!(world.append(0).await, AppendOutcome::Appended { .. }));
    assert!(matches!(world.append(1).await, AppendOutcome::Appended { .. }));
}

#[tokio::test]
async fn a_put_of_unknown_outcome_is_repeated_under_the_same_key() {
    let world = world().await;
    world.store.mood.store(3, Ordering::SeqCst);
    assert!(matches!(world.append(0).await, AppendOutcome::Appended { .. }));
    let puts = world.store.puts.lock().unwrap().clone();
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[0], puts[1]);
}

#[tokio::test]
async fn a_hanging_store_ends_as_unknown_never_as_failed() {
    let world = world().await;
    world.store.mood.store(2, Ordering::SeqCst);
    let outcomes = world.send(0, Duration::from_millis(50)).await.outcomes().await;
    assert_eq!(outcomes, [AppendOutcome::Unknown]);
}

#[tokio::test]
async fn a_fenced_agent_goes_on_in_a_new_session() {
    let world = world().await;
    assert!(matches!(world.append(0).await, AppendOutcome::Appended { .. }));
    let before = world.session.registered().await.session;
    world.metadata.fence_all();
    let outcome = world.append(1).await;
    assert_eq!(outcome, AppendOutcome::Unavailable);
    let appended = world.append(1).await;
    assert!(matches!(appended, AppendOutcome::Appended { base, .. } if base.value() == 1));
    assert!(before < world.session.registered().await.session);
}

#[tokio::test]
async fn a_drain_answers_what_was_taken_and_refuses_what_comes_later() {
    let world = world().await;
    let pending = world.send(0, Duration::from_secs(10)).await;
    world.producer.drain().await;
    assert!(matches!(pending.outcomes().await[0], AppendOutcome::Appended { .. }));
    assert_eq!(world.append(1).await, AppendOutcome::Unavailable);
}
