//! Assigns offsets to batches and remembers where their bytes are: the only writer of rows.
//!
//! An agent uploads an object first and commits it here second, so an object may exist that no row
//! names, but never the reverse. A partition that never held a record has no log here: a million
//! idle partitions cost nothing.
//!
//! # Invariants
//! - Rows are contiguous: each batch starts at the high watermark.
//! - `log_start <= high_watermark`, and neither falls.
//! - Rows wholly below the log start are shown to nobody, and forgotten soon.
//! - A row covers contiguous accepted batches of one extent: a duplicate or refused batch between
//!   two of them splits the run around its bytes.
//!
//! # Not here
//! Which batches are accepted (`producer`), who still uses an object (`object`).

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use aquifer_storage::model::{Offset, OffsetRange, Timestamp, TopicId, TopicPartition};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::object::ObjectId;

mod page;

pub(crate) use page::Page;

/// Rows that are kept as they are, 40 bytes each, before they are packed into a page. Few: a
/// partition that was written to has as many, however little it holds.
pub(crate) const TAIL_ROWS_MAX: usize = 16;

/// Rows of a page, shared by every clone of the state.
pub(crate) const PAGE_ROWS_MAX: usize = 512;

/// One run. Sealed ones are kept packed and read as this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Offset of the first record.
    pub base: Offset,
    /// Largest timestamp of its batches.
    pub max_timestamp: Timestamp,
    /// Records covered.
    pub record_count: u32,
    /// The object that holds the bytes.
    pub object: ObjectId,
    /// First byte within the object.
    pub position: u32,
    /// Length in bytes.
    pub length: u32,
    /// Whether the batches already carry their final offsets.
    pub offsets_final: bool,
}

const _: () = assert!(size_of::<Row>() <= 40, "a row costs at most 40 bytes");

impl Row {
    /// The first offset not covered.
    pub fn next(&self) -> Offset {
        self.base.checked_add(self.record_count).expect("append checked the row's end")
    }

    /// The offsets covered.
    pub fn offsets(&self) -> OffsetRange {
        OffsetRange { base: self.base, next: self.next() }
    }

    /// Grows over `batch` when its bytes and offsets follow without a hole.
    fn extend(&mut self, batch: &NewBatch) -> bool {
        let joined = self.position.checked_add(self.length) == Some(batch.position)
            && self.object == batch.object
            && !self.offsets_final;
        let (Some(count), Some(length)) = (
            self.record_count.checked_add(batch.record_count),
            self.length.checked_add(batch.length),
        ) else {
            return false;
        };
        if joined {
            self.record_count = count;
            self.length = length;
            self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        }
        joined
    }
}

/// An accepted batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewBatch {
    pub object: ObjectId,
    pub position: u32,
    pub length: u32,
    pub record_count: u32,
    pub max_timestamp: Timestamp,
}

/// Where an accepted batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Offset of its first record.
    pub base: Offset,
    /// Base of the row that took it.
    pub row: Offset,
    /// Whether the row is new: its object has one more live run.
    pub is_new_row: bool,
}

/// One partition's pointers and rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartitionLog {
    log_start: Offset,
    high_watermark: Offset,
    /// Sealed rows by the base of their first, each page the [`Arc`] of many states.
    pages: RedBlackTreeMapSync<Offset, Arc<Page>>,
    /// The last rows.
    tail: Vec<Row>,
}

