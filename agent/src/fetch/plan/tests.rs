//! Laws of the plan.

use aquifer_storage::model::{Lineage, ObjectName, ObjectSeq, OffsetRange, SessionId, Timestamp};

use super::*;

fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

/// Rows of ten records and 1000 bytes each, from offset 0.
fn runs(count: i64) -> Vec<Run> {
    let object = ObjectName {
        lineage: Lineage { number: 0, nonce: 1 },
        session: SessionId::new(1),
        seq: ObjectSeq::new(0),
        merged: false,
    };
    (0..count)
        .map(|row| Run {
            offsets: OffsetRange { base: offset(row * 10), next: offset(row * 10 + 10) },
            object,
            object_bytes: 1_000_000,
            position: row as u32 * 1000,
            length: 1000,
            max_timestamp: Timestamp::NONE,
            offsets_final: false,
        })
        .collect()
}

fn plan(from: i64, bytes_max: usize, bound: i64) -> PartitionPlan {
    let runs = runs(10);
    plan_partition(&PartitionInput {
        offset: offset(from),
        bytes_max,
        runs: &runs,
        bound: offset(bound),
    })
}

#[test]
fn the_row_that_holds_the_offset_comes_first() {
    assert_eq!(plan(25, 1, 100).runs[0].offsets.base, offset(20));
    assert_eq!(plan(30, 1, 100).runs[0].offsets.base, offset(30));
}

#[test]
fn rows_are_taken_until_the_limit_is_reached() {
    assert_eq!(plan(0, 1500, 100).runs.len(), 2);
    assert_eq!(plan(5, 1500, 100).runs.len(), 2);
    assert_eq!(plan(5, 1501, 100).runs.len(), 3);
    assert_eq!(plan(0, usize::MAX, 100).runs.len(), 10);
}

#[test]
fn nothing_at_or_beyond_the_bound_is_read() {
    assert_eq!(plan(0, usize::MAX, 20).runs.len(), 2);
    assert_eq!(plan(0, usize::MAX, 21).runs.len(), 3);
    assert!(plan(20, usize::MAX, 20).runs.is_empty());
    assert!(plan(100, usize::MAX, 100).runs.is_empty());
}

#[test]
fn the_first_partition_gives_something_whatever_the_limits_and_later_ones_do_not() {
    let mut plans = vec![plan(100, 10, 100), plan(0, 10, 100), plan(0, 10, 100)];
    share_bytes(&mut plans, 0);
    let rows: Vec<usize> = plans.iter().map(|plan| plan.runs.len()).collect();
    assert_eq!(rows, [0, 1, 0]);
}

#[test]
fn later_partitions_get_what_is_left() {
    let mut plans = vec![plan(0, 3000, 100), plan(0, 3000, 100), plan(0, 3000, 100)];
    share_bytes(&mut plans, 4000);
    let limits: Vec<usize> = plans.iter().map(|plan| plan.bytes_max).collect();
    assert_eq!((limits[0], limits[1]), (3000, 1000));
    assert!(plans[2].runs.is_empty());
}
