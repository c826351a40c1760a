//! A member's way to its target.

use super::*;

#[test]
fn what_moves_is_given_up_before_the_other_gets_it() {
    let mut world = World::new(&[("t", 4)]);
    world.join("a", &["t"]);
    // b waits in the new epoch; a still has everything in the old one.
    let answer = world.heartbeat(&joins("b", &["t"])).unwrap();
    assert_eq!((answer.epoch.value(), answer.assignment), (3, Some(Vec::new())));
    assert_eq!(answer.heartbeat_interval_ms, 200, "who waits asks more often");
    assert_eq!(world.state(), GroupState::Reconciling);
    // a is told to give up two and stays in its epoch until it says that it has.
    assert_eq!(world.ok(&goes_on("a", 2)), (2, Some(of_1(&[0, 1]))));
    assert_eq!(world.ok(&goes_on("b", 3)), (3, None));
    assert_eq!(world.ok(&holds("a", 2, &of_1(&[0, 1, 2]))), (2, None), "not all of them yet");
    assert_eq!(world.ok(&holds("a", 2, &of_1(&[0, 1]))), (3, None));
    assert_eq!(world.ok(&goes_on("b", 3)), (3, Some(of_1(&[2, 3]))));
    assert_eq!(world.state(), GroupState::Stable);
    let answer = world.heartbeat(&goes_on("b", 3)).unwrap();
    assert_eq!(answer.heartbeat_interval_ms, 500);
}

#[test]
fn what_a_member_leaves_behind_goes_to_the_others() {
    let mut world = World::new(&[("t", 2)]);
    world.join("a", &["t"]);
    world.join("b", &["t"]);
    world.ok(&goes_on("a", 2));
    world.ok(&holds("a", 2, &of_1(&[0])));
    world.ok(&goes_on("b", 3));
    assert_eq!(world.ok(&goes_on("a", -1)), (-1, None));
    assert_eq!(world.ok(&goes_on("b", 3)), (4, Some(of_1(&[0, 1]))));
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut world = World::new(&[("t", 2)]);
    world.ok(&ConsumerHeartbeat { rebalance_timeout_ms: Some(5_000), ..joins("a", &["t"]) });
    world.join("b", &["t"]);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, Some(of_1(&[0]))));
    world.pass(4_999);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, None), "heartbeats do not help");
    world.pass(1);
    assert_eq!(world.refused(&goes_on("a", 2)).0, GroupRejected::UnknownMember);
    assert_eq!(world.ok(&goes_on("b", 3)), (4, Some(of_1(&[0, 1]))));
}

#[test]
fn who_has_given_up_is_not_fenced_any_more() {
    let mut world = World::new(&[("t", 2)]);
    world.ok(&ConsumerHeartbeat { rebalance_timeout_ms: Some(5_000), ..joins("a", &["t"]) });
    world.join("b", &["t"]);
    world.ok(&goes_on("a", 2));
    world.ok(&holds("a", 2, &of_1(&[0])));
    world.pass(60_000);
    assert_eq!(world.ok(&goes_on("a", 3)), (3, None));
}

#[test]
fn a_topic_that_a_member_unsubscribes_is_taken_from_it_at_once() {
    let mut world = World::new(&[("t", 1), ("u", 1)]);
    world.set("consumer.assignment.interval.ms", "60000");
    world.join("a", &["t", "u"]);
    let only_t = ConsumerHeartbeat { subscribed: Some(vec!["t".to_owned()]), ..goes_on("a", 2) };
    assert_eq!(world.ok(&only_t), (2, Some(of_1(&[0]))), "before there is a new assignment");
    assert_eq!(world.state(), GroupState::Assigning);
}

#[test]
fn a_target_that_changes_on_the_way_is_gone_to_directly() {
    let mut world = World::new(&[("t", 2)]);
    world.join("a", &["t"]);
    world.join("b", &["t"]);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, Some(of_1(&[0]))));
    // b leaves before a has given up anything: a is to have all again.
    world.ok(&goes_on("b", -1));
    assert_eq!(world.ok(&goes_on("a", 2)), (2, None), "it was told to give up, and does");
    assert_eq!(world.ok(&holds("a", 2, &of_1(&[0]))), (4, Some(of_1(&[0, 1]))));
}

#[test]
fn members_without_a_subscription_get_nothing_and_disturb_nobody() {
    let mut world = World::new(&[("t", 2)]);
    world.join("a", &["t"]);
    let (epoch, told) = world.join("b", &[]);
    assert_eq!((epoch, told), (2, BTreeSet::new()));
    assert_eq!(world.ok(&goes_on("a", 2)), (2, None));
}
