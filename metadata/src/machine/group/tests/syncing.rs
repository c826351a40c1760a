//! Syncing and heartbeats.

use super::*;

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut world = World::completing(&["a", "b"]);
    assert!(is_pending(&world.sync("b", 1, &[])));
    let before = world.groups.version(GROUP);
    let leader = ready(world.sync("a", 1, &[("a", "one"), ("b", "two")]));
    assert_eq!(leader.assignment, "one");
    assert!(world.groups.version(GROUP) > before, "the follower is woken");
    let follower = ready(world.ask_sync("b", 1));
    assert_eq!((follower.assignment, follower.protocol), (Bytes::from("two"), "range".into()));
}

#[test]
fn a_member_the_leader_left_out_gets_an_empty_assignment_and_a_stranger_none() {
    let mut world = World::completing(&["a", "b"]);
    let _ = world.sync("a", 1, &[("a", "one"), ("stranger", "two")]);
    assert_eq!(ready(world.sync("b", 1, &[])).assignment, "");
    assert_eq!(world.sync("stranger", 1, &[]), Err(GroupRejected::UnknownMember));
}

#[test]
fn a_leader_that_syncs_again_does_not_change_the_assignment() {
    let mut world = World::stable(&["a", "b"]);
    let again = ready(world.sync("a", 1, &[("a", "b"), ("b", "a")]));
    assert_eq!(again.assignment, "a");
    assert_eq!(ready(world.ask_sync("b", 1)).assignment, "b");
}

#[test]
fn a_sync_is_refused_of_strangers_other_generations_and_other_protocols() {
    let mut world = World::completing(&["a"]);
    assert_eq!(world.sync("x", 1, &[]), Err(GroupRejected::UnknownMember));
    assert_eq!(world.sync("a", 0, &[]), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.sync("a", 2, &[]), Err(GroupRejected::IllegalGeneration));
    let sync = Sync { protocol: Some("other".to_owned()), ..World::a_sync("a", 1, &[]) };
    assert_eq!(world.sync_as(sync), Err(GroupRejected::InconsistentProtocol));
    let sync = Sync { protocol_type: Some("other".to_owned()), ..World::a_sync("a", 1, &[]) };
    assert_eq!(world.sync_as(sync), Err(GroupRejected::InconsistentProtocol));
    let sync = Sync { protocol_type: None, protocol: None, ..World::a_sync("a", 1, &[]) };
    assert!(world.sync_as(sync).is_ok(), "old versions name neither");
}

#[test]
fn a_sync_during_a_rebalance_asks_to_rejoin() {
    let mut world = World::stable(&["a", "b"]);
    let _ = world.join_new("c");
    assert_eq!(world.sync("b", 1, &[]), Err(GroupRejected::RebalanceInProgress));
    let _ = world.rejoin("a");
    let _ = world.rejoin("b");
    assert_eq!(world.ask_sync("b", 1), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.ask_sync("b", 3), Err(GroupRejected::IllegalGeneration));
}

#[test]
fn members_that_do_not_sync_within_the_rebalance_timeout_are_out() {
    let mut world = World::completing(&["a", "b"]);
    assert!(is_pending(&world.sync("b", 1, &[])));
    world.pass(60_000);
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::UnknownMember));
    assert_eq!(world.ask_sync("b", 1), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(ready(world.rejoin("b")).leader, member("b"));
}

#[test]
fn also_in_a_stable_group_a_member_that_never_synced_is_out() {
    let mut world = World::completing(&["a", "b"]);
    let _ = world.sync("a", 1, &[]);
    world.pass(60_000);
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::UnknownMember));
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_heartbeat_is_answered_by_member_generation_and_phase() {
    let mut world = World::new();
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::UnknownMember), "no such group");
    let _ = world.join_new("a");
    assert_eq!(world.heartbeat("a", 0), Err(GroupRejected::RebalanceInProgress));
    world.pass(3_000);
    assert_eq!(world.heartbeat("a", 1), Ok(()), "while the assignment is awaited");
    let _ = world.sync("a", 1, &[]);
    assert_eq!(world.heartbeat("a", 1), Ok(()));
    assert_eq!(world.heartbeat("a", 0), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::UnknownMember));
    world.leave(&[("a", None)]);
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::UnknownMember));
}
