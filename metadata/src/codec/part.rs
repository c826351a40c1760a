//! The commit in few bytes: at most 24 per row and 16 per batch of log.
//!
//! Topics and producers are named once per part. Numbers stand in columns of varints: a batch that
//! follows the one before without a hole costs one byte for its place, timestamps are steps.

use std::collections::BTreeMap;

use aquifer_storage::model::{
    CommitSeq, ObjectSeq, PartitionIndex, ProducerEpoch, ProducerId, Sequence, SessionId,
    Timestamp, TopicId, TopicPartition,
};

use super::{
    CodecError,
    column::{Column, timestamp_step},
    narrow, topic_from_proto,
};
use crate::{
    machine::command::{CommitPart, PartBatch, PartExtent, PartProducer},
    proto,
};

/// Batches of one part.
pub const PART_BATCHES_MAX: usize = 1 << 17;

/// Numbers of one batch in its column, at least.
const BATCH_NUMBERS_MIN: usize = 5;

/// A part as a message.
pub fn part_to_proto(part: &CommitPart) -> proto::CommitPart {
    let count = part.extents.iter().map(|extent| extent.batches.len()).sum::<usize>();
    let mut columns = Columns {
        extents: Vec::with_capacity(part.extents.len() * 4),
        batches: Vec::with_capacity(count * (BATCH_NUMBERS_MIN + 1)),
        ..Columns::default()
    };
    for extent in &part.extents {
        columns.write(extent);
    }
    let producers = part.producers.iter();
    proto::CommitPart {
        session: part.session.value(),
        commit_seq: part.commit_seq.value(),
        unread_parts: part.commit_seq.value().wrapping_sub(part.acked_seq.value()),
        low_seq: part.low_seq.value(),
        object_seq: part.object_seq.value(),
        object_bytes: part.object_bytes,
        topics: columns.topics.into(),
        producers: producers
            .flat_map(|producer| [producer.id.value() as u64, producer.epoch.value() as u64])
            .collect(),
        extents: columns.extents,
        batches: columns.batches,
    }
}

/// A part from a message.
pub fn part_from_proto(part: &proto::CommitPart) -> Result<CommitPart, CodecError> {
    let mut producers = Vec::with_capacity(part.producers.len() / 2);
    let mut column = Column::new(&part.producers, "producer");
    while !column.is_empty() {
        let id = ProducerId::new(column.narrow()?);
        let epoch = ProducerEpoch::new(column.narrow()?).ok_or(CodecError::Invalid("epoch"))?;
        producers.push(PartProducer { id, epoch });
    }
    let object_bytes = part.object_bytes;
    let extents = read_extents(part, producers.len() as u64)?;
    let ends = extents.iter().flat_map(|extent: &PartExtent| &extent.batches);
    if ends.map(|b| u64::from(b.position) + u64::from(b.length)).any(|end| end > object_bytes) {
        return Err(CodecError::Invalid("batch beyond the object's end"));
    }
    Ok(CommitPart {
        session: SessionId::new(part.session),
        commit_seq: CommitSeq::new(part.commit_seq),
        acked_seq: CommitSeq::new(part.commit_seq.wrapping_sub(part.unread_parts)),
        low_seq: ObjectSeq::new(part.low_seq),
        object_seq: ObjectSeq::new(part.object_seq),
        object_bytes,
        producers,
        extents,
    })
}

/// Whether [`part_from_proto`] reads the part back as it is: it holds nothing that is refused
/// there. All else comes back, whatever the numbers, for places and timestamps are steps that wrap.
pub fn part_is_kept_by_encoding(part: &CommitPart) -> bool {
    let batch_count: usize = part.extents.iter().map(|extent| extent.batches.len()).sum();
    let batch_is_kept = |batch: &PartBatch| {
        batch.record_count != 0
            && u64::from(batch.position) + u64::from(batch.length) <= part.object_bytes
            && batch.producer.is_none_or(|(place, _)| (place as usize) < part.producers.len())
    };
    // A numbered batch takes one number more than the count that is judged assumes.
    batch_count <= PART_BATCHES_MAX / 2
        && part.producers.iter().all(|producer| 0 <= producer.id.value())
        && part.extents.iter().all(|extent| {
            0 <= extent.partition.partition.value() && extent.batches.iter().all(batch_is_kept)
        })
}

