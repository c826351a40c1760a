//! Committed offsets.

use super::*;

#[test]
fn a_member_commits_in_its_generation_only() {
    let mut world = World::stable(&["a", "b"]);
    assert_eq!(world.commit("a", Some(1), 5), Ok(Vec::new()));
    assert_eq!(world.commit("a", Some(0), 6), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.commit("a", Some(2), 6), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.commit("x", Some(1), 6), Err(GroupRejected::UnknownMember));
    assert_eq!(world.committed(), [5, 5]);
}

#[test]
fn a_commit_of_the_present_generation_succeeds_while_members_still_join() {
    let mut world = World::stable(&["a", "b"]);
    let _ = world.join_new("c");
    assert_eq!(world.commit("b", Some(1), 7), Ok(Vec::new()));
    let _ = world.rejoin("a");
    let _ = world.rejoin("b");
    assert_eq!(world.commit("b", Some(1), 8), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.commit("b", Some(2), 8), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.committed(), [7, 7]);
}

#[test]
fn without_a_generation_only_an_empty_group_is_committed_to() {
    let mut world = World::new();
    assert_eq!(world.commit("", None, 1), Ok(Vec::new()));
    assert_eq!(world.commit("anything", None, 2), Ok(Vec::new()));
    let _ = world.join_new("a");
    assert_eq!(world.commit("", None, 3), Err(GroupRejected::UnknownMember));
    assert_eq!(world.commit("a", None, 3), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.committed(), [2, 2]);
}

#[test]
fn a_generation_of_an_unknown_group_is_refused_as_that() {
    let mut world = World::new();
    assert_eq!(world.commit("a", Some(1), 1), Err(GroupRejected::UnknownGroup));
    assert_eq!(world.commit("", None, 1), Ok(Vec::new()));
    assert_eq!(world.commit("a", Some(1), 1), Err(GroupRejected::UnknownMember));
}

#[test]
fn offsets_of_partitions_that_are_gone_are_named_and_not_stored() {
    let mut world = World::new();
    world.deleted.insert(partition(1));
    let gone = PartitionIndexError { partition: PartitionIndex::new(1), position: 1 };
    assert_eq!(world.commit("", None, 4), Ok(vec![gone]));
    assert_eq!(world.committed(), [4]);
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten() {
    let mut world = World::stable(&["a"]);
    let _ = world.commit("a", Some(1), 5);
    let version = world.groups.version(GROUP);
    let changed = world.groups.topic_deleted(partition(0).topic);
    assert_eq!(changed, [(GROUP.to_owned(), world.groups.version(GROUP))]);
    assert!(world.groups.version(GROUP) > version);
    assert!(world.committed().is_empty());
    assert_eq!(world.groups.topic_deleted(partition(0).topic), []);
    assert_eq!(world.heartbeat("a", 1), Ok(()));
}

#[test]
fn offsets_are_told_of_the_partitions_asked_for_and_outlive_the_members() {
    let mut world = World::stable(&["a"]);
    let _ = world.commit("a", Some(1), 5);
    world.leave(&[("a", None)]);
    let partitions = Some(vec![partition(1), partition(9)]);
    let ask = GroupAsk::Offsets { partitions, reader: None };
    let GroupAnswer::Offsets(Ok(offsets)) = world.ask(ask) else {
        panic!("an offsets answer");
    };
    assert_eq!(offsets.len(), 1);
    assert_eq!((offsets[0].0, offsets[0].1.metadata.as_str()), (partition(1), "note"));
}

#[test]
fn a_commit_wakes_nobody() {
    let mut world = World::stable(&["a"]);
    let version = world.groups.version(GROUP);
    let _ = world.commit("a", Some(1), 5);
    assert_eq!(world.groups.version(GROUP), version);
}
