//! Inputs that more than one path takes.

use aquifer_storage::{
    format::{
        record_batch::{ValidatedBatch, validate_produced},
        test_batch::TestBatch,
    },
    model::{Lineage, ObjectName, ObjectSeq, PartitionIndex, SessionId, TopicId, TopicPartition},
};
use bytes::Bytes;

/// Records of one batch.
pub const RECORDS: u32 = 3;

/// The one topic.
pub const TOPIC: TopicId = TopicId::from_bytes([0x51; 16]);

/// The one session.
pub const SESSION: SessionId = SessionId::new(1);

/// Partition `index` of the topic.
pub fn partition(index: usize) -> TopicPartition {
    let index = i32::try_from(index).expect("a few hundred partitions");
    TopicPartition { topic: TOPIC, partition: PartitionIndex::new(index) }
}

/// The object `seq` of the session.
pub fn object(seq: u64) -> ObjectName {
    let lineage = Lineage { number: 0, nonce: 1 };
    ObjectName { lineage, session: SESSION, seq: ObjectSeq::new(seq), merged: false }
}

/// A batch that is the `round`th of its producer.
pub fn batch_bytes(round: usize, records: u32) -> Bytes {
    let round = u32::try_from(round).expect("a few rounds");
    let sequence = i32::try_from(round * records).expect("a few records");
    TestBatch {
        records,
        producer: (7, 0, sequence),
        timestamp_ms: 1_790_000_000_000 + i64::from(round),
        value: vec![b'v'; 32],
        ..TestBatch::default()
    }
    .bytes()
}

/// The same, validated.
pub fn batch(round: usize, records: u32) -> ValidatedBatch {
    validate_produced(batch_bytes(round, records), 1 << 20).expect("it is sound")
}
