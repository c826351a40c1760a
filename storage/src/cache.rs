//! Reads byte ranges of objects through memory: what was just written or read is not asked again.
//!
//! Objects are immutable and never renamed, so nothing in here is ever stale. Small objects that a
//! flush wrote are cached whole; merged and oversized ones in aligned blocks. The *tail* holds what
//! consumers at the end of the log read; catch-up reads go through the *history*, which is read
//! ahead of them, forgotten behind them, and never evicts the tail.
//!
//! # Invariants
//! - One block is fetched once at a time, however many readers wait for it.
//! - A whole object from the store enters the cache only after its footer and every extent's CRC
//!   were checked. Blocks of larger objects cannot be checked alone: whoever splits their batches
//!   checks each batch's CRC.
//! - What was written can be read from the moment [`ObjectReader::insert_written`] is called.
//! - The bytes of fetches under way stay below a bound of their own, one for the tail and one for
//!   catch-up reads, so neither memory nor the tail is at the mercy of a scan. What is read ahead
//!   has its place in the history reserved instead.
//!
//! # Not here
//! Which range to read (the fetch planner), NVMe, the zone's block owner.

pub mod block;
pub mod history;
pub mod memory;
pub mod plan;
pub mod read_ahead;
pub mod single_flight;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;

use self::{
    block::{CachedBlock, CachedSlice},
    history::History,
    plan::{Block, plan_blocks},
    read_ahead::ReadAhead,
    single_flight::SingleFlight,
};
use crate::{
    budget::ByteBudget,
    error::{Outcome, StoreCondition, StoreError},
    format::{
        object::{ObjectDamaged, check_whole},
        object_key::object_key,
    },
    model::ObjectName,
    planted::{self, Bug},
    store::Store,
};

/// A damaged body is fetched once more before anyone is told: damage in transit is not for ever.
const CHECKED_FETCH_ATTEMPTS: usize = 2;

/// Default of [`ObjectReader::with_flight_bytes`]: eight full objects at a time and class, which
/// at 150 ms for each is more than 400 MB/s.
const FLIGHT_BYTES: u64 = 64 << 20;

/// Names one cached block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The object.
    pub object: ObjectName,
    /// Which block of it; a whole object is block 0.
    pub block: u32,
}

/// A bounded set of blocks. Implementations choose what to forget.
#[async_trait]
pub trait BlockCache: Send + Sync + 'static {
    /// The block, if it is still here.
    async fn get(&self, key: &BlockKey) -> Option<CachedBlock>;

    /// Adds a block. It may be forgotten at once. When this returns, the cache is within its
    /// capacity again.
    async fn insert(&self, key: BlockKey, block: CachedBlock);

    /// Forgets a block.
    async fn remove(&self, key: &BlockKey);

    /// Bytes held.
    fn held_bytes(&self) -> u64;
}

/// A read that gave no bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The range does not lie inside the object.
    #[error("bytes {start}..{end} of object {object} of {object_bytes} B")]
    Range {
        /// The object.
        object: ObjectName,
        /// Its length, as the caller knows it.
        object_bytes: u64,
        /// The first byte asked.
        start: u64,
        /// The first byte not asked.
        end: u64,
    },
    /// The store did not answer with the bytes.
    #[error("object {object} cannot be read")]
    Store {
        /// The object.
        object: ObjectName,
        /// What the store said.
        #[source]
        source: Arc<StoreError>,
    },
    /// The bytes are not what was written, twice.
    #[error("object {object} is damaged")]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What does not fit.
        #[source]
        source: ObjectDamaged,
    },
}

impl ReadError {
    /// What the caller may conclude.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Range { .. } => Outcome::Rejected,
            Self::Store { source, .. } => source.outcome,
            Self::Damaged { .. } => Outcome::Corrupt,
        }
    }

    /// Whether the object is not there: refresh the coordinates and ask again.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.condition == StoreCondition::NotFound)
    }
}

/// Who reads: decides which cache is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadClass {
    /// A consumer at the end of the log.
    Tail,
    /// A consumer that catches up, or a merge.
    CatchUp,
    /// Nobody yet: a consumer that catches up will come here.
    Ahead,
}

/// Counts of an [`ObjectReader`] since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSnapshot {
    /// Blocks found in the tail cache.
    pub tail_hits: u64,
    /// Blocks found in the history.
    pub history_hits: u64,
    /// Blocks that were not in memory, whether fetched or waited for.
    pub misses: u64,
    /// Bytes fetched from the store.
    pub fetched_bytes: u64,
    /// Bytes held by the tail cache.
    pub tail_bytes: u64,
    /// Bytes that the history takes, those on their way included.
    pub history_bytes: u64,
    /// Of that, what readers hold.
    pub held_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    tail_hits: AtomicU64,
    history_hits: AtomicU64,
    misses: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// Reads ranges of objects. Clones share everything.
