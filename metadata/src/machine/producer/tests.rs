//! Laws of producer.

use aquifer_storage::model::PartitionIndex;

use super::*;

const NOW: Elapsed = Elapsed::from_millis(1_000_000);

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
        producers.appended(partition(), numbered, (base, Timestamp::NONE), NOW);
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
        producers.appended(partition(), &numbered, (Offset::ZERO, Timestamp::NONE), NOW);
    }
    let day = 24 * 60 * 60 * 1000;
    producers.sweep(NOW.plus_millis(day - 1), STATES_MAX);
    assert_eq!(producers.iter().count(), 200);
    for left in [136, 72, 8, 0] {
        producers.sweep(NOW.plus_millis(day), STATES_MAX);
        assert_eq!(producers.iter().count(), left);
    }
}

/// `count` new producers of one batch each, in one entry.
fn flood(producers: &mut Producers, ids: std::ops::Range<i64>, now: Elapsed) {
    for id in ids {
        let numbered = Numbered { producer: ProducerId::new(id), ..batch(0, 0, 1) };
        producers.appended(partition(), &numbered, (Offset::ZERO, Timestamp::NONE), now);
    }
}

#[test]
fn a_flood_never_grows_past_the_limit_and_who_goes_on_writing_is_remembered() {
    const MAX: usize = 4_000;
    let mut producers = Producers::default();
    let at = |second: i64| NOW.plus_millis(second as u64 * 1000);
    for second in 0..200 {
        // They write all the time: before, among and behind the others.
        for id in [0, 1, 2, 30_000, 30_001, 2_000_000] {
            let producer = ProducerId::new(id);
            let next = Numbered { producer, ..batch(0, second as i32, 1) };
            assert_eq!(producers.judge(partition(), &next, false), Verdict::Append);
            let offset = Offset::new(second).unwrap();
            producers.appended(partition(), &next, (offset, Timestamp::NONE), at(second));
            if 0 < second {
                let last = Numbered { producer, ..batch(0, second as i32 - 1, 1) };
                let known = base_of(producers.judge(partition(), &last, false));
                assert_eq!(known, second - 1, "{id} at {second} s");
            }
        }
        let first = if second < 50 { 1_000 } else { 50_000 } + second * 500;
        flood(&mut producers, first..first + 500, at(second));
        producers.sweep(at(second), MAX);
        assert!(producers.iter().count() <= MAX, "at {second} s");
        assert!(producers.is_queued());
    }
    assert_eq!(producers.iter().count(), MAX, "none is forgotten before it must be");
}

#[test]
fn more_writers_than_an_entry_can_look_past_are_remembered_while_others_come_and_go() {
    const MAX: usize = 4_000;
    let mut producers = Producers::default();
    for entry in 0..100 {
        let now = NOW.plus_millis(entry as u64 * 1000);
        for id in 0..2_000 {
            let next = Numbered { producer: ProducerId::new(id), ..batch(0, entry, 1) };
            if 0 < entry {
                let last = Numbered { producer: next.producer, ..batch(0, entry - 1, 1) };
                let known = producers.judge(partition(), &last, false);
                assert!(matches!(known, Verdict::Duplicate(_)), "{id} in entry {entry}");
            }
            producers.appended(partition(), &next, (Offset::ZERO, Timestamp::NONE), now);
        }
        let first = 10_000 + i64::from(entry) * 500;
        flood(&mut producers, first..first + 500, now);
        producers.sweep(now, MAX);
        assert!(producers.iter().count() <= MAX + MAX / 16, "after entry {entry}");
        assert!(producers.is_queued());
    }
}

#[test]
fn a_flood_is_bounded_also_of_those_who_write_on_and_while_time_stands() {
    for step in [1_000, 0] {
        let mut producers = Producers::default();
        for entry in 0..100 {
            let now = NOW.plus_millis(entry as u64 * step);
            for sent in 0..=entry {
                for id in sent * 30..(sent + 1) * 30 {
                    let next = batch(0, (entry - sent) as i32, 1);
                    let next = Numbered { producer: ProducerId::new(id), ..next };
                    producers.appended(partition(), &next, (Offset::ZERO, Timestamp::NONE), now);
                }
            }
            producers.sweep(now, 1_000);
            assert!(producers.iter().count() <= 1_062, "after entry {entry}");
        }
    }
}

#[test]
fn who_wrote_since_it_was_queued_is_remembered_for_a_day_since_then() {
    let mut producers = after(&[batch(0, 0, 1)]);
    let at = |hours: u64| NOW.plus_millis(hours * 3_600_000);
    let offset = Offset::new(1).unwrap();
    producers.appended(partition(), &batch(0, 1, 1), (offset, Timestamp::NONE), at(20));
    for hours in [24, 43] {
        producers.sweep(at(hours), STATES_MAX);
        assert_eq!(base_of(producers.judge(partition(), &batch(0, 1, 1), false)), 1);
    }
    producers.sweep(at(44), STATES_MAX);
    assert_eq!(producers.iter().count(), 0);
}

#[test]
fn blocks_of_producer_ids_never_overlap() {
    let mut ids = ProducerIds::default();
    let firsts: Vec<i64> = (0..3).map(|_| ids.allocate().value()).collect();
    assert_eq!(firsts, [0, 1000, 2000]);
}