/// The columns of a part as they are written.
#[derive(Default)]
struct Columns {
    topics: Vec<u8>,
    places: BTreeMap<TopicId, u64>,
    extents: Vec<u64>,
    batches: Vec<u64>,
    timestamp: Option<Timestamp>,
}

impl Columns {
    fn write(&mut self, extent: &PartExtent) {
        let count = self.places.len() as u64;
        let place = *self.places.entry(extent.partition.topic).or_insert_with(|| {
            self.topics.extend_from_slice(extent.partition.topic.as_bytes());
            count
        });
        let first = extent.batches.first().map_or(0, |batch| batch.position);
        self.extents.extend([
            place,
            u64::from(extent.partition.partition.value().cast_unsigned()),
            extent.batches.len() as u64,
            u64::from(first),
        ]);
        let mut end = first;
        for batch in &extent.batches {
            self.write_batch(batch, end);
            end = batch.position.wrapping_add(batch.length);
        }
    }

    fn write_batch(&mut self, batch: &PartBatch, end: u32) {
        let previous = self.timestamp.replace(batch.max_timestamp).unwrap_or(FIRST_TIMESTAMP);
        self.batches.extend([
            u64::from(batch.position.wrapping_sub(end)),
            u64::from(batch.length),
            u64::from(batch.record_count),
            timestamp_step(previous, batch.max_timestamp),
        ]);
        match batch.producer {
            None => self.batches.push(0),
            Some((place, sequence)) => {
                let sequence = u64::from(sequence.value().cast_unsigned());
                self.batches.extend([u64::from(place) + 1, sequence]);
            }
        }
    }
}

/// The step of the first batch counts from here.
const FIRST_TIMESTAMP: Timestamp = Timestamp::from_millis(0);

fn read_extents(
    part: &proto::CommitPart,
    producer_count: u64,
) -> Result<Vec<PartExtent>, CodecError> {
    if part.batches.len() / BATCH_NUMBERS_MIN > PART_BATCHES_MAX {
        return Err(CodecError::TooLong("batches"));
    }
    let topics: Vec<TopicId> =
        part.topics.chunks(16).map(topic_from_proto).collect::<Result<_, _>>()?;
    let mut extents = Vec::with_capacity(part.extents.len() / 4);
    let mut rows = Column::new(&part.extents, "extent");
    let mut batches = Batches {
        column: Column::new(&part.batches, "batch"),
        producer_count,
        timestamp: FIRST_TIMESTAMP,
    };
    while !rows.is_empty() {
        let place: usize = rows.narrow()?;
        let topic = *topics.get(place).ok_or(CodecError::Invalid("topic place"))?;
        let partition = PartitionIndex::new(rows.narrow()?);
        let count: usize = rows.narrow()?;
        let position: u32 = rows.narrow()?;
        let partition = TopicPartition { topic, partition };
        extents.push(PartExtent { partition, batches: batches.read(count, position)? });
    }
    if !batches.column.is_empty() {
        return Err(CodecError::TooLong("batches"));
    }
    Ok(extents)
}

struct Batches<'a> {
    column: Column<'a>,
    producer_count: u64,
    timestamp: Timestamp,
}

impl Batches<'_> {
    fn read(&mut self, count: usize, first: u32) -> Result<Vec<PartBatch>, CodecError> {
        if count > self.column.remaining() / BATCH_NUMBERS_MIN {
            return Err(CodecError::TooLong("batch count"));
        }
        let mut batches = Vec::with_capacity(count);
        let mut end = first;
        for _ in 0..count {
            let batch = self.read_one(end)?;
            end = batch.position.wrapping_add(batch.length);
            batches.push(batch);
        }
        Ok(batches)
    }

    fn read_one(&mut self, end: u32) -> Result<PartBatch, CodecError> {
        let position = end.wrapping_add(self.column.narrow()?);
        let length = self.column.narrow()?;
        let record_count = self.column.narrow()?;
        if record_count == 0 {
            return Err(CodecError::Invalid("record count"));
        }
        self.timestamp = self.column.timestamp(self.timestamp)?;
        let producer = match self.column.next()? {
            0 => None,
            place if place > self.producer_count => return Err(CodecError::Invalid("producer")),
            place => Some((narrow(place - 1, "producer")?, self.sequence()?)),
        };
        Ok(PartBatch { position, length, record_count, max_timestamp: self.timestamp, producer })
    }

    fn sequence(&mut self) -> Result<Sequence, CodecError> {
        Sequence::new(self.column.narrow()?).ok_or(CodecError::Invalid("sequence"))
    }
}
