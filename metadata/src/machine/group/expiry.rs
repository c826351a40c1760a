//! Which committed offsets, and which groups, are old enough to go (`offsets.retention.minutes`).
//!
//! A round is planned by the leader from what it knows ([`Groups::expirable`]) and decided again
//! in apply, by the wall time of the entry: what was committed, joined or subscribed to meanwhile
//! stays.
//!
//! # Invariants
//! - Nothing goes that is younger than the retention, nor an offset of a topic that is read.
//! - One command lets go of no more than the partitions it names, and of one group.

use std::{collections::BTreeMap, time::Duration};

use aquifer_storage::{
    model::TopicId,
    planted::{self, Bug},
};

use super::{
    Groups,
    administration::CONSUMER,
    command::{GroupAction, GroupCommand, TopicOffsets},
    state::{Group, Moment, Phase, StoredOffset},
};
use crate::machine::time::WallTime;

/// Offsets one command lets go of.
pub const EXPIRED_OFFSETS_MAX: usize = 4_096;

impl Group {
    /// When an offset's retention began; `None` while it cannot expire.
    fn retained_since(&self, stored: &StoredOffset) -> Option<WallTime> {
        if self.consumer.is_some() {
            return Some(stored.at); // What its members subscribe to is kept as long as they do.
        }
        match &self.phase {
            // A simple group has no members to be gone: each offset has its own time.
            Phase::Empty { since: Some(since) } if self.protocol_type.is_some() => Some(*since),
            Phase::Empty { .. } => Some(stored.at),
            Phase::Stable { .. } if self.protocol_type.as_deref() == Some(CONSUMER) => {
                Some(stored.at)
            }
            Phase::PreparingRebalance(_) | Phase::CompletingRebalance(_) | Phase::Stable { .. } => {
                None
            }
        }
    }

    fn is_expired(&self, stored: &StoredOffset, wall: WallTime, retention: Duration) -> bool {
        self.retained_since(stored).is_some_and(|since| wall.is_past(since, retention))
    }

    /// Whether it is empty, and nothing of it is left but its name.
    fn is_spent(&self) -> bool {
        self.consumer.as_ref().is_none_or(|group| group.members.is_empty())
            && matches!(self.phase, Phase::Empty { .. })
            && self.offsets.is_empty()
            && self.pending.is_empty()
    }

    /// Lets go of the offsets named that are too old and that nobody reads, and of the group when
    /// nobody is in it and no offset is left.
    pub(super) fn expire_offsets(
        &mut self,
        topics: &[TopicOffsets],
        retention: Duration,
        moment: &mut Moment,
    ) {
        let unread = self.unread(topics);
        for named in unread {
            for partition in named.topic_partitions() {
                let stored = self.offsets.get(&partition);
                if stored.is_some_and(|stored| self.is_expired(stored, moment.wall, retention)) {
                    self.offsets.remove_mut(&partition);
                }
            }
        }
        if self.is_spent() {
            *self = Self { version: moment.count(), ..Self::default() };
        }
    }

    /// The offsets that [`Self::expire_offsets`] would let go of, by topic.
    fn expired(
        &self,
        wall: WallTime,
        retention: Duration,
        name_of: &dyn Fn(TopicId) -> Option<String>,
    ) -> Vec<TopicOffsets> {
        let old = self.offsets.iter().filter(|(_, one)| self.is_expired(one, wall, retention));
        let mut old = old.peekable();
        if old.peek().is_none() {
            return Vec::new();
        }
        let is_read = self.readers();
        // Read ones are none, so that however many there are, what is behind them goes too.
        let mut topics: BTreeMap<TopicId, Option<TopicOffsets>> = BTreeMap::new();
        let mut count = 0;
        for (partition, _) in old {
            let topic = partition.topic;
            let offsets = topics.entry(topic).or_insert_with(|| {
                let name = name_of(topic).unwrap_or_default();
                let offsets = TopicOffsets { topic, name, partitions: Vec::new() };
                Some(offsets).filter(|offsets| !is_read(offsets))
            });
            let Some(offsets) = offsets else { continue };
            offsets.partitions.push(partition.partition);
            count += 1;
            if count == EXPIRED_OFFSETS_MAX {
                break;
            }
        }
        topics.into_values().flatten().collect()
    }

    /// Those of `topics` that no member subscribes to; none where one does not say.
    fn unread<'a>(&self, topics: &'a [TopicOffsets]) -> Vec<&'a TopicOffsets> {
        if topics.is_empty() {
            return Vec::new();
        }
        let is_read = self.readers();
        topics.iter().filter(|topic| !is_read(topic)).collect()
    }

    /// Whether some member subscribes to a topic, or may.
    fn readers(&self) -> impl Fn(&TopicOffsets) -> bool + '_ {
        let classic = if self.consumer.is_some() { None } else { self.subscribed_topics() };
        move |topic| {
            let is_read = match &self.consumer {
                Some(group) => group.is_subscribed(topic.topic, &topic.name),
                None => classic.as_ref().is_none_or(|read| read.contains(&topic.name)),
            };
            is_read && !planted::is(Bug::ExpiryIgnoresMembers)
        }
    }
}

impl Groups {
    /// The commands of a round of expiry at `wall`: at most `limit` of them, one a group.
    pub fn expirable(
        &self,
        (wall, retention): (WallTime, Duration),
        name_of: &dyn Fn(TopicId) -> Option<String>,
        limit: usize,
    ) -> Vec<GroupCommand> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let commands = self.groups.iter().filter_map(|(name, group)| {
            let topics = group.expired(wall, retention, name_of);
            let is_due = group.is_spent() || !topics.is_empty();
            let action = GroupAction::ExpireOffsets { topics, retention_ms };
            is_due.then(|| GroupCommand { group: name.to_string(), action })
        });
        commands.take(limit).collect()
    }
}
