//! From a Produce request to the entry that commits it, and the object it goes into.

use aquifer_agent::{
    produce::{AppendOutcome, hot::WritePath},
    wire::{
        Records, Str, Uuid, Writer,
        header::response_frame,
        messages::{
            Message, ProduceRequest, ProduceRequestTopicData, ProduceRequestTopicDataPartitionData,
            ProduceResponse, ProduceResponseResponses, ProduceResponseResponsesPartitionResponses,
        },
        produce_walk::ProduceWalk,
    },
};
use aquifer_metadata::{
    codec,
    machine::{
        LEVEL,
        command::{BatchOutcome, Command, CommitPart, CommitReply, Entry, Stamp},
    },
};
use aquifer_storage::{
    format::{
        checksum::Crc32c,
        object::{ObjectBuilder, TRAILER_BYTES, read_footer},
        record_batch::{ValidatedBatch, validate_produced},
    },
    model::{Offset, TopicPartition},
};
use bytes::Bytes;

use crate::{
    common::{RECORDS, SESSION, batch, batch_bytes, partition},
    rounds,
};

const VERSION: i16 = 12;

/// A body whose frame was read from a socket: one piece of memory.
fn request(count: usize) -> Bytes {
    let partition = |index: usize| ProduceRequestTopicDataPartitionData {
        index: i32::try_from(index).expect("a few hundred"),
        records: Some(Records::from(batch_bytes(index % 8, RECORDS))),
    };
    let topic = ProduceRequestTopicData {
        name: Str::from_static("a-topic"),
        partition_data: (0..count).map(partition).collect(),
        ..ProduceRequestTopicData::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let mut w = Writer::default();
    request.encode_body(VERSION, &mut w);
    w.into_bytes()
}

/// Walks a request and validates its batches.
pub fn walk(count: usize) {
    let body = request(count);
    rounds(
        |_| body.clone(),
        |body| {
            let walk = ProduceWalk::parse(body, VERSION).expect("it is well-formed");
            let mut batches = Vec::with_capacity(walk.partition_count());
            for asked in walk.iter() {
                let records = asked.records.unwrap_or_default();
                batches.push(validate_produced(records, 1 << 20).expect("it is sound"));
            }
            batches
        },
    );
}

fn entry_of(part: &CommitPart) -> Bytes {
    codec::encode_entry(&Entry {
        stamp: Stamp { boot: 1, mono_ms: 1 << 30, wall_ms: 1_790_000_000_000 },
        min_level: LEVEL,
        commands: vec![Command::Commit(part.clone())],
    })
}

/// Buffers batches, closes their object, plans and encodes the commit, and settles its answer.
pub fn commit(count: usize) {
    let mut path = WritePath::new(SESSION);
    let input = |round| -> (Vec<(TopicPartition, ValidatedBatch)>, CommitReply) {
        let batch = batch(round, RECORDS);
        let base = Offset::new(0).expect("zero is an offset");
        let outcome = BatchOutcome::Appended { base, log_start: base };
        let batches = (0..count).map(|index| (partition(index), batch.clone())).collect();
        (batches, CommitReply::Applied(vec![outcome; count]))
    };
    rounds(input, |(batches, reply)| {
        let (built, part) = path.commit(batches);
        let entry = entry_of(&part);
        let outcomes = path.replied(&part, reply);
        assert_eq!(outcomes.len(), count);
        (built, part, entry, outcomes)
    });
}

/// Encodes an answer.
pub fn answer(count: usize) {
    let row = |index: usize| ProduceResponseResponsesPartitionResponses {
        index: i32::try_from(index).expect("a few hundred"),
        base_offset: 1 << 40,
        log_append_time_ms: -1,
        ..ProduceResponseResponsesPartitionResponses::default()
    };
    let topic = || ProduceResponseResponses {
        name: Str::from_static("a-topic"),
        topic_id: Uuid::default(),
        partition_responses: (0..count).map(row).collect(),
    };
    rounds(
        |_| ProduceResponse { responses: vec![topic()], ..ProduceResponse::default() },
        |response| (response_frame(9, VERSION, &response), response),
    );
    let _ = AppendOutcome::Unknown;
}

/// The checksum of an extent from those of its batches, and of a batch whose header changed.
pub fn combine() {
    let part = Crc32c::new(0x1234_5678);
    rounds(
        |round| u64::try_from(round).expect("a few rounds"),
        |round| {
            let extent = (0..64).fold(Crc32c::EMPTY, |extent, batch| {
                extent.followed_by(part, 100 + 1000 * round + 37 * batch)
            });
            extent.with_head_replaced(part, Crc32c::EMPTY, 1 << 16)
        },
    );
}

fn built(count: usize) -> ObjectBuilder {
    let mut builder = ObjectBuilder::new();
    for index in 0..count {
        builder.add(partition(index), batch(0, RECORDS));
    }
    builder
}

/// Closes an object.
pub fn encode_footer(count: usize) {
    rounds(|_| built(count), ObjectBuilder::finish);
}

/// Reads the footer of an object.
pub fn decode_footer(count: usize) {
    let object: Bytes = built(count).finish().body.concat().into();
    assert!(TRAILER_BYTES < object.len());
    rounds(|_| object.clone(), |object| read_footer(&object).expect("it is sound"));
}
