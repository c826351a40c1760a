//! Readers of history: what lies ahead of each is fetched before it asks, rows and bytes.
//!
//! A reader is a partition that one connection reads behind the tail. It comes into being with the
//! first answer made of history, and ends when it has caught up, with its connection, or when the
//! connection reads too many others. What it holds in memory ends sooner, with the second sweep
//! that it does not see.
//!
//! # Invariants
//! - What is ahead is a hint: no answer waits for it, is refused for it, or is made of it alone.
//! - Only one task sweeps, and it ends when nothing is left to be swept.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::{
    client::Metadata,
    machine::{
        effect::Run,
        query::{Answer, Query},
    },
    watch::{PartitionState, WINDOW_RUNS_MAX},
};
use aquifer_storage::{
    cache::{ObjectReader, read_ahead::SequentialReader},
    model::{Offset, TopicPartition},
    seam::Seams,
};

use super::{
    Fetcher, QUERY_MAX,
    older_rows::OlderRows,
    plan::PartitionPlan,
    read_ahead::{Window, wanted_ranges},
    reader::Cutting,
};
use crate::view::{PartitionSnapshot, Watches};

/// Between two sweeps: what was not used for one to two of these is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Partitions of one connection that are read behind the tail; those read last count.
const READERS_MAX: usize = 1024;
/// Rows looked at for one reader.
const ROWS_MAX: usize = 256;
/// Questions asked one after the other for one reader.
const QUERIES_MAX: usize = 8;

/// The partitions that one connection reads behind the tail.
#[derive(Default)]
pub struct CatchUpReaders {
    readers: BTreeMap<TopicPartition, CatchUpReader>,
    by_use: BTreeMap<u64, TopicPartition>,
    next_use: u64,
}

/// One of them.
pub(super) struct CatchUpReader {
    partition: TopicPartition,
    window: Window,
    blocks: SequentialReader,
    last_use: u64,
}

/// What all readers share.
#[derive(Clone, Default)]
pub(super) struct CatchUp {
    older: Arc<Mutex<OlderRows>>,
    is_sweeping: Arc<AtomicBool>,
}

/// One reader while an answer is made for it.
pub(super) struct Ahead<'a> {
    fetcher: &'a Fetcher,
    reader: &'a CatchUpReader,
    rows: Vec<Run>,
    /// The rows below it are what the answer is made of.
    due_next: Offset,
    window_bytes: u64,
}

/// Rows that are to be asked for.
struct RowsAhead {
    partition: TopicPartition,
    from: Offset,
    /// Where the pushed window begins.
    until: Offset,
    bytes: u64,
}

impl CatchUpReaders {
    /// The reader of a plan, if it reads history: a known one that goes on, or else a new one.
    pub(super) fn take(
        &mut self,
        partition: TopicPartition,
        plan: &PartitionPlan,
        objects: &ObjectReader,
    ) -> Option<CatchUpReader> {
        let known = self.readers.remove(&partition);
        if let Some(reader) = &known {
            self.by_use.remove(&reader.last_use);
        }
        if !plan.is_behind {
            // One that has come close to the end goes on as it did until it is there.
            return known.filter(|reader| reader.window.goes_on_at(plan.offset));
        }
        let fresh = || {
            let (window, blocks) = (Window::default(), objects.sequential());
            CatchUpReader { partition, window, blocks, last_use: 0 }
        };
        Some(known.unwrap_or_else(fresh))
    }

    /// Keeps a reader that goes on.
    pub(super) fn extend(&mut self, reader: Option<CatchUpReader>) {
        let Some(mut reader) = reader else { return };
        reader.last_use = self.next_use;
        self.next_use += 1;
        self.by_use.insert(reader.last_use, reader.partition);
        // A request may name a partition twice.
        if let Some(other) = self.readers.insert(reader.partition, reader) {
            self.by_use.remove(&other.last_use);
        }
        if READERS_MAX < self.readers.len()
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.readers.remove(&oldest);
        }
    }
}

impl CatchUpReader {
    /// Notes what the reader was given. Whether what lies ahead of it is to be looked at again.
    fn was_given(&mut self, plan: &PartitionPlan, next: Offset, cutting: &Cutting) -> bool {
        let before = self.window.bytes();
        self.window.read(plan.offset, next, cutting.bytes as u64);
        // Within a row nothing changes, and most small answers end within one.
        before != self.window.bytes() || 1 < cutting.rows || cutting.place.is_none()
    }
}

impl CatchUp {
    #[cfg(test)]
    pub(super) fn is_swept(&self) -> bool {
        self.is_sweeping.load(Ordering::Acquire)
    }