impl PartitionLog {
    /// An empty log with these pointers, to be filled from a snapshot.
    pub fn restored(log_start: Offset, high_watermark: Offset) -> Self {
        Self { log_start, high_watermark, ..Self::default() }
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The next offset to be assigned.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Appends a batch at the high watermark; `None` when the offset space is exhausted.
    pub fn append(&mut self, batch: &NewBatch) -> Option<Placed> {
        let base = self.high_watermark;
        self.high_watermark = base.checked_add(batch.record_count)?;
        if let Some(last) = self.tail.last_mut()
            && last.next() == base
            && last.extend(batch)
        {
            return Some(Placed { base, row: last.base, is_new_row: false });
        }
        self.push(Row {
            base,
            max_timestamp: batch.max_timestamp,
            record_count: batch.record_count,
            object: batch.object,
            position: batch.position,
            length: batch.length,
            offsets_final: false,
        });
        Some(Placed { base, row: base, is_new_row: true })
    }

    /// Raises the log start, at most to the high watermark; it never falls. Rows that are wholly
    /// below it are still to be forgotten.
    pub fn raise_log_start(&mut self, to: Offset) {
        self.log_start = self.log_start.max(to).min(self.high_watermark);
    }

    /// Whether there are rows wholly below the log start.
    pub fn has_surplus(&self) -> bool {
        self.rows().next().is_some_and(|row| row.next() <= self.log_start)
    }

    /// Forgets the first rows that are wholly below the log start, those of one page at most, and
    /// returns them. A row that the log start cuts keeps its bytes.
    pub fn forget_surplus(&mut self) -> Vec<Row> {
        let start = self.log_start;
        let Some((key, page)) = self.pages.first().map(|(key, page)| (*key, Arc::clone(page)))
        else {
            let kept = self.tail.partition_point(|row| row.next() <= start);
            return self.tail.drain(..kept).collect();
        };
        let mut surplus: VecDeque<Row> = page.rows_from(Offset::ZERO).collect();
        let kept: Vec<Row> =
            surplus.split_off(surplus.partition_point(|row| row.next() <= start)).into();
        if surplus.is_empty() {
            return Vec::new();
        }
        self.pages.remove_mut(&key);
        let mut blocks = kept.chunks(TAIL_ROWS_MAX);
        if let Some(first) = blocks.next() {
            let mut page = Page::new(first);
            blocks.for_each(|block| page.push_block(block));
            self.pages.insert_mut(first[0].base, Arc::new(page));
        }
        surplus.into()
    }

    /// The first row from `offset` on whose newest record is not older than `oldest`. Pages without
    /// one are passed over unread.
    pub fn first_since(&self, offset: Offset, oldest: Timestamp) -> Option<Row> {
        let upto = (Bound::Unbounded, Bound::Included(offset));
        let first = self.pages.range::<Offset, _>(upto).next_back().map(|(key, _)| *key);
        let pages = self.pages.range(first.unwrap_or(Offset::ZERO)..);
        let recent = pages.filter(|(_, page)| oldest <= page.max_timestamp());
        let sealed = recent.flat_map(|(_, page)| page.rows_from(offset));
        let tail = self.tail.iter().filter(|row| offset < row.next()).copied();
        sealed.chain(tail).find(|row| oldest <= row.max_timestamp)
    }

    /// The largest timestamp of the rows from `offset` on; only the page that holds `offset` and
    /// the tail are read.
    pub fn newest_since(&self, offset: Offset) -> Option<Timestamp> {
        let upto = (Bound::Unbounded, Bound::Included(offset));
        let holding = self.pages.range::<Offset, _>(upto).next_back();
        let later = (Bound::Excluded(offset), Bound::Unbounded);
        let later = self.pages.range::<Offset, _>(later).map(|(_, page)| page.max_timestamp());
        let held = holding.into_iter().flat_map(|(_, page)| page.rows_from(offset));
        let tail = self.tail.iter().filter(|row| offset < row.next());
        held.map(|row| row.max_timestamp)
            .chain(later)
            .chain(tail.map(|row| row.max_timestamp))
            .max()
    }

    /// Adds a row behind the last one.
    pub fn push(&mut self, row: Row) {
        if self.tail.len() == TAIL_ROWS_MAX {
            self.seal();
        }
        self.tail.push(row);
    }

    /// Moves the tail's rows to the last page, or to a new one when that is full.
    fn seal(&mut self) {
        let Some(first) = self.tail.first() else { return };
        let open = self.pages.last().filter(|(_, page)| page.row_count() < PAGE_ROWS_MAX);
        match open.map(|(key, _)| *key) {
            Some(key) => {
                let page = self.pages.get_mut(&key).expect("the key was just read");
                Arc::make_mut(page).push_block(&self.tail);
            }
            None => self.pages.insert_mut(first.base, Arc::new(Page::new(&self.tail))),
        }
        self.tail.clear();
    }

    /// Rows from the one that holds `offset`, or follows a hole there.
    pub fn rows_from(&self, offset: Offset) -> impl Iterator<Item = Row> {
        // What was just appended is asked for most: no page is looked for then.
        let is_sealed = self.tail.first().is_none_or(|first| offset < first.base);
        let pages = is_sealed.then(|| {
            let upto = (Bound::Unbounded, Bound::Included(offset));
            let first = self.pages.range::<Offset, _>(upto).next_back().map(|(key, _)| *key);
            self.pages.range(first.unwrap_or(Offset::ZERO)..)
        });
        let sealed = pages.into_iter().flatten();
        let start = self.tail.partition_point(|row| row.next() <= offset);
        sealed
            .flat_map(move |(_, page)| page.rows_from(offset))
            .chain(self.tail[start..].iter().copied())
    }

    /// Bytes of the batches that its rows cover.
    pub fn record_bytes(&self) -> u64 {
        let sealed: u64 = self.pages.values().map(|page| page.record_bytes()).sum();
        sealed + self.tail.iter().map(|row| u64::from(row.length)).sum::<u64>()
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.rows_from(Offset::ZERO)
    }

    /// The last `count` rows, ascending.
    pub fn last_rows(&self, count: usize) -> Vec<Row> {
        let mut newest_first: Vec<Row> = self.tail.iter().rev().take(count).copied().collect();
        let pages = self.pages.iter().rev();
        let mut blocks = pages.flat_map(|(_, page)| page.blocks_from_the_end());
        while newest_first.len() < count
            && let Some(block) = blocks.next()
        {
            let missing = count - newest_first.len();
            newest_first.extend(block.into_iter().rev().take(missing));
        }
        newest_first.reverse();
        newest_first
    }

    /// The sealed pages, for the invariants.
    pub fn pages(&self) -> impl Iterator<Item = (Offset, &Page)> {
        self.pages.iter().map(|(key, page)| (*key, page.as_ref()))
    }
}

/// Every log that ever held a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartitionLogs {
    logs: RedBlackTreeMapSync<TopicPartition, PartitionLog>,
    /// Those with rows wholly below their log start.
    surplus: RedBlackTreeSetSync<TopicPartition>,
}

