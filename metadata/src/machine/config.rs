//! Config overrides of every resource: how a change is applied to them, and the store of those that
//! no other aggregate owns (brokers, groups, client metrics). A topic's lie in the topic.
//!
//! Values were validated by the agent that proposed them. Apply decides what only the state can:
//! whether the resource exists, what a list holds after an operation on it, whether two values
//! still stand in their order, and the bounds.
//!
//! # Invariants
//! - A resource without overrides is not in the store.
//! - The store's bytes are those of its overrides, and within [`STORE_BYTES_MAX`].

use std::{collections::BTreeMap, sync::Arc};

use aquifer_storage::model::TopicId;
use rpds::RedBlackTreeMapSync;

/// Names and values of one resource's overrides, in bytes. Every agent holds them.
pub const RESOURCE_BYTES_MAX: usize = 64 << 10;

/// Overrides of one resource.
pub const RESOURCE_CONFIGS_MAX: usize = 1024;

/// Resources that are not topics.
pub const RESOURCES_MAX: usize = 10_000;

/// Bytes of all resources that are not topics: they are part of each catalog that is sent whole.
pub const STORE_BYTES_MAX: usize = 16 << 20;

/// Overrides by config name.
pub type Overrides = BTreeMap<String, String>;

/// What kind of resource that is not a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    /// A node id in decimal, or all brokers under the empty name.
    Broker,
    /// A group, which need not exist.
    Group,
    /// A client metrics subscription.
    ClientMetrics,
    /// What the agent that started last was given of `group.consumer.…`, under the empty name:
    /// the layer below [`Self::Broker`]. Since level 3.
    GroupDefaults,
}

/// A resource that is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigKey {
    /// Its kind.
    pub kind: ConfigKind,
    /// Its name.
    pub name: String,
}

/// Whose overrides are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's.
    Topic(TopicId),
    /// Another resource's; it comes into being with its first override.
    Other(ConfigKey),
}

/// Changes one resource's overrides, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Whose.
    pub resource: ConfigResource,
    /// What.
    pub change: ConfigChange,
    /// What must hold of the values afterwards.
    pub orders: Vec<ConfigOrder>,
}

/// A change of overrides. Applied twice it gives what it gave once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Each operation in turn, on what other agents left there.
    Incremental(Vec<ConfigOp>),
    /// Exactly these remain.
    Replace(Overrides),
}

/// One operation on one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOp {
    /// The config.
    pub name: String,
    /// What becomes of it.
    pub action: ConfigAction,
}

/// What becomes of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigAction {
    /// It has this value.
    Set(String),
    /// It is gone.
    Delete,
    /// These items of a list are there, at the end if they were not.
    Append(ListChange),
    /// These items of a list are not there.
    Subtract(ListChange),
}

/// An operation on a comma-separated list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// The items, comma-separated.
    pub items: String,
    /// The list where there is no override.
    pub default: String,
}

/// Two whole numbers among the values that must stand in order, such as a minimum and a maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOrder {
    /// The config with the lesser number, and what it is without an override.
    pub lesser: (String, i64),
    /// The one with the greater number.
    pub greater: (String, i64),
}

/// Why a change of configs was refused. It had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigRejected {
    /// There is no such topic.
    UnknownTopic,
    /// Two values would stand against a [`ConfigOrder`].
    Order {
        /// The lesser config and its number, which is the greater one.
        lesser: (String, i64),
        /// The greater config and its number.
        greater: (String, i64),
    },
    /// The resource would pass [`RESOURCE_BYTES_MAX`] or [`RESOURCE_CONFIGS_MAX`].
    ResourceFull,
    /// All resources together would pass [`RESOURCES_MAX`] or [`STORE_BYTES_MAX`].
    StoreFull,
}

impl ConfigKind {
    /// The lowest [`super::LEVEL`] whose builds know the kind.
    pub(crate) const fn level(self) -> u32 {
        match self {
            Self::Broker | Self::Group | Self::ClientMetrics => 2,
            Self::GroupDefaults => 3,
        }
    }
}

impl ConfigKey {
    /// Where `group.consumer.…` lie that agents were given at their start.
    pub fn group_defaults() -> Self {
        Self { kind: ConfigKind::GroupDefaults, name: String::new() }
    }
}

impl AlterConfigs {
    /// The lowest [`super::LEVEL`] whose builds know the change.
    pub(crate) const fn level(&self) -> u32 {
        match &self.resource {
            ConfigResource::Topic(_) => 2,
            ConfigResource::Other(key) => key.kind.level(),
        }
    }

