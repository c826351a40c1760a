//! What groups go by outside of themselves: topics and configs as of the entry that is applied.

use aquifer_storage::model::{TopicId, TopicPartition};

use crate::machine::config::{ConfigKey, ConfigKind};

/// Topics and configs. A function that knows which partitions exist is enough for classic groups.
pub trait Surroundings {
    /// Whether a partition exists.
    fn has(&self, partition: TopicPartition) -> bool;

    /// A topic and its number of partitions.
    fn topic(&self, _name: &str) -> Option<(TopicId, u32)> {
        None
    }

    /// A topic's name.
    fn name_of(&self, _topic: TopicId) -> Option<String> {
        None
    }

    /// Tells every topic's name and id.
    fn each_topic(&self, _tell: &mut dyn FnMut(&str, TopicId)) {}

    /// A topic's number of partitions.
    fn partitions(&self, _topic: TopicId) -> Option<u32> {
        None
    }

    /// An override of a resource that is not a topic.
    fn config(&self, _of: &ConfigKey, _name: &str) -> Option<String> {
        None
    }

    /// A group's own override of `consumer.…`, or the cluster's of `group.consumer.…`, or what an
    /// agent was given of it.
    fn group_config(&self, group: &str, name: &str) -> Option<String> {
        let of = |kind, name: &str| ConfigKey { kind, name: name.to_owned() };
        let own = self.config(&of(ConfigKind::Group, group), name);
        own.or_else(|| {
            let name = format!("group.{name}");
            let cluster = self.config(&of(ConfigKind::Broker, ""), &name);
            cluster.or_else(|| self.config(&ConfigKey::group_defaults(), &name))
        })
    }
}

impl<F: Fn(TopicPartition) -> bool> Surroundings for F {
    fn has(&self, partition: TopicPartition) -> bool {
        self(partition)
    }
}