impl PartitionLogs {
    /// The log of a partition that held a record.
    pub fn get(&self, partition: TopicPartition) -> Option<&PartitionLog> {
        self.logs.get(&partition)
    }

    /// The same, to append to.
    pub fn get_mut(&mut self, partition: TopicPartition) -> Option<&mut PartitionLog> {
        self.logs.get_mut(&partition)
    }

    /// Puts a log in place.
    pub fn restore(&mut self, partition: TopicPartition, log: PartitionLog) {
        if log.has_surplus() {
            self.surplus.insert_mut(partition);
        }
        self.logs.insert_mut(partition, log);
    }

    /// Raises a partition's log start. Rows below it go with this entry and the next ones.
    pub fn raise_log_start(&mut self, partition: TopicPartition, to: Offset) {
        let Some(log) = self.logs.get_mut(&partition) else { return };
        log.raise_log_start(to);
        if log.has_surplus() {
            self.surplus.insert_mut(partition);
        }
    }

    /// Forgets about `rows_max` rows below log starts and returns them, so that their objects can
    /// be released.
    pub fn forget_surplus(&mut self, rows_max: usize) -> Vec<Row> {
        let mut forgotten = Vec::new();
        while forgotten.len() < rows_max
            && let Some(partition) = self.surplus.first().copied()
        {
            let rows = self.logs.get_mut(&partition).map(PartitionLog::forget_surplus);
            let rows = rows.unwrap_or_default();
            if rows.is_empty() {
                self.surplus.remove_mut(&partition);
            }
            forgotten.extend(rows);
        }
        forgotten
    }

    /// Whether every log with rows below its start is known to have some.
    pub fn knows_surplus(&self) -> bool {
        let with_some = self.logs.iter().filter(|(_, log)| log.has_surplus());
        with_some.into_iter().all(|(partition, _)| self.surplus.contains(partition))
    }

    /// Removes a deleted topic's logs and returns them, so that their objects can be released.
    pub fn remove_topic(&mut self, topic: TopicId) -> Vec<PartitionLog> {
        let removed: Vec<(TopicPartition, PartitionLog)> = self
            .logs
            .range(super::topic::partitions_of(topic))
            .map(|(partition, log)| (*partition, log.clone()))
            .collect();
        for (partition, _) in &removed {
            self.logs.remove_mut(partition);
            self.surplus.remove_mut(partition);
        }
        removed.into_iter().map(|(_, log)| log).collect()
    }

    /// Logs from partition `from` to `to`, both included.
    pub fn range(
        &self,
        from: TopicPartition,
        to: TopicPartition,
    ) -> impl Iterator<Item = (TopicPartition, &PartitionLog)> {
        // Empty, not a panic, where a caller has them the wrong way round.
        let range = (from <= to).then(|| self.logs.range(from..=to));
        range.into_iter().flatten().map(|(partition, log)| (*partition, log))
    }

    /// Every log, by partition.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &PartitionLog)> {
        self.logs.iter().map(|(partition, log)| (*partition, log))
    }
}

#[cfg(test)]
mod tests;