#[derive(Clone)]
pub struct ObjectReader {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    tail: Arc<dyn BlockCache>,
    read_ahead: ReadAhead,
    flights: SingleFlight<BlockKey, Result<CachedBlock, ReadError>>,
    tail_flights: ByteBudget,
    catch_up_flights: ByteBudget,
    counters: Counters,
}

impl ObjectReader {
    /// A reader over `store` with its two caches.
    pub fn new(store: Arc<dyn Store>, tail: Arc<dyn BlockCache>, history: History) -> Self {
        let read_ahead = ReadAhead::new(history);
        Self {
            shared: Arc::new(Shared {
                store,
                tail,
                read_ahead,
                flights: SingleFlight::new(),
                tail_flights: ByteBudget::new("tail reads", FLIGHT_BYTES),
                catch_up_flights: ByteBudget::new("catch-up reads", FLIGHT_BYTES),
                counters: Counters::default(),
            }),
        }
    }

    /// The same with other bounds: of each class, at most `flight_bytes` are fetched at a time, a
    /// single block excepted.
    ///
    /// # Panics
    /// When the reader is in use already.
    #[must_use]
    pub fn with_flight_bytes(mut self, flight_bytes: u64) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("it is nowhere in use yet");
        shared.tail_flights = ByteBudget::new("tail reads", flight_bytes);
        shared.catch_up_flights = ByteBudget::new("catch-up reads", flight_bytes);
        self
    }

    /// Reads bytes `range` of an object of `object_bytes` for a consumer at the end of the log:
    /// slices of the memory they are cached in, one behind the other and none of them empty.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless; a fetch that others wait for goes on.
    pub async fn read(
        &self,
        name: ObjectName,
        object_bytes: u64,
        range: Range<u64>,
    ) -> Result<Vec<CachedSlice>, ReadError> {
        self.read_as(ReadClass::Tail, name, object_bytes, range).await
    }

    /// As [`Self::read`], for a consumer that catches up, or a merge: does not evict the tail.
    ///
    /// # Cancel safety
    /// As [`Self::read`].
    pub async fn read_catch_up(
        &self,
        name: ObjectName,
        object_bytes: u64,
        range: Range<u64>,
    ) -> Result<Vec<CachedSlice>, ReadError> {
        self.read_as(ReadClass::CatchUp, name, object_bytes, range).await
    }

    /// The same bytes if they are in memory and need not be waited for.
    pub fn cached(
        &self,
        name: ObjectName,
        object_bytes: u64,
        range: Range<u64>,
    ) -> Option<Vec<CachedSlice>> {
        let Range { start, end } = range;
        if end <= start || object_bytes < end {
            return None;
        }
        let mut slices = Vec::new();
        for block in plan_blocks(name, object_bytes, start..end) {
            let part = block.part_of(&(start..end));
            let key = BlockKey { object: name, block: block.index };
            let cached = self.in_memory(&key).now_or_never()??;
            slices.extend(cached.slices(part.start as usize..part.end as usize));
        }
        Some(slices)
    }

    /// Puts an object that was just written into the tail, so that its readers need no GET. A
    /// reader finds it as soon as this returns; the future does the work, unless a reader that
    /// could not wait has done it before.
    ///
    /// Large pieces of the body are kept as they are, see [`block::KEPT_PIECE_BYTES_MIN`]: the
    /// caller answers for it that little else is pinned with them than what the body holds.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the object to be fetched by whoever reads it first.
    pub fn insert_written(
        &self,
        name: ObjectName,
        body: &[Bytes],
    ) -> impl Future<Output = ()> + Send + use<> {
        let object_bytes: usize = body.iter().map(Bytes::len).sum();
        let blocks = plan_blocks(name, object_bytes as u64, 0..object_bytes as u64);
        let body: Arc<[Bytes]> = body.into();
        let inserts: Vec<_> = blocks
            .map(|block| {
                let key = BlockKey { object: name, block: block.index };
                let (shared, body) = (Arc::clone(&self.shared), Arc::clone(&body));
                let insert = async move {
                    let range = block.range.start as usize..block.range.end as usize;
                    let block = CachedBlock::written(&body, range);
                    drop(body);
                    shared.tail.insert(key, block.clone()).await;
                    Ok(block)
                };
                self.shared.flights.board(key, || insert.boxed())
            })
            .collect();
        async move {
            for insert in inserts {
                // Joined to a fetch of the same block, it may fail: then it is fetched again.
                let _ = insert.landed().await;
            }
        }
    }

    /// Forgets the blocks of `range`, whose bytes turned out to be damaged: the next read fetches
    /// them. The range lies inside the object.
    pub async fn forget(&self, name: ObjectName, object_bytes: u64, range: Range<u64>) {
        for block in plan_blocks(name, object_bytes, range) {
            let key = BlockKey { object: name, block: block.index };
            self.shared.tail.remove(&key).await;
            self.shared.read_ahead.history().remove(&key);
        }
    }

    /// The counts so far.
    pub fn snapshot(&self) -> CacheSnapshot {
        let counters = &self.shared.counters;
        let (history_bytes, held_bytes) = {
            let history = self.shared.read_ahead.history();
            (history.used_bytes(), history.held_bytes())
        };
        CacheSnapshot {
            tail_hits: counters.tail_hits.load(Ordering::Relaxed),
            history_hits: counters.history_hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            tail_bytes: self.shared.tail.held_bytes(),
            history_bytes,
            held_bytes,
        }
    }

    async fn read_as(
        &self,
        class: ReadClass,
        name: ObjectName,
        object_bytes: u64,
        range: Range<u64>,
    ) -> Result<Vec<CachedSlice>, ReadError> {
        let Range { start, end } = range;
        if end <= start || object_bytes < end {
            return Err(ReadError::Range { object: name, object_bytes, start, end });
        }
        let mut slices = Vec::new();
        for block in plan_blocks(name, object_bytes, start..end) {
            let part = block.part_of(&(start..end));
            let cached = self.block(class, name, &block).await?;
            // Both are at most the block's length, which is in memory.
            slices.extend(cached.slices(part.start as usize..part.end as usize));
        }
        Ok(slices)
    }

    async fn in_memory(&self, key: &BlockKey) -> Option<CachedBlock> {
        let counters = &self.shared.counters;
        if let Some(cached) = self.shared.tail.get(key).await {
            counters.tail_hits.fetch_add(1, Ordering::Relaxed);
            return Some(cached);
        }
        let cached = self.shared.read_ahead.history().get(key)?;
        counters.history_hits.fetch_add(1, Ordering::Relaxed);
        Some(cached)
    }

    async fn block(
        &self,
        class: ReadClass,
        object: ObjectName,
        block: &Block,
    ) -> Result<CachedBlock, ReadError> {
        let key = BlockKey { object, block: block.index };
        let shared = &self.shared;
        if let Some(cached) = self.in_memory(&key).await {
            return Ok(cached);
        }
        shared.counters.misses.fetch_add(1, Ordering::Relaxed);
        let (fetched, is_ours) = shared.fetch_together(class, key, block.clone()).await;
        if fetched.is_ok() || is_ours {
            return fetched;
        }
        // What happened to another's fetch, one ahead of its time say, is not this one's answer.
        shared.fetch_together(class, key, block.clone()).await.0
    }
}

