//! A log in a bucket, and what is in it, for the tests of the read path.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{
    cache::{ObjectReader, history::History, memory::LruCache},
    error::StoreError,
    format::{
        object::ObjectBuilder, object_key::object_key, record_batch::split_batches,
        test_batch::TestBatch,
    },
    model::{
        LeaderEpoch, Lineage, ObjectName, ObjectSeq, Offset, OffsetRange, PartitionIndex,
        SessionId, Timestamp, TopicId, TopicPartition,
    },
    store::{Listed, MemoryStore, Store},
};
use async_trait::async_trait;
use bytes::Bytes;

pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch::new(3);

pub(crate) fn partition(index: u32) -> TopicPartition {
    let partition = PartitionIndex::new(index as i32);
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition }
}

pub(crate) fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

pub(crate) fn object_name(seq: u64, merged: bool) -> ObjectName {
    let lineage = Lineage { number: 1, nonce: 5 };
    ObjectName { lineage, session: SessionId::new(1), seq: ObjectSeq::new(seq), merged }
}

pub(crate) fn pointers(log_start: i64, end: i64) -> Pointers {
    Pointers {
        log_start: offset(log_start),
        last_stable: offset(end),
        high_watermark: offset(end),
        leader_epoch: EPOCH,
    }
}

/// A batch as a consumer must get it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentBatch {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) bytes: Vec<u8>,
}

/// One partition's log: its rows, and the batches as they must be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelLog {
    pub(crate) runs: Vec<Run>,
    pub(crate) batches: Vec<SentBatch>,
}

/// Shape of a batch: records, and bytes of each value.
pub(crate) type Shape = (u32, usize);

impl ModelLog {
    pub(crate) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.next)
    }

    /// Writes one object with these batches behind `padding` batches of another partition, and
    /// appends its row.
    pub(crate) async fn append(
        &mut self,
        store: &dyn Store,
        object: ObjectName,
        (padding, shapes): (u32, &[Shape]),
    ) {
        let mut builder =
            if object.merged { ObjectBuilder::merged() } else { ObjectBuilder::new() };
        let fill = TestBatch { records: 20, value: vec![b'.'; 32], ..TestBatch::default() };
        for _ in 0..padding {
            builder.add(partition(0), checked(fill.bytes()));
        }
        let base = self.end();
        let mut places = Vec::new();
        for &(records, value_bytes) in shapes {
            let base = self.end();
            let stored_base = if object.merged { base } else { 0 };
            let value = vec![b'a' + (base % 26) as u8; value_bytes];
            let batch =
                TestBatch { records, value, base_offset: stored_base, ..TestBatch::default() };
            let mut sent = batch.bytes().to_vec();
            sent[..8].copy_from_slice(&base.to_be_bytes());
            sent[12..16].copy_from_slice(&EPOCH.value().to_be_bytes());
            let next = base + i64::from(records);
            self.batches.push(SentBatch { base, next, bytes: sent });
            places.push(builder.add(partition(1), checked(batch.bytes())));
        }
        let built = builder.finish();
        let first = built.positions[places[0]].range.start;
        let end = built.positions[places[places.len() - 1]].range.end;
        self.runs.push(Run {
            offsets: OffsetRange { base: offset(base), next: offset(self.end()) },
            object,
            object_bytes: built.object_bytes,
            position: first as u32,
            length: (end - first) as u32,
            max_timestamp: Timestamp::NONE,
            offsets_final: object.merged,
        });
        store.put(&object_key(&object), built.body).await.unwrap();
    }

    /// What a consumer at `from` may get below `bound`, by looking at every batch.
    pub(crate) fn from(&self, from: i64, bound: i64) -> Vec<SentBatch> {
        let wanted = |batch: &&SentBatch| from < batch.next && batch.base < bound;
        self.batches.iter().filter(wanted).cloned().collect()
    }
}

/// Rows of `records` records each that hold the offsets from `base` to `next`, of no object.
pub(crate) fn rows(base: i64, next: i64, records: i64) -> Vec<Run> {
    let bases = (base..next).step_by(records as usize);
    let row = |base| Run {
        offsets: OffsetRange { base: offset(base), next: offset(base + records) },
        object: object_name(base as u64, false),
        object_bytes: 1 << 20,
        position: 0,
        length: 1000,
        max_timestamp: Timestamp::NONE,
        offsets_final: false,
    };
    bases.map(row).collect()
}

fn checked(bytes: Bytes) -> aquifer_storage::format::record_batch::CheckedBatch {
    split_batches(bytes).next().unwrap().unwrap().check().unwrap()
}

/// The bytes of batches, one behind the other.
pub(crate) fn joined(batches: &[SentBatch]) -> Vec<u8> {
    batches.iter().flat_map(|batch| batch.bytes.clone()).collect()
}

/// A memory store that counts GETs and damages some of their answers.
#[derive(Default)]
pub(crate) struct CountingStore {
    inner: MemoryStore,
    pub(crate) gets: AtomicU64,
    /// Answers still to be damaged, at [`Self::damage_at`].
    pub(crate) damage: AtomicU64,
    pub(crate) damage_at: AtomicU64,
    /// The object that never answers.
    pub(crate) stalled: Mutex<Option<String>>,
    asked: Mutex<BTreeMap<String, u64>>,
}

impl CountingStore {
    /// How often this object was asked for.
    pub(crate) fn asked(&self, key: &str) -> u64 {
        self.asked.lock().unwrap().get(key).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Store for CountingStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.inner.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        *self.asked.lock().unwrap().entry(key.to_owned()).or_default() += 1;
        let stalled = self.stalled.lock().unwrap().as_deref() == Some(key);
        if stalled {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        let bytes = self.inner.get_range(key, range).await?;
        let left = self.damage.load(Ordering::SeqCst);
        if left == 0 {
            return Ok(bytes);
        }
        self.damage.store(left - 1, Ordering::SeqCst);
        let mut damaged = bytes.to_vec();
        damaged[self.damage_at.load(Ordering::SeqCst) as usize] ^= 1;
        Ok(damaged.into())
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

pub(crate) fn object_reader(store: Arc<dyn Store>) -> ObjectReader {
    let (tail, history) = (LruCache::new(1 << 30), History::new(1 << 30));
    ObjectReader::new(store, Arc::new(tail), history)
}
