//! The object store, behind a contract narrow enough to be simulated.

pub mod azure;
pub mod bucket;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "test-util"))]
pub mod fault;
pub mod file;
pub mod gcs;
pub mod hedge;
mod key;
pub mod memory;
pub mod metered;
pub mod retry;
pub mod s3;
pub mod url;

pub use bucket::BucketStore;
pub use file::FileStore;
pub use hedge::HedgedStore;
pub use memory::MemoryStore;
pub use metered::MeteredStore;
pub use retry::RetryingStore;
pub use s3::S3Options;
pub use url::StoreUrl;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key, relative to the store's prefix.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// An object store seen as immutable objects under one prefix.
///
/// Keys are relative to the prefix: `/`-separated, ASCII, no leading slash.
///
/// An implementation MUST make an object visible only whole, MUST serve a `get_range` that starts
/// after a successful `put` with the bytes put, MUST classify each error by
/// [`crate::error::Outcome`]
/// (`Indefinite` unless it is certain that nothing was written), and MUST NOT retry by itself:
/// retries, hedges and deadlines belong to the decorators.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes an object from a list of buffers, without concatenating them where the store allows.
    /// The same key is only ever written with the same bytes, so a repeat is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError>;

    /// Writes an object unless the key exists. `AlreadyExists` may mean this very write after a
    /// lost answer: read back and compare. `Unsupported` where the store ignores conditions.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Reads bytes `range`, exactly; a shorter object is an error of outcome `Corrupt`.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Reads a whole small object.
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// Deletes objects. A missing key counts as deleted.
    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError>;

    /// Lists at most `limit` objects under `prefix` with keys after `start_after`, in key order.
    /// Never on a data path.
    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError>;
}

#[cfg(test)]
mod tests;
