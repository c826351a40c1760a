//! Epochs that are not the member's.

use super::*;

#[test]
fn an_epoch_ahead_of_the_members_is_fenced() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    let message = "The consumer group member has a greater member epoch (6) than the one known by \
                   the group coordinator (2). The member must abandon all its partitions and \
                   rejoin.";
    assert_eq!(world.refused(&goes_on("a", 6)), (GroupRejected::FencedMemberEpoch, message.into()));
}

#[test]
fn the_epoch_before_is_taken_from_who_holds_nothing_else() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    world.grow("t", 2);
    // The answer with epoch 3 and the second partition is lost.
    assert_eq!(world.ok(&goes_on("a", 2)).0, 3);
    let message = "The consumer group member has a smaller member epoch (2) than the one known by \
                   the group coordinator (3). The member must abandon all its partitions and \
                   rejoin.";
    let refused = (GroupRejected::FencedMemberEpoch, message.to_owned());
    assert_eq!(world.refused(&goes_on("a", 2)), refused, "it does not say what it holds");
    assert_eq!(world.refused(&holds("a", 2, &of_1(&[0, 7]))), refused, "it holds another one");
    let retry = ConsumerHeartbeat {
        owned: holds("a", 2, &of_1(&[0])).owned,
        epoch: MemberEpoch::new(2),
        ..joins("a", &["t"])
    };
    assert_eq!(world.ok(&retry), (3, Some(of_1(&[0, 1]))));
    world.grow("t", 3);
    world.ok(&goes_on("a", 3));
    assert_eq!(world.refused(&retry).0, GroupRejected::FencedMemberEpoch, "two epochs before");
}

#[test]
fn who_joins_again_under_its_id_keeps_what_it_had() {
    let mut world = World::new(&[("t", 2)]);
    world.join("a", &["t"]);
    assert_eq!(world.join("a", &["t"]), (2, of_1(&[0, 1])));
}

#[test]
fn who_is_silent_for_its_session_is_out_unless_it_did_something() {
    let mut world = World::new(&[("t", 1)]);
    world.set("consumer.session.timeout.ms", "50000");
    world.join("a", &["t"]);
    let watched = |world: &World| world.groups.members_for_liveness(&world.catalog).next();
    let judged = watched(&world).unwrap();
    assert_eq!((judged.member.as_str(), judged.session_timeout_ms), ("a", 50_000));
    world.grow("t", 2);
    world.ok(&goes_on("a", 2));
    let expire =
        |touched| GroupAction::ExpireMember { member: MemberId::new("a"), judged: touched };
    world.apply(expire(judged.touched));
    assert!(watched(&world).is_some(), "it did something since");
    let judged = watched(&world).unwrap();
    world.apply(expire(judged.touched));
    assert_eq!(watched(&world), None);
    assert_eq!(world.describe().unwrap().group_epoch, 4);
    assert_eq!(world.state(), GroupState::Empty);
}
