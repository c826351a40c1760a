//! The classic group coordinator: a pure aggregate, the only writer of groups and their committed
//! offsets.
//!
//! Joining and syncing never wait here. Their reply says "pending" and names the group's version;
//! the agent waits until the version passes that and asks again, of whichever leader there is.
//! Heartbeats change nothing and are not replicated: the leader answers them as a query, and
//! proposes to expire who is silent, naming the touch it judged.
//!
//! # Invariants
//! - Generations of a group grow until it is deleted; a generation has one leader, one protocol and
//!   one assignment.
//! - A version never falls, also not when a group is removed and made again.
//! - Deadlines are elapsed time and data: nothing happens between two commands or ticks.
//!
//! # Not here
//! Kafka's error codes and versions (the agent), member liveness (the leader), expiry of offsets.

use std::{
    ops::{Bound, RangeInclusive},
    sync::Arc,
};

use aquifer_storage::model::{TopicId, TopicPartition};
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use self::{
    administration::refuse_absent,
    command::{GroupAction, GroupCommand, GroupReply},
    query::{GroupAnswer, GroupAsk, GroupListed, GroupQuery},
    state::{Group, Moment},
    types::{GroupRejected, MemberId},
};
use super::time::{Elapsed, WallTime};

mod administration;
pub mod command;
mod invariants;
mod membership;
mod offsets;
pub mod query;
mod rebalance;
pub(crate) mod state;
pub mod types;

#[cfg(test)]
mod tests;

/// `group.min.session.timeout.ms` to `group.max.session.timeout.ms`.
pub const SESSION_TIMEOUT_MS: RangeInclusive<u32> = 6_000..=1_800_000;

/// How long a first join may be parked before the member counts as silent: it does not know its
/// id, so it can neither heartbeat nor leave.
pub const MEMBER_JOIN_TIMEOUT_MS: u32 = 300_000;

/// Member ids given out and not used yet, per group. Bounds what anonymous joins can store.
pub const PENDING_MEMBERS_MAX: usize = 10_000;

/// Limits of every group, part of the replicated state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u32,
    /// `group.max.size`.
    pub max_size: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { initial_rebalance_delay_ms: 3_000, max_size: i32::MAX.unsigned_abs() }
    }
}

/// All classic groups. Cloning is O(1).
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    settings: GroupSettings,
    /// Versions, touches and joins of all groups are numbered by one counter.
    counter: u64,
    groups: Map<Arc<str>, Arc<Group>>,
    /// Each group's first deadline.
    deadlines: Set<(Elapsed, Arc<str>)>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupApplied {
    /// The reply to its sender.
    pub reply: GroupReply,
    /// Groups whose version moved, with the version.
    pub changed: Vec<(String, u64)>,
}

/// A member whose silence the leader has to notice. Members that wait for the group are not
/// among them: they send no heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivenessMember {
    /// The group.
    pub group: String,
    /// The member.
    pub member: MemberId,
    /// Moves with everything the member does but heartbeats: a sign of life.
    pub touched: u64,
    /// Milliseconds it may be silent.
    pub session_timeout_ms: u32,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new(GroupSettings::default())
    }
}

impl Groups {
    /// No groups.
    pub fn new(settings: GroupSettings) -> Self {
        Self { settings, counter: 0, groups: Map::new_sync(), deadlines: Set::new_sync() }
    }

    /// The limits.
    pub fn settings(&self) -> GroupSettings {
        self.settings
    }

