//! Listing, describing, deleting.

use super::*;
use crate::machine::group::{
    command::TopicOffsets,
    query::{GroupDescription, GroupListed},
    types::{GroupKind, GroupState},
};

fn described(world: &World) -> Option<GroupDescription> {
    match world.ask(GroupAsk::Describe) {
        GroupAnswer::Described(found) => found,
        other => panic!("{other:?}"),
    }
}

fn delete(world: &mut World) -> Result<(), GroupRejected> {
    match world.apply(GroupAction::Delete) {
        GroupReply::Deleted(result) => result,
        other => panic!("{other:?}"),
    }
}

/// Forgets the offsets of partition 0 of the one topic, by this name.
fn delete_offset(world: &mut World, name: &str) -> Result<Vec<bool>, GroupRejected> {
    let (topic, partitions) = (partition(0).topic, vec![PartitionIndex::new(0)]);
    let topics = vec![TopicOffsets { topic, name: name.to_owned(), partitions }];
    match world.apply(GroupAction::DeleteOffsets { topics }) {
        GroupReply::OffsetsDeleted(result) => result,
        other => panic!("{other:?}"),
    }
}

/// A member of `orders` joins an empty group and completes the join; the metadata is its own.
fn join_with(world: &mut World, protocol_type: &str, metadata: &'static [u8]) {
    let protocols = vec![("range".to_owned(), Bytes::from_static(metadata))];
    let join = world.a_join("a", false);
    let _ = world.join(Join { protocols, protocol_type: protocol_type.to_owned(), ..join });
    world.pass(60_000);
}

/// Version 0, one topic "orders", no user data.
const READS_ORDERS: &[u8] = b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff";

#[test]
fn a_description_tells_what_members_said_and_got_only_while_the_group_is_stable() {
    let mut world = World::completing(&["b", "a"]);
    let known = described(&world).expect("it exists");
    assert_eq!((known.state, known.protocol), (GroupState::CompletingRebalance, None));
    assert!(known.members.iter().all(|one| one.metadata.is_empty() && one.assignment.is_empty()));
    let _ = ready(world.sync("b", 1, &[("a", "for a"), ("b", "for b")]));
    let known = described(&world).expect("it exists");
    assert_eq!(known.state, GroupState::Stable);
    assert_eq!(known.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(known.protocol.as_deref(), Some("range"));
    let told = |one: &super::super::query::MemberDescription| {
        (one.member.as_str().to_owned(), one.metadata.clone(), one.assignment.clone())
    };
    let members: Vec<_> = known.members.iter().map(told).collect();
    let expected = [("b", "for b"), ("a", "for a")]
        .map(|(id, given)| (id.to_owned(), Bytes::from("r"), Bytes::from(given)));
    assert_eq!(members, expected, "in the order of joining");
    let _ = world.join_new("c");
    let known = described(&world).expect("it exists");
    assert_eq!((known.state, known.members.len()), (GroupState::PreparingRebalance, 3));
    assert!(described(&World::new()).is_none());
}

#[test]
fn a_list_of_groups_goes_on_behind_the_last_one_told() {
    let mut world = World::stable(&["a"]);
    let listed = |world: &World, after: Option<&str>| world.groups.listed(after, 1);
    let orders = GroupListed {
        group: GROUP.to_owned(),
        state: GroupState::Stable,
        protocol_type: Some("consumer".to_owned()),
        kind: GroupKind::Classic,
    };
    assert_eq!(listed(&world, None), [orders]);
    let offsets = vec![(
        partition(0),
        CommittedOffset { offset: Offset::ZERO, leader_epoch: None, metadata: String::new() },
    )];
    let commit = CommitOffsets {
        member: member(""),
        instance: None,
        generation: None,
        knows_epochs: false,
        offsets,
    };
    let group = "simple".to_owned();
    let command = GroupCommand { group, action: GroupAction::CommitOffsets(commit) };
    let now = Elapsed::from_millis(world.now_ms);
    world.groups.apply(&command, now, WallTime::from_millis(0), &|_| true);
    let [simple] = &listed(&world, Some(GROUP))[..] else { panic!("one") };
    assert_eq!((simple.group.as_str(), simple.state), ("simple", GroupState::Empty));
    assert_eq!(simple.protocol_type, None);
    assert!(listed(&world, Some("simple")).is_empty());
}

#[test]
fn only_a_group_without_members_is_deleted_and_then_nothing_of_it_is_left() {
    let mut world = World::stable(&["a"]);
    let _ = world.commit("a", Some(1), 5);
    assert_eq!(delete(&mut world), Err(GroupRejected::NonEmpty));
    assert_eq!(world.committed(), [5, 5]);
    world.leave(&[("a", None)]);
    let before = world.groups.version(GROUP);
    assert_eq!(delete(&mut world), Ok(()));
    assert!(world.groups.version(GROUP) > before, "whoever waits for it is woken");
    assert!(described(&world).is_none() && world.committed().is_empty());
    assert_eq!(delete(&mut world), Err(GroupRejected::UnknownGroup));
}

#[test]
fn offsets_of_topics_that_members_read_are_kept() {
    let mut world = World::new();
    join_with(&mut world, "consumer", READS_ORDERS);
    let _ = ready(world.sync("a", 1, &[("a", "x")]));
    let _ = world.commit("a", Some(1), 5);
    assert_eq!(delete_offset(&mut world, "orders"), Ok(vec![true]));
    assert_eq!(world.committed(), [5, 5]);
    assert_eq!(delete_offset(&mut world, "other"), Ok(vec![false]));
    assert_eq!(world.committed(), [5], "nobody reads it");
    world.leave(&[("a", None)]);
    assert_eq!(delete_offset(&mut world, "orders"), Ok(vec![false]), "nobody is there");
}

#[test]
fn a_consumer_whose_subscription_cannot_be_read_may_read_anything() {
    let mut world = World::new();
    join_with(&mut world, "consumer", b"\0");
    assert_eq!(delete_offset(&mut world, "other"), Ok(vec![true]));
}

#[test]
fn offsets_of_a_group_that_is_not_of_consumers_wait_until_it_is_empty() {
    let mut world = World::new();
    join_with(&mut world, "connect", READS_ORDERS);
    assert_eq!(delete_offset(&mut world, "other"), Err(GroupRejected::NonEmpty));
    let mut simple = World::new();
    assert_eq!(delete_offset(&mut simple, "other"), Err(GroupRejected::UnknownGroup));
    let _ = simple.commit("", None, 5);
    assert_eq!(delete_offset(&mut simple, "orders"), Ok(vec![false]));
    assert_eq!(simple.committed(), [5]);
}

#[test]
fn the_last_member_that_leaves_waits_for_no_id_that_was_given_out() {
    let mut world = World::stable(&["a"]);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    world.leave(&[("a", None)]);
    assert_eq!(described(&world).map(|known| known.state), Some(GroupState::Empty));
    assert!(is_pending(&world.rejoin("b")), "its id is good for a join still");
    world.pass(3_000);
    assert_eq!(ready(world.ask_join("b", world.requests)).generation, generation(3));
}

#[test]
fn a_rebalance_that_nobody_is_left_in_waits_for_an_id_that_was_given_out() {
    let mut world = World::stable(&["a"]);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    assert!(is_pending(&world.rejoin("a")));
    world.leave(&[("a", None)]);
    let known = described(&world).expect("it exists");
    assert_eq!((known.state, known.members.len()), (GroupState::PreparingRebalance, 0));
    assert_eq!(delete(&mut world), Err(GroupRejected::NonEmpty));
    assert_eq!(ready(world.rejoin("b")).generation, generation(2));
}
