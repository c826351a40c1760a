//! A bucket for the tests of the cache.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::{Outcome, StoreCondition, StoreError},
    model::{Lineage, ObjectName, ObjectSeq, SessionId},
    store::{Listed, MemoryStore, Store},
};

/// A memory store that counts GETs, may damage or refuse their answers, and gives way to other
/// tasks.
#[derive(Default)]
pub(super) struct CountingStore {
    inner: MemoryStore,
    gets: AtomicU64,
    damage: AtomicU64,
    refuse: AtomicU64,
}

impl CountingStore {
    pub(super) fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    /// Damages the next answers.
    pub(super) fn damage(&self, answers: u64) {
        self.damage.store(answers, Ordering::Relaxed);
    }

    /// Refuses the next answers, also to what was asked before.
    pub(super) fn refuse(&self, answers: u64) {
        self.refuse.store(answers, Ordering::Relaxed);
    }
}

/// Whether there was one left.
fn took_one(left: &AtomicU64) -> bool {
    let take = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
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
        self.gets.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if took_one(&self.refuse) {
            return Err(StoreError {
                operation: "get",
                key: key.to_owned(),
                outcome: Outcome::Unavailable,
                condition: StoreCondition::Busy,
                reason: "slow down".to_owned(),
            });
        }
        let bytes = self.inner.get_range(key, range).await?;
        if !took_one(&self.damage) {
            return Ok(bytes);
        }
        let mut damaged = bytes.to_vec();
        damaged[30] ^= 1;
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

pub(super) fn name(seq: u64, merged: bool) -> ObjectName {
    let lineage = Lineage { number: 0, nonce: 7 };
    ObjectName { lineage, session: SessionId::new(1), seq: ObjectSeq::new(seq), merged }
}

/// Length of a [`merged_object`]: one block.
pub(super) const MERGED_BYTES: u64 = 32 << 10;

/// An object of which every byte is `seq`.
pub(super) fn merged_object(seq: u64) -> Vec<Bytes> {
    vec![Bytes::from(vec![seq as u8; MERGED_BYTES as usize])]
}
