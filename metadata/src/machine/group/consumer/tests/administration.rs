//! Offsets of consumer groups; deleting and listing them; groups that change their protocol.

use std::time::Duration;

use aquifer_storage::model::{Offset, SessionId};
use bytes::Bytes;

use super::*;
use crate::machine::group::{
    command::{CommitOffsets, CommittedOffset, Join, LeavingMember, RequestId, TopicOffsets},
    query::OffsetReader,
    types::{GenerationId, GroupKind},
};

fn commit_of(id: &str, epoch: Option<i32>, indexes: &[i32]) -> GroupAction {
    let committed =
        CommittedOffset { offset: Offset::ZERO, leader_epoch: None, metadata: String::new() };
    GroupAction::CommitOffsets(CommitOffsets {
        member: MemberId::new(id),
        instance: None,
        generation: epoch.map(GenerationId::new),
        knows_epochs: true,
        offsets: indexes.iter().map(|index| (at(1, *index), committed.clone())).collect(),
    })
}

fn commit(
    world: &mut World,
    id: &str,
    epoch: Option<i32>,
    indexes: &[i32],
) -> Result<(), GroupRejected> {
    match world.apply(commit_of(id, epoch, indexes)) {
        GroupReply::CommitOffsets(result) => result.map(|gone| assert!(gone.is_empty())),
        other => panic!("{other:?}"),
    }
}

fn fetch(world: &World, reader: Option<(&str, i32)>) -> Result<usize, GroupRejected> {
    let reader = reader.map(|(id, epoch)| OffsetReader { member: MemberId::new(id), epoch });
    match world.ask(GroupAsk::Offsets { partitions: None, reader }) {
        GroupAnswer::Offsets(result) => result.map(|offsets| offsets.len()),
        other => panic!("{other:?}"),
    }
}

fn classic_join(id: &str) -> GroupAction {
    GroupAction::Join(Join {
        request: RequestId { session: SessionId::new(1), number: 1 },
        member: MemberId::default(),
        proposed_member: MemberId::new(id),
        require_known_member: false,
        instance: None,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        limits: None,
    })
}

#[test]
fn offsets_are_committed_and_read_by_members_in_their_epoch() {
    let mut world = World::new(&[("t", 2)]);
    world.join("a", &["t"]);
    assert_eq!(commit(&mut world, "a", Some(2), &[0]), Ok(()));
    assert_eq!(commit(&mut world, "a", Some(3), &[0]), Err(GroupRejected::StaleMemberEpoch));
    assert_eq!(commit(&mut world, "b", Some(2), &[0]), Err(GroupRejected::UnknownMember));
    assert_eq!(commit(&mut world, "", None, &[0]), Err(GroupRejected::UnknownMember));
    assert_eq!(fetch(&world, None), Ok(1));
    assert_eq!(fetch(&world, Some(("a", 2))), Ok(1));
    assert_eq!(fetch(&world, Some(("a", 0))), Err(GroupRejected::StaleMemberEpoch));
    assert_eq!(fetch(&world, Some(("b", 2))), Err(GroupRejected::UnknownMember));
}

#[test]
fn a_commit_of_an_earlier_epoch_is_taken_for_what_the_member_had_by_then() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    world.grow("t", 2);
    world.ok(&goes_on("a", 2));
    assert_eq!(commit(&mut world, "a", Some(2), &[0]), Ok(()), "it has it since epoch 2");
    assert_eq!(commit(&mut world, "a", Some(2), &[1]), Err(GroupRejected::StaleMemberEpoch));
    assert_eq!(commit(&mut world, "a", Some(3), &[0, 1]), Ok(()));
}

#[test]
fn while_nobody_is_in_anyone_commits() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    world.ok(&goes_on("a", -1));
    assert_eq!(commit(&mut world, "", None, &[0]), Ok(()));
    assert_eq!(commit(&mut world, "a", Some(2), &[0]), Err(GroupRejected::UnknownMember));
}

#[test]
fn offsets_of_subscribed_topics_are_kept_and_a_group_with_members_is() {
    let mut world = World::new(&[("t", 1), ("u", 1)]);
    world.join("a", &["t"]);
    commit(&mut world, "a", Some(2), &[0]).unwrap();
    let delete = |number: u8, name: &str| TopicOffsets {
        topic: topic(number),
        name: name.to_owned(),
        partitions: vec![PartitionIndex::new(0)],
    };
    let topics = vec![delete(1, "t"), delete(2, "u")];
    let reply = world.apply(GroupAction::DeleteOffsets { topics: topics.clone() });
    assert_eq!(reply, GroupReply::OffsetsDeleted(Ok(vec![true, false])));
    assert_eq!(fetch(&world, None), Ok(1));
    let reply = world.apply(GroupAction::Delete);
    assert_eq!(reply, GroupReply::Deleted(Err(GroupRejected::NonEmpty)));
    world.ok(&goes_on("a", -1));
    let reply = world.apply(GroupAction::DeleteOffsets { topics });
    assert_eq!(reply, GroupReply::OffsetsDeleted(Ok(vec![false, false])));
    assert_eq!(fetch(&world, None), Ok(0));
    assert_eq!(world.apply(GroupAction::Delete), GroupReply::Deleted(Ok(())));
    assert_eq!(world.describe(), None);
    assert!(world.groups.listed(None, 9).is_empty());
}

