//! Subscriptions by expression.

use aquifer_storage::model::Offset;

use super::{super::subscription::EXPRESSIONS_MAX, *};
use crate::machine::group::{
    command::{CommitOffsets, CommittedOffset, TopicOffsets},
    types::GenerationId,
};

impl World {
    fn join_matching(&mut self, id: &str, regex: &str) {
        self.heartbeat(&matching(id, regex)).unwrap();
    }
}

fn matching(id: &str, regex: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat { subscribed: None, regex: Some(regex.to_owned()), ..joins(id, &[]) }
}

#[test]
fn an_expression_stands_for_the_topics_there_are_and_for_those_that_come() {
    let mut world = World::new(&[("logs-a", 1), ("other", 1)]);
    assert_eq!(world.ok(&matching("a", "logs-.*")), (2, Some(of_1(&[0]))));
    world.create("logs-b", 1);
    assert_eq!(world.ok(&goes_on("a", 2)), (3, Some([at(1, 0), at(3, 0)].into())));
    world.delete("logs-a");
    assert_eq!(world.ok(&goes_on("a", 3)), (3, Some([at(3, 0)].into())));
    assert_eq!(world.ok(&holds("a", 3, &[at(3, 0)].into())), (4, None));
}

#[test]
fn an_expression_that_is_none_is_refused_in_kafkas_words() {
    let mut world = World::new(&[("t", 1)]);
    let message = "SubscribedTopicRegex `a(` is not a valid regular expression: missing closing \
                   ).";
    let refused = (GroupRejected::InvalidRegex, message.to_owned());
    assert_eq!(world.refused(&matching("a", "a(")), refused);
}

#[test]
fn names_and_an_expression_go_together_and_an_empty_one_ends_it() {
    let mut world = World::new(&[("t", 1), ("u", 1)]);
    let both = ConsumerHeartbeat { regex: Some("u".to_owned()), ..joins("a", &["t"]) };
    assert_eq!(world.ok(&both), (2, Some([at(1, 0), at(2, 0)].into())));
    let none = ConsumerHeartbeat { regex: Some(String::new()), ..goes_on("a", 2) };
    assert_eq!(world.ok(&none), (2, Some(of_1(&[0]))));
    assert_eq!(world.ok(&holds("a", 2, &of_1(&[0]))), (3, None));
}

#[test]
fn a_group_has_a_bounded_number_of_expressions() {
    let mut world = World::new(&[("t", 1)]);
    for member in 0..EXPRESSIONS_MAX {
        world.join_matching(&format!("m{member}"), &format!("t{{{}}}", member + 1));
    }
    let message = "SubscribedTopicRegex `u` is not a valid regular expression: the group has too \
                   many others.";
    let refused = (GroupRejected::InvalidRegex, message.to_owned());
    assert_eq!(world.refused(&matching("a", "u")), refused);
    world.join_matching("a", "t{1}");
}

#[test]
fn an_expression_is_resolved_at_once_also_where_the_assignment_waits() {
    let mut world = World::new(&[("t", 4), ("u", 4)]);
    world.set("consumer.assignment.interval.ms", "5000");
    world.join("a", &["t"]);
    // What a reads by its expression is what it holds already: it gives nothing up.
    let by_expression = ConsumerHeartbeat {
        regex: Some("t|u".to_owned()),
        subscribed: Some(Vec::new()),
        ..goes_on("a", 2)
    };
    assert_eq!(world.ok(&by_expression), (2, None));
    world.pass(5_000);
    let all = (0..4).flat_map(|index| [at(1, index), at(2, index)]).collect();
    assert_eq!(world.ok(&goes_on("a", 2)), (3, Some(all)));
}

#[test]
fn an_offset_is_kept_as_long_as_an_expression_stands_for_its_topic() {
    let mut world = World::new(&[("logs-a", 1), ("other", 1)]);
    world.join("a", &["logs-a", "other"]);
    let committed =
        CommittedOffset { offset: Offset::ZERO, leader_epoch: None, metadata: String::new() };
    let commit = CommitOffsets {
        member: MemberId::new("a"),
        instance: None,
        generation: Some(GenerationId::new(2)),
        knows_epochs: true,
        offsets: vec![(at(1, 0), committed.clone()), (at(2, 0), committed)],
    };
    world.apply(GroupAction::CommitOffsets(commit));
    // It goes on with an expression only.
    let by_expression = ConsumerHeartbeat {
        regex: Some("logs-.*".to_owned()),
        subscribed: Some(Vec::new()),
        ..goes_on("a", 2)
    };
    world.ok(&by_expression);
    let named = |number: u8, name: &str| TopicOffsets {
        topic: topic(number),
        name: name.to_owned(),
        partitions: vec![PartitionIndex::new(0)],
    };
    let topics = vec![named(1, "logs-a"), named(2, "other")];
    world.apply(GroupAction::ExpireOffsets { topics: topics.clone(), retention_ms: 0 });
    let ask = GroupAsk::Offsets { partitions: None, reader: None };
    let GroupAnswer::Offsets(Ok(left)) = world.ask(ask) else { panic!() };
    let left: Vec<TopicPartition> = left.into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(left, [at(1, 0)]);
    let reply = world.apply(GroupAction::DeleteOffsets { topics });
    assert_eq!(reply, GroupReply::OffsetsDeleted(Ok(vec![true, false])));
}
