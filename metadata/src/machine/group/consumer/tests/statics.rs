//! Static members: `group.instance.id`.

use super::*;

fn as_i(heartbeat: ConsumerHeartbeat) -> ConsumerHeartbeat {
    ConsumerHeartbeat { instance: Some("i".to_owned()), ..heartbeat }
}

#[test]
fn a_static_member_that_comes_back_has_what_it_had_without_a_rebalance() {
    let mut world = World::new(&[("t", 2)]);
    world.ok(&as_i(joins("a", &["t"])));
    world.join("b", &["t"]);
    world.ok(&as_i(goes_on("a", 2)));
    world.ok(&as_i(holds("a", 2, &of_1(&[0]))));
    world.ok(&goes_on("b", 3));
    assert_eq!(world.ok(&as_i(goes_on("a", -2))), (-2, None));
    assert_eq!(world.ok(&goes_on("b", 3)), (3, None), "its partition is kept for it");
    assert_eq!(world.ok(&as_i(joins("a2", &["t"]))), (3, Some(of_1(&[0]))));
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.describe().unwrap().group_epoch, 3);
}

#[test]
fn an_instance_is_not_given_to_another_member_while_its_holder_is_there() {
    let mut world = World::new(&[("t", 1)]);
    world.ok(&as_i(joins("a", &["t"])));
    let message = "Static member b with instance id i cannot join the group because the instance \
                   id is owned by a member.";
    let refused = (GroupRejected::UnreleasedInstance, message.to_owned());
    assert_eq!(world.refused(&as_i(joins("b", &["t"]))), refused);
}

#[test]
fn the_id_a_static_member_had_before_is_fenced() {
    let mut world = World::new(&[("t", 1)]);
    world.ok(&as_i(joins("a", &["t"])));
    world.ok(&as_i(goes_on("a", -2)));
    world.ok(&as_i(joins("b", &["t"])));
    let message = "Static member a with instance id i was fenced by member b.".to_owned();
    let fenced = (GroupRejected::FencedInstance, message);
    assert_eq!(world.refused(&as_i(goes_on("a", 2))), fenced);
    assert_eq!(world.refused(&as_i(goes_on("a", -1))), fenced);
    let unknown = ConsumerHeartbeat { instance: Some("j".to_owned()), ..goes_on("a", 2) };
    let message = "Instance id j is unknown.".to_owned();
    assert_eq!(world.refused(&unknown), (GroupRejected::UnknownMember, message));
}

#[test]
fn a_static_member_that_leaves_for_good_gives_everything_back() {
    let mut world = World::new(&[("t", 1)]);
    world.ok(&as_i(joins("a", &["t"])));
    world.ok(&as_i(goes_on("a", -1)));
    assert_eq!(world.join("b", &["t"]), (4, of_1(&[0])));
}

#[test]
fn one_that_is_away_while_it_gives_up_partitions_holds_them_no_more() {
    let mut world = World::new(&[("t", 2)]);
    world.ok(&as_i(joins("a", &["t"])));
    world.join("b", &["t"]);
    assert_eq!(world.ok(&as_i(goes_on("a", 2))), (2, Some(of_1(&[0]))));
    world.ok(&as_i(goes_on("a", -2)));
    assert_eq!(world.ok(&goes_on("b", 3)), (3, Some(of_1(&[1]))));
    world.pass(120_000);
    assert_eq!(world.ok(&as_i(joins("c", &["t"]))), (3, Some(of_1(&[0]))));
}
