//! Objects in a bucket of an S3-compatible store.
//!
//! Every request goes out exactly once: retries, hedges and deadlines are the decorators'. Payloads
//! are not signed; a checksum header that the store verifies guards them instead.
//!
//! # Not here
//! Making buckets, lifecycle rules, credentials from profiles.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut},
    path::Path,
};

use super::{Listed, Store, key::Operation};
use crate::error::{Outcome, StoreCondition, StoreError};

mod classify;

/// Bulk deletes ask for this many keys, the most that S3 takes.
const DELETE_KEYS_MAX: usize = 1000;

/// A connection that takes longer than this goes to a dead address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Idle connections are closed by stores and balancers; ours go first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the bucket is and how to sign. What is `None` comes from the SDK's credential chain.
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
    /// Whether plain HTTP is allowed.
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

/// Options that make no client.
#[derive(Debug, thiserror::Error)]
#[error("store s3://{bucket} cannot be set up")]
pub struct S3Refused {
    /// The bucket.
    pub bucket: String,
    /// What is wrong.
    #[source]
    pub source: object_store::Error,
}

/// Each class has its own connections, so that a slow one never queues before another.
#[derive(Clone, Copy, Debug)]
enum OperationClass {
    Put,
    Get,
    Admin,
}

impl OperationClass {
    /// How long one request may take with its whole body. The decorators' deadlines are shorter;
    /// this one only frees connections that hang.
    const fn timeout(self) -> Duration {
        match self {
            Self::Put | Self::Admin => Duration::from_secs(60),
            Self::Get => Duration::from_secs(30),
        }
    }

    const fn idle_connections_max(self) -> usize {
        match self {
            Self::Put => 64,
            Self::Get => 128,
            Self::Admin => 4,
        }
    }
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
    /// Sets up the clients. Sends nothing.
    pub fn new(options: &S3Options) -> Result<Self, S3Refused> {
        let client = |class| {
            build_client(options, class)
                .map(Arc::new)
                .map_err(|source| S3Refused { bucket: options.bucket.clone(), source })
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
        let mut deleted = self.admin.delete_stream(futures::stream::iter(paths).boxed());
        let mut first_failure = None;
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) if first_failure.is_none() => first_failure = Some(error),
                Err(_) => {}
            }
        }
        match first_failure {
            None => Ok(()),
            Some(error) => {
                let key = keys.first().map_or("", String::as_str);
                Err(classify::write_error(Operation { name: "delete", key }, &error))
            }
        }
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        let path = self.path(operation)?;
        let payload = PutPayload::from_iter(body);
        let put = self.puts.put(&path, payload).await;
        put.map(drop).map_err(|error| classify::write_error(operation, &error))
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        let path = self.path(operation)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.admin.put_opts(&path, PutPayload::from_bytes(body), options).await;
        put.map(drop).map_err(|error| classify::write_error(operation, &error))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        let path = self.path(operation)?;
        operation.check_range(&range)?;
        let got = self.gets.get_range(&path, range.clone()).await;
        let bytes = got.map_err(|error| classify::read_error(operation, &error))?;
        let got_bytes = bytes.len() as u64;
        if got_bytes != range.end - range.start {
            return Err(operation.short(&range, got_bytes));
        }
        Ok(bytes)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        let path = self.path(operation)?;
        let failed = |error| classify::read_error(operation, &error);
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
            .map_err(|error| classify::read_error(operation, &error))?;
        let listed = metas.into_iter().filter_map(|meta| {
            let key = self.key_of(&meta.location)?;
            Some(Listed { key, size_bytes: meta.size })
        });
        Ok(listed.collect())
    }
}

/// A method of the SDK's builder that takes one setting.
type SetOption = fn(AmazonS3Builder, String) -> AmazonS3Builder;

fn build_client(
    options: &S3Options,
    class: OperationClass,
) -> Result<AmazonS3, object_store::Error> {
    let client = ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(class.timeout())
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .with_pool_max_idle_per_host(class.idle_connections_max());
    let no_retries = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: class.timeout(),
    };
    // The SDK's own credential chain reads the environment; nothing else here does.
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_bucket_name(&options.bucket)
        .with_allow_http(options.allow_http)
        .with_virtual_hosted_style_request(options.virtual_hosted)
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(no_retries);
    let set = |builder, value: &Option<String>, with: SetOption| match value {
        Some(value) => with(builder, value.clone()),
        None => builder, // Left to the credential chain.
    };
    builder = set(builder, &options.endpoint, AmazonS3Builder::with_endpoint);
    builder = set(builder, &options.region, AmazonS3Builder::with_region);
    builder = set(builder, &options.access_key_id, AmazonS3Builder::with_access_key_id);
    builder = set(builder, &options.secret_access_key, AmazonS3Builder::with_secret_access_key);
    builder = set(builder, &options.session_token, AmazonS3Builder::with_token);
    builder.build()
}

#[cfg(test)]
mod tests;
