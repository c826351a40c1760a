//! Rows below the pushed windows, as metadata answered lately [pure].
//!
//! A question gives more rows than one answer needs, and is asked before they run out, so that its
//! round trip is not on the way of every answer. Rows of one question, and the pointers that came
//! with them, are of one index and never mixed with others in a plan. They are dropped soon: merged
//! away, their objects are not there for ever.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aquifer_metadata::watch::PartitionState;
use aquifer_storage::{
    model::{Offset, TopicPartition},
    seam::MonoTime,
};

/// How long an answer is used, and nobody asks ahead again where that failed. The last stable
/// offset that a reader of history is told is at most this old.
pub const ROWS_AGE_MAX: Duration = Duration::from_secs(10);
/// Answers kept; of 64 rows each, 4 MiB in all.
const ANSWERS_MAX: usize = 512;

/// The answers, by the offset that was asked.
#[derive(Debug, Default)]
pub struct OlderRows {
    answers: BTreeMap<(TopicPartition, Offset), Asked>,
    by_age: BTreeMap<u64, (TopicPartition, Offset)>,
    next_turn: u64,
}

#[derive(Debug)]
struct Asked {
    /// `None` while there is no answer.
    rows: Option<Arc<PartitionState>>,
    at: MonoTime,
    turn: u64,
}

impl OlderRows {
    /// Rows that hold `offset`, and the pointers of their index.
    pub fn find(
        &self,
        partition: TopicPartition,
        offset: Offset,
        now: MonoTime,
    ) -> Option<Arc<PartitionState>> {
        let below = self.answers.range((partition, Offset::ZERO)..=(partition, offset));
        let fresh = below.rev().filter(|(_, asked)| now.since(asked.at) < ROWS_AGE_MAX);
        let rows = fresh.filter_map(|(_, asked)| asked.rows.as_ref()).next()?;
        let holds = rows.runs.last().is_some_and(|last| offset < last.offsets.next);
        holds.then(|| Arc::clone(rows))
    }

    /// Whether to ask for the rows from `offset` on: nobody has yet. From now on somebody has.
    pub fn ask(&mut self, partition: TopicPartition, offset: Offset, now: MonoTime) -> bool {
        let key = (partition, offset);
        let asked = self.answers.get(&key);
        if asked.is_some_and(|asked| now.since(asked.at) < ROWS_AGE_MAX) {
            return false;
        }
        self.put(key, None, now);
        true
    }

    /// Metadata answered the question for the rows from `offset` on.
    pub fn answered(&mut self, offset: Offset, rows: Arc<PartitionState>, now: MonoTime) {
        self.put((rows.partition, offset), Some(rows), now);
    }

    /// The rows of a partition turned out to be old.
    pub fn forget(&mut self, partition: TopicPartition) {
        let keys = self.answers.range((partition, Offset::ZERO)..).map(|(key, _)| *key);
        let of_it = keys.take_while(|(of, _)| *of == partition);
        for key in of_it.collect::<Vec<_>>() {
            self.remove(key);
        }
    }

    /// Drops what is too old to be used. Returns whether anything is left.
    pub fn expire(&mut self, now: MonoTime) -> bool {
        while let Some((_, &oldest)) = self.by_age.first_key_value()
            && ROWS_AGE_MAX <= now.since(self.answers[&oldest].at)
        {
            self.remove(oldest);
        }
        !self.answers.is_empty()
    }

    fn put(
        &mut self,
        key: (TopicPartition, Offset),
        rows: Option<Arc<PartitionState>>,
        at: MonoTime,
    ) {
        self.remove(key);
        let turn = self.next_turn;
        self.next_turn += 1;
        self.answers.insert(key, Asked { rows, at, turn });
        self.by_age.insert(turn, key);
        if ANSWERS_MAX < self.answers.len() {
            let oldest = *self.by_age.first_key_value().expect("each answer has an age").1;
            self.remove(oldest);
        }
    }

    fn remove(&mut self, key: (TopicPartition, Offset)) {
        if let Some(asked) = self.answers.remove(&key) {
            self.by_age.remove(&asked.turn);
        }
    }
}

#[cfg(test)]
mod tests;