    /// Every section leaves the rows whole, so a panic elsewhere while it was held is no harm.
    pub(super) fn older(&self) -> MutexGuard<'_, OlderRows> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetcher {
    /// What the answer of `plan` needs is fetched at once, as far as memory goes.
    pub(super) fn ahead<'a>(
        &'a self,
        reader: &'a CatchUpReader,
        watches: &Watches,
        plan: &PartitionPlan,
    ) -> Option<Ahead<'a>> {
        let due_next = plan.runs.last()?.offsets.next;
        let window_bytes = reader.window.bytes_at(plan.offset);
        let due: u64 = plan.runs.iter().map(|run| u64::from(run.length)).sum();
        let bytes = due.saturating_add(window_bytes);
        let (rows, _) = self.rows_from(watches, (reader.partition, plan.offset), bytes);
        Some(Ahead { fetcher: self, reader, rows, due_next, window_bytes })
    }

    /// The reader has its answer; `None` when it has come to the end.
    pub(super) async fn go_on(
        &self,
        mut reader: CatchUpReader,
        watches: &Watches,
        plan: &PartitionPlan,
        cutting: &Cutting,
    ) -> Option<CatchUpReader> {
        let Some(next) = cutting.next else { return Some(reader) };
        let looks_ahead = reader.was_given(plan, next, cutting);
        if plan.bound <= next {
            return None;
        }
        if looks_ahead {
            self.read_ahead(&reader, watches, next).await;
        }
        Some(reader)
    }

    /// What the reader will want next is fetched in the background.
    async fn read_ahead(&self, reader: &CatchUpReader, watches: &Watches, next: Offset) {
        let window_bytes = reader.window.bytes_at(next);
        // Rows are asked for one window earlier than blocks.
        let bytes = window_bytes.saturating_mul(2);
        let (rows, asked) = self.rows_from(watches, (reader.partition, next), bytes);
        let ahead = Ahead { fetcher: self, reader, rows, due_next: next, window_bytes };
        ahead.hold_from(next).await;
        self.keep_swept();
        let Some(asked) = asked else { return };
        let now = self.seams.clock.mono();
        if self.catch_up.older().ask(asked.partition, asked.from, now) {
            let older = self.catch_up.clone();
            let (metadata, seams) = (Arc::clone(&self.metadata), self.seams.clone());
            self.seams.spawn("rows-ahead", ask_ahead(older, metadata, seams, asked));
        }
    }

    /// The rows from `from` on, `bytes` of them as far as they are known, and what to ask for when
    /// they are not. Of several indexes: a hint.
    fn rows_from(
        &self,
        watches: &Watches,
        (partition, from): (TopicPartition, Offset),
        bytes: u64,
    ) -> (Vec<Run>, Option<RowsAhead>) {
        let PartitionSnapshot::Known(pushed) = watches.look(partition) else {
            return (Vec::new(), None);
        };
        let until = pushed.runs.first().map_or(Offset::ZERO, |first| first.offsets.base);
        let now = self.seams.clock.mono();
        let (mut rows, mut at, mut left) = (Vec::new(), from, bytes);
        while 0 < left && rows.len() < ROWS_MAX {
            let known = if until <= at {
                Arc::clone(&pushed)
            } else if let Some(older) = self.catch_up.older().find(partition, at, now) {
                older
            } else {
                return (rows, Some(RowsAhead { partition, from: at, until, bytes: left }));
            };
            let first = known.runs.partition_point(|run| run.offsets.next <= at);
            let before = at;
            for run in &known.runs[first..] {
                rows.push(*run);
                at = run.offsets.next;
                left = left.saturating_sub(u64::from(run.length));
                if left == 0 {
                    break;
                }
            }
            if at == before || until <= before {
                break;
            }
        }
        (rows, None)
    }

    /// Sees to it that what readers leave behind is forgotten.
    pub(super) fn keep_swept(&self) {
        if !self.catch_up.is_sweeping.swap(true, Ordering::AcqRel) {
            let sweep = sweep(self.reader.clone(), self.catch_up.clone(), self.seams.clone());
            self.seams.spawn("sweep-history", sweep);
        }
    }
}

impl Ahead<'_> {
    /// The answer comes to the row at `base`: holds it and what follows, as far as memory goes.
    pub(super) async fn hold_from(&self, base: Offset) {
        let wanted = wanted_ranges(&self.rows, base, self.due_next, self.window_bytes);
        for fetch in self.reader.blocks.hold(&wanted).await {
            self.fetcher.seams.spawn("read-ahead", fetch);
        }
    }
}

/// Asks for rows until `asked.bytes` more are known, or the pushed ones follow.
async fn ask_ahead(catch_up: CatchUp, metadata: Arc<dyn Metadata>, seams: Seams, asked: RowsAhead) {
    let RowsAhead { partition, mut from, until, bytes } = asked;
    let mut left = bytes;
    for query in 0..QUERIES_MAX {
        let again = 0 < query;
        if again && (left == 0 || until <= from) {
            return;
        }
        if again && !catch_up.older().ask(partition, from, seams.clock.mono()) {
            return;
        }
        let limit = WINDOW_RUNS_MAX as u32;
        let question = Query::Runs { partition, offset: from, limit };
        let answer = seams.timeout(QUERY_MAX, metadata.query(question)).await;
        let Some(Ok((index, Answer::Runs(Some(rows))))) = answer else {
            tracing::debug!(%partition, "cannot ask for rows ahead");
            return;
        };
        let Some(next) = rows.runs.last().map(|last| last.offsets.next) else { return };
        let rows_bytes: u64 = rows.runs.iter().map(|run| u64::from(run.length)).sum();
        let state = PartitionState { partition, index, runs: rows.runs, pointers: rows.pointers };
        catch_up.older().answered(from, Arc::new(state), seams.clock.mono());
        if next <= from {
            return;
        }
        (from, left) = (next, left.saturating_sub(rows_bytes));
    }
}

/// Sweeps until nothing is left.
async fn sweep(reader: ObjectReader, catch_up: CatchUp, seams: Seams) {
    loop {
        seams.sleep(SWEEP_EVERY).await;
        let blocks_left = reader.sweep_history();
        let rows_left = catch_up.older().expire(seams.clock.mono());
        if blocks_left || rows_left {
            continue;
        }
        catch_up.is_sweeping.store(false, Ordering::Release);
        // Somebody may have begun since, and seen that this task is at work.
        if !reader.has_history() || catch_up.is_sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}
