//! `uniform`: all members hold equally many partitions, and as many as possible of those they had.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};

use super::{Candidate, exists, partitions_of, subscribers};
use crate::machine::group::consumer::state::{Target, TopicSizes};

/// Rounds over all topics that are given to balancing members of unlike subscriptions. Where
/// subscriptions overlap in a chain, each round about halves what is left to do.
const ROUNDS_MAX: usize = 16;

/// All members subscribe to the same topics: nobody holds two partitions more than another.
pub(super) fn assign_alike(candidates: &[Candidate<'_>], sizes: &TopicSizes) -> Vec<Target> {
    let Some(first) = candidates.first() else { return Vec::new() };
    let all = first.topics.iter().flat_map(|topic| partitions_of(*topic, sizes));
    let mut free: BTreeSet<TopicPartition> = all.collect();
    let (least, mut extra) = (free.len() / candidates.len(), free.len() % candidates.len());
    let mut targets = kept(candidates, sizes);
    // Who holds more than the least already gets one of the extra partitions first.
    let holds_more: Vec<bool> = targets.iter().map(|target| least < target.len()).collect();
    let mut quotas = vec![least; candidates.len()];
    for wanted in [true, false] {
        for (quota, more) in quotas.iter_mut().zip(&holds_more) {
            if *more == wanted && extra > 0 {
                *quota += 1;
                extra -= 1;
            }
        }
    }
    for (target, quota) in targets.iter_mut().zip(&quotas) {
        while *quota < target.len() {
            target.pop_last();
        }
        for partition in target.iter() {
            free.remove(partition);
        }
    }
    let mut free = free.into_iter();
    for (target, quota) in targets.iter_mut().zip(quotas) {
        target.extend(free.by_ref().take(quota - target.len()));
    }
    targets
}

/// What members had and may keep: of topics that exist and that they still subscribe to.
fn kept(candidates: &[Candidate<'_>], sizes: &TopicSizes) -> Vec<Target> {
    let mut taken = BTreeSet::new();
    let mut keep = |candidate: &Candidate<'_>| {
        let had = candidate.target.iter().copied();
        had.filter(|partition| {
            candidate.topics.contains(&partition.topic)
                && exists(*partition, sizes)
                && taken.insert(*partition)
        })
        .collect()
    };
    candidates.iter().map(&mut keep).collect()
}

/// Members subscribe to different topics: each topic is balanced over its subscribers.
pub(super) fn assign_unlike(candidates: &[Candidate<'_>], sizes: &TopicSizes) -> Vec<Target> {
    let subscribers = subscribers(candidates);
    let mut balance = Balance { targets: kept(candidates, sizes), owners: BTreeMap::new() };
    for (place, target) in balance.targets.iter().enumerate() {
        balance.owners.extend(target.iter().map(|partition| (*partition, place)));
    }
    let order = in_order(&subscribers, sizes);
    for topic in &order {
        balance.assign_free(*topic, &subscribers[topic], sizes);
    }
    for _ in 0..ROUNDS_MAX {
        let moved: usize =
            order.iter().map(|topic| balance.level(*topic, &subscribers[topic])).sum();
        if moved == 0 {
            break;
        }
    }
    balance.targets
}

/// The topics with most partitions per subscriber first, then those with few subscribers: they
/// leave the least choice.
fn in_order(subscribers: &BTreeMap<TopicId, Vec<usize>>, sizes: &TopicSizes) -> Vec<TopicId> {
    let mut topics: Vec<TopicId> = subscribers.keys().copied().collect();
    topics.sort_by(|one, other| {
        let size = |topic: &TopicId| u64::from(sizes.get(topic).copied().unwrap_or(0));
        let readers = |topic: &TopicId| subscribers[topic].len() as u64;
        // size / readers, descending, without a fraction.
        let per_reader = (size(other) * readers(one)).cmp(&(size(one) * readers(other)));
        per_reader.then(readers(one).cmp(&readers(other))).then(one.cmp(other))
    });
    topics
}

struct Balance {
    targets: Vec<Target>,
    owners: BTreeMap<TopicPartition, usize>,
}

impl Balance {
    /// Gives each free partition of a topic to the subscriber that has least.
    fn assign_free(&mut self, topic: TopicId, places: &[usize], sizes: &TopicSizes) {
        let mut loads = self.loads(places);
        for partition in partitions_of(topic, sizes) {
            if self.owners.contains_key(&partition) {
                continue;
            }
            let Some((load, place)) = loads.pop_first() else { return };
            self.targets[place].insert(partition);
            self.owners.insert(partition, place);
            loads.insert((load + 1, place));
        }
    }

    /// Moves partitions of a topic from the subscribers that have most to those that have least,
    /// as long as that helps. Returns how many.
    fn level(&mut self, topic: TopicId, places: &[usize]) -> usize {
        let mut loads = self.loads(places);
        let first = TopicPartition { topic, partition: PartitionIndex::new(i32::MIN) };
        let last = TopicPartition { topic, partition: PartitionIndex::new(i32::MAX) };
        let mut moved = 0;
        // Who has most and nothing of this topic cannot give.
        while let (Some((least, to)), Some((most, from))) =
            (loads.first().copied(), loads.last().copied())
            && least + 1 < most
        {
            let Some(partition) = self.targets[from].range(first..=last).next_back().copied()
            else {
                loads.pop_last();
                continue;
            };
            self.targets[from].remove(&partition);
            self.targets[to].insert(partition);
            self.owners.insert(partition, to);
            loads.remove(&(most, from));
            loads.remove(&(least, to));
            loads.insert((most - 1, from));
            loads.insert((least + 1, to));
            moved += 1;
        }
        moved
    }

    fn loads(&self, places: &[usize]) -> BTreeSet<(usize, usize)> {
        places.iter().map(|place| (self.targets[*place].len(), *place)).collect()
    }
}
