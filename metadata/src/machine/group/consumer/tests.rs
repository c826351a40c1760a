//! Kafka's rules of consumer groups, one sentence each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};

use super::{
    AssignedTopic, MemberEpoch,
    command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
    query::ConsumerGroupDescription,
    settings::ConsumerSettings,
    state::flat,
};
use crate::{
    codec::group::{groups_from_proto, groups_to_proto},
    machine::{
        config::{ConfigKey, ConfigKind},
        group::{
            Groups,
            command::{GroupAction, GroupCommand, GroupReply},
            query::{GroupAnswer, GroupAsk, GroupQuery},
            surroundings::Surroundings,
            types::{GroupRejected, GroupState, MemberId},
        },
        time::{Elapsed, WallTime},
    },
};

mod administration;
mod expressions;
mod fencing;
mod looking;
mod migration;
mod model;
mod reconciling;
mod statics;

const GROUP: &str = "orders";

type Answer = Result<ConsumerHeartbeatResult, ConsumerRejected>;

/// Topics and configs.
#[derive(Clone, Default)]
struct Catalog {
    topics: BTreeMap<String, (TopicId, u32)>,
    configs: BTreeMap<(ConfigKey, String), String>,
}

impl Surroundings for Catalog {
    fn has(&self, partition: TopicPartition) -> bool {
        let size = self.partitions(partition.topic).unwrap_or(0);
        u32::try_from(partition.partition.value()).is_ok_and(|index| index < size)
    }

    fn topic(&self, name: &str) -> Option<(TopicId, u32)> {
        self.topics.get(name).copied()
    }

    fn each_topic(&self, tell: &mut dyn FnMut(&str, TopicId)) {
        self.topics.iter().for_each(|(name, (topic, _))| tell(name, *topic));
    }

    fn name_of(&self, topic: TopicId) -> Option<String> {
        let found = self.topics.iter().find(|(_, (id, _))| *id == topic);
        found.map(|(name, _)| name.clone())
    }

    fn partitions(&self, topic: TopicId) -> Option<u32> {
        self.topics.values().find(|(id, _)| *id == topic).map(|(_, size)| *size)
    }

    fn config(&self, of: &ConfigKey, name: &str) -> Option<String> {
        self.configs.get(&(of.clone(), name.to_owned())).cloned()
    }
}

/// One group, a clock, and shorthands. Every command checks every invariant, that the state comes
/// back from a snapshot, and that what is answered without an entry is what an entry would answer.
#[derive(Clone)]
struct World {
    groups: Groups,
    catalog: Catalog,
    now_ms: u64,
    next_topic: u8,
}

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

fn at(number: u8, index: i32) -> TopicPartition {
    TopicPartition { topic: topic(number), partition: PartitionIndex::new(index) }
}

fn held(topics: &[AssignedTopic]) -> BTreeSet<TopicPartition> {
    flat(topics).collect()
}

/// Partitions of topic 1.
fn of_1(indexes: &[i32]) -> BTreeSet<TopicPartition> {
    indexes.iter().map(|index| at(1, *index)).collect()
}

/// A heartbeat that says nothing new.
fn goes_on(id: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member: MemberId::new(id),
        epoch: MemberEpoch::new(epoch),
        instance: None,
        rack: None,
        client_id: "test".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: None,
        subscribed: None,
        regex: None,
        assignor: None,
        owned: None,
    }
}

fn joins(id: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(60_000),
        subscribed: Some(topics.iter().map(|&name| name.to_owned()).collect()),
        owned: Some(Vec::new()),
        ..goes_on(id, 0)
    }
}

fn holds(id: &str, epoch: i32, owned: &BTreeSet<TopicPartition>) -> ConsumerHeartbeat {
    let owned = Some(super::state::by_topic(owned.iter().copied()));
    ConsumerHeartbeat { owned, ..goes_on(id, epoch) }
}

impl World {
    /// Topics are numbered from 1 in the order they are made.
    fn new(topics: &[(&str, u32)]) -> Self {
        let groups = Groups::default();
        let mut world = Self { groups, catalog: Catalog::default(), now_ms: 1_000, next_topic: 1 };
        for (name, size) in topics {
            world.create(name, *size);
        }
        world
    }

    fn create(&mut self, name: &str, size: u32) {
        self.catalog.topics.insert(name.to_owned(), (topic(self.next_topic), size));
        self.next_topic += 1;
        self.groups.catalog_changed();
    }

    fn grow(&mut self, name: &str, size: u32) {
        self.catalog.topics.get_mut(name).unwrap().1 = size;
        self.groups.catalog_changed();
    }

