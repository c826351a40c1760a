//! Objects in a bucket of an S3-compatible store.
//!
//! Every request goes out exactly once: retries, hedges and deadlines are the decorators'. Payloads
//! are not signed; a checksum header that the store verifies guards them instead.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, aws::AmazonS3, path::Path,
};

pub use self::{
    bucket_api::{BucketApi, NotMade},
    environment::SettingsRefused,
};
use self::{classify::Intent, environment::World, setup::OperationClass};
use super::{Listed, Store, key::Operation};
use crate::error::{Outcome, StoreCondition, StoreError};

mod answer;
mod bucket_api;
mod classify;
mod credentials;
mod environment;
mod profile;
mod setup;

/// Bulk deletes ask for this many keys, the most that S3 takes.
const DELETE_KEYS_MAX: usize = 1000;

/// No store has larger objects, and some pass over a range header with larger numbers.
const OBJECT_BYTES_MAX: u64 = 1 << 50;

/// Where the bucket is and how to sign. What is `None` comes from the
/// environment, see [`S3Store::from_environment`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// Prefix of every key, without slashes around it; empty for the whole bucket.
    pub prefix: String,
    /// The store's address when it is not AWS, such as `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where stores do not care.
    pub region: Option<String>,
    /// Access key id.
    pub access_key_id: Option<String>,
    /// Secret access key.
    pub secret_access_key: Option<String>,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
    /// Whether the bucket is part of the host name rather than of the path.
    pub virtual_hosted: bool,
    /// Whether plain HTTP is allowed; an endpoint that says `http://` allows it too.
    pub allow_http: bool,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "(secret)"))
            .field("session_token", &self.session_token.as_ref().map(|_| "(secret)"))
            .field("virtual_hosted", &self.virtual_hosted)
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

/// Settings that make no client.
#[derive(Debug, thiserror::Error)]
#[error("store s3://{bucket} cannot be set up")]
pub struct S3Refused {
    /// The bucket.
    pub bucket: String,
    /// What is wrong.
    #[source]
    pub source: S3RefusedReason,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum S3RefusedReason {
    /// Options, environment or profile.
    #[error(transparent)]
    Settings(#[from] SettingsRefused),
    /// The SDK.
    #[error(transparent)]
    Sdk(#[from] object_store::Error),
}

/// A store in a bucket.
#[derive(Debug)]
pub struct S3Store {
    prefix: String,
    puts: Arc<AmazonS3>,
    gets: Arc<AmazonS3>,
    admin: Arc<AmazonS3>,
}

impl S3Store {
    /// Sets up the clients from `options` alone; without keys, the instance's role signs. Sends
    /// nothing.
    pub fn new(options: &S3Options) -> Result<Self, S3Refused> {
        Self::from_environment(options, &|_| None)
    }

    /// Sets up the clients; what `options` leaves open comes from the environment, which
    /// `variable` reads, and from the files it names (see the module `environment`). Sends nothing.
    pub fn from_environment(
        options: &S3Options,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, S3Refused> {
        let world = World { variable, read_file: &|path| std::fs::read_to_string(path) };
        Self::in_world(options, &world)
            .map_err(|source| S3Refused { bucket: options.bucket.clone(), source })
    }

    fn in_world(options: &S3Options, world: &World<'_>) -> Result<Self, S3RefusedReason> {
        let resolved = environment::resolve(options, world)?;
        let credentials = credentials::provider(
            resolved.credentials.clone(),
            &resolved.region,
            setup::client_options(&resolved)?,
        )?;
        let client = |class| {
            setup::client(options, &resolved, Arc::clone(&credentials), class).map(Arc::new)
        };
        Ok(Self {
            prefix: options.prefix.clone(),
            puts: client(OperationClass::Put)?,
            gets: client(OperationClass::Get)?,
            admin: client(OperationClass::Admin)?,
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
        let deleted = deleted.try_for_each(|_| std::future::ready(Ok(()))).await;
        deleted.map_err(|error| {
            let key = keys.first().map_or("", String::as_str);
            let operation = Operation { name: "delete", key };
            classify::store_error(operation, Intent::Write, &error)
        })
    }
}

#[async_trait]
impl Store for S3Store {
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

#[cfg(test)]
mod tests;
