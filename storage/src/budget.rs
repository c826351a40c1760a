//! Byte budgets: memory is granted before it is filled.
//!
//! # Invariants
//! - The bytes granted by a budget and not yet released never exceed its capacity.
//! - Waiting for a budget is first come, first served, so a large request is not starved.
//! - No request waits for a second budget while it holds the first, except produce -> commit.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Kept for heartbeats, commits and EndTxn whatever the rest does.
pub const CONTROL_BYTES: u64 = 16 * 1024 * 1024;

/// Below this the shares are too small for one object and one fetch answer each.
pub const MEMORY_BYTES_MIN: u64 = 128 * 1024 * 1024;

/// More than the capacity of a budget was asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} B can never be granted from the {name} budget of {capacity_bytes} B")]
pub struct BudgetTooSmall {
    /// The budget.
    pub name: &'static str,
    /// What was asked.
    pub bytes: u64,
    /// What it has in all.
    pub capacity_bytes: u64,
}

/// Bytes that may be held at one time for one purpose. Clones share it.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    name: &'static str,
    capacity_bytes: u32,
    free: Arc<Semaphore>,
}

/// Granted bytes; released when dropped.
#[derive(Debug)]
#[must_use = "dropping it releases the bytes"]
pub struct BudgetPermit {
    permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of `capacity_bytes`, at most 4 GiB less one byte.
    pub fn new(name: &'static str, capacity_bytes: u64) -> Self {
        let capacity_bytes = u32::try_from(capacity_bytes).unwrap_or(u32::MAX);
        let permits = usize::try_from(capacity_bytes).unwrap_or(usize::MAX);
        let free = Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Self { name, capacity_bytes, free: Arc::new(free) }
    }

    /// What the budget is for.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes in all.
    pub const fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes as u64
    }

    /// Bytes granted and not yet released.
    pub fn in_use(&self) -> u64 {
        self.capacity_bytes().saturating_sub(self.free.available_permits() as u64)
    }

    /// Waits until `bytes` are free and takes them.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and takes nothing.
    pub async fn acquire(&self, bytes: u64) -> Result<BudgetPermit, BudgetTooSmall> {
        let asked = self.check(bytes)?;
        let permit = Arc::clone(&self.free).acquire_many_owned(asked).await;
        Ok(BudgetPermit { permit: permit.expect("the semaphore is never closed") })
    }

    /// Takes `bytes` if they are free now and nobody waits; `Ok(None)` when not.
    pub fn try_acquire(&self, bytes: u64) -> Result<Option<BudgetPermit>, BudgetTooSmall> {
        let asked = self.check(bytes)?;
        match Arc::clone(&self.free).try_acquire_many_owned(asked) {
            Ok(permit) => Ok(Some(BudgetPermit { permit })),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => unreachable!("the semaphore is never closed"),
        }
    }

    fn check(&self, bytes: u64) -> Result<u32, BudgetTooSmall> {
        let asked = u32::try_from(bytes).ok().filter(|&bytes| bytes <= self.capacity_bytes);
        let &Self { name, capacity_bytes, .. } = self;
        let capacity_bytes = u64::from(capacity_bytes);
        asked.ok_or(BudgetTooSmall { name, bytes, capacity_bytes })
    }
}

impl BudgetPermit {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64
    }

    /// Releases what is above `bytes`, when less was needed than asked.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes().saturating_sub(bytes);
        let excess = usize::try_from(excess).expect("is below what is held, a usize");
        drop(self.permit.split(excess));
    }

    /// Splits `bytes` off into a permit of their own; `None` when fewer are held.
    pub fn split(&mut self, bytes: u64) -> Option<Self> {
        let permit = self.permit.split(usize::try_from(bytes).ok()?)?;
        Some(Self { permit })
    }

    /// Joins a permit of the same budget.
    ///
    /// # Panics
    /// When `other` is of another budget.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }
}

