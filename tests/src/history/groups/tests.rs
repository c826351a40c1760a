//! Every law of groups passes a history that obeys it and fails one with a planted breach.

use super::*;
use crate::history::{History, check};

const SECOND: Nanos = 1_000_000_000;
const GROUP: GroupNumber = GroupNumber(0);

fn told(member: u32, epoch: i32, keys: &[u32], (began, ended): (Nanos, Nanos)) -> Told {
    let (member, keys) = (MemberNumber(member), keys.iter().map(|key| Key(*key)).collect());
    Told { group: GROUP, member, instance: None, epoch, keys, began, ended }
}

fn commit(
    (member, epoch, since): (u32, i32, Nanos),
    token: u64,
    (began, ended): (Nanos, Nanos),
    answer: Answer<()>,
) -> Commit {
    let member = MemberNumber(member);
    Commit { group: GROUP, member, key: Key(0), token, epoch, since, began, ended, answer }
}

fn fetched((began, ended): (Nanos, Nanos), found: Option<u64>) -> Fetched {
    let found = found.map(|token| (i64::try_from(token).unwrap(), token));
    Fetched { group: GROUP, key: Key(0), began, ended, found }
}

fn hold(member: u32, key: u32, (from, until): (Nanos, Nanos)) -> Hold {
    Hold { group: GROUP, member: MemberNumber(member), key: Key(key), from, until }
}

fn life(member: u32, (from, until): (Nanos, Nanos)) -> Life {
    let name = format!("member{member}");
    Life { group: GROUP, member: MemberNumber(member), name, from, until }
}

/// One member had both partitions, a second came and got one of them, and commits to it.
fn lawful() -> History {
    let groups = Groups {
        protocols: vec![Protocols::Classic],
        expires: false,
        told: vec![
            told(1, 1, &[0, 1], (5, 10)),
            told(2, 2, &[0], (20, 24)),
            told(1, 2, &[1], (21, 25)),
        ],
        commits: vec![
            commit((1, 1, 10), 7, (11, 12), Answer::Done(())),
            commit((1, 1, 10), 8, (13, 23), Answer::Unknown),
            commit((2, 2, 24), 9, (26, 30), Answer::Done(())),
            commit((1, 1, 10), 10, (31, 32), Answer::Failed(22)),
        ],
        fetched: vec![
            fetched((1, 2), None),
            fetched((12, 13), Some(7)),
            fetched((14, 16), Some(8)),
            fetched((27, 28), Some(9)),
            fetched((33, 34), Some(9)),
        ],
        holds: vec![
            hold(1, 0, (10, 18)),
            hold(1, 1, (10, 18)),
            hold(2, 0, (24, 20 * SECOND)),
            hold(1, 1, (25, 20 * SECOND)),
        ],
        lives: vec![life(1, (10, 20 * SECOND)), life(2, (24, 20 * SECOND))],
        settled: Some((
            19 * SECOND,
            vec![Described {
                group: GROUP,
                began: 19 * SECOND,
                members: vec!["member1".to_owned(), "member2".to_owned()],
            }],
        )),
    };
    History { keys: vec![Key(0), Key(1)], groups, ..History::default() }
}

/// The laws that `lawful`, changed by `breach`, breaks.
fn broken(breach: impl FnOnce(&mut Groups)) -> Vec<&'static str> {
    let mut history = lawful();
    breach(&mut history.groups);
    let mut laws: Vec<_> = check(&history).into_iter().map(|violation| violation.law).collect();
    laws.dedup();
    laws
}

#[test]
fn lawful_groups_break_no_law() {
    assert_eq!(check(&lawful()), Vec::new());
}

#[test]
fn a_commit_of_what_another_was_given_since_is_noticed() {
    let late = |groups: &mut Groups| {
        groups.protocols = vec![Protocols::Consumer];
        groups.commits.push(commit((1, 1, 10), 11, (40, 41), Answer::Done(())));
    };
    assert_eq!(broken(late), ["D1 commit of the present"]);
    let across_an_end = |groups: &mut Groups| {
        late(groups);
        groups.lives =
            vec![life(1, (10, 30)), life(2, (24, 20 * SECOND)), life(1, (50, 20 * SECOND))];
    };
    assert_eq!(broken(across_an_end), [""; 0], "it may have begun to count anew");
    let before = |groups: &mut Groups| {
        groups.protocols = vec![Protocols::Consumer];
        groups.commits.push(commit((1, 1, 10), 11, (23, 41), Answer::Done(())));
    };
    assert_eq!(broken(before), [""; 0], "asked for before the other was told");
    let fresh = |groups: &mut Groups| {
        groups.protocols = vec![Protocols::Consumer];
        groups.commits.push(commit((1, 3, 35), 11, (40, 41), Answer::Done(())));
    };
    assert_eq!(broken(fresh), [""; 0], "it was given the partition again");
}

