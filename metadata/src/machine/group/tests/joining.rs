//! Joining and rejoining.

use super::*;
use crate::machine::command::Command;

#[test]
fn a_new_dynamic_member_must_come_back_with_the_id_it_is_given() {
    let mut world = World::new();
    let join = Join { require_known_member: true, ..world.a_join("a", false) };
    let required = Err(GroupRejected::MemberIdRequired(member("a")));
    assert_eq!(world.join(join.clone()), required);
    assert_eq!(world.join(join), required, "also when the reply was lost");
    assert!(is_pending(&world.rejoin("a")));
}

#[test]
fn an_id_that_is_not_used_within_the_session_timeout_is_forgotten() {
    let mut world = World::new();
    let join = Join { require_known_member: true, ..world.a_join("a", false) };
    let _ = world.join(join);
    world.pass(10_000);
    assert_eq!(world.groups.next_deadline(), None);
    assert_eq!(world.rejoin("a"), Err(GroupRejected::UnknownMember));
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_given_out() {
    let mut world = World::stable(&["a"]);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    assert!(is_pending(&world.rejoin("a")));
    world.pass(9_999);
    assert!(is_pending(&world.ask_join("a", world.requests)));
    world.pass(1);
    assert_eq!(ready(world.ask_join("a", world.requests)).generation, generation(2));
}

#[test]
fn an_empty_group_is_held_open_for_the_initial_delay() {
    let mut world = World::new();
    assert!(is_pending(&world.join_new("a")));
    world.pass(2_999);
    assert!(is_pending(&world.ask_join("a", 1)));
    world.pass(1);
    let result = ready(world.ask_join("a", 1));
    assert_eq!(result.generation, generation(1));
    assert_eq!(result.leader, member("a"));
    assert_eq!(result.members.len(), 1);
}

#[test]
fn a_newcomer_extends_the_initial_delay_up_to_the_rebalance_timeout() {
    let mut world = World::new();
    let first = Join { rebalance_timeout_ms: 7_000, ..world.a_join("a", false) };
    let _ = world.join(first);
    for (id, at_ms) in [("b", 2_000), ("c", 5_000)] {
        world.pass(at_ms - world.now_ms);
        let join = Join { rebalance_timeout_ms: 7_000, ..world.a_join(id, false) };
        assert!(is_pending(&world.join(join)));
    }
    world.pass(6_999 - world.now_ms);
    assert!(is_pending(&world.ask_join("a", 1)));
    world.pass(1);
    assert_eq!(ready(world.ask_join("a", 1)).members.len(), 3);
}

#[test]
fn without_an_initial_delay_the_first_join_completes_at_once() {
    let mut world =
        World::with(GroupSettings { initial_rebalance_delay_ms: 0, ..GroupSettings::default() });
    let _ = world.join_new("a");
    assert_eq!(ready(world.ask_join("a", 1)).generation, generation(1));
}

#[test]
fn the_limits_of_the_agent_that_was_asked_go_before_those_of_the_machine() {
    let limits = |initial_rebalance_delay_ms, max_size| {
        let own = GroupSettings::default();
        Some(GroupSettings { initial_rebalance_delay_ms, max_size, ..own })
    };
    let mut world = World::new();
    let join = Join { limits: limits(0, 1), ..world.a_join("a", false) };
    let _ = world.join(join);
    assert_eq!(ready(world.ask_join("a", 1)).generation, generation(1));
    let join = Join { limits: limits(0, 1), ..world.a_join("b", false) };
    assert_eq!(world.join(join), Err(GroupRejected::GroupFull));
    assert!(is_pending(&world.join_new("b")), "one that names none has the machine's");

    let mut world = World::new();
    let join = Join { limits: limits(500, 9), ..world.a_join("a", false) };
    assert!(is_pending(&world.join(join)));
    world.pass(400);
    assert!(is_pending(&world.join_new("b")));
    world.pass(100);
    assert!(is_pending(&world.ask_join("a", 1)), "a newcomer extends it by as much again");
    world.pass(500);
    assert_eq!(ready(world.ask_join("a", 1)).members.len(), 2);
}

#[test]
fn builds_that_know_no_limits_of_a_join_stop_at_one() {
    let mut world = World::new();
    let mut level = |limits| {
        let action = GroupAction::Join(Join { limits, ..world.a_join("a", false) });
        Command::Group(GroupCommand { group: GROUP.to_owned(), action }).level()
    };
    assert_eq!((level(None), level(Some(GroupSettings::default()))), (1, 3));
}

#[test]
fn the_first_to_join_leads_and_alone_sees_the_members() {
    let mut world = World::completing(&["b", "a"]);
    let leader = ready(world.ask_join("b", 1));
    let follower = ready(world.ask_join("a", 2));
    assert_eq!((&leader.leader, &follower.leader), (&member("b"), &member("b")));
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty());
    assert_eq!(world.join_new("c").map(|_| ()), Ok(()));
}