/// The memory of an agent, split by purpose.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Requests other than Produce and Fetch, which never use it.
    pub control: ByteBudget,
    /// Cached blocks. The caches take it whole as their capacity.
    pub cache: ByteBudget,
    /// Produce frames until their commit.
    pub produce: ByteBudget,
    /// Fetch requests until they are answered, which may be minutes: apart from everything else,
    /// so that parked ones keep nobody waiting but fetches.
    pub fetch_requests: ByteBudget,
    /// Fetch answers until they are written.
    pub fetch: ByteBudget,
    /// Merge inputs and outputs.
    pub merge: ByteBudget,
}

impl Budgets {
    /// Splits `memory_bytes`: the control reserve first, then cache 50, produce 25, fetch 20
    /// (2 of them for requests) and merge 5 percent of the rest. Less than [`MEMORY_BYTES_MIN`]
    /// counts as that.
    pub fn split(memory_bytes: u64) -> Self {
        let shared = memory_bytes.max(MEMORY_BYTES_MIN) - CONTROL_BYTES;
        let share = |name, percent| ByteBudget::new(name, shared / 100 * percent);
        Self {
            control: ByteBudget::new("control", CONTROL_BYTES),
            cache: share("cache", 50),
            produce: share("produce", 25),
            fetch_requests: share("fetch requests", 2),
            fetch: share("fetch", 18),
            merge: share("merge", 5),
        }
    }

    /// All budgets, for metrics.
    pub fn all(&self) -> [&ByteBudget; 6] {
        let Self { control, cache, produce, fetch_requests, fetch, merge } = self;
        [control, cache, produce, fetch_requests, fetch, merge]
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn granted_bytes_never_exceed_the_capacity() {
        let budget = ByteBudget::new("test", 100);
        let first = budget.try_acquire(60).unwrap().unwrap();
        assert!(budget.try_acquire(41).unwrap().is_none());
        let second = budget.try_acquire(40).unwrap().unwrap();
        assert_eq!(budget.in_use(), 100);
        drop((first, second));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn what_can_never_be_granted_is_refused_at_once() {
        let budget = ByteBudget::new("test", 100);
        assert!(budget.try_acquire(101).is_err());
        assert!(budget.acquire(u64::MAX).now_or_never().unwrap().is_err());
    }

    #[test]
    fn a_large_request_is_not_overtaken() {
        let budget = ByteBudget::new("test", 100);
        let held = budget.try_acquire(50).unwrap().unwrap();
        let mut large = Box::pin(budget.acquire(80));
        assert!((&mut large).now_or_never().is_none());
        let mut small = Box::pin(budget.acquire(10));
        assert!((&mut small).now_or_never().is_none(), "the large one came first");
        drop(held);
        assert_eq!(large.now_or_never().unwrap().unwrap().bytes(), 80);
    }

    #[test]
    fn a_dropped_wait_takes_nothing() {
        let budget = ByteBudget::new("test", 10);
        let held = budget.try_acquire(10).unwrap().unwrap();
        let mut waiting = Box::pin(budget.acquire(5));
        assert!((&mut waiting).now_or_never().is_none());
        drop((waiting, held));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn a_permit_shrinks_and_splits() {
        let budget = ByteBudget::new("test", 100);
        let mut permit = budget.try_acquire(90).unwrap().unwrap();
        permit.shrink_to(50);
        assert_eq!(budget.in_use(), 50);
        let part = permit.split(20).unwrap();
        assert!(permit.split(31).is_none());
        assert_eq!((permit.bytes(), part.bytes()), (30, 20));
        permit.merge(part);
        assert_eq!(permit.bytes(), 50);
    }

    #[test]
    fn the_shares_stay_within_the_memory() {
        for memory_bytes in [0, MEMORY_BYTES_MIN, 512 << 20, 4 << 30] {
            let budgets = Budgets::split(memory_bytes);
            let shares: u64 = budgets.all().iter().map(|budget| budget.capacity_bytes()).sum();
            assert!(shares <= memory_bytes.max(MEMORY_BYTES_MIN));
            assert!(budgets.cache.capacity_bytes() > budgets.produce.capacity_bytes());
        }
    }
}
