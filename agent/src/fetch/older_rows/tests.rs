//! Laws of older rows.

use aquifer_storage::model::{LogIndex, Offset};

use super::*;
use crate::fetch::testing::{partition, pointers};

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_zero(Duration::from_secs(seconds))
}

fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

/// The rows of ten records each that hold `base..next`.
fn rows(index: u64, base: i64, next: i64) -> Arc<PartitionState> {
    let runs = crate::fetch::testing::rows(base, next, 10);
    let (partition, pointers) = (partition(index as u32), pointers(0, 1000));
    Arc::new(PartitionState { partition, index: LogIndex::new(index), runs, pointers })
}

#[test]
fn rows_are_found_by_any_offset_that_they_hold_and_by_no_other() {
    let mut older = OlderRows::default();
    older.answered(offset(100), rows(1, 100, 200), at(0));
    older.answered(offset(200), rows(1, 200, 250), at(0));
    older.answered(offset(400), rows(1, 400, 500), at(0));
    let found = |value| {
        let rows = older.find(partition(1), offset(value), at(1));
        rows.map(|rows| rows.runs[0].offsets.base.value())
    };
    let cases = [(99, None), (100, Some(100)), (199, Some(100)), (200, Some(200))];
    for (value, base) in cases.into_iter().chain([(250, None), (399, None), (499, Some(400))]) {
        assert_eq!(found(value), base, "{value}");
    }
    assert_eq!(older.find(partition(2), offset(100), at(1)), None);
}

#[test]
fn old_answers_are_not_used_and_forgotten_ones_are_gone() {
    let mut older = OlderRows::default();
    older.answered(offset(0), rows(1, 0, 100), at(0));
    older.answered(offset(0), rows(2, 0, 100), at(5));
    assert!(older.find(partition(1), offset(5), at(9)).is_some());
    assert!(older.find(partition(1), offset(5), at(10)).is_none());
    assert!(older.expire(at(10)));
    assert!(older.find(partition(2), offset(5), at(10)).is_some());
    older.forget(partition(2));
    assert!(older.find(partition(2), offset(5), at(10)).is_none());
    assert!(!older.expire(at(10)), "nothing is left");
}

#[test]
fn a_question_is_asked_once_even_if_it_gets_no_answer() {
    let mut older = OlderRows::default();
    let asked = (0..25).filter(|&now| older.ask(partition(1), offset(7), at(now)));
    assert_eq!(asked.collect::<Vec<_>>(), [0, 10, 20]);
    assert!(older.ask(partition(1), offset(8), at(24)));
    // An open question does not hide the answer that lies below it.
    older.answered(offset(0), rows(1, 0, 100), at(24));
    assert!(older.find(partition(1), offset(50), at(24)).is_some());
}

#[test]
fn the_answers_kept_are_bounded_and_the_oldest_go_first() {
    let mut older = OlderRows::default();
    for n in 0..3 * ANSWERS_MAX as i64 {
        older.answered(offset(n * 10), rows(1, n * 10, n * 10 + 10), at(0));
        assert!(older.answers.len() <= ANSWERS_MAX && older.by_age.len() == older.answers.len());
    }
    assert!(older.find(partition(1), offset(0), at(0)).is_none());
    assert!(older.find(partition(1), offset(30 * ANSWERS_MAX as i64 - 1), at(0)).is_some());
}
