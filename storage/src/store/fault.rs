//! A store that fails on cue, for tests and the simulator.

use std::{
    collections::VecDeque,
    future::pending,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Store, key::Operation};
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    seam::Seams,
};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Fails without an effect.
    Refuse,
    /// Says 503 without an effect, which nobody can know.
    SlowDown,
    /// Takes effect, and the answer is lost.
    LoseAnswer,
    /// Never answers and has no effect.
    Hang,
    /// Takes effect after a while.
    Delay(Duration),
}

/// Chooses the fault of each request.
pub trait FaultScript: Send + 'static {
    /// The fault of the next request, which is `operation` (`put`, `get`, `delete`, `list`).
    fn next(&mut self, operation: &'static str, key: &str) -> Fault;
}

/// The faults of the next requests, in order, then none.
impl FaultScript for VecDeque<Fault> {
    fn next(&mut self, _operation: &'static str, _key: &str) -> Fault {
        self.pop_front().unwrap_or(Fault::None)
    }
}

/// A store with faults.
pub struct FaultStore<S> {
    inner: S,
    script: Mutex<Box<dyn FaultScript>>,
    seams: Seams,
}

impl<S: Store> FaultStore<S> {
    /// Faults of `script` in front of `inner`.
    pub fn new(inner: S, script: impl FaultScript, seams: Seams) -> Self {
        Self { inner, script: Mutex::new(Box::new(script)), seams }
    }

    /// The store behind the faults.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn next_fault(&self, operation: Operation<'_>) -> Fault {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.next(operation.name, operation.key)
    }

    async fn with_fault<T>(
        &self,
        operation: Operation<'_>,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.next_fault(operation) {
            Fault::None => request.await,
            Fault::Refuse => {
                let (outcome, condition) = (Outcome::Unavailable, StoreCondition::Busy);
                Err(operation.error(outcome, condition, "scripted refusal"))
            }
            Fault::SlowDown => {
                let is_read = matches!(operation.name, "get" | "list");
                let outcome = if is_read { Outcome::Unavailable } else { Outcome::Indefinite };
                Err(operation.error(outcome, StoreCondition::Busy, "scripted 503 SlowDown"))
            }
            Fault::LoseAnswer => {
                drop(request.await);
                let (outcome, condition) = (Outcome::Indefinite, StoreCondition::NoAnswer);
                Err(operation.error(outcome, condition, "scripted loss of the answer"))
            }
            Fault::Hang => pending().await,
            Fault::Delay(delay) => {
                self.seams.sleep(delay).await;
                request.await
            }
        }
    }
}

#[async_trait]
impl<S: Store> Store for FaultStore<S> {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.with_fault(Operation { name: "put", key }, self.inner.put(key, body)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.with_fault(Operation { name: "put", key }, self.inner.put_if_absent(key, body)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.with_fault(Operation { name: "get", key }, self.inner.get_range(key, range)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.with_fault(Operation { name: "get", key }, self.inner.get(key)).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let key = keys.first().cloned().unwrap_or_default();
        let operation = Operation { name: "delete", key: &key };
        self.with_fault(operation, self.inner.delete_many(keys)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation { name: "list", key: prefix };
        self.with_fault(operation, self.inner.list(prefix, start_after, limit)).await
    }
}
