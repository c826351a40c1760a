//! Asks a second time when the first answer is unusually late; the first answer wins.
//!
//! Safe for reads, and for puts because a key is only ever written with the same bytes. A put fails
//! definitely only when both attempts did.
//!
//! # Not here
//! Hedging `put_if_absent` (the loser would look like a conflict), deletes and lists.

use std::{
    future::Future,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use self::estimator::HedgeEstimator;
use super::{Listed, Store};
use crate::{
    error::{Outcome, StoreError},
    seam::Seams,
};

pub mod estimator;

/// A store that hedges puts and gets.
pub struct HedgedStore<S> {
    inner: S,
    puts: Mutex<HedgeEstimator>,
    gets: Mutex<HedgeEstimator>,
    seams: Seams,
}

impl<S: Store> HedgedStore<S> {
    /// Hedges what goes to `inner`.
    pub fn new(inner: S, seams: Seams) -> Self {
        let (puts, gets) = (Mutex::default(), Mutex::default());
        Self { inner, puts, gets, seams }
    }

    async fn hedged<T, F>(
        &self,
        estimator: &Mutex<HedgeEstimator>,
        body_bytes: u64,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let started = self.seams.clock.mono();
        let hedge_after = lock(estimator).start(body_bytes);
        let observe = |result: &Result<T, StoreError>| {
            if result.is_ok() {
                let elapsed = self.seams.clock.mono().since(started);
                lock(estimator).observe(body_bytes, elapsed);
            }
        };
        let mut first = Box::pin(attempt());
        let early = match hedge_after {
            None => Some(first.as_mut().await),
            Some(delay) => self.seams.timeout(delay, first.as_mut()).await,
        };
        if let Some(result) = early {
            observe(&result);
            return result;
        }
        if !lock(estimator).take_hedge() {
            let result = first.await;
            observe(&result);
            return result;
        }
        let second = Box::pin(attempt());
        let (result, other) = futures::future::select(first, second).await.factor_first();
        observe(&result);
        match result {
            Ok(value) => Ok(value),
            Err(error) => other.await.map_err(|last| less_definite(error, last)),
        }
    }
}

/// Of two failures of one write, the one that says less: only two definite ones are definite.
fn less_definite(one: StoreError, other: StoreError) -> StoreError {
    if one.outcome == Outcome::Indefinite { one } else { other }
}

fn lock(estimator: &Mutex<HedgeEstimator>) -> MutexGuard<'_, HedgeEstimator> {
    estimator.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl<S: Store> Store for HedgedStore<S> {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let body_bytes = body.iter().map(|piece| piece.len() as u64).sum();
        self.hedged(&self.puts, body_bytes, || self.inner.put(key, body.clone())).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let body_bytes = range.end.saturating_sub(range.start);
        self.hedged(&self.gets, body_bytes, || self.inner.get_range(key, range.clone())).await
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
