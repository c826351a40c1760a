//! When a group looks at what all its members subscribe to: not for each of a thousand that
//! restart, and yet before an assignment and after a change of topics.

use std::cell::Cell;

use super::*;

/// The catalog, and how often topics were looked for in it.
struct Looked<'a> {
    catalog: &'a Catalog,
    /// By their names.
    named: Cell<usize>,
    /// All of them, for an expression.
    all: Cell<usize>,
}

impl Surroundings for Looked<'_> {
    fn has(&self, partition: TopicPartition) -> bool {
        self.catalog.has(partition)
    }

    fn topic(&self, name: &str) -> Option<(TopicId, u32)> {
        self.named.set(self.named.get() + 1);
        self.catalog.topic(name)
    }

    fn each_topic(&self, tell: &mut dyn FnMut(&str, TopicId)) {
        self.all.set(self.all.get() + 1);
        self.catalog.each_topic(tell);
    }

    fn name_of(&self, topic: TopicId) -> Option<String> {
        self.catalog.name_of(topic)
    }

    fn partitions(&self, topic: TopicId) -> Option<u32> {
        self.catalog.partitions(topic)
    }

    fn config(&self, of: &ConfigKey, name: &str) -> Option<String> {
        self.catalog.config(of, name)
    }
}

/// As many as there are topics: each reads one of its own.
const MEMBERS: u8 = 50;

/// Until the next assignment, which all but the first member wait for.
const INTERVAL_MS: u64 = 60_000;

fn name(number: u8) -> String {
    format!("t{number}")
}

fn member(number: u8) -> String {
    format!("m{number}")
}

impl World {
    /// The first of them is in; the others are yet to come.
    fn of_many_topics() -> Self {
        let names: Vec<String> = (1..=MEMBERS).map(name).collect();
        let topics: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let mut world = Self::new(&topics);
        world.set("consumer.assignment.interval.ms", &INTERVAL_MS.to_string());
        world.join(&member(1), &[&name(1)]);
        world
    }

    /// How often an entry with this heartbeat looks for topics by name, and for all of them.
    fn looks(&mut self, heartbeat: &ConsumerHeartbeat) -> (usize, usize) {
        let catalog = self.catalog.clone();
        let looked = Looked { catalog: &catalog, named: Cell::new(0), all: Cell::new(0) };
        let action = GroupAction::ConsumerHeartbeat(Box::new(heartbeat.clone()));
        let command = GroupCommand { group: GROUP.to_owned(), action };
        let (now, wall) = (Elapsed::from_millis(self.now_ms), WallTime::from_millis(7_000));
        let applied = self.groups.apply(&command, now, wall, &looked);
        assert!(matches!(applied.reply, GroupReply::ConsumerHeartbeat(Ok(_))), "{applied:?}");
        self.check();
        (looked.named.get(), looked.all.get())
    }

    fn looks_at_join(&mut self, number: u8) -> (usize, usize) {
        self.looks(&joins(&member(number), &[&name(number)]))
    }

    /// What a member holds once it has heard of the last assignment.
    fn holds_now(&mut self, number: u8) -> BTreeSet<TopicPartition> {
        let id = member(number);
        let epoch = self.epoch_of(&id);
        let _ = self.heartbeat(&goes_on(&id, epoch)).expect("it is in");
        let described = self.describe().expect("it is a consumer group");
        let of = described.members.iter().find(|one| one.member.as_str() == id);
        held(&of.expect("it is in").assignment)
    }

    fn epoch_of(&self, id: &str) -> i32 {
        let described = self.describe().expect("it is a consumer group");
        let of = described.members.iter().find(|member| member.member.as_str() == id);
        of.expect("it is in").epoch.value()
    }
}

#[test]
fn who_comes_or_goes_has_nobody_elses_subscription_looked_at() {
    let mut world = World::of_many_topics();
    let by_expression =
        ConsumerHeartbeat { regex: Some("t1|t2".to_owned()), ..joins("by-expression", &[]) };
    assert_eq!(world.looks(&by_expression).1, 1, "an expression that is new is resolved");
    let first = world.looks_at_join(2);
    assert!(first.0 <= 2, "only its own topic, {first:?}");
    for number in 3..=MEMBERS {
        assert_eq!(world.looks_at_join(number), first, "as much for any number of others");
    }
    let epoch = world.epoch_of(&member(MEMBERS));
    assert_eq!(world.looks(&goes_on(&member(MEMBERS), epoch)), (0, 0), "nothing is new");
    assert_eq!(world.looks(&goes_on("by-expression", -1)), (0, 0), "who leaves");
    for number in 10..=MEMBERS {
        assert_eq!(world.looks(&goes_on(&member(number), -1)), (0, 0), "who leaves");
    }
    let again = world.looks_at_join(MEMBERS);
    assert_eq!(again, first, "who comes back");
}

#[test]
fn an_assignment_goes_by_who_came_and_who_went_before_it() {
    let mut world = World::of_many_topics();
    for number in 2..=MEMBERS {
        world.looks_at_join(number);
    }
    world.looks(&goes_on(&member(1), -1));
    world.pass(INTERVAL_MS);
    for number in 2..=MEMBERS {
        assert_eq!(world.holds_now(number), [at(number, 0)].into());
    }
    let described = world.describe().expect("it is a consumer group");
    assert!(described.members.iter().all(|member| !held(&member.target).contains(&at(1, 0))));
}

#[test]
fn topics_that_come_and_grow_while_members_come_are_looked_for_once_and_assigned() {
    let mut world = World::of_many_topics();
    for number in 2..=MEMBERS {
        world.looks_at_join(number);
    }
    let before = world.epoch_of(&member(2));
    world.looks(&ConsumerHeartbeat {
        subscribed: Some(vec![name(2), "later".to_owned()]),
        ..goes_on(&member(2), before)
    });
    world.create("later", 2);
    world.grow(&name(3), 3);
    let mut looked = 0;
    for number in 4..=9 {
        looked += world.looks(&goes_on(&member(number), world.epoch_of(&member(number)))).0;
    }
    assert!(looked <= usize::from(MEMBERS) + 1, "{looked}: at most once for all of them");
    world.pass(INTERVAL_MS);
    let later = MEMBERS + 1;
    assert_eq!(world.holds_now(2), [at(2, 0), at(later, 0), at(later, 1)].into());
    assert_eq!(world.holds_now(3), [at(3, 0), at(3, 1), at(3, 2)].into());
    assert_eq!(world.state(), GroupState::Reconciling, "others have yet to hear of it");
}

/// Some topics are looked for by an entry while members still come, others by the one that assigns.
#[test]
fn a_change_of_topics_right_before_the_assignment_is_in_it() {
    let mut world = World::of_many_topics();
    world.looks_at_join(2);
    world.grow(&name(1), 2);
    world.looks_at_join(3);
    world.looks_at_join(4);
    world.grow(&name(2), 2);
    world.delete(&name(3));
    world.pass(INTERVAL_MS);
    assert_eq!(world.holds_now(1), [at(1, 0), at(1, 1)].into());
    assert_eq!(world.holds_now(2), [at(2, 0), at(2, 1)].into());
    assert_eq!(world.holds_now(3), [].into());
    assert_eq!(world.holds_now(4), [at(4, 0)].into());
}
