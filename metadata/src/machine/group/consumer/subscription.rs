//! What members subscribe to, by name and by expression, and what that is in the catalog.
//!
//! # Invariants
//! - `topics` is the union of what the members subscribe to, as of `catalog_seen`, and
//!   `expressions` has exactly the expressions that they subscribe by, unless `is_stale`.
//! - Each member's own expression is resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::model::TopicId;
use rpds::RedBlackTreeMapSync as Map;

use super::{
    re2,
    state::{ConsumerGroup, ConsumerMember},
};
use crate::machine::group::{surroundings::Surroundings, types::MemberId};

/// Different expressions in one group. Each is matched against every topic whenever topics change.
pub(crate) const EXPRESSIONS_MAX: usize = 100;

impl ConsumerGroup {
    /// Finds anew what members subscribe to. True when topics came, went or grew.
    pub fn refresh(&mut self, catalog: u64, surroundings: &dyn Surroundings) -> bool {
        let used: BTreeSet<&str> =
            self.members.values().filter_map(|member| member.regex.as_deref()).collect();
        let is_current = self.catalog_seen == catalog;
        let mut expressions = Map::new_sync();
        for regex in used {
            let known = self.expressions.get(regex).filter(|_| is_current).cloned();
            let topics = known.unwrap_or_else(|| Arc::new(matching(regex, surroundings)));
            expressions.insert_mut(regex.to_owned(), topics);
        }
        self.expressions = expressions;
        self.catalog_seen = catalog;
        self.is_stale = false;
        let unlike = self.share_subscriptions();
        let names: BTreeSet<&String> = unlike.iter().flat_map(|names| names.iter()).collect();
        let mut topics: BTreeMap<TopicId, u32> =
            names.into_iter().filter_map(|name| surroundings.topic(name)).collect();
        for topic in self.expressions.values().flat_map(|topics| topics.iter()) {
            topics.extend(surroundings.partitions(*topic).map(|partitions| (*topic, partitions)));
        }
        let changed = *self.topics != topics;
        if changed {
            self.topics = Arc::new(topics);
        }
        changed
    }

    /// Has members that name the same topics hold the names once, to be looked at as one. Returns
    /// the names that differ.
    pub fn share_subscriptions(&mut self) -> Vec<Arc<BTreeSet<String>>> {
        // Most are one already; what one copy holds is compared once.
        let mut seen = BTreeMap::new();
        let mut unlike = BTreeSet::new();
        let mut copies = Vec::new();
        for (id, member) in self.members.iter() {
            let names = &member.subscribed;
            let shared = seen.entry(Arc::as_ptr(names)).or_insert_with(|| {
                unlike.insert(Arc::clone(names));
                unlike.get(names).map_or_else(|| Arc::clone(names), Arc::clone)
            });
            if !Arc::ptr_eq(shared, names) {
                copies.push((id.clone(), Arc::clone(shared)));
            }
        }
        for (id, subscribed) in copies {
            if let Some(member) = self.members.get(&id) {
                let member = ConsumerMember { subscribed, ..ConsumerMember::clone(member) };
                self.members.insert_mut(id, Arc::new(member));
            }
        }
        unlike.into_iter().collect()
    }

    /// The names as the group holds them since, for a member on its way.
    pub fn share_with(&self, id: &MemberId, member: &mut ConsumerMember) {
        if let Some(held) = self.members.get(id) {
            member.subscribed = Arc::clone(&held.subscribed);
        }
    }

    /// Resolves an expression that is new to the group.
    pub fn resolve(&mut self, regex: &str, surroundings: &dyn Surroundings) {
        if !self.expressions.contains_key(regex) {
            let topics = Arc::new(matching(regex, surroundings));
            self.expressions.insert_mut(regex.to_owned(), topics);
        }
    }

    /// The topics that a member subscribes to and that exist.
    pub fn topics_of(
        &self,
        member: &ConsumerMember,
        surroundings: &dyn Surroundings,
    ) -> BTreeSet<TopicId> {
        let named = member.subscribed.iter().filter_map(|name| surroundings.topic(name));
        let mut topics: BTreeSet<TopicId> = named.map(|(topic, _)| topic).collect();
        let expression = member.regex.as_ref().and_then(|regex| self.expressions.get(regex));
        topics.extend(expression.into_iter().flat_map(|topics| topics.iter()));
        topics
    }

    /// Whether some member subscribes to the topic.
    pub fn is_subscribed(&self, topic: TopicId, name: &str) -> bool {
        self.members.values().any(|member| member.subscribed.contains(name))
            || self.expressions.values().any(|topics| topics.contains(&topic))
    }
}

/// The topics whose names match an expression; none for one that cannot be parsed, which a member
/// is refused for.
fn matching(regex: &str, surroundings: &dyn Surroundings) -> BTreeSet<TopicId> {
    let mut topics = BTreeSet::new();
    if let Ok(regex) = re2::compile(regex) {
        surroundings.each_topic(&mut |name, topic| {
            if regex.is_match(name) {
                topics.insert(topic);
            }
        });
    }
    topics
}
