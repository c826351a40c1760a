//! Laws of producer.

use aquifer_storage::model::PartitionIndex;

use super::*;

const WALL: WallTime = WallTime::from_millis(1_000_000);

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionIndex::new(0) }
}

fn batch(epoch: i16, first: i32, record_count: u32) -> Numbered {
    Numbered {
        producer: ProducerId::new(4),
        epoch: ProducerEpoch::new(epoch).unwrap(),
        first: Sequence::new(first).unwrap(),
        record_count,
    }
}

/// Producers after the batches, each at an offset that counts records.
fn after(batches: &[Numbered]) -> Producers {
    let mut producers = Producers::default();
    let mut base = Offset::ZERO;
    for numbered in batches {
        assert_eq!(producers.judge(partition(), numbered, false), Verdict::Append);
        producers.appended(partition(), numbered, (base, Timestamp::NONE), WALL);
        base = base.checked_add(numbered.record_count).unwrap();
    }
    producers
}

fn base_of(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Duplicate(original) => original.base.value(),
        other => panic!("not a duplicate: {other:?}"),
    }
}

const OUT_OF_ORDER: Verdict = Verdict::Rejected(BatchRejected::OutOfOrderSequence);

#[test]
fn the_last_five_batches_are_duplicates_with_their_original_offset_and_the_sixth_is_not() {
    let batches: Vec<_> = (0..6).map(|n| batch(0, n * 10, 10)).collect();
    let producers = after(&batches);
    for (n, numbered) in batches.iter().enumerate().skip(1) {
        assert_eq!(base_of(producers.judge(partition(), numbered, false)), n as i64 * 10);
    }
    assert_eq!(producers.judge(partition(), &batches[0], false), OUT_OF_ORDER);
}

#[test]
fn a_gap_is_out_of_order_and_a_duplicate_must_match_first_and_last() {
    let producers = after(&[batch(0, 0, 10)]);
    assert_eq!(producers.judge(partition(), &batch(0, 11, 1), false), OUT_OF_ORDER);
    assert_eq!(producers.judge(partition(), &batch(0, 0, 9), false), OUT_OF_ORDER);
    assert_eq!(producers.judge(partition(), &batch(0, 10, 1), false), Verdict::Append);
}

#[test]
fn a_higher_epoch_starts_at_zero_and_a_lower_one_is_refused() {
    let producers = after(&[batch(3, 0, 10)]);
    assert_eq!(producers.judge(partition(), &batch(4, 10, 1), false), OUT_OF_ORDER);
    assert_eq!(producers.judge(partition(), &batch(4, 0, 10), false), Verdict::Append);
    let refused = Verdict::Rejected(BatchRejected::InvalidProducerEpoch);
    assert_eq!(producers.judge(partition(), &batch(2, 0, 10), false), refused);
}

#[test]
fn a_batch_of_an_older_epoch_is_no_duplicate_after_the_bump() {
    let producers = after(&[batch(0, 0, 10), batch(1, 0, 10)]);
    assert_eq!(base_of(producers.judge(partition(), &batch(1, 0, 10), false)), 10);
}

#[test]
fn without_state_a_fresh_partition_wants_zero_and_any_other_takes_what_comes() {
    let producers = Producers::default();
    assert_eq!(producers.judge(partition(), &batch(0, 5, 1), true), OUT_OF_ORDER);
    assert_eq!(producers.judge(partition(), &batch(0, 0, 1), true), Verdict::Append);
    assert_eq!(producers.judge(partition(), &batch(0, 5, 1), false), Verdict::Append);
}

#[test]
fn sequences_wrap_past_the_largest_to_zero() {
    let producers = after(&[batch(0, i32::MAX - 4, 10)]);
    assert_eq!(base_of(producers.judge(partition(), &batch(0, i32::MAX - 4, 10), false)), 0);
    assert_eq!(producers.judge(partition(), &batch(0, 5, 1), false), Verdict::Append);
    let exact = after(&[batch(0, i32::MAX, 1)]);
    assert_eq!(exact.judge(partition(), &batch(0, 0, 1), false), Verdict::Append);
}

#[test]
fn silent_producers_expire_after_a_day_and_never_more_than_one_sweep_at_once() {
    let mut producers = Producers::default();
    for id in 0..200 {
        let numbered = Numbered { producer: ProducerId::new(id), ..batch(0, 0, 1) };
        producers.appended(partition(), &numbered, (Offset::ZERO, Timestamp::NONE), WALL);
    }
    let day = 24 * 60 * 60 * 1000;
    producers.sweep(WallTime::from_millis(WALL.millis() + day - 1));
    producers.sweep(WallTime::from_millis(0));
    assert_eq!(producers.iter().count(), 200);
    for left in [136, 128, 64, 0] {
        producers.sweep(WallTime::from_millis(WALL.millis() + day));
        assert_eq!(producers.iter().count(), left);
    }
}

#[test]
fn blocks_of_producer_ids_never_overlap() {
    let mut ids = ProducerIds::default();
    let firsts: Vec<i64> = (0..3).map(|_| ids.allocate().value()).collect();
    assert_eq!(firsts, [0, 1000, 2000]);
}
