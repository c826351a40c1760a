//! Blocks behind the tail: those that readers hold because they will read them next, and loose ones
//! that were read. Told what happens, it says what to fetch; it does no I/O and reads no clock.
//!
//! A reader that goes through the log names the blocks in front of it, in order. What fits its
//! share is *held*: its memory is reserved before it is fetched, and it stays until every reader
//! that named it has passed. Partitions of one object hold it together. Everything else is loose,
//! and the least recently used of it goes first.
//!
//! # Invariants
//! - Held blocks, those that are still being fetched included, take at most [`HELD_PERCENT`] of the
//!   capacity; all blocks together never more than the capacity.
//! - A block that is awaited has somebody who holds it, and its fetch is told when nobody does.
//! - A reader that names nothing for two rounds holds nothing, and a loose block that nobody read
//!   for as long is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::{BlockKey, block::CachedBlock, memory::weight};

/// The most that held blocks take of the capacity: readers that jump around need the rest.
pub const HELD_PERCENT: u64 = 75;

/// What a block from the store weighs besides its bytes; little, and corrected when it comes.
const RESERVED_BESIDES_BYTES: u64 = 512;

/// The blocks, and who holds them.
#[derive(Debug, Default)]
pub struct History {
    capacity_bytes: u64,
    entries: BTreeMap<BlockKey, Entry>,
    /// Filled ones that nobody holds, by their last use.
    loose: BTreeMap<u64, BlockKey>,
    readers: BTreeMap<u64, Holding>,
    /// How many of them want anything.
    wanting: u64,
    used_bytes: u64,
    held_bytes: u64,
    next_use: u64,
    next_reader: u64,
    round: u64,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    /// Memory it takes or has reserved.
    bytes: u64,
    holders: u64,
    last_use: u64,
    round: u64,
}

#[derive(Debug)]
enum Content {
    /// Being fetched; dropping the sender ends that.
    Awaited(#[allow(dead_code, reason = "dropping it is what it is for")] oneshot::Sender<()>),
    /// Held, and not to be fetched ahead: that failed, or the bytes are elsewhere.
    Absent,
    Filled(CachedBlock),
}

#[derive(Debug, Default)]
struct Holding {
    blocks: BTreeSet<BlockKey>,
    /// Whether it named any block, held or not.
    wants: bool,
    round: u64,
}

/// A block to be fetched ahead.
#[derive(Debug)]
pub struct Reserved {
    /// The block.
    pub key: BlockKey,
    /// Ends with an error once nobody wants the block any more.
    pub released: oneshot::Receiver<()>,
}

impl History {
    /// Nothing yet.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, ..Self::default() }
    }