#[test]
fn a_repeated_join_is_answered_and_not_applied_again() {
    let mut world = World::stable(&["a", "b"]);
    let join = world.a_join("a", true);
    let first = world.join(join.clone());
    let after = world.groups.clone();
    assert_eq!(world.join(join), first);
    assert_eq!(world.groups, after);
}

#[test]
fn a_join_that_a_later_one_overtook_changes_nothing() {
    let mut world = World::stable(&["a", "b"]);
    let old = world.a_join("a", true);
    assert!(is_pending(&world.rejoin("a")));
    let after = world.groups.clone();
    assert_eq!(world.join(old), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.groups, after);
}

#[test]
fn a_leader_that_rejoins_a_stable_group_starts_a_rebalance() {
    let mut world = World::stable(&["a", "b"]);
    assert!(is_pending(&world.rejoin("a")));
    assert_eq!(world.heartbeat("b", 1), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_follower_that_rejoins_unchanged_gets_the_present_generation() {
    let mut world = World::stable(&["a", "b"]);
    let before = world.groups.version(GROUP);
    assert_eq!(ready(world.rejoin("b")).generation, generation(1));
    assert_eq!(world.groups.version(GROUP), before);
}

#[test]
fn a_follower_with_new_metadata_starts_a_rebalance() {
    let mut world = World::stable(&["a", "b"]);
    let protocols = vec![("range".to_owned(), Bytes::from_static(b"other topics"))];
    let join = Join { protocols, ..world.a_join("b", true) };
    assert!(is_pending(&world.join(join)));
    assert_eq!(ready(world.rejoin("a")).generation, generation(2));
}

#[test]
fn an_unchanged_rejoin_while_the_assignment_is_awaited_gets_the_present_generation() {
    let mut world = World::completing(&["a", "b"]);
    assert_eq!(ready(world.rejoin("a")).members.len(), 2);
    assert_eq!(ready(world.rejoin("b")).generation, generation(1));
}

#[test]
fn changed_metadata_while_the_assignment_is_awaited_starts_a_rebalance() {
    let mut world = World::completing(&["a", "b"]);
    assert!(is_pending(&world.sync("b", 1, &[])));
    let protocols = vec![("range".to_owned(), Bytes::from_static(b"other"))];
    let join = Join { protocols, ..world.a_join("a", true) };
    assert!(is_pending(&world.join(join)));
    assert_eq!(world.ask_sync("b", 1), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn a_rebalance_completes_when_every_member_has_rejoined() {
    let mut world = World::stable(&["a", "b"]);
    assert!(is_pending(&world.join_new("c")));
    assert!(is_pending(&world.rejoin("a")));
    let last = ready(world.rejoin("b"));
    assert_eq!((last.generation, last.leader), (generation(2), member("a")));
}

#[test]
fn members_that_do_not_rejoin_in_time_are_out_and_another_leads() {
    let mut world = World::stable(&["a", "b", "c"]);
    assert!(is_pending(&world.join_new("d")));
    assert!(is_pending(&world.rejoin("c")));
    world.pass(59_999);
    assert!(is_pending(&world.ask_join("c", world.requests)));
    world.pass(1);
    let result = ready(world.ask_join("c", world.requests));
    assert_eq!(result.leader, member("c"), "the longest member of those that rejoined");
    assert_eq!(result.members.len(), 2);
    assert_eq!(world.heartbeat("a", 1), Err(GroupRejected::UnknownMember));
}

#[test]
fn the_protocol_most_members_prefer_among_the_common_ones_is_chosen() {
    let mut world = World::new();
    for (id, names) in
        [("a", ["range", "sticky"]), ("b", ["sticky", "range"]), ("c", ["sticky", "range"])]
    {
        let protocols = names.map(|name| (name.to_owned(), Bytes::from(name))).to_vec();
        let join = Join { protocols, ..world.a_join(id, false) };
        let _ = world.join(join);
    }
    world.pass(60_000);
    let result = ready(world.ask_join("a", 1));
    assert_eq!(result.protocol, "sticky");
    assert!(result.members.iter().all(|joined| joined.metadata == "sticky"));
}

#[test]
fn a_member_without_a_common_protocol_or_of_another_type_is_refused() {
    let mut world = World::stable(&["a"]);
    let foreign = vec![("foreign".to_owned(), Bytes::new())];
    let join = Join { protocols: foreign, ..world.a_join("b", false) };
    assert_eq!(world.join(join), Err(GroupRejected::InconsistentProtocol));
    let join = Join { protocol_type: "connect".to_owned(), ..world.a_join("b", false) };
    assert_eq!(world.join(join), Err(GroupRejected::InconsistentProtocol));
    let join = Join { protocols: Vec::new(), ..world.a_join("b", false) };
    assert_eq!(world.join(join), Err(GroupRejected::InconsistentProtocol));
}

#[test]
fn a_session_timeout_outside_its_limits_is_refused() {
    let mut world = World::new();
    for session_timeout_ms in [0, 5_999, 1_800_001, u32::MAX] {
        let join = Join { session_timeout_ms, ..world.a_join("a", false) };
        assert_eq!(world.join(join), Err(GroupRejected::InvalidSessionTimeout));
    }
    let limits = GroupSettings {
        session_timeout_min_ms: 100,
        session_timeout_max_ms: 200,
        ..GroupSettings::default()
    };
    for (session_timeout_ms, is_allowed) in [(99, false), (100, true), (200, true), (201, false)] {
        let limits = Some(limits);
        let join = Join { session_timeout_ms, limits, ..world.a_join("a", false) };
        let refused = world.join(join) == Err(GroupRejected::InvalidSessionTimeout);
        assert_eq!(refused, !is_allowed, "{session_timeout_ms}");
    }
}

#[test]
fn a_full_group_takes_no_more_members() {
    let mut world = World::with(GroupSettings { max_size: 1, ..GroupSettings::default() });
    let _ = world.join_new("a");
    assert_eq!(world.join_new("b"), Err(GroupRejected::GroupFull));
    world.pass(3_000);
    assert_eq!(world.join_new("b"), Err(GroupRejected::GroupFull));
    assert_eq!(ready(world.rejoin("a")).generation, generation(1));
}

#[test]
fn a_join_answered_late_still_names_its_generation_though_the_next_rebalance_began() {
    let mut world = World::completing(&["a", "b"]);
    assert!(is_pending(&world.join_new("c")));
    let late = ready(world.ask_join("b", 2));
    assert_eq!(late.generation, generation(1));
    assert_eq!(world.sync("b", 1, &[]), Err(GroupRejected::RebalanceInProgress));
}

#[test]
fn repeated_and_countless_protocol_names_do_no_harm() {
    let mut world = World::new();
    let protocols = vec![("range".to_owned(), Bytes::from_static(b"r")); 1_000];
    let join = Join { protocols, ..world.a_join("a", false) };
    let _ = world.join(join);
    assert!(is_pending(&world.join_new("b")));
    world.pass(60_000);
    assert_eq!(ready(world.ask_join("a", 1)).members[0].metadata, "r");
}
