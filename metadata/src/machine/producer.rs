//! Deduplicates idempotent producers: the last five batches per producer and partition, with their
//! sequences and *final* offsets (KAFKA 2, Idempotence).
//!
//! # Invariants
//! - A batch that was appended answers its original offset as long as it is among the last five of
//!   its epoch, whichever agent brings the retry.
//! - Every remembered offset is below the partition's high watermark.
//! - There are never more states than the limit and a sixteenth after an entry, whatever clients
//!   do. A producer whose state had to go is not refused: its next batch is taken as it comes, and
//!   only a retry of an older one is no longer recognised.
//!
//! # Not here
//! Transactional epochs, which hold for every partition at once.

use std::{ops::Bound, time::Duration};

use aquifer_storage::{
    model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId, TopicPartition},
    planted::{self, Bug},
};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};
use smallvec::{SmallVec, smallvec};

use super::{command::BatchRejected, time::Elapsed};

/// Batches remembered per producer and partition, as many as Kafka.
pub(crate) const BATCHES_KEPT: usize = 5;

/// Kafka's `producer.id.expiration.ms`. Of elapsed time: were it the wall clock's, one that is set
/// forwards would forget what retries are recognised by.
pub(crate) const EXPIRATION: Duration = Duration::from_secs(24 * 60 * 60);

/// States looked at for expiry per entry, beside two for each that the entry added: no entry has to
/// forget very many at once.
pub(crate) const SWEEP_ROWS: usize = 64;

/// States at most (a sixteenth more while all of them write), one per producer and partition: with
/// up to a kilobyte each about a gigabyte. Apply must not depend on a node's configuration, so that
/// it is the same everywhere.
pub(crate) const STATES_MAX: usize = 1 << 20;

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
    pub touched: Elapsed,
    /// Its place in the queue of those that are forgotten next: `touched` of when it got there.
    pub queued: Elapsed,
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
    /// Every state once, the longest queued first. Who writes on is not moved at once but when it
    /// is found at the front, so that a batch costs nothing here.
    queue: RedBlackTreeSetSync<(Elapsed, ProducerKey)>,
    /// States that came since the last sweep: none between entries.
    added: usize,
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
        now: Elapsed,
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
            None => {
                let batches = smallvec![appended];
                let epoch = batch.epoch;
                self.restore(key, ProducerState { epoch, touched: now, queued: now, batches });
                self.added += 1;
            }
        }
    }

    /// At the end of an entry: forgets producers that were silent for a day and, above
    /// `states_max`, those that were silent longest, whenever that was. What one entry has to do is
    /// bounded. Who wrote since it was queued goes only where an entry cannot look past all of them
    /// and the table is a sixteenth above its limit; so that this is rare, those are looked past
    /// already when it is a sixteenth below it.
    pub fn sweep(&mut self, now: Elapsed, states_max: usize) {
        let added = std::mem::take(&mut self.added);
        let slack = states_max / 16;
        let mut looks = SWEEP_ROWS + 2 * added;
        while let Some((queued, key)) = self.queue.first().copied() {
            let size = self.states.size();
            let is_old = EXPIRATION <= now.since(queued);
            let state = self.states.get(&key).expect("what is queued is there");
            let touched = state.touched;
            let wrote = touched != queued;
            let is_looked_past = wrote && 0 < looks && (is_old || states_max - slack < size);
            let is_forgotten = match wrote {
                true => states_max + slack < size,
                false => states_max < size || (is_old && 0 < looks),
            };
            if !is_looked_past && !is_forgotten {
                break;
            }
            self.queue.remove_mut(&(queued, key));
            if is_looked_past {
                self.states.get_mut(&key).expect("it was just there").queued = touched;
                self.queue.insert_mut((touched, key));
            } else {
                self.states.remove_mut(&key);
            }
            looks = looks.saturating_sub(1);
        }
    }

    /// Forgets a deleted topic's producers.
    pub fn remove_topic(&mut self, topic: TopicId) {
        let range = super::topic::partitions_of(topic);
        let start = (*range.start(), ProducerId::new(i64::MIN));
        let end = (*range.end(), ProducerId::new(i64::MAX));
        let keys: Vec<ProducerKey> = self.states.range(start..=end).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(state) = self.states.get(&key) {
                self.queue.remove_mut(&(state.queued, key));
            }
            self.states.remove_mut(&key);
        }
    }

    /// States of one partition with a producer above `after`, ascending.
    pub fn of_partition(
        &self,
        partition: TopicPartition,
        after: Option<ProducerId>,
    ) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        let start = match after {
            Some(after) => Bound::Excluded((partition, after)),
            None => Bound::Included((partition, ProducerId::new(i64::MIN))),
        };
        let end = Bound::Included((partition, ProducerId::new(i64::MAX)));
        // A range from behind the last id on would panic.
        let exists = after.is_none_or(|after| after.value() < i64::MAX);
        let states = exists.then(|| self.states.range((start, end)));
        states.into_iter().flatten().map(|((_, producer), state)| (*producer, state))
    }

    /// Every state, by partition and producer.
    pub fn iter(&self) -> impl Iterator<Item = (&ProducerKey, &ProducerState)> {
        self.states.iter()
    }

    /// Whether every state waits once to be forgotten.
    pub fn is_queued(&self) -> bool {
        let queued = |(key, state): (&ProducerKey, &ProducerState)| {
            self.queue.contains(&(state.queued, *key))
        };
        self.queue.size() == self.states.size() && self.states.iter().all(queued)
    }

    /// Puts a state in place, from a snapshot.
    pub fn restore(&mut self, key: ProducerKey, state: ProducerState) {
        if let Some(replaced) = self.states.get(&key) {
            self.queue.remove_mut(&(replaced.queued, key));
        }
        self.queue.insert_mut((state.queued, key));
        self.states.insert_mut(key, state);
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
