//! Collects batches into an object without copying them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{AbortedTransaction, ByteRange, ExtentEntry, Footer, IndexPoint};
use crate::{
    format::{checksum::Crc32c, record_batch::CheckedBatch},
    model::{Offset, ProducerId, Timestamp, TopicPartition},
};

/// Room for the fixed part of footer and trailer, and per extent for its entry.
const FIXED_BYTES: u64 = 64;
const BYTES_PER_EXTENT: u64 = 60;

/// A merged extent has a point of its sparse index about this often.
const INDEX_EVERY_BYTES: u64 = 1024 * 1024;

/// Where an added batch ended up. Positions stand in the order in which batches were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPosition {
    /// Whose batch.
    pub partition: TopicPartition,
    /// Where in the object.
    pub range: ByteRange,
    /// How many batches stand before it in the object.
    pub rank: usize,
}

/// A finished object.
#[derive(Clone, Debug)]
pub struct BuiltObject {
    /// The object's bytes, as a list of buffers for one PUT.
    pub body: Vec<Bytes>,
    /// Length of the object.
    pub object_bytes: u64,
    /// The extents, as the footer has them.
    pub extents: Vec<ExtentEntry>,
    /// Where each added batch is, in the order of [`ObjectBuilder::add`].
    pub positions: Vec<BatchPosition>,
}

/// Collects batches in the order of arrival, grouped by topic partition.
#[derive(Debug, Default)]
pub struct ObjectBuilder {
    /// Places among `extents`.
    by_partition: BTreeMap<TopicPartition, usize>,
    extents: Vec<OpenExtent>,
    /// Place of the extent, and index within it, of each batch in the order of arrival.
    arrivals: Vec<(usize, usize)>,
    body_bytes: u64,
    /// Whether batches hold final offsets, so that an index of them means something.
    indexed: bool,
}

#[derive(Debug, Default)]
struct OpenExtent {
    batches: Vec<Bytes>,
    extent_bytes: u64,
    record_count: u64,
    max_timestamp: Option<Timestamp>,
    checksum: Crc32c,
    index: Vec<OpenPoint>,
    aborted: Vec<(ProducerId, Offset, Offset)>,
}

#[derive(Debug)]
struct OpenPoint {
    offset: Offset,
    max_timestamp_before: Timestamp,
    position: u64,
}

impl ObjectBuilder {
    /// An empty object of the kind that a flush writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty merged object: its batches hold final offsets and get a sparse index.
    pub fn merged() -> Self {
        Self { indexed: true, ..Self::default() }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Number of batches added.
    pub fn batch_count(&self) -> usize {
        self.arrivals.len()
    }

    /// Bytes of the batches added.
    pub const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// About the length of the finished object; the sparse index is left out.
    pub fn object_bytes_estimate(&self) -> u64 {
        self.body_bytes + FIXED_BYTES + BYTES_PER_EXTENT * self.extents.len() as u64
    }

    /// Adds a batch behind those of its partition; returns its index among the positions.
    pub fn add(&mut self, partition: TopicPartition, batch: impl Into<CheckedBatch>) -> usize {
        let batch = batch.into();
        let batch_bytes = batch.bytes().len() as u64;
        let at = *self.by_partition.entry(partition).or_insert(self.extents.len());
        if at == self.extents.len() {
            self.extents.push(OpenExtent::default());
        }
        let extent = &mut self.extents[at];
        if self.indexed {
            extent.index_batch(&batch);
        }
        self.arrivals.push((at, extent.batches.len()));
        extent.push(&batch, batch_bytes);
        self.body_bytes += batch_bytes;
        self.arrivals.len() - 1
    }

    /// Records that `producer` aborted a transaction over `[first, last]` wholly inside the extent
    /// of `partition`, in ascending order of `last`. Without an extent there is nothing to abort.
    pub fn add_aborted(
        &mut self,
        partition: TopicPartition,
        producer: ProducerId,
        (first, last): (Offset, Offset),
    ) {
        if let Some(at) = self.by_partition.get(&partition) {
            self.extents[*at].aborted.push((producer, first, last));
        }
    }

    /// Closes the object.
    ///
    /// # Panics
    /// When nothing was added: an empty flush does nothing.
    pub fn finish(mut self) -> BuiltObject {
        assert!(!self.is_empty(), "an empty flush writes no object");
        let mut footer = Footer::default();
        let mut body = Vec::with_capacity(self.arrivals.len() + 1);
        let mut places = vec![Vec::new(); self.extents.len()];
        let mut start = 0;
        for (partition, at) in self.by_partition {
            let extent = std::mem::take(&mut self.extents[at]);
            extent.describe(partition, start, &mut footer);
            places[at] = batch_positions(partition, (start, body.len()), &extent.batches);
            body.extend(extent.batches);
            start += extent.extent_bytes;
        }
        let positions = self.arrivals.into_iter().map(|(at, index)| places[at][index]).collect();
        let tail = Bytes::from(footer.encode());
        let object_bytes = start + tail.len() as u64;
        body.push(tail);
        BuiltObject { body, object_bytes, extents: footer.extents, positions }
    }
}

impl OpenExtent {
    fn push(&mut self, batch: &CheckedBatch, batch_bytes: u64) {
        let header = batch.header();
        self.checksum = self.checksum.followed_by(batch.checksum(), batch_bytes);
        self.extent_bytes += batch_bytes;
        self.record_count += u64::try_from(header.count).unwrap_or(0);
        self.max_timestamp = self.max_timestamp.max(Some(header.max_timestamp));
        self.batches.push(batch.bytes().clone());
    }

    fn index_batch(&mut self, batch: &CheckedBatch) {
        let due =
            self.index.last().is_none_or(|p| p.position + INDEX_EVERY_BYTES <= self.extent_bytes);
        let offset = Offset::new(batch.header().base_offset);
        if let (true, Some(offset)) = (due, offset) {
            let max_timestamp_before = self.max_timestamp.unwrap_or(Timestamp::NONE);
            self.index.push(OpenPoint {
                offset,
                max_timestamp_before,
                position: self.extent_bytes,
            });
        }
    }

    /// Appends this extent, which starts at `start`, to the footer.
    fn describe(&self, partition: TopicPartition, start: u64, footer: &mut Footer) {
        let extent = u32::try_from(footer.extents.len()).expect("the footer limit bounds extents");
        footer.extents.push(ExtentEntry {
            partition,
            range: ByteRange { start, end: start + self.extent_bytes },
            batch_count: u32::try_from(self.batches.len()).expect("batches are 61 bytes and more"),
            record_count: self.record_count,
            max_timestamp: self.max_timestamp.unwrap_or(Timestamp::NONE),
            checksum: self.checksum,
        });
        footer.index.extend(self.index.iter().map(|point| IndexPoint {
            extent,
            offset: point.offset,
            max_timestamp_before: point.max_timestamp_before,
            position: start + point.position,
        }));
        footer.aborted.extend(
            self.aborted.iter().map(|&(producer, first, last)| AbortedTransaction {
                extent,
                producer,
                first,
                last,
            }),
        );
    }
}

/// Where the batches of an extent are that has `start` bytes and `rank` batches before it.
fn batch_positions(
    partition: TopicPartition,
    (mut start, mut rank): (u64, usize),
    batches: &[Bytes],
) -> Vec<BatchPosition> {
    let position = |batch: &Bytes| {
        let range = ByteRange { start, end: start + batch.len() as u64 };
        let position = BatchPosition { partition, range, rank };
        (start, rank) = (range.end, rank + 1);
        position
    };
    batches.iter().map(position).collect()
}