#[test]
fn a_group_is_listed_by_its_protocol_and_described_by_no_other() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    let listed = world.groups.listed(None, 9);
    assert_eq!((listed[0].kind, listed[0].state), (GroupKind::Consumer, GroupState::Stable));
    assert_eq!(listed[0].protocol_type.as_deref(), Some("consumer"));
    assert_eq!(world.ask(GroupAsk::Describe), GroupAnswer::Described(None));
    let described = world.describe().unwrap();
    assert_eq!((described.group_epoch, described.assignment_epoch), (2, 2));
    assert_eq!(held(&described.members[0].assignment), of_1(&[0]));
    assert_eq!(described.members[0].target, described.members[0].assignment);
}

#[test]
fn an_empty_group_changes_its_protocol_with_the_first_member_and_keeps_its_offsets() {
    let mut world = World::new(&[("t", 1)]);
    commit(&mut world, "", None, &[0]).unwrap();
    world.join("a", &["t"]);
    assert_eq!(fetch(&world, None), Ok(1));
    world.ok(&goes_on("a", -1));
    let reply = world.apply(classic_join("c"));
    assert!(matches!(reply, GroupReply::Join(Ok(_))), "{reply:?}");
    assert_eq!(world.describe(), None);
    assert_eq!(fetch(&world, None), Ok(1));
    let message = "Group orders is not a consumer group.".to_owned();
    assert_eq!(world.refused(&goes_on("a", 2)), (GroupRejected::UnknownGroup, message));
}

#[test]
fn an_operator_removes_members_by_id_or_by_instance_in_one_epoch() {
    let mut world = World::new(&[("t", 2)]);
    let instance = Some("i".to_owned());
    world.ok(&ConsumerHeartbeat { instance: instance.clone(), ..joins("a", &["t"]) });
    world.join("b", &["t"]);
    world.join("c", &["t"]);
    let before = world.describe().unwrap().group_epoch;
    let leaving = |id: &str, instance: &Option<String>| LeavingMember {
        member: MemberId::new(id),
        instance: instance.clone(),
    };
    let members = vec![
        leaving("", &instance),
        leaving("b", &None),
        leaving("d", &None),
        leaving("b", &instance),
        leaving("", &Some("j".to_owned())),
    ];
    let unknown = || Err(GroupRejected::UnknownMember);
    let expected = vec![Ok(()), Ok(()), unknown(), Err(GroupRejected::FencedInstance), unknown()];
    assert_eq!(world.apply(GroupAction::Leave { members }), GroupReply::Leave(expected));
    let described = world.describe().unwrap();
    assert_eq!((described.members.len(), described.group_epoch), (1, before + 1));
    assert_eq!(world.ok(&goes_on("c", 4)), (5, Some(of_1(&[0, 1]))));
}

#[test]
fn an_offset_expires_only_when_nobody_subscribes_to_its_topic() {
    let mut world = World::new(&[("t", 1), ("u", 1)]);
    let (epoch, _) = world.join("a", &["t"]);
    assert_eq!(commit(&mut world, "a", Some(epoch), &[0]), Ok(()));
    let expire = |world: &mut World| {
        let partitions = vec![PartitionIndex::new(0)];
        let named = TopicOffsets { topic: topic(1), name: "t".to_owned(), partitions };
        world.apply(GroupAction::ExpireOffsets { topics: vec![named], retention_ms: 0 });
        fetch(world, None)
    };
    assert_eq!(expire(&mut world), Ok(1), "a reads it");
    let elsewhere =
        ConsumerHeartbeat { subscribed: Some(vec!["u".to_owned()]), ..goes_on("a", epoch) };
    world.ok(&elsewhere);
    assert_eq!(expire(&mut world), Ok(0), "nobody reads it");
    assert!(world.describe().is_some_and(|group| group.members.len() == 1), "a is in");
    world.ok(&goes_on("a", -1));
    assert_eq!(expire(&mut world), Ok(0));
    assert_eq!(world.describe(), None, "nothing of it is left");
}

/// What members read is not looked at before what they do not: however much that is.
#[test]
fn old_offsets_that_nobody_reads_expire_behind_any_number_that_somebody_does() {
    let mut world = World::new(&[("read", 5_000), ("left", 1)]);
    world.join("a", &["read"]);
    let all: Vec<i32> = (0..5_000).collect();
    commit(&mut world, "a", Some(2), &all).unwrap();
    let GroupAction::CommitOffsets(mut one) = commit_of("a", Some(2), &[0]) else { panic!() };
    one.offsets[0].0 = at(2, 0);
    world.apply(GroupAction::CommitOffsets(one));
    let (later, retention) = (WallTime::from_millis(1_000_000), Duration::from_secs(60));
    let name_of = |topic| world.catalog.name_of(topic);
    let commands = world.groups.expirable((later, retention), &name_of, 10);
    let [GroupCommand { action: GroupAction::ExpireOffsets { topics, .. }, .. }] = &commands[..]
    else {
        panic!("one command")
    };
    let left = TopicOffsets {
        topic: topic(2),
        name: "left".to_owned(),
        partitions: vec![PartitionIndex::new(0)],
    };
    assert_eq!(topics, &[left]);
}
