//! Objects in memory: for tests, the simulator and `memory:`. Nothing survives the process.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Listed, Store,
    key::{Operation, is_under},
};
use crate::error::StoreError;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all objects.
    pub fn stored_bytes(&self) -> u64 {
        self.objects().values().map(|object| object.len() as u64).sum()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // A panic elsewhere cannot leave a map of immutable values half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        Operation { name: "put", key }.check_key()?;
        self.objects().insert(key.to_owned(), Bytes::from(body.concat()));
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        operation.check_key()?;
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(operation.already_exists());
        }
        objects.insert(key.to_owned(), body);
        Ok(())
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        operation.check_key()?;
        operation.check_range(&range)?;
        let object = self.objects().get(key).cloned().ok_or_else(|| operation.not_found())?;
        let object_bytes = object.len() as u64;
        if object_bytes < range.end {
            let got = object_bytes.saturating_sub(range.start);
            return Err(operation.short(&range, got));
        }
        // Both bounds are at most the object's length, which is a usize.
        Ok(object.slice(range.start as usize..range.end as usize))
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        operation.check_key()?;
        self.objects().get(key).cloned().ok_or_else(|| operation.not_found())
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for key in &keys {
            Operation { name: "delete", key }.check_key()?;
        }
        let mut objects = self.objects();
        for key in &keys {
            objects.remove(key);
        }
        Ok(())
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        Operation { name: "list", key: prefix }.check_prefix()?;
        let from = match start_after {
            Some(key) if prefix <= key => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let listed = |(key, object): (&String, &Bytes)| Listed {
            key: key.clone(),
            size_bytes: object.len() as u64,
        };
        let objects = self.objects();
        let keys = objects.range::<str, _>((from, Bound::Unbounded));
        // Keys such as `wal-x` sort between `wal` and `wal/`.
        Ok(keys
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| is_under(key, prefix))
            .take(limit)
            .map(listed)
            .collect())
    }
}