    /// The overrides after the change of `held`.
    ///
    /// # Errors
    /// Two numbers would stand against their order, or the resource would be too large.
    pub fn changed(&self, held: &Overrides) -> Result<Overrides, ConfigRejected> {
        let after = match &self.change {
            ConfigChange::Replace(overrides) => overrides.clone(),
            ConfigChange::Incremental(ops) => {
                let mut overrides = held.clone();
                ops.iter().for_each(|op| op.apply(&mut overrides));
                overrides
            }
        };
        for order in &self.orders {
            order.check(&after)?;
        }
        // What shrinks is always allowed: limits may have been others before.
        let grows = bytes_of(held) < bytes_of(&after) || held.len() < after.len();
        if grows && (RESOURCE_BYTES_MAX < bytes_of(&after) || RESOURCE_CONFIGS_MAX < after.len()) {
            return Err(ConfigRejected::ResourceFull);
        }
        Ok(after)
    }
}

impl ConfigOp {
    fn apply(&self, overrides: &mut Overrides) {
        let list = |overrides: &Overrides, change: &ListChange| {
            items(overrides.get(&self.name).unwrap_or(&change.default))
        };
        let value = match &self.action {
            ConfigAction::Delete => {
                overrides.remove(&self.name);
                return;
            }
            ConfigAction::Set(value) => value.clone(),
            ConfigAction::Append(change) => {
                let mut held = list(overrides, change);
                for item in items(&change.items) {
                    if !held.contains(&item) {
                        held.push(item);
                    }
                }
                held.join(",")
            }
            ConfigAction::Subtract(change) => {
                let gone = items(&change.items);
                let mut held = list(overrides, change);
                held.retain(|item| !gone.contains(item));
                held.join(",")
            }
        };
        overrides.insert(self.name.clone(), value);
    }
}

/// The items of a comma-separated list; none of an empty one.
fn items(list: &str) -> Vec<String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

impl ConfigOrder {
    /// Whether `overrides` keep the order.
    ///
    /// # Errors
    /// [`ConfigRejected::Order`] with the numbers as they are.
    pub fn check(&self, overrides: &Overrides) -> Result<(), ConfigRejected> {
        // A value that is no number was refused by the agent.
        let number = |(name, default): &(String, i64)| {
            let value = overrides.get(name).and_then(|value| value.parse().ok());
            (name.clone(), value.unwrap_or(*default))
        };
        let (lesser, greater) = (number(&self.lesser), number(&self.greater));
        if greater.1 < lesser.1 {
            return Err(ConfigRejected::Order { lesser, greater });
        }
        Ok(())
    }
}

/// Bytes of names and values.
fn bytes_of(overrides: &Overrides) -> usize {
    overrides.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The overrides of all resources that are not topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configs {
    by_key: RedBlackTreeMapSync<ConfigKey, Arc<Overrides>>,
    bytes: usize,
}

impl Configs {
    /// Changes a resource. `Ok(true)` when its overrides differ from before.
    pub fn alter(&mut self, key: &ConfigKey, alter: &AlterConfigs) -> Result<bool, ConfigRejected> {
        let none = Arc::default();
        let held = self.by_key.get(key).unwrap_or(&none);
        let after = alter.changed(held)?;
        if **held == after {
            return Ok(false);
        }
        let bytes = self.bytes - size(key, held) + size(key, &after);
        let count = self.by_key.size() + usize::from(held.is_empty());
        let grows = self.bytes < bytes;
        if grows && (STORE_BYTES_MAX < bytes || RESOURCES_MAX < count) {
            return Err(ConfigRejected::StoreFull);
        }
        self.remove(key);
        self.restore(key.clone(), after);
        Ok(true)
    }

    /// A resource's overrides, if it has any.
    pub fn get(&self, key: &ConfigKey) -> Option<&Arc<Overrides>> {
        self.by_key.get(key)
    }

    /// Every resource with its overrides, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigKey, &Arc<Overrides>)> {
        self.by_key.iter()
    }

    /// Puts a resource in place; nothing, if it has no overrides.
    pub fn restore(&mut self, key: ConfigKey, overrides: Overrides) {
        if !overrides.is_empty() {
            self.bytes += size(&key, &overrides);
            self.by_key.insert_mut(key, Arc::new(overrides));
        }
    }

    /// Whether the store's own invariants hold.
    pub fn is_sound(&self) -> bool {
        let counted: usize = self.iter().map(|(key, overrides)| size(key, overrides)).sum();
        self.bytes == counted && self.iter().all(|(_, overrides)| !overrides.is_empty())
    }

    fn remove(&mut self, key: &ConfigKey) {
        if let Some(held) = self.by_key.get(key) {
            self.bytes -= size(key, held);
            self.by_key.remove_mut(key);
        }
    }
}

/// What a resource counts; nothing without overrides.
fn size(key: &ConfigKey, overrides: &Overrides) -> usize {
    if overrides.is_empty() { 0 } else { key.name.len() + bytes_of(overrides) }
}

#[cfg(test)]
mod tests;
