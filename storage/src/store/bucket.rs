//! Objects in a bucket: of S3 and whatever speaks as it does, of Google's or of Azure's store.
//!
//! Every request goes out exactly once: retries, hedges and deadlines are the decorators'.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};

use self::classify::Intent;
use super::{Listed, Store, key::Operation};
use crate::error::{Outcome, StoreCondition, StoreError};

pub(super) mod answer;
mod classify;
pub(super) mod clients;
pub(super) mod credentials;

/// Bulk deletes ask for this many keys, the most that S3 takes.
const DELETE_KEYS_MAX: usize = 1000;

/// No store has larger objects, and some pass over a range header with larger numbers.
const OBJECT_BYTES_MAX: u64 = 1 << 50;

/// A store in a bucket.
#[derive(Debug)]
pub struct BucketStore {
    prefix: String,
    puts: Arc<dyn ObjectStore>,
    gets: Arc<dyn ObjectStore>,
    admin: Arc<dyn ObjectStore>,
}

impl BucketStore {
    /// A store under `prefix`, with a client for each class of operations.
    pub(super) fn over<C: ObjectStore, E>(
        prefix: &str,
        client: impl Fn(clients::OperationClass) -> Result<C, E>,
    ) -> Result<Self, E> {
        let shared = |class| client(class).map(|client| Arc::new(client) as Arc<dyn ObjectStore>);
        Ok(Self {
            prefix: prefix.to_owned(),
            puts: shared(clients::OperationClass::Put)?,
            gets: shared(clients::OperationClass::Get)?,
            admin: shared(clients::OperationClass::Admin)?,
        })
    }

    /// The path of a checked key.
    fn path(&self, operation: Operation<'_>) -> Result<Path, StoreError> {
        operation.check_key()?;
        let spelled = if self.prefix.is_empty() {
            Path::parse(operation.key)
        } else {
            Path::parse(format!("{}/{}", self.prefix, operation.key))
        };
        spelled.map_err(|error| operation.error(Outcome::Rejected, StoreCondition::Other, error))
    }

    /// A path of the bucket as a key of ours.
    fn key_of(&self, path: &Path) -> Option<String> {
        let path = path.as_ref();
        if self.prefix.is_empty() {
            return Some(path.to_owned());
        }
        Some(path.strip_prefix(&self.prefix)?.strip_prefix('/')?.to_owned())
    }

    async fn delete_chunk(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut paths = Vec::with_capacity(keys.len());
        for key in keys {
            paths.push(Ok(self.path(Operation { name: "delete", key })?));
        }
        let deleted = self.admin.delete_stream(futures::stream::iter(paths).boxed());
        let key = keys.first().map_or("", String::as_str);
        let operation = Operation { name: "delete", key };
        let judged = deleted.map(|one| match one {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = classify::store_error(operation, Intent::Write, &error);
                // Some stores say so of a key that is not there.
                if error.condition == StoreCondition::NotFound { Ok(()) } else { Err(error) }
            }
        });
        judged.try_for_each(|()| std::future::ready(Ok(()))).await
    }
}

#[async_trait]
impl Store for BucketStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        let path = self.path(operation)?;
        let payload = PutPayload::from_iter(body);
        let put = self.puts.put(&path, payload).await;
        put.map(drop).map_err(|error| classify::store_error(operation, Intent::Write, &error))
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        let path = self.path(operation)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.admin.put_opts(&path, PutPayload::from_bytes(body), options).await;
        put.map(drop).map_err(|error| classify::store_error(operation, Intent::Create, &error))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        let path = self.path(operation)?;
        operation.check_range(&range)?;
        if OBJECT_BYTES_MAX <= range.start {
            return Err(operation.short(&range, 0));
        }
        let asked = range.start..range.end.min(OBJECT_BYTES_MAX);
        let got = self.gets.get_range(&path, asked).await;
        let bytes = got.map_err(|error| classify::store_error(operation, Intent::Read, &error))?;
        let got_bytes = bytes.len() as u64;
        if got_bytes != range.end - range.start {
            return Err(operation.short(&range, got_bytes));
        }
        Ok(bytes)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        let path = self.path(operation)?;
        let failed = |error| classify::store_error(operation, Intent::Read, &error);
        self.gets.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for chunk in keys.chunks(DELETE_KEYS_MAX) {
            self.delete_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation { name: "list", key: prefix };
        operation.check_prefix()?;
        let whole = match (self.prefix.as_str(), prefix) {
            ("", "") => None,
            (_, "") => Some(Path::from(self.prefix.as_str())),
            _ => Some(self.path(operation)?),
        };
        let listing = match start_after {
            None => self.admin.list(whole.as_ref()),
            Some(key) => {
                let offset = self.path(Operation { name: "list", key })?;
                self.admin.list_with_offset(whole.as_ref(), &offset)
            }
        };
        let metas: Vec<_> = listing
            .take(limit)
            .try_collect()
            .await
            .map_err(|error| classify::store_error(operation, Intent::Read, &error))?;
        let listed = metas.into_iter().filter_map(|meta| {
            let key = self.key_of(&meta.location)?;
            Some(Listed { key, size_bytes: meta.size })
        });
        Ok(listed.collect())
    }
}
