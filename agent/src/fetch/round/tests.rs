//! Laws of rounds.

use super::{super::FetchRefused, *};
use crate::fetch::{
    plan::{PartitionInput, PartitionPlan, plan_partition},
    testing::{offset, partition, pointers, rows},
};

fn turn(turn: u64) -> Turn {
    let wanted =
        Wanted { partition: partition(turn as u32), offset: 0, bytes_max: 1, leader_epoch: None };
    (turn, wanted)
}

/// Something of 1,000 B.
fn given() -> Stage {
    let runs = rows(0, 10, 10);
    let input = PartitionInput {
        offset: offset(0),
        bytes_max: 1,
        runs: &runs,
        rows_follow: false,
        bound: offset(10),
    };
    Stage::Planned(pointers(0, 10), Box::new(plan_partition(&input)))
}

fn at_end() -> Stage {
    Stage::AtEnd(pointers(0, 0))
}

fn turns(round: Round) -> Vec<u64> {
    round.into_plans().iter().map(|one| one.turn).collect()
}

#[test]
fn what_is_planned_is_due_again_only_when_it_was_pushed() {
    let mut round = Round::new(vec![turn(1), turn(3), turn(5)]);
    assert_eq!(round.due(), [0, 1, 2]);
    round.plan(0, given());
    round.plan(1, at_end());
    round.plan(2, given());
    assert_eq!((round.due(), round.available()), (vec![], 2000));
    round.push(vec![turn(5), turn(3)]);
    assert_eq!((round.due(), round.available()), (vec![1, 2], 1000));
    round.plan(1, given());
    round.plan(2, given());
    assert_eq!((round.available(), turns(round)), (3000, vec![1, 3, 5]));
}

#[test]
fn one_that_comes_later_stands_in_its_turn() {
    let mut round = Round::new(vec![turn(3)]);
    assert_eq!(round.due(), [0]);
    round.plan(0, given());
    round.push(vec![turn(5), turn(1)]);
    assert_eq!(round.due(), [0, 2]);
    assert_eq!(round.wanted(0), turn(1).1);
    round.plan(0, Stage::refused(None, FetchRefused::Unknown));
    assert!(round.is_any_refused());
    round.plan(2, at_end());
    assert_eq!((round.available(), turns(round)), (1000, vec![1, 3, 5]));
}

#[test]
fn one_whose_rows_metadata_did_not_give_is_due_with_every_push() {
    let mut round = Round::new(vec![turn(1), turn(3)]);
    assert_eq!(round.due(), [0, 1]);
    let nothing = PartitionPlan::nothing(offset(0), offset(0));
    round.plan(0, Stage::Planned(pointers(0, 5), Box::new(nothing)));
    round.plan(1, at_end());
    round.push(vec![turn(3)]);
    assert_eq!(round.due(), [0, 1]);
}
