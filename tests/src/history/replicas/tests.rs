//! Every law passes replicas that obey it and fails some with a planted breach.

use super::*;

fn look(at: u64, node: u64, leads: Option<u64>, applied: u64) -> Look {
    Look { at, node, life: 1, leads, applied, state: None }
}

fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, leader: 1, digest: index * 100 + term }
}

fn log(at: u64, node: u64, committed: u64, entries: &[LogEntry]) -> LogCopy {
    LogCopy { at, node, committed: Some(committed), entries: entries.to_vec() }
}

/// Three replicas: the first leads, then the second; an entry that was never committed is replaced.
fn lawful() -> Replicas {
    let mut looks = vec![
        look(1, 1, Some(1), 3),
        look(1, 2, None, 2),
        look(1, 3, None, 2),
        look(2, 1, None, 3),
        look(2, 2, None, 3),
        look(3, 1, None, 4),
        look(3, 2, Some(2), 5),
    ];
    looks[3].state = Some((3, 77));
    looks[4].state = Some((3, 77));
    let logs = vec![
        log(1, 1, 2, &[entry(1, 1), entry(2, 1), entry(3, 1)]),
        log(2, 2, 2, &[entry(1, 1), entry(2, 1), entry(3, 2)]),
        log(3, 1, 3, &[entry(2, 1), entry(3, 2)]),
    ];
    let led = vec![Led {
        at: 3,
        node: 2,
        term: 2,
        votes: vec![(1, vote(1, 1)), (2, vote(2, 2)), (3, vote(3, 1))],
    }];
    Replicas { looks, logs, led }
}

fn vote(term: u64, node: u64) -> Option<(u64, u64)> {
    Some((term, node))
}

#[test]
fn a_leader_whose_votes_a_power_loss_would_take_is_noticed() {
    assert_eq!(broken(|it| it.led[0].votes[2].1 = vote(2, 1)), ["G3 votes durable"]);
    assert_eq!(broken(|it| it.led[0].votes[1].1 = None), ["G3 votes durable"]);
}

fn broken(breach: impl FnOnce(&mut Replicas)) -> Vec<&'static str> {
    let mut replicas = lawful();
    breach(&mut replicas);
    let mut laws: Vec<_> = check(&replicas).into_iter().map(|violation| violation.law).collect();
    laws.dedup();
    laws
}

#[test]
fn lawful_replicas_break_no_law() {
    assert_eq!(check(&lawful()), Vec::new());
}

#[test]
fn two_leaders_at_once_are_noticed() {
    assert_eq!(broken(|it| it.looks[2].leads = Some(2)), ["G1 one leader"]);
    assert_eq!(broken(|it| it.looks[5].leads = Some(2)), ["G1 one leader"]);
}

#[test]
fn a_leader_of_an_older_term_is_noticed_and_one_that_comes_back() {
    assert_eq!(broken(|it| it.looks.push(look(4, 1, Some(1), 5))), ["G1 one leader"]);
    let laws = broken(|it| {
        it.looks.push(look(4, 3, Some(2), 5));
        it.looks.push(look(5, 2, Some(2), 5));
    });
    assert_eq!(laws, ["G1 one leader"]);
    assert!(broken(|it| it.looks.push(look(4, 2, Some(2), 5))).is_empty());
}

#[test]
fn one_log_id_with_two_contents_is_noticed() {
    let laws = broken(|it| it.logs[1].entries[1].digest = 9);
    assert_eq!(laws, ["G1 log matching", "G1 committed stays"]);
}

#[test]
fn one_log_id_behind_two_others_is_noticed() {
    let laws = broken(|it| {
        it.logs[2].entries[0].leader = 2;
        it.logs[2].committed = None;
    });
    assert_eq!(laws, ["G1 log matching"]);
}

#[test]
fn a_committed_entry_that_is_replaced_is_noticed() {
    assert_eq!(broken(|it| it.logs[0].committed = Some(3)), ["G1 committed stays"]);
}

#[test]
fn a_replica_that_applies_backwards_is_noticed_within_one_life_only() {
    assert_eq!(broken(|it| it.looks[6].applied = 2), ["G1 applied forward"]);
    let next_life = |it: &mut Replicas| {
        it.looks[6].applied = 2;
        it.looks[6].life = 2;
    };
    assert!(broken(next_life).is_empty());
}

#[test]
fn two_states_at_one_index_are_noticed_also_of_one_replica() {
    assert_eq!(broken(|it| it.looks[4].state = Some((3, 78))), ["G4 same state"]);
    let again = |it: &mut Replicas| {
        let mut next_life = look(9, 1, None, 5);
        (next_life.life, next_life.state) = (2, Some((3, 99)));
        it.looks.push(next_life);
    };
    assert_eq!(broken(again), ["G4 same state"]);
}