    fn delete(&mut self, name: &str) {
        self.catalog.topics.remove(name);
        self.groups.catalog_changed();
    }

    fn set(&mut self, name: &str, value: &str) {
        let key = ConfigKey { kind: ConfigKind::Group, name: GROUP.to_owned() };
        self.catalog.configs.insert((key, name.to_owned()), value.to_owned());
    }

    fn check(&self) {
        assert_eq!(self.groups.broken_invariant(), None);
        let restored = groups_from_proto(groups_to_proto(&self.groups)).unwrap();
        assert!(restored == self.groups, "a snapshot holds everything");
    }

    fn apply(&mut self, action: GroupAction) -> GroupReply {
        let now = Elapsed::from_millis(self.now_ms);
        let command = GroupCommand { group: GROUP.to_owned(), action };
        let wall = WallTime::from_millis(7_000);
        let applied = self.groups.apply(&command, now, wall, &self.catalog);
        self.check();
        applied.reply
    }

    fn ask(&self, ask: GroupAsk) -> GroupAnswer {
        self.groups.query(&GroupQuery { group: GROUP.to_owned(), ask }, &self.catalog)
    }

    fn apply_heartbeat(&mut self, heartbeat: &ConsumerHeartbeat) -> Answer {
        match self.apply(GroupAction::ConsumerHeartbeat(Box::new(heartbeat.clone()))) {
            GroupReply::ConsumerHeartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// As an agent does it: asks the leader, and proposes what that cannot answer.
    fn heartbeat(&mut self, heartbeat: &ConsumerHeartbeat) -> Answer {
        let ask = GroupAsk::ConsumerHeartbeat(Box::new(heartbeat.clone()));
        let GroupAnswer::ConsumerHeartbeat(asked) = self.ask(ask) else { panic!() };
        let Some(asked) = asked else { return self.apply_heartbeat(heartbeat) };
        let mut applied = self.clone();
        assert_eq!(applied.apply_heartbeat(heartbeat), asked, "an entry answers the same");
        if asked.is_ok() {
            assert_eq!(applied.describe(), self.describe(), "and would have changed nothing");
        }
        asked
    }

    /// An answer that was taken, as the epoch and what is told.
    fn ok(&mut self, heartbeat: &ConsumerHeartbeat) -> (i32, Option<BTreeSet<TopicPartition>>) {
        let answer = self.heartbeat(heartbeat).unwrap();
        (answer.epoch.value(), answer.assignment.map(|topics| held(&topics)))
    }

    fn join(&mut self, id: &str, topics: &[&str]) -> (i32, BTreeSet<TopicPartition>) {
        let (epoch, told) = self.ok(&joins(id, topics));
        (epoch, told.expect("who joins is told"))
    }

    fn refused(&mut self, heartbeat: &ConsumerHeartbeat) -> (GroupRejected, String) {
        let before = self.groups.clone();
        let rejected = self.heartbeat(heartbeat).unwrap_err();
        assert!(self.groups == before, "a refusal changes nothing");
        (rejected.kind, rejected.message)
    }

    fn describe(&self) -> Option<ConsumerGroupDescription> {
        match self.ask(GroupAsk::ConsumerDescribe) {
            GroupAnswer::ConsumerDescribed(found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> GroupState {
        self.describe().expect("it is a consumer group").state
    }

    fn pass(&mut self, millis: u64) {
        self.now_ms += millis;
        let now = Elapsed::from_millis(self.now_ms);
        self.groups.tick(now, WallTime::from_millis(9_000), &self.catalog);
        self.check();
    }
}

#[test]
fn the_first_member_gets_everything_in_epoch_2() {
    let mut world = World::new(&[("t", 3)]);
    let answer = world.heartbeat(&joins("a", &["t"])).unwrap();
    assert_eq!((answer.epoch.value(), answer.heartbeat_interval_ms), (2, 500));
    assert_eq!(held(&answer.assignment.unwrap()), of_1(&[0, 1, 2]));
    assert_eq!(world.state(), GroupState::Stable);
}

/// Members of every group count.
#[test]
fn the_more_members_there_are_the_less_often_each_comes() {
    let settings = ConsumerSettings::of(GROUP, &Catalog::default());
    let by_members = [(0, 500), (500, 500), (501, 501), (4_000, 4_000), (10_000, 5_000)];
    for (members, interval_ms) in by_members {
        assert_eq!(settings.heartbeat_interval_ms(members), interval_ms);
    }
    let mut world = World::new(&[("t", 3)]);
    let mut join = |group: &str, id: &str| {
        let action = GroupAction::ConsumerHeartbeat(Box::new(joins(id, &["t"])));
        let command = GroupCommand { group: group.to_owned(), action };
        let (now, wall) = (Elapsed::from_millis(2_000), WallTime::from_millis(7_000));
        world.groups.apply(&command, now, wall, &world.catalog).reply
    };
    for member in 0..600 {
        join(GROUP, &format!("m{member}"));
    }
    let reply = join("payments", "a");
    let GroupReply::ConsumerHeartbeat(Ok(answer)) = reply else { panic!() };
    assert_eq!(answer.heartbeat_interval_ms, 600);
}

#[test]
fn a_config_says_how_often_members_come() {
    let mut world = World::new(&[("t", 3)]);
    world.join("a", &["t"]);
    world.set("consumer.heartbeat.interval.ms", "7000");
    let answer = world.heartbeat(&goes_on("a", 2)).unwrap();
    assert_eq!(answer.heartbeat_interval_ms, 7_000);
    world.set("consumer.session.timeout.ms", "8000");
    let answer = world.heartbeat(&goes_on("a", 2)).unwrap();
    assert_eq!(answer.heartbeat_interval_ms, 4_000, "nobody is out between two heartbeats");
}

/// A group's own, then all brokers', then what an agent was given at its start.
#[test]
fn configs_of_a_group_come_in_layers() {
    let mut world = World::new(&[("t", 3)]);
    let session = |world: &World| ConsumerSettings::of(GROUP, &world.catalog).session_timeout_ms;
    assert_eq!(session(&world), 45_000);
    let name = "group.consumer.session.timeout.ms".to_owned();
    let key = (ConfigKey::group_defaults(), name.clone());
    world.catalog.configs.insert(key, "9000".to_owned());
    assert_eq!(session(&world), 9_000);
    let brokers = ConfigKey { kind: ConfigKind::Broker, name: String::new() };
    world.catalog.configs.insert((brokers, name), "8000".to_owned());
    assert_eq!(session(&world), 8_000);
    world.set("consumer.session.timeout.ms", "1200");
    assert_eq!(session(&world), 1_200);
    let answer = world.heartbeat(&joins("a", &["t"])).unwrap();
    assert_eq!(answer.heartbeat_interval_ms, 400, "three in a session");
}

#[test]
fn members_that_read_the_same_hold_its_names_once_also_after_a_restart() {
    let mut world = World::new(&[("t", 3), ("u", 1)]);
    world.join("a", &["t", "u"]);
    world.join("b", &["u", "t"]);
    world.join("c", &["u"]);
    world.join("d", &["u"]);
    let shared = |groups: &Groups| {
        let (_, group) = groups.iter().next().unwrap();
        let members = &group.consumer.as_ref().unwrap().members;
        let names = |id: &str| Arc::clone(&members[&MemberId::new(id)].subscribed);
        let are_one = |one: &str, other: &str| Arc::ptr_eq(&names(one), &names(other));
        [are_one("a", "b"), are_one("c", "d"), are_one("a", "c")]
    };
    assert_eq!(shared(&world.groups), [true, true, false]);
    let restored = groups_from_proto(groups_to_proto(&world.groups)).unwrap();
    assert_eq!(shared(&restored), [true, true, false]);
}

#[test]
fn a_heartbeat_that_changes_nothing_needs_no_entry() {
    let mut world = World::new(&[("t", 3)]);
    world.join("a", &["t"]);
    let ask = GroupAsk::ConsumerHeartbeat(Box::new(goes_on("a", 2)));
    let GroupAnswer::ConsumerHeartbeat(Some(Ok(answer))) = world.ask(ask) else { panic!() };
    assert_eq!((answer.epoch.value(), answer.assignment), (2, None));
}

#[test]
fn who_says_everything_is_told_everything() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t"]);
    let again = ConsumerHeartbeat { owned: Some(Vec::new()), ..joins("a", &["t"]) };
    let again = ConsumerHeartbeat { epoch: MemberEpoch::new(2), ..again };
    assert_eq!(world.ok(&again), (2, Some(of_1(&[0]))));
}

#[test]
fn requests_that_contradict_themselves_are_refused_in_kafkas_words() {
    let mut world = World::new(&[("t", 1)]);
    let join = || joins("a", &["t"]);
    let no_timeout = ConsumerHeartbeat { rebalance_timeout_ms: None, ..join() };
    let no_topics = ConsumerHeartbeat { subscribed: None, ..join() };
    let no_partitions = ConsumerHeartbeat { owned: None, ..join() };
    let cases = [
        (goes_on("", 1), "MemberId can't be empty."),
        (
            ConsumerHeartbeat { instance: Some(String::new()), ..join() },
            "InstanceId can't be empty.",
        ),
        (ConsumerHeartbeat { rack: Some(String::new()), ..join() }, "RackId can't be empty."),
        (no_timeout, "RebalanceTimeoutMs must be provided in first request."),
        (no_partitions, "TopicPartitions must be empty when (re-)joining."),
        (
            no_topics,
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
             (re-)joining.",
        ),
        (goes_on("a", -2), "InstanceId can't be null."),
        (goes_on("a", -3), "MemberEpoch is invalid."),
    ];
    for (heartbeat, message) in cases {
        let expected = (GroupRejected::InvalidRequest, message.to_owned());
        assert_eq!(world.refused(&heartbeat), expected);
    }
    let unknown = ConsumerHeartbeat { assignor: Some("best".to_owned()), ..join() };
    let message = "ServerAssignor best is not supported. Supported assignors: uniform, range.";
    assert_eq!(world.refused(&unknown), (GroupRejected::UnsupportedAssignor, message.to_owned()));
}

#[test]
fn groups_and_members_that_do_not_exist_are_refused_in_kafkas_words() {
    let mut world = World::new(&[("t", 1)]);
    let unknown = |message: &str| (GroupRejected::UnknownGroup, message.to_owned());
    assert_eq!(world.refused(&goes_on("a", 2)), unknown("Consumer group orders not found."));
    assert_eq!(world.refused(&goes_on("a", -1)), unknown("Group orders not found."));
    world.join("a", &["t"]);
    let message = "Member b is not a member of group orders.".to_owned();
    assert_eq!(world.refused(&goes_on("b", 2)), (GroupRejected::UnknownMember, message));
}

#[test]
fn a_group_has_no_more_members_than_it_may_have() {
    let mut world = World::new(&[("t", 1)]);
    world.set("consumer.max.size", "1");
    world.join("a", &["t"]);
    let message = "The consumer group has reached its maximum capacity of 1 members.".to_owned();
    assert_eq!(world.refused(&joins("b", &["t"])), (GroupRejected::GroupFull, message));
    assert_eq!(world.join("a", &["t"]).0, 2, "a member may join again");
}

#[test]
fn the_assignor_is_the_one_that_most_members_prefer() {
    let mut world = World::new(&[("t", 1)]);
    let prefers = |id: &str, assignor: &str| ConsumerHeartbeat {
        assignor: Some(assignor.to_owned()),
        ..joins(id, &["t"])
    };
    world.join("a", &["t"]);
    assert_eq!(world.describe().unwrap().assignor, "uniform");
    world.ok(&prefers("b", "range"));
    assert_eq!(world.describe().unwrap().assignor, "range");
    world.ok(&prefers("c", "uniform"));
    assert_eq!(world.describe().unwrap().assignor, "uniform", "a tie goes to the first");
}

#[test]
fn a_new_assignment_is_held_back_for_its_interval() {
    let mut world = World::new(&[("t", 2)]);
    world.set("consumer.assignment.interval.ms", "1000");
    world.join("a", &["t"]);
    assert_eq!(world.join("b", &["t"]), (2, BTreeSet::new()), "nothing yet, in the old epoch");
    assert_eq!(world.state(), GroupState::Assigning);
    world.pass(999);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, None));
    world.pass(1);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, Some(of_1(&[0]))));
    assert_eq!(world.state(), GroupState::Reconciling);
}

#[test]
fn topics_that_come_grow_and_go_make_a_new_epoch_at_the_next_heartbeat() {
    let mut world = World::new(&[("t", 1)]);
    world.join("a", &["t", "later"]);
    world.create("other", 5);
    assert_eq!(world.ok(&goes_on("a", 2)), (2, None), "nobody subscribes to it");
    world.create("later", 1);
    assert_eq!(world.ok(&goes_on("a", 2)), (3, Some([at(1, 0), at(3, 0)].into())));
    world.grow("t", 2);
    let all: BTreeSet<_> = [at(1, 0), at(1, 1), at(3, 0)].into();
    assert_eq!(world.ok(&goes_on("a", 3)), (4, Some(all)));
    world.delete("later");
    let kept = of_1(&[0, 1]);
    assert_eq!(world.ok(&goes_on("a", 4)), (4, Some(kept.clone())), "to be given up first");
    assert_eq!(world.ok(&holds("a", 4, &kept)), (5, None));
}
