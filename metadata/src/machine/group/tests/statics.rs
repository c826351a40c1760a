//! Static members: those with a `group.instance.id`.

use super::*;

impl World {
    fn a_static_join(&mut self, id: &str, instance: &str) -> Join {
        Join {
            instance: Some(instance.to_owned()),
            require_known_member: true,
            ..self.a_join(id, false)
        }
    }

    /// Static members `a` (leading, instance `one`) and `b` (instance `two`), stable.
    fn stable_statics() -> Self {
        let mut world = Self::new();
        for (id, instance) in [("a", "one"), ("b", "two")] {
            let join = world.a_static_join(id, instance);
            assert!(is_pending(&world.join(join)), "admitted at once");
        }
        world.pass(60_000);
        let _ = world.sync("a", 1, &[("a", "a"), ("b", "b")]);
        let _ = world.sync("b", 1, &[]);
        world
    }
}

#[test]
fn a_static_member_that_comes_back_keeps_its_assignment_without_a_rebalance() {
    let mut world = World::stable_statics();
    let join = world.a_static_join("b2", "two");
    let result = ready(world.join(join.clone()));
    assert_eq!((result.generation, result.skip_assignment), (generation(1), false));
    assert_eq!(ready(world.join(join)).member, member("b2"), "also when the reply was lost");
    assert_eq!(ready(world.sync("b2", 1, &[])).assignment, "b");
    assert_eq!(world.heartbeat("a", 1), Ok(()));
}

#[test]
fn a_static_leader_that_comes_back_leads_and_is_told_to_skip_the_assignment() {
    let mut world = World::stable_statics();
    let join = world.a_static_join("a2", "one");
    let result = ready(world.join(join));
    assert!(result.skip_assignment);
    assert_eq!((result.leader, result.members.len()), (member("a2"), 2));
    assert_eq!(ready(world.sync("a2", 1, &[])).assignment, "a");
}

#[test]
fn the_replaced_id_is_fenced() {
    let mut world = World::stable_statics();
    let join = world.a_static_join("b2", "two");
    let _ = world.join(join);
    assert_eq!(world.heartbeat_of("b", Some("two"), 1), Err(GroupRejected::FencedInstance));
    let sync = Sync { instance: Some("two".to_owned()), ..World::a_sync("b", 1, &[]) };
    assert_eq!(world.sync_as(sync), Err(GroupRejected::FencedInstance));
    assert_eq!(world.leave(&[("b", Some("two"))]), [Err(GroupRejected::FencedInstance)]);
    let join = Join { instance: Some("two".to_owned()), ..world.a_join("b", true) };
    assert_eq!(world.join(join), Err(GroupRejected::FencedInstance));
}

#[test]
fn a_parked_join_of_the_replaced_id_is_fenced() {
    let mut world = World::stable_statics();
    let join = Join { instance: Some("one".to_owned()), ..world.a_join("a", true) };
    assert!(is_pending(&world.join(join)));
    let parked = world.requests;
    let join = world.a_static_join("a2", "one");
    assert!(is_pending(&world.join(join)));
    assert_eq!(world.ask_join("a", parked), Err(GroupRejected::FencedInstance));
}

#[test]
fn a_static_member_that_comes_back_while_the_assignment_is_awaited_starts_a_rebalance() {
    let mut world = World::new();
    for (id, instance) in [("a", "one"), ("b", "two")] {
        let join = world.a_static_join(id, instance);
        let _ = world.join(join);
    }
    world.pass(60_000);
    let join = world.a_static_join("b2", "two");
    assert!(is_pending(&world.join(join)));
    assert_eq!(world.sync("a", 1, &[]), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_static_member_that_changes_the_protocol_starts_a_rebalance() {
    let mut world = World::new();
    let both = || vec![("range".to_owned(), Bytes::new()), ("sticky".to_owned(), Bytes::new())];
    for (id, instance) in [("a", "one"), ("b", "two")] {
        let join = Join { protocols: both(), ..world.a_static_join(id, instance) };
        let _ = world.join(join);
    }
    world.pass(60_000);
    let _ = world.sync("a", 1, &[]);
    let _ = world.sync("b", 1, &[]);
    let protocols = vec![("sticky".to_owned(), Bytes::new())];
    let join = Join { protocols, ..world.a_static_join("b2", "two") };
    assert!(is_pending(&world.join(join)));
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_static_member_that_does_not_rejoin_in_time_stays_in() {
    let mut world = World::stable_statics();
    assert!(is_pending(&world.join_new("c")));
    world.pass(60_000);
    let result = ready(world.ask_join("c", world.requests));
    assert_eq!((result.leader, result.members.len()), (member("c"), 3));
}

#[test]
fn a_rebalance_nobody_but_silent_static_members_is_in_waits_for_them() {
    let mut world = World::stable_statics();
    world.leave(&[("a", None)]);
    world.pass(200_000);
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::RebalanceInProgress));
    world.expire("b");
    assert_eq!(world.groups.next_deadline(), None);
}

#[test]
fn a_static_member_can_be_removed_by_its_instance_alone() {
    let mut world = World::stable_statics();
    assert_eq!(world.leave(&[("", Some("two"))]), [Ok(())]);
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::UnknownMember));
}
