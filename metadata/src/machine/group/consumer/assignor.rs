//! Who gets which partitions: Kafka's server-side assignors. Neither looks at racks, as in Kafka.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};

use super::state::{Target, TopicSizes};
use crate::machine::group::types::MemberId;

mod range;
mod uniform;

/// An assignor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// Balanced over all topics, and sticky.
    Uniform,
    /// Each topic in ranges: topics of one size are assigned alike.
    Range,
}

impl Assignor {
    /// By its name in `group.consumer.assignors`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }
}

/// A member as an assignor sees it.
pub(crate) struct Candidate<'a> {
    /// Its id.
    pub id: &'a MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<&'a str>,
    /// The topics it subscribes to; each exists.
    pub topics: Arc<BTreeSet<TopicId>>,
    /// What it was to hold before.
    pub target: &'a Target,
}

/// Assigns every partition of every subscribed topic to one subscriber. Candidates come in the
/// order of their ids; the answer has the same order.
pub(crate) fn assign(
    assignor: Assignor,
    candidates: &[Candidate<'_>],
    sizes: &TopicSizes,
) -> Vec<Target> {
    match assignor {
        Assignor::Range => range::assign(candidates, sizes),
        Assignor::Uniform => {
            let alike = candidates.windows(2).all(|pair| pair[0].topics == pair[1].topics);
            if alike {
                uniform::assign_alike(candidates, sizes)
            } else {
                uniform::assign_unlike(candidates, sizes)
            }
        }
    }
}

/// The partitions of a topic.
fn partitions_of(topic: TopicId, sizes: &TopicSizes) -> impl Iterator<Item = TopicPartition> {
    let count = sizes.get(&topic).copied().unwrap_or(0);
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    (0..count).map(move |index| TopicPartition { topic, partition: PartitionIndex::new(index) })
}

/// Whether the partition exists.
fn exists(partition: TopicPartition, sizes: &TopicSizes) -> bool {
    let count = sizes.get(&partition.topic).copied().unwrap_or(0);
    u32::try_from(partition.partition.value()).is_ok_and(|index| index < count)
}

/// The places of each topic's subscribers.
fn subscribers(candidates: &[Candidate<'_>]) -> BTreeMap<TopicId, Vec<usize>> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        for topic in candidate.topics.iter() {
            subscribers.entry(*topic).or_default().push(place);
        }
    }
    subscribers
}

#[cfg(test)]
mod tests;
