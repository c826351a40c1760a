//! A store that fails on demand, and notices when a key is written with other bytes.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use aquifer_storage::{
    error::{Outcome, StoreCondition, StoreError},
    store::{Listed, MemoryStore, Store},
};
use async_trait::async_trait;
use bytes::Bytes;

/// The one key that a restore writes again.
const CLUSTER_FILE: &str = "cluster.json";

/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Ledger {
    objects: Arc<MemoryStore>,
    written: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// Writes that still succeed; negative for all.
    writes_left: Arc<AtomicI64>,
    lists: Arc<AtomicU64>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            objects: Arc::new(MemoryStore::new()),
            written: Arc::default(),
            writes_left: Arc::new(AtomicI64::new(-1)),
            lists: Arc::default(),
        }
    }

    /// Writes fail behind the next `count`.
    pub fn fail_after(&self, count: i64) {
        self.writes_left.store(count, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.fail_after(-1);
    }

    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::SeqCst)
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = self.objects.list(prefix, None, 10_000).await.unwrap();
        listed.into_iter().map(|listed| listed.key).collect()
    }

    /// Other bytes, as a disk would do it.
    pub async fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.objects.get(key).await.unwrap().to_vec();
        change(&mut bytes);
        self.objects.put(key, vec![bytes.into()]).await.unwrap();
    }

    fn write(&self, key: &str, body: &Bytes) -> Result<(), StoreError> {
        let fails = |left: i64| if left < 0 { None } else { Some((left - 1).max(0)) };
        if self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails) == Ok(0) {
            return Err(StoreError {
                operation: "put",
                key: key.to_owned(),
                outcome: Outcome::Unavailable,
                condition: StoreCondition::Busy,
                reason: "the test says so".to_owned(),
            });
        }
        let before = self.written.lock().unwrap().insert(key.to_owned(), body.clone());
        let same = before.is_none_or(|before| before == *body) || key == CLUSTER_FILE;
        assert!(same, "{key} was written twice, with other bytes");
        Ok(())
    }
}

#[async_trait]
impl Store for Ledger {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(key, &body.concat().into())?;
        self.objects.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let put = self.objects.put_if_absent(key, body.clone()).await;
        if put.is_ok()
            && let Err(error) = self.write(key, &body)
        {
            self.objects.delete_many(vec![key.to_owned()]).await?;
            return Err(error);
        }
        put
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.objects.get_range(key, range).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.objects.get(key).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.objects.delete_many(keys).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.objects.list(prefix, start_after, limit).await
    }
}
