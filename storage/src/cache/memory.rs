//! Blocks in memory: `moka` in production, and a deterministic twin for the simulator.
//!
//! moka keeps clocks, hashers and a queue of its own. Its default admission turns away new blocks
//! that were not asked before, which the tail does not deserve.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use moka::{future::Cache, policy::EvictionPolicy};

use super::{BlockCache, BlockKey, block::CachedBlock, history::History};

/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Of the cache's memory the tail gets this part, the history the rest.
const TAIL_PERCENT: u64 = 60;

/// Blocks in memory, weighed by what their allocations hold.
#[derive(Clone, Debug)]
pub struct MokaCache {
    blocks: Cache<BlockKey, CachedBlock>,
}

impl MokaCache {
    /// For the tail: forgets what was not read for the longest time.
    pub fn tail(capacity_bytes: u64) -> Self {
        let blocks = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|_, block: &CachedBlock| u32::try_from(weight(block)).unwrap_or(u32::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { blocks }
    }

    /// Tail and history out of one budget.
    pub fn pair(capacity_bytes: u64) -> (Self, History) {
        let tail_bytes = capacity_bytes / 100 * TAIL_PERCENT;
        (Self::tail(tail_bytes), History::new(capacity_bytes - tail_bytes))
    }
}

#[async_trait]
impl BlockCache for MokaCache {
    async fn get(&self, key: &BlockKey) -> Option<CachedBlock> {
        self.blocks.get(key).await
    }

    async fn insert(&self, key: BlockKey, block: CachedBlock) {
        self.blocks.insert(key, block).await;
        // Left to itself it evicts every 64 writes: with blocks of megabytes, several times over.
        self.blocks.run_pending_tasks().await;
    }

    async fn remove(&self, key: &BlockKey) {
        self.blocks.invalidate(key).await;
    }

    fn held_bytes(&self) -> u64 {
        self.blocks.weighted_size()
    }
}

/// Least recently used, deterministic: the twin of [`MokaCache`] in the simulator.
#[derive(Debug)]
pub struct LruCache {
    capacity_bytes: usize,
    state: Mutex<LruState>,
}

#[derive(Debug, Default)]
struct LruState {
    blocks: BTreeMap<BlockKey, (CachedBlock, u64)>,
    by_use: BTreeMap<u64, BlockKey>,
    next_use: u64,
    held_bytes: usize,
}

impl LruCache {
    /// An empty cache.
    pub fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, LruState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LruState {
    fn remove(&mut self, key: &BlockKey) -> Option<CachedBlock> {
        let (block, last_use) = self.blocks.remove(key)?;
        self.by_use.remove(&last_use);
        self.held_bytes -= weight(&block);
        Some(block)
    }

    fn insert(&mut self, key: BlockKey, block: CachedBlock) {
        self.held_bytes += weight(&block);
        self.blocks.insert(key, (block, self.next_use));
        self.by_use.insert(self.next_use, key);
        self.next_use += 1;
    }
}

#[async_trait]
impl BlockCache for LruCache {
    async fn get(&self, key: &BlockKey) -> Option<CachedBlock> {
        let mut state = self.state();
        let block = state.remove(key)?;
        state.insert(*key, block.clone());
        Some(block)
    }

    async fn insert(&self, key: BlockKey, block: CachedBlock) {
        let mut state = self.state();
        state.remove(&key);
        state.insert(key, block);
        while self.capacity_bytes < state.held_bytes {
            let oldest = *state.by_use.first_key_value().expect("bytes are held by blocks").1;
            state.remove(&oldest);
        }
    }

    async fn remove(&self, key: &BlockKey) {
        self.state().remove(key);
    }

    fn held_bytes(&self) -> u64 {
        self.state().held_bytes as u64
    }
}

/// About how much memory a cached block takes, B.
pub(super) fn weight(block: &CachedBlock) -> usize {
    block.held_bytes() + ENTRY_OVERHEAD_BYTES
}
