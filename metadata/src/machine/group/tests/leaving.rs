//! Leaving, and being expired for silence.

use super::*;

#[test]
fn a_member_that_leaves_makes_the_others_rejoin() {
    let mut world = World::stable(&["a", "b"]);
    assert_eq!(world.leave(&[("a", None)]), [Ok(())]);
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::RebalanceInProgress));
    let result = ready(world.rejoin("b"));
    assert_eq!((result.generation, result.leader), (generation(2), member("b")));
}

#[test]
fn a_group_everyone_left_is_empty_and_goes_on_counting_generations() {
    let mut world = World::stable(&["a", "b"]);
    assert_eq!(world.leave(&[("a", None), ("b", None)]), [Ok(()), Ok(())]);
    assert_eq!(world.groups.next_deadline(), None);
    assert_eq!(world.rejoin("a"), Err(GroupRejected::UnknownMember));
    let _ = world.join_new("c");
    world.pass(3_000);
    assert_eq!(ready(world.ask_join("c", world.requests)).generation, generation(3));
}

#[test]
fn each_leaving_member_has_its_own_result() {
    let mut world = World::stable(&["a", "b"]);
    let unknown = Err(GroupRejected::UnknownMember);
    let leaving = [("x", None), ("b", None), ("b", None), ("", None), ("", Some("i"))];
    let results = world.leave(&leaving);
    assert_eq!(results, [unknown.clone(), Ok(()), unknown.clone(), unknown.clone(), unknown]);
}

#[test]
fn a_leave_of_strangers_disturbs_nobody() {
    let mut world = World::stable(&["a"]);
    let before = world.groups.clone();
    world.leave(&[("x", None)]);
    assert_eq!(world.groups, before);
}

#[test]
fn the_last_one_awaited_completes_the_rebalance_by_leaving() {
    let mut world = World::stable(&["a", "b"]);
    assert!(is_pending(&world.rejoin("a")));
    world.leave(&[("b", None)]);
    assert_eq!(ready(world.ask_join("a", world.requests)).generation, generation(2));
}

#[test]
fn an_id_given_out_and_not_used_can_leave() {
    let mut world = World::stable(&["a"]);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    assert_eq!(world.leave(&[("b", None)]), [Ok(())]);
    assert_eq!(world.heartbeat("a", 1), Ok(()), "and disturbs nobody");
    assert_eq!(world.rejoin("b"), Err(GroupRejected::UnknownMember));
}

#[test]
fn a_silent_member_is_expired_and_the_others_rejoin() {
    let mut world = World::stable(&["a", "b"]);
    world.expire("b");
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::UnknownMember));
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_member_that_did_something_since_it_was_judged_is_spared() {
    let mut world = World::stable(&["a", "b"]);
    let judged = world.watched("b").expect("watched").touched;
    assert!(world.commit("b", Some(1), 5).is_ok());
    world.apply(GroupAction::ExpireMember { member: member("b"), judged });
    assert_eq!(world.heartbeat("b", 1), Ok(()));
}

#[test]
fn a_member_that_waits_for_the_group_is_not_watched_and_not_expired() {
    let mut world = World::stable(&["a", "b"]);
    let judged = world.watched("a").expect("watched").touched;
    assert!(is_pending(&world.rejoin("a")));
    assert_eq!(world.watched("a"), None);
    world.apply(GroupAction::ExpireMember { member: member("a"), judged: judged + 1 });
    assert!(is_pending(&world.ask_join("a", world.requests)));

    let mut world = World::completing(&["a", "b"]);
    assert!(is_pending(&world.sync("b", 1, &[])));
    assert_eq!(world.watched("b"), None);
    assert_eq!(world.watched("a").map(|watched| watched.session_timeout_ms), Some(10_000));
}

#[test]
fn a_first_join_may_be_parked_for_five_minutes() {
    let mut world = World::new();
    let _ = world.join_new("a");
    assert_eq!(world.watched("a").expect("watched").session_timeout_ms, 300_000);
    world.expire("a");
    assert_eq!(world.ask_join("a", 1), Err(GroupRejected::UnknownMember));
}
