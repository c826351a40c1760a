//! Laws of telling effects.

use aquifer_storage::model::{
    LeaderEpoch, Lineage, ObjectName, ObjectSeq, OffsetRange, PartitionIndex, Timestamp,
};

use super::*;
use crate::machine::effect::{Pointers, Run};

fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

fn partition(index: i32) -> TopicPartition {
    let topic = TopicId::from_bytes([1; 16]);
    TopicPartition { topic, partition: PartitionIndex::new(index) }
}

/// A row over `[base, next)` of object `seq`.
fn run((base, next): (i64, i64), seq: u64) -> Run {
    let lineage = Lineage { number: 0, nonce: 1 };
    let (session, seq) = (SessionId::new(1), ObjectSeq::new(seq));
    Run {
        offsets: OffsetRange { base: offset(base), next: offset(next) },
        object: ObjectName { lineage, session, seq, merged: false },
        object_bytes: 100,
        position: 0,
        length: 10,
        max_timestamp: Timestamp::NONE,
        offsets_final: false,
    }
}

fn advanced(index: i32, runs: Vec<Run>) -> Effect {
    let high_watermark = runs[runs.len() - 1].offsets.next;
    let pointers = Pointers {
        log_start: Offset::ZERO,
        last_stable: high_watermark,
        high_watermark,
        leader_epoch: LeaderEpoch::new(0),
    };
    Effect::PartitionAdvanced {
        partition: partition(index),
        from: runs[0].offsets.base,
        runs,
        pointers,
    }
}

#[test]
fn parts_of_one_entry_advance_a_partition_once_over_all_their_rows() {
    // The third part's batches lengthen the second one's row.
    let effects = vec![
        advanced(0, vec![run((5, 8), 1)]),
        advanced(1, vec![run((0, 3), 1)]),
        Effect::NodesChanged,
        advanced(0, vec![run((8, 9), 2)]),
        advanced(0, vec![run((8, 12), 2), run((12, 14), 3)]),
    ];
    let joined = one_advance_each(effects);
    let rows = vec![run((5, 8), 1), run((8, 12), 2), run((12, 14), 3)];
    let others = advanced(1, vec![run((0, 3), 1)]);
    assert_eq!(joined, [advanced(0, rows), others, Effect::NodesChanged]);
}