impl Shared {
    /// Fetches a block unless somebody does already; whether it was this caller's fetch.
    async fn fetch_together(
        self: &Arc<Self>,
        class: ReadClass,
        key: BlockKey,
        block: Block,
    ) -> (Result<CachedBlock, ReadError>, bool) {
        let (mut is_ours, fetching) = (false, Arc::clone(self));
        let flight = self.flights.board(key, || {
            is_ours = true;
            async move { fetching.fetch(class, key, block).await }.boxed()
        });
        (flight.landed().await, is_ours)
    }

    /// Fetches a block, checks it where that is possible, and caches it.
    async fn fetch(
        &self,
        class: ReadClass,
        key: BlockKey,
        block: Block,
    ) -> Result<CachedBlock, ReadError> {
        let object = key.object;
        // It may have come in while this flight was about to start.
        if let Some(cached) = self.tail.get(&key).await {
            return Ok(cached);
        }
        if let Some(cached) = self.read_ahead.history().get(&key) {
            return Ok(cached);
        }
        let budget = match class {
            ReadClass::Tail => Some(&self.tail_flights),
            ReadClass::CatchUp => Some(&self.catch_up_flights),
            ReadClass::Ahead => None,
        };
        let _permit = match budget {
            Some(budget) => {
                let asked = block.block_bytes().min(budget.capacity_bytes());
                Some(budget.acquire(asked).await.expect("at most the capacity is asked"))
            }
            None => None,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let got = self.store.get_range(&object_key(&object), block.range.clone()).await;
            let bytes =
                got.map_err(|source| ReadError::Store { object, source: Arc::new(source) })?;
            self.counters.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if block.is_whole
                && !planted::is(Bug::CacheUnchecked)
                && let Err(source) = check_whole(&bytes)
            {
                if attempts < CHECKED_FETCH_ATTEMPTS {
                    continue;
                }
                return Err(ReadError::Damaged { object, source });
            }
            let cached = CachedBlock::from(bytes);
            match class {
                ReadClass::Tail => self.tail.insert(key, cached.clone()).await,
                ReadClass::CatchUp | ReadClass::Ahead => {
                    self.read_ahead.history().insert(key, cached.clone());
                }
            }
            return Ok(cached);
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
