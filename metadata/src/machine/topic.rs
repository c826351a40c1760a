//! Topics by id and name.
//!
//! # Invariants
//! - No two topics have names that differ only in `.` and `_`: Kafka's metric names would collide.
//! - A topic id names one topic for ever: a deleted topic's id is refused while a late retry of its
//!   creation may still arrive.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{
    command::{CreateTopic, TopicRejected},
    config::Overrides,
    time::Elapsed,
};
use crate::watch::CatalogTopic;

/// Partitions of all topics together.
pub const PARTITIONS_MAX: u64 = 1_000_000;

/// How long a deleted topic's id is remembered.
pub(crate) const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The range of a topic's partitions in a map by topic partition.
pub(crate) fn partitions_of(topic: TopicId) -> RangeInclusive<TopicPartition> {
    let at = |partition| TopicPartition { topic, partition: PartitionIndex::new(partition) };
    at(i32::MIN)..=at(i32::MAX)
}

/// The name with every `.` as `_`: equal for names that collide.
fn folded(name: &str) -> String {
    name.replace('.', "_")
}

/// Every topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Topics {
    by_id: RedBlackTreeMapSync<TopicId, Arc<CatalogTopic>>,
    by_folded_name: RedBlackTreeMapSync<String, TopicId>,
    /// Ids of deleted topics and when they were deleted.
    deleted: RedBlackTreeMapSync<TopicId, Elapsed>,
    /// The same, the oldest first.
    deleted_by_age: RedBlackTreeSetSync<(Elapsed, TopicId)>,
    partition_count: u64,
}

impl Topics {
    /// Creates a topic. `Ok(true)` when it is new, `Ok(false)` on a retry.
    pub fn create(&mut self, create: &CreateTopic) -> Result<bool, TopicRejected> {
        if let Some(existing) = self.by_id.get(&create.topic) {
            // It may have grown and been configured since.
            let asked = CatalogTopic {
                partitions: existing.partitions,
                configs: existing.configs.clone(),
                ..catalog_topic(create)
            };
            let is_retry = create.partitions <= existing.partitions && **existing == asked;
            return if is_retry { Ok(false) } else { Err(TopicRejected::IdReused) };
        }
        if create.topic == TopicId::ZERO || self.deleted.contains_key(&create.topic) {
            return Err(TopicRejected::IdReused);
        }
        if let Some(id) = self.by_folded_name.get(&folded(&create.name)) {
            let with = &self.by_id[id].name;
            return Err(if *with == create.name {
                TopicRejected::AlreadyExists { topic: *id }
            } else {
                TopicRejected::Collides { with: with.clone() }
            });
        }
        if self.partition_count + u64::from(create.partitions) > PARTITIONS_MAX {
            return Err(TopicRejected::TooManyPartitions);
        }
        self.restore(catalog_topic(create));
        Ok(true)
    }

    /// Gives a topic partitions up to `count`. `Ok(false)` when it has as many.
    pub fn grow(&mut self, topic: TopicId, count: u32) -> Result<bool, TopicRejected> {
        let existing = self.by_id.get(&topic).ok_or(TopicRejected::Unknown)?;
        if count <= existing.partitions {
            return Ok(false);
        }
        let partition_count = self.partition_count + u64::from(count - existing.partitions);
        if partition_count > PARTITIONS_MAX {
            return Err(TopicRejected::TooManyPartitions);
        }
        let grown = CatalogTopic { partitions: count, ..CatalogTopic::clone(existing) };
        self.by_id.insert_mut(topic, Arc::new(grown));
        self.partition_count = partition_count;
        Ok(true)
    }

    /// Deletes a topic. `Ok(true)` when it existed, `Ok(false)` when it was deleted before.
    pub fn delete(&mut self, topic: TopicId, now: Elapsed) -> Result<bool, TopicRejected> {
        let Some(existing) = self.by_id.get(&topic).cloned() else {
            return match self.deleted.contains_key(&topic) {
                true => Ok(false),
                false => Err(TopicRejected::Unknown),
            };
        };
        self.by_id.remove_mut(&topic);
        self.by_folded_name.remove_mut(&folded(&existing.name));
        self.partition_count -= u64::from(existing.partitions);
        self.restore_deleted(topic, now);
        Ok(true)
    }

    /// Gives a topic these overrides instead of its own.
    pub fn configure(&mut self, topic: TopicId, configs: Overrides) {
        if let Some(existing) = self.by_id.get(&topic) {
            let configured = CatalogTopic { configs, ..(**existing).clone() };
            self.by_id.insert_mut(topic, Arc::new(configured));
        }
    }

    /// Forgets ids of topics deleted long ago.
    pub fn sweep(&mut self, now: Elapsed) {
        while let Some((at, topic)) = self.deleted_by_age.first().copied()
            && now.since(at) >= TOMBSTONE_KEPT
        {
            self.deleted_by_age.remove_mut(&(at, topic));
            self.deleted.remove_mut(&topic);
        }
    }

    /// A topic by its id.
    pub fn get(&self, topic: TopicId) -> Option<&Arc<CatalogTopic>> {
        self.by_id.get(&topic)
    }

    /// A topic by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<CatalogTopic>> {
        let topic = self.by_id.get(self.by_folded_name.get(&folded(name))?)?;
        (topic.name == name).then_some(topic)
    }

    /// Whether the partition exists.
    pub fn has(&self, partition: TopicPartition) -> bool {
        let index = u32::try_from(partition.partition.value());
        let topic = self.by_id.get(&partition.topic);
        matches!((topic, index), (Some(topic), Ok(index)) if index < topic.partitions)
    }

    /// Every topic, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CatalogTopic>> {
        self.by_id.values()
    }

    /// Topics by id, for the catalog.
    pub fn catalog(&self) -> BTreeMap<TopicId, Arc<CatalogTopic>> {
        self.by_id.iter().map(|(id, topic)| (*id, Arc::clone(topic))).collect()
    }

    /// Ids of deleted topics that are still refused.
    pub fn deleted(&self) -> impl Iterator<Item = (TopicId, Elapsed)> {
        self.deleted.iter().map(|(topic, at)| (*topic, *at))
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> u64 {
        self.partition_count
    }

    /// Puts a topic in place.
    pub fn restore(&mut self, topic: CatalogTopic) {
        self.partition_count += u64::from(topic.partitions);
        self.by_folded_name.insert_mut(folded(&topic.name), topic.id);
        self.by_id.insert_mut(topic.id, Arc::new(topic));
    }

    /// Puts a deleted topic's id in place.
    pub fn restore_deleted(&mut self, topic: TopicId, at: Elapsed) {
        self.deleted.insert_mut(topic, at);
        self.deleted_by_age.insert_mut((at, topic));
    }
}

fn catalog_topic(create: &CreateTopic) -> CatalogTopic {
    CatalogTopic {
        id: create.topic,
        name: create.name.clone(),
        partitions: create.partitions,
        replication_factor: create.replication_factor,
        configs: create.configs.clone(),
    }
}