    /// Memory that blocks take, those on their way included, B.
    pub const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Of that, what readers hold, B.
    pub const fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether there is neither a block nor a reader.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.readers.is_empty()
    }

    /// The block, if it is here.
    pub fn get(&mut self, key: &BlockKey) -> Option<CachedBlock> {
        let entry = self.entries.get_mut(key)?;
        let Content::Filled(block) = &entry.content else { return None };
        let block = block.clone();
        entry.round = self.round;
        if entry.holders == 0 {
            self.loose.remove(&entry.last_use);
            entry.last_use = self.next_use;
            self.loose.insert(entry.last_use, *key);
            self.next_use += 1;
        }
        Some(block)
    }

    /// Adds a block that was fetched. Unless it is held, it may be forgotten at once.
    pub fn insert(&mut self, key: BlockKey, block: CachedBlock) {
        let bytes = weight(&block) as u64;
        match self.entries.get_mut(&key) {
            Some(entry) if 0 < entry.holders => {
                entry.content = Content::Filled(block);
                entry.round = self.round;
                let before = std::mem::replace(&mut entry.bytes, bytes);
                self.held_bytes = self.held_bytes - before + bytes;
                self.used_bytes = self.used_bytes - before + bytes;
            }
            _ => {
                self.remove(&key);
                let last_use = self.next_use;
                self.next_use += 1;
                let (content, round) = (Content::Filled(block), self.round);
                self.entries.insert(key, Entry { content, bytes, holders: 0, last_use, round });
                self.loose.insert(last_use, key);
                self.used_bytes += bytes;
            }
        }
        self.make_room(0);
    }

    /// Forgets a block whose bytes are damaged. Who holds it reads it for itself.
    pub fn remove(&mut self, key: &BlockKey) {
        match self.entries.get_mut(key) {
            Some(entry) if 0 < entry.holders => self.empty(key),
            Some(entry) => {
                let last_use = entry.last_use;
                self.drop_loose(last_use);
            }
            None => {}
        }
    }

    /// The fetch of a reserved block is over. Without a block its memory is given back, and it is
    /// not fetched ahead again while anybody holds it.
    pub fn fetched(&mut self, key: &BlockKey) {
        let is_awaited =
            |entry: &Entry| matches!(entry.content, Content::Awaited(_)) && 0 < entry.holders;
        if self.entries.get(key).is_some_and(is_awaited) {
            self.empty(key);
        }
    }

    /// A new reader's name.
    pub fn reader(&mut self) -> u64 {
        self.next_reader += 1;
        self.next_reader
    }

    /// Whether the reader holds the block.
    pub fn is_held_by(&self, reader: u64, key: &BlockKey) -> bool {
        self.readers.get(&reader).is_some_and(|holding| holding.blocks.contains(key))
    }

    /// The reader holds the first of the `wanted` blocks, named in the order in which it will read
    /// them with their lengths, as far as its share goes, and no others. Returns those to fetch.
    pub fn hold(&mut self, reader: u64, wanted: &[(BlockKey, u64)]) -> Vec<Reserved> {
        let holding = self.readers.entry(reader).or_default();
        holding.round = self.round;
        let wanted_before = std::mem::replace(&mut holding.wants, !wanted.is_empty());
        self.wanting = self.wanting + u64::from(!wanted.is_empty()) - u64::from(wanted_before);
        self.keep(reader, wanted);
        let mut reserved = Vec::new();
        for (place, (key, block_bytes)) in wanted.iter().enumerate() {
            if self.is_held_by(reader, key) {
                continue;
            }
            let known = self.entries.get(key);
            let held_anyway = known.is_some_and(|entry| 0 < entry.holders);
            let bytes = match known {
                Some(entry) => entry.bytes,
                None => block_bytes.saturating_add(RESERVED_BESIDES_BYTES),
            };
            if !held_anyway && !self.fits(reader, bytes) {
                // Held from before a seek: what comes first goes first.
                self.keep(reader, &wanted[..place]);
                break;
            }
            reserved.extend(self.take(key, bytes));
            self.readers.entry(reader).or_default().blocks.insert(*key);
        }
        reserved
    }

    /// The reader is gone.
    pub fn release(&mut self, reader: u64) {
        let holding = self.readers.remove(&reader).unwrap_or_default();
        self.wanting -= u64::from(holding.wants);
        for key in holding.blocks {
            self.let_go(&key);
        }
    }

    /// Begins the next round: what was not used for all of the last one is forgotten. Returns
    /// whether anything is left.
    pub fn sweep(&mut self) -> bool {
        let last = self.round;
        let idle = self.readers.iter().filter(|(_, holding)| holding.round < last);
        for reader in idle.map(|(reader, _)| *reader).collect::<Vec<_>>() {
            self.release(reader);
        }
        let unused = self.loose.iter().filter(|(_, key)| self.entries[key].round < last);
        for last_use in unused.map(|(last_use, _)| *last_use).collect::<Vec<_>>() {
            self.drop_loose(last_use);
        }
        self.round += 1;
        !self.is_empty()
    }

    /// The reader holds none but these.
    fn keep(&mut self, reader: u64, wanted: &[(BlockKey, u64)]) {
        let keep: BTreeSet<BlockKey> = wanted.iter().map(|(key, _)| *key).collect();
        let Some(holding) = self.readers.get_mut(&reader) else { return };
        let others: Vec<BlockKey> = holding.blocks.difference(&keep).copied().collect();
        holding.blocks.retain(|key| keep.contains(key));
        for key in others {
            self.let_go(&key);
        }
    }

    /// Whether the reader may hold `bytes` more: an even share, of which blocks that several hold
    /// take but a part of each, and always one block.
    fn fits(&self, reader: u64, bytes: u64) -> bool {
        let held_max = self.capacity_bytes / 100 * HELD_PERCENT;
        let fits = self.held_bytes.saturating_add(bytes) <= held_max;
        let holding = &self.readers[&reader];
        if !fits || holding.blocks.is_empty() {
            return fits;
        }
        let parts = holding.blocks.iter().map(|key| &self.entries[key]);
        let own: u64 = parts.map(|entry| entry.bytes / entry.holders.max(1)).sum();
        own.saturating_add(bytes) <= held_max / self.wanting.max(1)
    }

    /// One more reader holds the block; it is to be fetched when nothing is known of it.
    fn take(&mut self, key: &BlockKey, bytes: u64) -> Option<Reserved> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.holders += 1;
            if entry.holders == 1 {
                self.loose.remove(&entry.last_use);
                self.held_bytes += entry.bytes;
            }
            return None;
        }
        self.make_room(bytes);
        let (sender, released) = oneshot::channel();
        let (content, round) = (Content::Awaited(sender), self.round);
        self.entries.insert(*key, Entry { content, bytes, holders: 1, last_use: 0, round });
        self.used_bytes += bytes;
        self.held_bytes += bytes;
        Some(Reserved { key: *key, released })
    }

    /// One reader less holds the block.
    fn let_go(&mut self, key: &BlockKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.holders -= 1;
        if 0 < entry.holders {
            return;
        }
        self.held_bytes -= entry.bytes;
        if matches!(entry.content, Content::Filled(_)) {
            entry.last_use = self.next_use;
            self.loose.insert(entry.last_use, *key);
            self.next_use += 1;
        } else {
            self.used_bytes -= entry.bytes;
            self.entries.remove(key);
        }
    }

    fn empty(&mut self, key: &BlockKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.content = Content::Absent;
            let bytes = std::mem::take(&mut entry.bytes);
            self.used_bytes -= bytes;
            self.held_bytes -= bytes;
        }
    }

    /// Forgets loose blocks until `bytes` more fit, or none is left.
    fn make_room(&mut self, bytes: u64) {
        while self.capacity_bytes < self.used_bytes.saturating_add(bytes) {
            let Some((&oldest, _)) = self.loose.first_key_value() else { return };
            self.drop_loose(oldest);
        }
    }

    fn drop_loose(&mut self, last_use: u64) {
        let Some(key) = self.loose.remove(&last_use) else { return };
        let entry = self.entries.remove(&key).expect("loose blocks are entries");
        self.used_bytes -= entry.bytes;
    }
}

#[cfg(test)]
mod tests;
