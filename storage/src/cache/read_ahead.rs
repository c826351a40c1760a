//! What a reader of history will want next is fetched before it asks.
//!
//! [`History`] says what fits; here it is fetched, a bounded number of blocks at a time. What an
//! answer is made of does not queue behind what only later answers need, and a reader that comes to
//! a block before its turn fetches it for itself.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt;
use tokio::sync::Semaphore;

use super::{
    BlockKey, ObjectReader, ReadClass, Shared,
    history::{History, Reserved},
    plan::{Block, plan_blocks},
};
use crate::{model::ObjectName, seam::BoxFuture};

/// Blocks fetched at the same time for answers that are being made.
const DUE_FETCHES_MAX: usize = 32;
/// Blocks fetched at the same time for later answers. At 63 ms and 85 MB/s for each, 16 of 8 MiB
/// are 800 MB/s.
const AHEAD_FETCHES_MAX: usize = 16;
/// So many blocks one after the other in the tail are where the tail begins: it is not searched
/// further.
const TAIL_BLOCKS: usize = 4;
/// Blocks that one reader names: more small objects than this are no gain.
const BLOCKS_MAX: usize = 64;

/// The history and the fetches that fill it.
#[derive(Debug)]
pub(super) struct ReadAhead {
    history: Mutex<History>,
    due: Semaphore,
    ahead: Semaphore,
}

/// Bytes that a reader will want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRange {
    /// The object.
    pub object: ObjectName,
    /// Its length.
    pub object_bytes: u64,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// Whether the answer that is being made wants them.
    pub is_due: bool,
}

/// One reader that goes through the log: what lies in front of it is held for it. Dropping it
/// releases that.
pub struct SequentialReader {
    shared: Arc<Shared>,
    name: u64,
}

impl ReadAhead {
    pub(super) fn new(history: History) -> Self {
        let (due, ahead) = (Semaphore::new(DUE_FETCHES_MAX), Semaphore::new(AHEAD_FETCHES_MAX));
        Self { history: Mutex::new(history), due, ahead }
    }

    /// Every section leaves the history whole, so a panic elsewhere while it was held is no harm.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectReader {
    /// A reader that goes through the log, holding nothing yet.
    pub fn sequential(&self) -> SequentialReader {
        let name = self.shared.read_ahead.history().reader();
        SequentialReader { shared: Arc::clone(&self.shared), name }
    }

    /// Forgets what nobody used since the call before the last. Returns whether anything of
    /// history is left in memory. Call it every few seconds as long as there is.
    pub fn sweep_history(&self) -> bool {
        self.shared.read_ahead.history().sweep()
    }

    /// Whether anything of history is in memory.
    pub fn has_history(&self) -> bool {
        !self.shared.read_ahead.history().is_empty()
    }
}

impl SequentialReader {
    /// Holds the blocks of `wanted`, in the order in which they will be read, as far as memory
    /// goes, and no others. Returns the fetches of those that are not here: run them in the
    /// background. They end by themselves when the block is not wanted any more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what was held before. Fetches that are not run leave their blocks
    /// to whoever reads them.
    pub async fn hold(&self, wanted: &[WantedRange]) -> Vec<BoxFuture<'static, ()>> {
        let mut blocks: Vec<(BlockKey, Block, bool)> = Vec::new();
        let mut in_tail = 0;
        for one in wanted {
            if TAIL_BLOCKS <= in_tail {
                break;
            }
            let Range { start, end } = one.range;
            if end <= start || one.object_bytes < end {
                continue; // Damage that whoever reads it will tell.
            }
            for block in plan_blocks(one.object, one.object_bytes, start..end) {
                let key = BlockKey { object: one.object, block: block.index };
                if BLOCKS_MAX <= blocks.len() {
                    break;
                }
                if blocks.last().is_some_and(|(last, ..)| *last == key) {
                    continue;
                }
                if self.is_in_tail(&key).await {
                    in_tail += 1;
                } else {
                    in_tail = 0;
                    blocks.push((key, block, one.is_due));
                }
            }
        }
        let named: Vec<_> =
            blocks.iter().map(|(key, block, _)| (*key, block.block_bytes())).collect();
        let reserved = self.shared.read_ahead.history().hold(self.name, &named);
        let fetches = reserved.into_iter().filter_map(|reserved| {
            let (_, block, is_due) = blocks.iter().find(|(key, ..)| *key == reserved.key)?;
            let shared = Arc::clone(&self.shared);
            Some(shared.fetch_ahead(reserved, block.clone(), *is_due).boxed())
        });
        fetches.collect()
    }

    async fn is_in_tail(&self, key: &BlockKey) -> bool {
        let is_held = self.shared.read_ahead.history().is_held_by(self.name, key);
        !is_held && self.shared.tail.get(key).await.is_some()
    }
}

impl Drop for SequentialReader {
    fn drop(&mut self) {
        self.shared.read_ahead.history().release(self.name);
    }
}

impl Shared {
    async fn fetch_ahead(self: Arc<Self>, reserved: Reserved, block: Block, is_due: bool) {
        let Reserved { key, released } = reserved;
        let fetch = async {
            // Before the flight begins, so that nobody who joins it waits for a turn.
            let turns = if is_due { &self.read_ahead.due } else { &self.read_ahead.ahead };
            let _turn = turns.acquire().await;
            self.fetch_together(ReadClass::Ahead, key, block).await.0
        };
        tokio::select! {
            biased; // What is there is kept.
            fetched = fetch => {
                if let Err(error) = fetched {
                    tracing::debug!(object = %key.object, %error, "cannot read ahead");
                }
                self.read_ahead.history().fetched(&key);
            }
            _ = released => {}
        }
    }
}

#[cfg(test)]
mod tests;
