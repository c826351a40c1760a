//! The write buffer: batches grouped into the objects that will hold them [pure].
//!
//! # Invariants
//! - Objects leave in the order in which they were begun.
//! - An object is closed at `object.size`; a batch above it makes an object of its own.

use std::collections::VecDeque;

use aquifer_storage::{
    format::{
        object::{BatchPosition, BuiltObject, ObjectBuilder},
        record_batch::{BatchProducer, ValidatedBatch},
    },
    model::{Timestamp, TopicPartition},
    seam::MonoTime,
};

use super::{BatchId, Permit, chain::ChainId, plan::Buffered};

/// Positions are 32 bits; half of that leaves room for the largest batch behind the last one.
const OBJECT_BYTES_CAP: u64 = 1 << 30;

/// A batch on its way into an object.
pub(super) struct Incoming {
    pub(super) id: BatchId,
    pub(super) chain: ChainId,
    pub(super) partition: TopicPartition,
    pub(super) batch: ValidatedBatch,
    pub(super) deadline: MonoTime,
}

/// Objects being filled and waiting to be flushed.
pub(super) struct Buffer {
    object_bytes: u64,
    full: VecDeque<OpenObject>,
    open: Option<OpenObject>,
}

/// An object being filled.
struct OpenObject {
    builder: ObjectBuilder,
    entries: Vec<Entry>,
    permits: Vec<Permit>,
    oldest: MonoTime,
    deadline: MonoTime,
}

#[derive(Clone, Copy)]
struct Entry {
    id: BatchId,
    chain: ChainId,
    record_count: u32,
    max_timestamp: Timestamp,
    producer: Option<BatchProducer>,
}

/// A batch with its place in a closed object.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedBatch {
    pub(super) id: BatchId,
    pub(super) chain: ChainId,
    pub(super) partition: TopicPartition,
    pub(super) position: u32,
    pub(super) length: u32,
    pub(super) record_count: u32,
    pub(super) max_timestamp: Timestamp,
    pub(super) producer: Option<BatchProducer>,
}

/// A closed object, ready for its PUT.
pub(super) struct ClosedObject {
    pub(super) built: BuiltObject,
    /// In the order of their places, which within a partition is that of the requests.
    pub(super) batches: Vec<PlacedBatch>,
    /// Held until the bytes are no longer needed.
    pub(super) permits: Vec<Permit>,
    /// When its last batch is given up.
    pub(super) deadline: MonoTime,
}

impl Buffer {
    /// An empty buffer whose objects close at `object_bytes`.
    pub(super) fn new(object_bytes: u64) -> Self {
        Self { object_bytes: object_bytes.min(OBJECT_BYTES_CAP), full: VecDeque::new(), open: None }
    }

    /// Adds a batch that arrived at `now`; `permit` is that of its request.
    pub(super) fn push(&mut self, now: MonoTime, incoming: Incoming, permit: &Permit) {
        let batch_bytes = incoming.batch.bytes().len() as u64;
        let overflows =
            |open: &mut OpenObject| self.object_bytes < open.builder.body_bytes() + batch_bytes;
        self.full.extend(self.open.take_if(overflows));
        let open = self.open.get_or_insert_with(|| OpenObject::new(now));
        open.push(incoming, permit);
        let closes = |open: &mut OpenObject| self.object_bytes <= open.builder.body_bytes();
        self.full.extend(self.open.take_if(closes));
    }

    /// The oldest object, as the flush decision sees it.
    pub(super) fn oldest(&self) -> Option<Buffered> {
        let (object, full) = match self.full.front() {
            Some(object) => (object, true),
            None => (self.open.as_ref()?, false),
        };
        let bytes = object.builder.object_bytes_estimate();
        Some(Buffered { bytes, oldest: object.oldest, full })
    }

    /// Drops the oldest objects of which no batch is wanted any more, and their permits.
    pub(super) fn drop_dead(&mut self, is_live: impl Fn(BatchId) -> bool) {
        let is_dead = |object: &OpenObject| !object.entries.iter().any(|entry| is_live(entry.id));
        while self.full.front().is_some_and(is_dead) {
            self.full.pop_front();
        }
        if self.full.is_empty() {
            drop(self.open.take_if(|open| is_dead(open)));
        }
    }

    /// Closes and takes the oldest object. `is_live` says which batches are still wanted: an
    /// object without any is dropped, and its permits with it; one with some is taken with all.
    pub(super) fn close_oldest(
        &mut self,
        is_live: impl Fn(BatchId) -> bool,
    ) -> Option<ClosedObject> {
        let object = self.full.pop_front().or_else(|| self.open.take())?;
        object.entries.iter().any(|entry| is_live(entry.id)).then(|| object.close())
    }
}

