//! Deduplicates idempotent producers: the last five batches per producer and partition, with their
//! sequences and *final* offsets (KAFKA 2, Idempotence).
//!
//! # Invariants
//! - A batch that was appended answers its original offset as long as it is among the last five of
//!   its epoch, whichever agent brings the retry.
//! - Every remembered offset is below the partition's high watermark.
//!
//! # Not here
//! Transactional epochs, which hold for every partition at once.

use std::{ops::Bound, time::Duration};

use aquifer_storage::{
    model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId, TopicPartition},
    planted::{self, Bug},
};
use rpds::RedBlackTreeMapSync;
use smallvec::{SmallVec, smallvec};

use super::{command::BatchRejected, time::WallTime};

/// Batches remembered per producer and partition, as many as Kafka.
pub(crate) const BATCHES_KEPT: usize = 5;

/// Kafka's `producer.id.expiration.ms`.
pub(crate) const EXPIRATION: Duration = Duration::from_secs(24 * 60 * 60);

/// States looked at for expiry per entry: a jump of the wall clock cannot clear the table at once.
pub(crate) const SWEEP_ROWS: usize = 64;

/// A remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendedBatch {
    /// Sequence of the first record.
    pub first: Sequence,
    /// Sequence of the last record.
    pub last: Sequence,
    /// Offset of the first record.
    pub base: Offset,
    /// Largest timestamp, which a duplicate answers.
    pub max_timestamp: Timestamp,
}

/// The last batches, the oldest first, in the state itself: most producers fill them.
pub(crate) type LastBatches = SmallVec<[AppendedBatch; BATCHES_KEPT]>;

/// One producer on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    /// The newest epoch seen.
    pub epoch: ProducerEpoch,
    /// When the last batch was appended.
    pub touched: WallTime,
    /// Those of this epoch; never empty.
    pub batches: LastBatches,
}

/// A batch as its producer numbered it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    pub first: Sequence,
    pub record_count: u32,
}

impl Numbered {
    /// Sequence of the last record, wrapping past 2^31-1 as Kafka does.
    fn last(&self) -> Sequence {
        self.first.advance(self.record_count.wrapping_sub(1))
    }
}

/// What the producer's state says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one.
    Append,
    /// It was appended before.
    Duplicate(AppendedBatch),
    /// It is refused.
    Rejected(BatchRejected),
}

/// The key of a state: those of one partition lie together.
pub(crate) type ProducerKey = (TopicPartition, ProducerId);

/// Every producer on every partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Producers {
    states: RedBlackTreeMapSync<ProducerKey, ProducerState>,
    /// Where the next sweep starts.
    cursor: Option<ProducerKey>,
}

impl Producers {
    /// Judges a batch; `is_fresh` says that the partition never held a record.
    pub fn judge(&self, partition: TopicPartition, batch: &Numbered, is_fresh: bool) -> Verdict {
        let out_of_order = Verdict::Rejected(BatchRejected::OutOfOrderSequence);
        let from_zero = batch.first == Sequence::ZERO;
        let Some(state) = self.states.get(&(partition, batch.producer)) else {
            // What a fresh partition forgot cannot be the reason for a later sequence: a gap it is.
            return if is_fresh && !from_zero { out_of_order } else { Verdict::Append };
        };
        if batch.epoch < state.epoch {
            return Verdict::Rejected(BatchRejected::InvalidProducerEpoch);
        }
        if batch.epoch > state.epoch {
            return if from_zero { Verdict::Append } else { out_of_order };
        }
        let mut newest_first = state.batches.iter().rev();
        let is_same =
            |known: &&AppendedBatch| known.first == batch.first && known.last == batch.last();
        match (newest_first.clone().find(is_same), newest_first.next()) {
            (Some(original), _) => Verdict::Duplicate(*original),
            (None, Some(last)) if last.last.advance(1) != batch.first => out_of_order,
            (None, _) => Verdict::Append,
        }
    }

    /// Remembers an appended batch.
    pub fn appended(
        &mut self,
        partition: TopicPartition,
        batch: &Numbered,
        (base, max_timestamp): (Offset, Timestamp),
        now: WallTime,
    ) {
        let appended =
            AppendedBatch { first: batch.first, last: batch.last(), base, max_timestamp };
        let key = (partition, batch.producer);
        match self.states.get_mut(&key) {
            Some(state) => {
                if state.epoch != batch.epoch {
                    state.epoch = batch.epoch;
                    state.batches.clear();
                }
                let kept = if planted::is(Bug::DedupeWindowOne) { 1 } else { BATCHES_KEPT };
                if state.batches.len() == kept {
                    state.batches.remove(0);
                }
                state.batches.push(appended);
                state.touched = now;
            }
            None => self.states.insert_mut(
                key,
                ProducerState { epoch: batch.epoch, touched: now, batches: smallvec![appended] },
            ),
        }
    }

    /// Forgets some of the producers that were silent for a day, going round the table.
    pub fn sweep(&mut self, now: WallTime) {
        let start = self.cursor.map_or(Bound::Unbounded, Bound::Included);
        let mut round = self.states.range::<ProducerKey, _>((start, Bound::Unbounded));
        let looked: Vec<(ProducerKey, bool)> = round
            .by_ref()
            .take(SWEEP_ROWS)
            .map(|(key, state)| (*key, now.is_past(state.touched, EXPIRATION)))
            .collect();
        let next = round.next().map(|(key, _)| *key);
        for (key, _) in looked.iter().filter(|(_, expired)| *expired) {
            self.states.remove_mut(key);
        }
        self.cursor = next;
    }

    /// Forgets a deleted topic's producers.
    pub fn remove_topic(&mut self, topic: TopicId) {
        let range = super::topic::partitions_of(topic);
        let start = (*range.start(), ProducerId::new(i64::MIN));
        let end = (*range.end(), ProducerId::new(i64::MAX));
        let keys: Vec<ProducerKey> = self.states.range(start..=end).map(|(key, _)| *key).collect();
        for key in keys {
            self.states.remove_mut(&key);
        }
    }

    /// Every state, by partition and producer.
    pub fn iter(&self) -> impl Iterator<Item = (&ProducerKey, &ProducerState)> {
        self.states.iter()
    }

    /// Puts a state in place, from a snapshot.
    pub fn restore(&mut self, key: ProducerKey, state: ProducerState) {
        self.states.insert_mut(key, state);
    }

    /// Where the next sweep starts.
    pub fn cursor(&self) -> Option<ProducerKey> {
        self.cursor
    }

    /// Sets where the next sweep starts, from a snapshot.
    pub fn restore_cursor(&mut self, cursor: Option<ProducerKey>) {
        self.cursor = cursor;
    }
}

/// Hands out producer ids: a block per request, none twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerIds {
    next: i64,
}

impl ProducerIds {
    /// Ids per block.
    pub const BLOCK: u32 = 1000;

    /// Continues at `next`, from a snapshot.
    pub fn restore(next: ProducerId) -> Self {
        Self { next: next.value() }
    }

    /// The first id never handed out.
    pub fn next(&self) -> ProducerId {
        ProducerId::new(self.next)
    }

    /// The next block's first id.
    pub fn allocate(&mut self) -> ProducerId {
        let first = ProducerId::new(self.next);
        self.next = self.next.checked_add(i64::from(Self::BLOCK)).expect("2^63 ids outlast us");
        first
    }
}

#[cfg(test)]
mod tests;