    /// Changes the limits; groups that are larger stay as they are until they rebalance.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
    }

    /// Applies one command.
    pub fn apply(
        &mut self,
        command: &GroupCommand,
        now: Elapsed,
        wall: WallTime,
        partition_exists: &dyn Fn(TopicPartition) -> bool,
    ) -> GroupApplied {
        let known = self.groups.get(command.group.as_str()).cloned();
        // A group made again starts where versions are, not where it was forgotten.
        let fresh = || Group { version: self.counter, ..Group::default() };
        let mut group = known.as_deref().cloned().unwrap_or_else(fresh);
        let version = group.version;
        let mut moment = self.moment(now, wall);
        let reply = match &command.action {
            GroupAction::Join(join) => GroupReply::Join(group.join(join, &mut moment)),
            GroupAction::Sync(sync) => GroupReply::Sync(group.sync(sync, &mut moment)),
            GroupAction::Leave { members } => GroupReply::Leave(group.leave(members, &mut moment)),
            GroupAction::CommitOffsets(commit)
                if known.is_none() && commit.generation.is_some() =>
            {
                GroupReply::CommitOffsets(Err(GroupRejected::UnknownGroup))
            }
            GroupAction::CommitOffsets(commit) => GroupReply::CommitOffsets(group.commit_offsets(
                commit,
                partition_exists,
                &mut moment,
            )),
            GroupAction::ExpireMember { member, judged } => {
                group.expire_member(member, *judged, &mut moment);
                GroupReply::Done
            }
            GroupAction::Delete | GroupAction::DeleteOffsets { .. } if known.is_none() => {
                refuse_absent(&command.action)
            }
            GroupAction::Delete => GroupReply::Deleted(group.delete(&mut moment)),
            GroupAction::DeleteOffsets { topics } => {
                GroupReply::OffsetsDeleted(group.delete_offsets(topics))
            }
        };
        group.tick(&mut moment);
        self.counter = moment.counter;
        let moved = group.version != version;
        let stored = self.store(&command.group, known.as_deref(), group);
        GroupApplied { reply, changed: moved.then_some(stored).into_iter().collect() }
    }

    /// Does what is due at `now`. Returns the groups whose version moved, with the version.
    pub fn tick(&mut self, now: Elapsed, wall: WallTime) -> Vec<(String, u64)> {
        let mut changed = Vec::new();
        while let Some((deadline, name)) = self.deadlines.first().cloned()
            && deadline <= now
        {
            let Some(known) = self.groups.get(&name).cloned() else {
                self.deadlines.remove_mut(&(deadline, name));
                continue;
            };
            let mut group = Group::clone(&known);
            let mut moment = self.moment(now, wall);
            group.tick(&mut moment);
            self.counter = moment.counter;
            let moved = group.version != known.version;
            let stored = self.store(&name, Some(&known), group);
            changed.extend(moved.then_some(stored));
        }
        changed
    }

    /// When the next tick has something to do.
    pub fn next_deadline(&self) -> Option<Elapsed> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Answers a question.
    pub fn query(&self, query: &GroupQuery) -> GroupAnswer {
        let absent = Group::default();
        let group = self.groups.get(query.group.as_str()).map_or(&absent, |group| group.as_ref());
        match &query.ask {
            GroupAsk::Join { member, request } => {
                let overtaken = group.members.get(member).is_some_and(|m| m.request != *request);
                if overtaken {
                    return GroupAnswer::Join(Err(GroupRejected::RebalanceInProgress));
                }
                GroupAnswer::Join(group.join_progress(member))
            }
            GroupAsk::Sync { member, generation } => {
                GroupAnswer::Sync(group.sync_progress(member, *generation))
            }
            GroupAsk::Offsets { partitions } => {
                GroupAnswer::Offsets(group.committed(partitions.as_deref()))
            }
            GroupAsk::Heartbeat { member, instance, generation } => {
                GroupAnswer::Heartbeat(group.heartbeat(member, instance.as_deref(), *generation))
            }
            GroupAsk::Describe => {
                let found = self.groups.get(query.group.as_str());
                GroupAnswer::Described(found.map(|group| group.describe()))
            }
        }
    }

    /// Groups behind `after`, ascending, at most `limit`.
    pub fn listed(&self, after: Option<&str>, limit: usize) -> Vec<GroupListed> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.groups.range::<str, _>((start, Bound::Unbounded));
        let one = |(name, group): (&Arc<str>, &Arc<Group>)| GroupListed {
            group: name.to_string(),
            state: group.state(),
            protocol_type: group.protocol_type.clone(),
        };
        groups.take(limit).map(one).collect()
    }

    /// The version of a group: moves whenever a parked join or sync may have become answerable,
    /// which offsets and signs of life do not. Of an absent group it is larger than any it had.
    pub fn version(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(self.counter, |group| group.version)
    }

    /// Every member whose silence counts.
    pub fn members_for_liveness(&self) -> impl Iterator<Item = LivenessMember> + '_ {
        self.groups.iter().flat_map(|(name, group)| {
            group.watched_members().map(|(member, touched, session_timeout_ms)| LivenessMember {
                group: name.to_string(),
                member: member.clone(),
                touched,
                session_timeout_ms,
            })
        })
    }

    /// Forgets the offsets committed for a deleted topic. Returns the groups that had some, with
    /// their version.
    pub fn topic_deleted(&mut self, topic: TopicId) -> Vec<(String, u64)> {
        let holders: Vec<(Arc<str>, Arc<Group>)> = self
            .groups
            .iter()
            .filter(|(_, group)| group.partitions_of(topic).next().is_some())
            .map(|(name, group)| (name.clone(), group.clone()))
            .collect();
        let mut changed = Vec::new();
        for (name, known) in holders {
            let mut group = Group::clone(&known);
            group.remove_topic(topic);
            self.counter = self.counter.saturating_add(1);
            group.version = self.counter;
            changed.push(self.store(&name, Some(&known), group));
        }
        changed
    }

    /// Expels the members of all groups; committed offsets stay.
    pub fn expel_everybody(&mut self, now: Elapsed, wall: WallTime) {
        let all: Vec<(Arc<str>, Arc<Group>)> =
            self.groups.iter().map(|(name, group)| (name.clone(), group.clone())).collect();
        for (name, known) in all {
            let mut group = Group::clone(&known);
            let mut moment = self.moment(now, wall);
            group.expel_everybody(&mut moment);
            self.counter = moment.counter;
            self.store(&name, Some(&known), group);
        }
    }

    /// The first broken invariant of any group, with the group.
    pub fn broken_invariant(&self) -> Option<(&str, &'static str)> {
        let indexed: Set<(Elapsed, Arc<str>)> = self.deadline_index();
        if indexed != self.deadlines {
            return Some(("", "each group's first deadline is indexed"));
        }
        self.groups.iter().find_map(|(name, group)| {
            let law = if group.version > self.counter {
                Some("no group is ahead of the counter")
            } else {
                group.broken_invariant()
            };
            law.map(|law| (name.as_ref(), law))
        })
    }

    /// The counter behind versions, touches and joins, for a snapshot.
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    /// Every group, ascending by name, for a snapshot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_ref(), group.as_ref()))
    }

    /// Puts a snapshot together; an error names the invariant it breaks.
    pub(crate) fn restore(
        settings: GroupSettings,
        counter: u64,
        groups: impl IntoIterator<Item = (String, Group)>,
    ) -> Result<Self, &'static str> {
        let mut restored = Self::new(settings);
        restored.counter = counter;
        for (name, group) in groups {
            if restored.groups.contains_key(name.as_str()) {
                return Err("each group is there once");
            }
            restored.groups.insert_mut(Arc::from(name), Arc::new(group));
        }
        restored.deadlines = restored.deadline_index();
        match restored.broken_invariant() {
            Some((_, law)) => Err(law),
            None => Ok(restored),
        }
    }

    /// Each group's first deadline.
    fn deadline_index(&self) -> Set<(Elapsed, Arc<str>)> {
        let mut index = Set::new_sync();
        for (name, group) in self.groups.iter() {
            if let Some(deadline) = group.next_deadline() {
                index.insert_mut((deadline, name.clone()));
            }
        }
        index
    }

    fn moment(&self, now: Elapsed, wall: WallTime) -> Moment {
        Moment { now, wall, settings: self.settings, counter: self.counter }
    }

    /// Puts a group back, or forgets it when nothing of it is worth keeping. Returns its version.
    fn store(&mut self, name: &str, known: Option<&Group>, group: Group) -> (String, u64) {
        let before = known.and_then(Group::next_deadline);
        let after = if group.is_blank() { None } else { group.next_deadline() };
        let version = group.version;
        let name: Arc<str> = Arc::from(name);
        if before != after {
            if let Some(before) = before {
                self.deadlines.remove_mut(&(before, name.clone()));
            }
            if let Some(after) = after {
                self.deadlines.insert_mut((after, name.clone()));
            }
        }
        if group.is_blank() {
            self.groups.remove_mut(&name);
        } else {
            self.groups.insert_mut(name.clone(), Arc::new(group));
        }
        (name.to_string(), version)
    }
}
