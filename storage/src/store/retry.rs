//! Retries with backoff, jitter, a deadline per attempt and one for all.
//!
//! A put is repeated with the same key and the same bytes, so a repeat of one that had worked is
//! harmless. Once an attempt's outcome is unknown, a later definite failure says nothing about that
//! attempt: the whole stays `Indefinite` until one attempt succeeds.

use std::{future::Future, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Store, key::Operation};
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    seam::{MonoTime, Seams},
};

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// An attempt without an answer for this long is given up.
    pub attempt_timeout: Duration,
    /// All attempts together.
    pub total_timeout: Duration,
    /// Pause before the second attempt; doubles each time, with jitter down to its half.
    pub backoff_first: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(60),
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_secs(4),
        }
    }
}

/// A store that retries what may succeed later.
pub struct RetryingStore<S> {
    inner: S,
    policy: RetryPolicy,
    seams: Seams,
}

/// What the attempts so far say.
struct Attempts<'a> {
    operation: Operation<'a>,
    deadline: MonoTime,
    pause: Duration,
    maybe_written: bool,
}

impl<S: Store> RetryingStore<S> {
    /// Retries what goes to `inner`.
    pub const fn new(inner: S, policy: RetryPolicy, seams: Seams) -> Self {
        Self { inner, policy, seams }
    }

    async fn retry<T, F>(
        &self,
        operation: Operation<'_>,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let is_write = operation.name == "put" || operation.name == "delete";
        let mut attempts = Attempts {
            operation,
            deadline: self.seams.clock.mono() + self.policy.total_timeout,
            pause: self.policy.backoff_first,
            maybe_written: false,
        };
        loop {
            let left = attempts.deadline.since(self.seams.clock.mono());
            let timeout = self.policy.attempt_timeout.min(left);
            let error = match self.seams.timeout(timeout, attempt()).await {
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => error,
                None => no_answer(operation, is_write, timeout),
            };
            attempts.maybe_written |= error.outcome == Outcome::Indefinite;
            let may_succeed = matches!(error.outcome, Outcome::Unavailable | Outcome::Indefinite);
            let pause = self.jittered(attempts.pause);
            let resume = self.seams.clock.mono() + pause;
            if !may_succeed || attempts.deadline <= resume {
                return Err(attempts.conclude(error));
            }
            tracing::debug!(%error, ?pause, "retrying");
            self.seams.clock.sleep_until(resume).await;
            attempts.pause = (attempts.pause * 2).min(self.policy.backoff_max);
        }
    }

    /// Between half of `pause` and all of it.
    fn jittered(&self, pause: Duration) -> Duration {
        let half = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX / 2);
        Duration::from_micros(half + self.seams.rng.next_u64() % (half + 1))
    }
}

impl Attempts<'_> {
    fn conclude(&self, last: StoreError) -> StoreError {
        if !self.maybe_written || last.outcome == Outcome::Indefinite {
            return last;
        }
        let reason = format!("an earlier attempt may have worked; the last: {}", last.reason);
        self.operation.error(Outcome::Indefinite, last.condition, reason)
    }
}

fn no_answer(operation: Operation<'_>, is_write: bool, timeout: Duration) -> StoreError {
    let outcome = if is_write { Outcome::Indefinite } else { Outcome::Unavailable };
    operation.error(outcome, StoreCondition::NoAnswer, format!("no answer within {timeout:?}"))
}

#[async_trait]
impl<S: Store> Store for RetryingStore<S> {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        self.retry(operation, || self.inner.put(key, body.clone())).await
    }

    /// Not repeated: after anything but a success the caller reads back and decides.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let operation = Operation { name: "put", key };
        let put = self.inner.put_if_absent(key, body);
        let timeout = self.policy.attempt_timeout;
        let answer = self.seams.timeout(timeout, put).await;
        answer.unwrap_or_else(|| Err(no_answer(operation, true, timeout)))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        self.retry(operation, || self.inner.get_range(key, range.clone())).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.retry(Operation { name: "get", key }, || self.inner.get(key)).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let key = keys.first().cloned().unwrap_or_default();
        let operation = Operation { name: "delete", key: &key };
        self.retry(operation, || self.inner.delete_many(keys.clone())).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation { name: "list", key: prefix };
        self.retry(operation, || self.inner.list(prefix, start_after, limit)).await
    }
}
