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
    model::Timestamp,
    seam::MonoTime,
};

use super::{BatchId, Permit, chain::ChainKey, plan::Buffered};

/// Positions are 32 bits; half of that leaves room for the largest batch behind the last one.
const OBJECT_BYTES_CAP: u64 = 1 << 30;

/// A batch on its way into an object.
pub(super) struct Incoming {
    pub(super) id: BatchId,
    pub(super) key: ChainKey,
    pub(super) batch: ValidatedBatch,
    pub(super) permit: Permit,
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
    key: ChainKey,
    record_count: u32,
    max_timestamp: Timestamp,
    producer: Option<BatchProducer>,
}

/// A batch with its place in a closed object.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedBatch {
    pub(super) id: BatchId,
    pub(super) key: ChainKey,
    pub(super) position: u32,
    pub(super) length: u32,
    pub(super) record_count: u32,
    pub(super) max_timestamp: Timestamp,
    pub(super) producer: Option<BatchProducer>,
}

/// A closed object, ready for its PUT.
pub(super) struct ClosedObject {
    pub(super) built: BuiltObject,
    /// In the order of the requests.
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

    /// Adds a batch that arrived at `now`.
    pub(super) fn push(&mut self, now: MonoTime, incoming: Incoming) {
        let batch_bytes = incoming.batch.bytes().len() as u64;
        let overflows =
            |open: &mut OpenObject| self.object_bytes < open.builder.body_bytes() + batch_bytes;
        self.full.extend(self.open.take_if(overflows));
        let open = self.open.get_or_insert_with(|| OpenObject::new(now));
        open.push(incoming);
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
    /// object without any is dropped, and its permits with it.
    pub(super) fn close_oldest(
        &mut self,
        is_live: impl Fn(BatchId) -> bool,
    ) -> Option<ClosedObject> {
        let object = self.full.pop_front().or_else(|| self.open.take())?;
        object.entries.iter().any(|entry| is_live(entry.id)).then(|| object.close(is_live))
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

    fn push(&mut self, incoming: Incoming) {
        let header = incoming.batch.header();
        self.entries.push(Entry {
            id: incoming.id,
            key: incoming.key,
            record_count: incoming.batch.record_count(),
            max_timestamp: header.max_timestamp,
            producer: header.producer(),
        });
        self.builder.add(incoming.key.partition, incoming.batch);
        self.permits.push(incoming.permit);
        self.deadline = self.deadline.max(incoming.deadline);
    }

    fn close(self, is_live: impl Fn(BatchId) -> bool) -> ClosedObject {
        let built = self.builder.finish();
        let place = |(entry, at): (&Entry, &BatchPosition)| {
            let range = at.range;
            PlacedBatch {
                id: entry.id,
                key: entry.key,
                position: u32::try_from(range.start).expect("an object is far below 4 GiB"),
                length: u32::try_from(range.byte_count()).expect("a batch is below 2 GiB"),
                record_count: entry.record_count,
                max_timestamp: entry.max_timestamp,
                producer: entry.producer,
            }
        };
        let batches = self
            .entries
            .iter()
            .zip(&built.positions)
            .map(place)
            .filter(|batch| is_live(batch.id))
            .collect();
        ClosedObject { built, batches, permits: self.permits, deadline: self.deadline }
    }
}
