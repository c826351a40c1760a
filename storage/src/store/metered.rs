//! Counts what goes to a store and what comes back. Put it innermost, so that it counts requests
//! that cost money rather than calls.

use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Store};
use crate::error::StoreError;

/// Counts of one kind of operation since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Requests started.
    pub requests: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// Requests whose caller went away before their end.
    pub abandoned: u64,
    /// Bytes of bodies written or read with success.
    pub bytes: u64,
    /// Requests under way now.
    pub in_flight: u64,
}

/// Counts of a store since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// `put` and `put_if_absent`.
    pub put: OperationCounts,
    /// `get` and `get_range`.
    pub get: OperationCounts,
    /// `delete_many`, per call.
    pub delete: OperationCounts,
    /// `list`.
    pub list: OperationCounts,
}

/// The live counters behind a [`StoreSnapshot`]. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct StoreCounters {
    all: Arc<AllCounters>,
}

#[derive(Debug, Default)]
struct AllCounters {
    put: Counters,
    get: Counters,
    delete: Counters,
    list: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    abandoned: AtomicU64,
    bytes: AtomicU64,
    in_flight: AtomicU64,
}

impl StoreCounters {
    /// The counts so far. Fields may be a request apart from each other.
    pub fn snapshot(&self) -> StoreSnapshot {
        let AllCounters { put, get, delete, list } = &*self.all;
        StoreSnapshot {
            put: put.snapshot(),
            get: get.snapshot(),
            delete: delete.snapshot(),
            list: list.snapshot(),
        }
    }
}

impl Counters {
    fn snapshot(&self) -> OperationCounts {
        OperationCounts {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    /// Runs one request; `bytes_of` says how many bytes its success moved.
    async fn count<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
        bytes_of: impl FnOnce(&T) -> u64,
    ) -> Result<T, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut under_way = UnderWay { counters: self, ended: false };
        let result = request.await;
        under_way.ended = true;
        match &result {
            Ok(value) => self.bytes.fetch_add(bytes_of(value), Ordering::Relaxed),
            Err(_) => self.errors.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}

/// Counts the end of a request, also when its future is dropped.
struct UnderWay<'a> {
    counters: &'a Counters,
    ended: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A store that counts.
#[derive(Debug)]
pub struct MeteredStore<S> {
    inner: S,
    counters: StoreCounters,
}

impl<S: Store> MeteredStore<S> {
    /// Counts what goes to `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, counters: StoreCounters::default() }
    }

    /// The counters, for metrics.
    pub fn counters(&self) -> StoreCounters {
        self.counters.clone()
    }
}

#[async_trait]
impl<S: Store> Store for MeteredStore<S> {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let body_bytes = body.iter().map(|piece| piece.len() as u64).sum();
        self.counters.all.put.count(self.inner.put(key, body), |()| body_bytes).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let body_bytes = body.len() as u64;
        let put = self.inner.put_if_absent(key, body);
        self.counters.all.put.count(put, |()| body_bytes).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let get = self.inner.get_range(key, range);
        self.counters.all.get.count(get, |bytes| bytes.len() as u64).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let get = self.inner.get(key);
        self.counters.all.get.count(get, |bytes| bytes.len() as u64).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.counters.all.delete.count(self.inner.delete_many(keys), |()| 0).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.counters.all.list.count(self.inner.list(prefix, start_after, limit), |_| 0).await
    }
}
