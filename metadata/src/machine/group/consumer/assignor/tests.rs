//! What the assignors promise: everything is assigned once, evenly, and moves as little as it can.

use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};
use proptest::prelude::*;

use super::*;

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

fn at(number: u8, index: i32) -> TopicPartition {
    TopicPartition { topic: topic(number), partition: PartitionIndex::new(index) }
}

/// A group: what each member subscribes to, and what it has.
#[derive(Clone, Debug, Default)]
struct Setting {
    members: BTreeMap<MemberId, (BTreeSet<TopicId>, Target, Option<String>)>,
    sizes: TopicSizes,
}

impl Setting {
    fn new(sizes: &[(u8, u32)]) -> Self {
        let sizes = sizes.iter().map(|(number, size)| (topic(*number), *size)).collect();
        Self { members: BTreeMap::new(), sizes }
    }

    fn member(mut self, id: &str, topics: &[u8]) -> Self {
        let topics = topics.iter().map(|number| topic(*number)).collect();
        self.members.insert(MemberId::new(id), (topics, Target::new(), None));
        self
    }

    fn assign(&mut self, assignor: Assignor) {
        let candidates: Vec<_> = self
            .members
            .iter()
            .map(|(id, (topics, target, instance))| Candidate {
                id,
                instance: instance.as_deref(),
                topics: Arc::new(topics.clone()),
                target,
            })
            .collect();
        let targets = assign(assignor, &candidates, &self.sizes);
        drop(candidates);
        for ((_, target, _), new) in self.members.values_mut().zip(targets) {
            *target = new;
        }
    }

    fn held(&self, id: &str) -> Vec<TopicPartition> {
        self.members[&MemberId::new(id)].1.iter().copied().collect()
    }

    /// Every partition of every subscribed topic has one owner, who subscribes to it.
    fn check_complete(&self) {
        let mut all = BTreeSet::new();
        let mut expected = BTreeSet::new();
        for (topics, target, _) in self.members.values() {
            for partition in target {
                assert!(topics.contains(&partition.topic), "it subscribes to what it gets");
                assert!(all.insert(*partition), "a partition is assigned once");
            }
            expected.extend(topics.iter().flat_map(|topic| partitions_of(*topic, &self.sizes)));
        }
        assert_eq!(all, expected);
    }

    fn loads(&self) -> Vec<usize> {
        self.members.values().map(|(_, target, _)| target.len()).collect()
    }
}

#[test]
fn uniform_fills_one_member_after_the_other_as_kafka_does() {
    let mut group = Setting::new(&[(1, 3), (2, 3)]).member("a", &[1, 2]).member("b", &[1, 2]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.held("a"), [at(1, 0), at(1, 1), at(1, 2)]);
    assert_eq!(group.held("b"), [at(2, 0), at(2, 1), at(2, 2)]);
}

#[test]
fn a_member_that_joins_takes_from_others_no_more_than_its_share() {
    let mut group = Setting::new(&[(1, 7)]).member("a", &[1]).member("b", &[1]);
    group.assign(Assignor::Uniform);
    let before = (group.held("a"), group.held("b"));
    group = group.member("c", &[1]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.held("a"), before.0[..3]);
    assert_eq!(group.held("b"), before.1[..2]);
    assert_eq!(group.held("c"), [at(1, 3), at(1, 6)]);
}

#[test]
fn who_holds_one_more_keeps_it_when_nothing_else_changes() {
    let mut group = Setting::new(&[(1, 3)]).member("a", &[1]).member("b", &[1]);
    group.members.get_mut(&MemberId::new("b")).unwrap().1 = [at(1, 0), at(1, 2)].into();
    group.members.get_mut(&MemberId::new("a")).unwrap().1 = [at(1, 1)].into();
    group.assign(Assignor::Uniform);
    assert_eq!(group.held("b"), [at(1, 0), at(1, 2)]);
}

#[test]
fn range_gives_the_same_runs_of_topics_of_one_size() {
    let mut group = Setting::new(&[(1, 3), (2, 3)]).member("a", &[1, 2]).member("b", &[1, 2]);
    group.assign(Assignor::Range);
    assert_eq!(group.held("a"), [at(1, 0), at(1, 1), at(2, 0), at(2, 1)]);
    assert_eq!(group.held("b"), [at(1, 2), at(2, 2)]);
}

#[test]
fn range_puts_static_members_first_in_the_order_of_their_instances() {
    let mut group = Setting::new(&[(1, 3)]).member("a", &[1]).member("b", &[1]).member("c", &[1]);
    for (id, instance) in [("b", "2"), ("c", "1")] {
        group.members.get_mut(&MemberId::new(id)).unwrap().2 = Some(instance.to_owned());
    }
    group.assign(Assignor::Range);
    let all = [group.held("c"), group.held("b"), group.held("a")].concat();
    assert_eq!(all, [at(1, 0), at(1, 1), at(1, 2)]);
}

#[test]
fn unlike_subscriptions_are_levelled() {
    let mut group = Setting::new(&[(1, 9), (2, 1)]).member("a", &[1]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.loads(), [9]);
    group = group.member("b", &[1, 2]);
    group.assign(Assignor::Uniform);
    assert_eq!(group.loads(), [5, 5]);
    group.check_complete();
}

fn settings() -> impl Strategy<Value = Setting> {
    let sizes = prop::collection::vec(1_u32..9, 1..5);
    let members = prop::collection::vec((any::<u8>(), any::<bool>()), 1..7);
    (sizes, members, any::<bool>()).prop_map(|(sizes, members, alike)| {
        let mut group = Setting::default();
        for (number, size) in (0_u8..).zip(&sizes) {
            group.sizes.insert(topic(number), *size);
        }
        for (number, (mask, is_static)) in members.iter().enumerate() {
            let wanted = |place: &usize| alike || mask & (1 << place) != 0;
            let topics = (0..sizes.len()).filter(wanted).map(|place| topic(place as u8));
            let id = MemberId::new(format!("m{number}"));
            let instance = is_static.then(|| format!("i{}", 9 - number));
            group.members.insert(id, (topics.collect(), Target::new(), instance));
        }
        group
    })
}

proptest! {
    #[test]
    fn everything_is_assigned_evenly_and_stays(
        mut group in settings(),
        gone in any::<prop::sample::Index>(),
        grows in any::<prop::sample::Index>(),
        range in any::<bool>(),
    ) {
        let assignor = if range { Assignor::Range } else { Assignor::Uniform };
        group.assign(assignor);
        group.check_complete();
        let before = group.clone();
        group.assign(assignor);
        prop_assert_eq!(&group.members, &before.members, "nothing changed, nothing moves");
        let alike = {
            let mut all = group.members.values().map(|(topics, _, _)| topics);
            let first = all.next().unwrap();
            all.all(|topics| topics == first)
        };
        // A member leaves and a topic grows.
        if group.members.len() > 1 {
            let id = group.members.keys().nth(gone.index(group.members.len())).unwrap().clone();
            group.members.remove(&id);
        }
        let place = grows.index(group.sizes.len());
        *group.sizes.values_mut().nth(place).unwrap() += 2;
        let held: BTreeMap<_, _> =
            group.members.iter().map(|(id, (_, target, _))| (id.clone(), target.clone())).collect();
        group.assign(assignor);
        group.check_complete();
        if alike && !range {
            let loads = group.loads();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
            // Who stays keeps all it had, up to its share.
            for (id, (_, target, _)) in &group.members {
                let kept = target.intersection(&held[id]).count();
                prop_assert_eq!(kept, held[id].len().min(target.len()));
            }
        }
    }
}
