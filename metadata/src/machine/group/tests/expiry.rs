//! What goes for its age, and what does not.

use std::time::Duration;

use super::*;
use crate::{
    codec::group::{command_from_proto, command_to_proto},
    machine::group::{command::TopicOffsets, query::GroupDescription},
};

const RETENTION: Duration = Duration::from_secs(600);

/// Version 0, one topic "orders", no user data.
const READS_ORDERS: &[u8] = b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff";

fn described(world: &World) -> Option<GroupDescription> {
    match world.ask(GroupAsk::Describe) {
        GroupAnswer::Described(found) => found,
        other => panic!("{other:?}"),
    }
}

/// What the leader proposes now; the one topic has this name.
fn round(world: &World, name: &str) -> Vec<GroupCommand> {
    let wall = WallTime::from_millis(1_000_000 + i64::try_from(world.now_ms).unwrap());
    let name_of = |_| Some(name.to_owned());
    world.groups.expirable((wall, RETENTION), &name_of, 9)
}

/// A round of expiry, and the offsets that are left.
fn expire(world: &mut World, name: &str) -> Vec<i64> {
    for command in round(world, name) {
        assert_eq!(command_from_proto(command_to_proto(&command)).as_ref(), Ok(&command));
        assert_eq!(world.apply(command.action), GroupReply::Done);
    }
    world.committed()
}

fn pass_retention_but(world: &mut World, millis: u64) {
    world.pass(u64::try_from(RETENTION.as_millis()).unwrap() - millis);
}

/// A stable group of one member that says this of itself.
fn reading(protocol_type: &str, metadata: &'static [u8]) -> World {
    let mut world = World::new();
    let protocols = vec![("range".to_owned(), Bytes::from_static(metadata))];
    let join = world.a_join("a", false);
    let _ = world.join(Join { protocols, protocol_type: protocol_type.to_owned(), ..join });
    world.pass(3_000);
    let sync = Sync { protocol_type: None, ..World::a_sync("a", 1, &[("a", "all")]) };
    let _ = ready(world.sync_as(sync));
    world
}

#[test]
fn offsets_of_a_simple_group_go_by_the_time_of_their_commit_and_it_with_them() {
    let mut world = World::new();
    let _ = world.commit("", None, 5);
    pass_retention_but(&mut world, 1);
    assert_eq!(expire(&mut world, "orders"), [5, 5]);
    let _ = world.commit("", None, 6);
    world.pass(1);
    assert_eq!(expire(&mut world, "orders"), [6, 6], "committed again meanwhile");
    pass_retention_but(&mut world, 1);
    assert!(expire(&mut world, "orders").is_empty());
    assert_eq!(described(&world), None);
    assert!(round(&world, "orders").is_empty(), "and nothing is proposed for nothing");
}

#[test]
fn offsets_of_an_empty_group_go_by_the_time_its_last_member_went() {
    let mut world = World::stable(&["a"]);
    let _ = world.commit("a", Some(1), 5);
    pass_retention_but(&mut world, 0);
    world.leave(&[("a", None)]);
    pass_retention_but(&mut world, 1);
    assert_eq!(expire(&mut world, "orders"), [5, 5]);
    world.pass(1);
    assert!(expire(&mut world, "orders").is_empty());
    assert_eq!(described(&world), None);
}

#[test]
fn an_empty_group_without_offsets_is_forgotten_but_not_one_that_expects_somebody() {
    let mut world = World::stable(&["a"]);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    world.leave(&[("a", None)]);
    expire(&mut world, "orders");
    assert!(described(&world).is_some());
    world.leave(&[("b", None)]);
    expire(&mut world, "orders");
    assert_eq!(described(&world), None);
}

#[test]
fn a_stable_group_of_consumers_loses_old_offsets_of_topics_that_nobody_reads() {
    let mut world = reading("consumer", READS_ORDERS);
    let _ = world.commit("a", Some(1), 5);
    pass_retention_but(&mut world, 0);
    assert!(round(&world, "orders").is_empty(), "it is read");
    for mut command in round(&world, "bills") {
        let GroupAction::ExpireOffsets { topics, .. } = &mut command.action else { panic!() };
        topics[0].name = "orders".to_owned();
        let _ = world.apply(command.action);
    }
    assert_eq!(world.committed(), [5, 5], "apply looks at what is read as well");
    let _ = world.commit("a", Some(1), 6);
    assert_eq!(expire(&mut world, "bills"), [6, 6], "it is young");
    pass_retention_but(&mut world, 0);
    assert!(expire(&mut world, "bills").is_empty());
    assert_eq!(described(&world).map(|known| known.members.len()), Some(1), "the group stays");
}

#[test]
fn nothing_goes_while_members_rebalance_or_do_not_say_what_they_read() {
    for mut world in [reading("consumer", b"\0"), reading("connect", READS_ORDERS)] {
        let _ = world.commit("a", Some(1), 5);
        pass_retention_but(&mut world, 0);
        assert_eq!(expire(&mut world, "bills"), [5, 5]);
    }
    let mut world = reading("consumer", READS_ORDERS);
    let _ = world.commit("a", Some(1), 5);
    pass_retention_but(&mut world, 0);
    let _ = world.join_new("b");
    assert_eq!(expire(&mut world, "bills"), [5, 5]);
}

#[test]
fn apply_decides_again_so_that_what_happened_meanwhile_counts() {
    let mut world = World::new();
    let _ = world.commit("", None, 5);
    pass_retention_but(&mut world, 0);
    let proposed = round(&world, "orders");
    assert_eq!(proposed.len(), 1);
    let _ = world.commit("", None, 6);
    for command in proposed {
        let _ = world.apply(command.action);
    }
    assert_eq!(world.committed(), [6, 6]);
}

#[test]
fn a_command_of_expiry_names_a_bounded_number_of_offsets_and_the_next_round_the_rest() {
    let mut world = World::new();
    let committed = CommittedOffset {
        offset: Offset::new(1).expect("not negative"),
        leader_epoch: None,
        metadata: String::new(),
    };
    let commit = CommitOffsets {
        member: MemberId::default(),
        instance: None,
        generation: None,
        knows_epochs: true,
        offsets: (0..5_000).map(|index| (partition(index), committed.clone())).collect(),
    };
    let _ = world.apply(GroupAction::CommitOffsets(commit));
    pass_retention_but(&mut world, 0);
    let [GroupCommand { action: GroupAction::ExpireOffsets { topics, .. }, .. }] =
        &round(&world, "orders")[..]
    else {
        panic!("one command a group")
    };
    assert_eq!(
        topics.iter().map(|topic: &TopicOffsets| topic.partitions.len()).sum::<usize>(),
        4_096
    );
    assert_eq!(expire(&mut world, "orders").len(), 5_000 - 4_096);
    assert!(expire(&mut world, "orders").is_empty());
}
