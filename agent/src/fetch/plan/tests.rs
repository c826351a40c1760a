//! Laws of the plan.

use aquifer_storage::{
    cache::plan::BLOCK_BYTES,
    model::{Lineage, ObjectName, ObjectSeq, OffsetRange, SessionId, Timestamp},
};

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
        rows_follow: false,
        bound: offset(bound),
    })
}

#[test]
fn the_row_that_holds_the_offset_comes_first() {
    assert_eq!(plan(25, 1, 100).runs[0].offsets.base, offset(20));
    assert_eq!(plan(30, 1, 100).runs[0].offsets.base, offset(30));
}

#[test]
fn an_offset_in_a_hole_gives_the_row_behind_it() {
    let mut rows = runs(4);
    rows.remove(1);
    let (offset, bound) = (offset(15), offset(40));
    let plan = plan_partition(&PartitionInput {
        offset,
        bytes_max: 1,
        runs: &rows,
        rows_follow: false,
        bound,
    });
    assert_eq!(plan.runs, rows[1..2]);
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
    assert_eq!(share_bytes(&mut plans, 0), Some(1));
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

#[test]
fn rows_that_end_before_the_bound_say_that_more_follows() {
    let runs = runs(2);
    let plan = |offset_value, rows_follow, bound| {
        let (offset, bound) = (offset(offset_value), offset(bound));
        plan_partition(&PartitionInput { offset, bytes_max: 10, runs: &runs, rows_follow, bound })
    };
    assert!(plan(0, true, 100).more);
    assert!(!plan(0, false, 100).more);
    assert!(!plan(0, true, 20).more);
}

#[test]
fn what_a_row_holds_below_the_offset_never_lets_an_answer_grow_beyond_its_limit() {
    // Its last batch may be all of the row, whatever the share of its records says.
    let mut plans = vec![plan(9, 1000, 10), plan(0, 1000, 100)];
    share_bytes(&mut plans, 1000);
    assert_eq!(plans[0].bytes_max, 1000);
    assert!(plans[1].runs.is_empty());
}

#[test]
fn rows_of_which_a_slice_keeps_too_much_count_as_their_copy_and_others_as_their_block() {
    let mut row = runs(1)[0];
    for (object_bytes, held) in [(3999, 3999), (4000, 4000), (4001, 1000)] {
        row.object_bytes = object_bytes;
        let plan = PartitionPlan { runs: vec![row], ..plan(0, 1, 0) };
        assert_eq!(plan.held_bytes_max(), held, "{object_bytes}");
    }
}

#[test]
fn a_row_over_several_blocks_counts_each_by_itself_and_a_batch_at_each_border() {
    let block = BLOCK_BYTES;
    let mut row = runs(1)[0];
    row.object.merged = true;
    row.object_bytes = 3 * block;
    let at = |start: u64, end: u64| {
        let (position, length) = (start as u32, (end - start) as u32);
        held_bytes_max(&Run { position, length, ..row })
    };
    assert_eq!(at(block, 2 * block), block);
    assert_eq!(at(0, 2 * block), 2 * block + JOINED_BATCH_BYTES);
    assert_eq!(at(block - 10, 2 * block), block + 10 + JOINED_BATCH_BYTES);
    assert_eq!(at(block - 10, 2 * block + 5), block + 15 + 2 * JOINED_BATCH_BYTES);
    assert_eq!(at(block - 10, block + 10), 20, "all of it is copied");
    // Outside its object it is never read.
    assert_eq!(at(3 * block - 1, 3 * block + 1), 2);
}

#[test]
fn an_answer_keeps_to_the_memory_there_is_but_for_its_first_row() {
    // Rows of 1000 bytes of objects of 1 MB: copied.
    let mut plans = vec![plan(0, 3000, 100), plan(0, 3000, 100), plan(0, 1000, 100)];
    assert_eq!(share_memory(&mut plans, 4999), 4000);
    let rows: Vec<usize> = plans.iter().map(|plan| plan.runs.len()).collect();
    assert_eq!(rows, [3, 1, 0]);
    let mut plans = vec![plan(0, 3000, 100), plan(0, 3000, 100)];
    assert_eq!(share_memory(&mut plans, 10), 1000);
}