#[test]
fn a_commit_of_an_older_generation_is_noticed_in_a_classic_group_only() {
    let older = |groups: &mut Groups| {
        groups.told[1].keys = vec![];
        groups.commits.push(commit((1, 1, 10), 11, (40, 41), Answer::Done(())));
        groups.commits.retain(|commit| commit.member == MemberNumber(1));
        groups.fetched.truncate(3);
    };
    assert_eq!(broken(older), ["D1 commit of the present"]);
    let allowed = |groups: &mut Groups| {
        older(groups);
        groups.protocols = vec![Protocols::Both];
    };
    assert_eq!(broken(allowed), [""; 0]);
}

#[test]
fn an_offset_that_is_not_the_last_one_committed_is_noticed() {
    let of = |fetched: Fetched| broken(|groups: &mut Groups| groups.fetched.push(fetched));
    assert_eq!(of(fetched((33, 34), Some(7))), ["D2 committed offset"], "two are newer");
    assert_eq!(of(fetched((33, 34), Some(8))), ["D2 committed offset"], "one is newer");
    assert_eq!(of(fetched((33, 34), Some(10))), ["D2 committed offset"], "it was refused");
    assert_eq!(of(fetched((33, 34), Some(99))), ["D2 committed offset"], "nobody did");
    assert_eq!(of(fetched((15, 34), Some(8))), [""; 0], "the last may have come later");
    let other = Fetched { found: Some((8, 9)), ..fetched((33, 34), None) };
    assert_eq!(of(other), ["D2 committed offset"], "the offset and its text are of two commits");
}

#[test]
fn an_offset_that_is_gone_is_noticed_where_it_may_not_expire() {
    let gone = |groups: &mut Groups| groups.fetched.push(fetched((33, 34), None));
    assert_eq!(broken(gone), ["D2 committed offset", "D4 offsets kept"]);
    let expires = |groups: &mut Groups| {
        gone(groups);
        groups.expires = true;
    };
    assert_eq!(broken(expires), ["D4 offsets kept"]);
    let empty = |groups: &mut Groups| {
        expires(groups);
        groups.lives =
            vec![life(1, (10, 26)), life(2, (28, 20 * SECOND)), life(1, (29, 20 * SECOND))];
    };
    assert_eq!(broken(empty), [""; 0], "nobody was in all the time");
}

#[test]
fn two_holders_at_a_time_are_noticed() {
    let early = |groups: &mut Groups| groups.holds[2].from = 17;
    assert_eq!(broken(early), ["D3 one owner"]);
    let at_once = |groups: &mut Groups| groups.holds[2].from = 18;
    assert_eq!(broken(at_once), [""; 0]);
}

#[test]
fn a_partition_of_two_members_in_one_epoch_is_noticed() {
    let twice = |groups: &mut Groups| groups.told.push(told(3, 2, &[1], (30, 31)));
    assert_eq!(broken(twice), ["D3 one owner"]);
    let in_turn = |groups: &mut Groups| {
        twice(groups);
        groups.told[2].instance = Some(4);
        groups.told[3].instance = Some(4);
    };
    assert_eq!(broken(in_turn), [""; 0], "one static member after the other");
    let anew = |groups: &mut Groups| {
        twice(groups);
        groups.lives = vec![life(1, (26, 20 * SECOND)), life(2, (24, 20 * SECOND))];
    };
    assert_eq!(broken(anew), [""; 0], "the group may have been another");
}

#[test]
fn a_partition_of_nobody_and_a_ghost_are_noticed_in_the_end() {
    let given_up = |groups: &mut Groups| groups.holds[3].until = 19 * SECOND;
    assert_eq!(broken(given_up), ["H1 groups settle"]);
    let ghost = |groups: &mut Groups| {
        let (_, described) = groups.settled.as_mut().unwrap();
        described[0].members.push("member3".to_owned());
        groups.lives.push(life(3, (2, 8 * SECOND)));
    };
    assert_eq!(broken(ghost), ["H1 groups settle"]);
    let silent = |groups: &mut Groups| {
        ghost(groups);
        groups.lives.push(life(3, (2, 10 * SECOND)));
    };
    assert_eq!(broken(silent), [""; 0], "its session may last");
}