impl OpenObject {
    fn new(now: MonoTime) -> Self {
        Self {
            builder: ObjectBuilder::new(),
            entries: Vec::new(),
            permits: Vec::new(),
            oldest: now,
            deadline: now,
        }
    }

    fn push(&mut self, incoming: Incoming, permit: &Permit) {
        let header = incoming.batch.header();
        self.entries.push(Entry {
            id: incoming.id,
            chain: incoming.chain,
            record_count: incoming.batch.record_count(),
            max_timestamp: header.max_timestamp,
            producer: header.producer(),
        });
        self.builder.add(incoming.partition, incoming.batch);
        if self.permits.last().is_none_or(|last| !last.is_same(permit)) {
            self.permits.push(permit.clone());
        }
        self.deadline = self.deadline.max(incoming.deadline);
    }

    fn close(self) -> ClosedObject {
        let built = self.builder.finish();
        let mut by_rank = vec![0; self.entries.len()];
        for (arrival, at) in built.positions.iter().enumerate() {
            by_rank[at.rank] = arrival;
        }
        let placed = |arrival: usize| self.entries[arrival].placed(&built.positions[arrival]);
        let batches = by_rank.into_iter().map(placed).collect();
        ClosedObject { built, batches, permits: self.permits, deadline: self.deadline }
    }
}

impl Entry {
    fn placed(&self, at: &BatchPosition) -> PlacedBatch {
        PlacedBatch {
            id: self.id,
            chain: self.chain,
            partition: at.partition,
            position: u32::try_from(at.range.start).expect("an object is far below 4 GiB"),
            length: u32::try_from(at.range.byte_count()).expect("a batch is below 2 GiB"),
            record_count: self.record_count,
            max_timestamp: self.max_timestamp,
            producer: self.producer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests {
    use std::{sync::Arc, time::Duration};

    use aquifer_storage::{
        format::{record_batch::validate_produced, test_batch::TestBatch},
        model::{PartitionIndex, TopicId},
    };

    use super::*;
    use crate::produce::{
        ConnectionId,
        chain::{ChainKey, Chains},
    };

    /// Pushes a batch of each partition, as one request.
    fn push(buffer: &mut Buffer, partitions: &[i32], permit: &Permit) {
        let now = MonoTime::from_zero(Duration::ZERO);
        let mut chains = Chains::default();
        for (id, partition) in (0..).map(BatchId).zip(partitions) {
            let topic = TopicId::from_bytes([1; 16]);
            let partition = TopicPartition { topic, partition: PartitionIndex::new(*partition) };
            let key = ChainKey { connection: ConnectionId::new(1), producer: None, partition };
            let chain = chains.admit(key, None, id).unwrap();
            let batch = validate_produced(TestBatch::default().bytes(), 1 << 20).unwrap();
            buffer.push(now, Incoming { id, chain, partition, batch, deadline: now }, permit);
        }
    }

    #[test]
    fn batches_leave_in_the_order_of_their_places() {
        let mut buffer = Buffer::new(1 << 20);
        push(&mut buffer, &[1, 0, 1, 0], &Permit::none());
        let closed = buffer.close_oldest(|id| id == BatchId(3)).unwrap();
        let ids: Vec<u64> = closed.batches.iter().map(|batch| batch.id.0).collect();
        assert_eq!(ids, [1, 3, 0, 2]);
        assert!(closed.batches.is_sorted_by_key(|batch| batch.position));
        assert!(closed.batches.is_sorted_by_key(|batch| batch.partition));
    }

    #[test]
    fn a_request_gives_its_memory_back_with_the_last_of_its_objects() {
        let held = Arc::new(());
        let mut buffer = Buffer::new(1);
        push(&mut buffer, &[0, 0], &Permit::new(Arc::clone(&held)));
        for left in [2, 1] {
            assert_eq!(Arc::strong_count(&held), 2, "{left} objects left");
            drop(buffer.close_oldest(|_| true).unwrap());
        }
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn an_object_holds_one_permit_of_a_request() {
        let mut buffer = Buffer::new(1 << 20);
        push(&mut buffer, &[0, 1, 2], &Permit::new(()));
        push(&mut buffer, &[0, 1, 2], &Permit::new(()));
        assert_eq!(buffer.close_oldest(|_| true).unwrap().permits.len(), 2);
    }
}
