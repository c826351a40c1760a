//! The group coordinator: a pure aggregate, the only writer of groups and their committed
//! offsets.
//!
//! Joining and syncing never wait here. Their reply says "pending" and names the group's version;
//! the agent waits until the version passes that and asks again, of whichever leader there is.
//! Heartbeats change nothing and are not replicated: the leader answers them as a query, and
//! proposes to expire who is silent, naming the touch it judged. Groups of the consumer protocol
//! are in [`consumer`].
//!
//! # Invariants
//! - Generations of a group grow until it is deleted; a generation has one leader, one protocol and
//!   one assignment.
//! - A version never falls, also not when a group is removed and made again.
//! - Deadlines are elapsed time and data: nothing happens between two commands or ticks.
//!
//! # Not here
//! Kafka's error codes and versions (the agent), member liveness and when a round of expiry is due
//! (the leader).

use std::{ops::Bound, sync::Arc, time::Duration};

use aquifer_storage::model::TopicId;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use self::{
    administration::refuse_absent,
    command::{GroupAction, GroupCommand, GroupReply, Join, Progress},
    consumer::{heartbeat::Context, settings},
    query::{GroupAnswer, GroupAsk, GroupListed, GroupQuery},
    state::{Group, Moment, Phase},
    surroundings::Surroundings,
    types::{GroupRejected, MemberId},
};
use super::time::{Elapsed, WallTime};

mod administration;
pub mod command;
pub mod consumer;
mod expiry;
mod invariants;
mod membership;
mod offsets;
pub mod query;
mod rebalance;
pub(crate) mod state;
pub mod surroundings;
pub mod types;

#[cfg(test)]
mod tests;

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
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: u32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: u32,
}

impl GroupSettings {
    /// Refuses a join whose session timeout is outside these limits.
    fn check_session_timeout(self, join: &Join) -> Result<(), GroupRejected> {
        let range = self.session_timeout_min_ms..=self.session_timeout_max_ms;
        let is_allowed = range.contains(&join.session_timeout_ms);
        if is_allowed { Ok(()) } else { Err(GroupRejected::InvalidSessionTimeout) }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX.unsigned_abs(),
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
        }
    }
}

/// All groups. Cloning is O(1).
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    settings: GroupSettings,
    /// Versions, touches and joins of all groups are numbered by one counter.
    counter: u64,
    /// Counts changes of topics since there are consumer groups.
    catalog: u64,
    /// How many those are.
    consumers: usize,
    /// And their members.
    consumer_members: usize,
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
        Self {
            settings,
            counter: 0,
            catalog: 0,
            consumers: 0,
            consumer_members: 0,
            groups: Map::new_sync(),
            deadlines: Set::new_sync(),
        }
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
        surroundings: &dyn Surroundings,
    ) -> GroupApplied {
        let known = self.groups.get(command.group.as_str()).cloned();
        // A group made again starts where versions are, not where it was forgotten.
        let fresh = || Group { version: self.counter, ..Group::default() };
        let mut group = known.as_deref().cloned().unwrap_or_else(fresh);
        let version = group.version;
        let mut moment = self.moment(now, wall);
        if let GroupAction::Join(Join { limits: Some(limits), .. }) = &command.action {
            moment.limits = Some(*limits);
        }
        let context = || self.context(&command.group, surroundings);
        let reply = match &command.action {
            GroupAction::Join(join) => {
                let allowed = moment.limits().check_session_timeout(join);
                if allowed.is_ok() && join.member.is_empty() {
                    group.become_classic_if_empty(&mut moment);
                }
                GroupReply::Join(allowed.and_then(|()| match &mut group.consumer {
                    Some(group) => group.join(join, &context(), &mut moment).map(Progress::Ready),
                    None => group.join(join, &mut moment),
                }))
            }
            GroupAction::Sync(sync) => GroupReply::Sync(match &mut group.consumer {
                Some(group) => group.sync(sync, surroundings, &mut moment).map(Progress::Ready),
                None => group.sync(sync, &mut moment),
            }),
            GroupAction::Leave { members } => GroupReply::Leave(match &mut group.consumer {
                Some(group) => group.leave_by_request(members, &moment),
                None => group.leave(members, &mut moment),
            }),
            GroupAction::CommitOffsets(commit)
                if known.is_none() && commit.generation.is_some() =>
            {
                GroupReply::CommitOffsets(Err(GroupRejected::UnknownGroup))
            }
            GroupAction::CommitOffsets(commit) => {
                GroupReply::CommitOffsets(group.commit_offsets(commit, surroundings, &mut moment))
            }
            GroupAction::ExpireMember { member, judged } => {
                match &mut group.consumer {
                    Some(group) => group.expire_member(member, *judged, &moment),
                    None => group.expire_member(member, *judged, &mut moment),
                }
                GroupReply::Done
            }
            GroupAction::ExpireOffsets { topics, retention_ms } => {
                group.expire_offsets(topics, Duration::from_millis(*retention_ms), &mut moment);
                GroupReply::Done
            }
            GroupAction::Delete | GroupAction::DeleteOffsets { .. } if known.is_none() => {
                refuse_absent(&command.action)
            }
            GroupAction::Delete => GroupReply::Deleted(group.delete(&mut moment)),
            GroupAction::DeleteOffsets { topics } => {
                GroupReply::OffsetsDeleted(group.delete_offsets(topics))
            }
            GroupAction::ConsumerHeartbeat(heartbeat) => {
                let is_known = known.is_some();
                let context = context();
                let answer = group.consumer_heartbeat(heartbeat, is_known, &context, &mut moment);
                GroupReply::ConsumerHeartbeat(answer)
            }
        };
        group.tick(&mut moment);
        if group.consumer.is_some() {
            group.downgrade_if_classic(&context(), &mut moment);
        }
        self.counter = moment.counter;
        let moved = group.version != version;
        let stored = self.store(&command.group, known.as_deref(), group);
        GroupApplied { reply, changed: moved.then_some(stored).into_iter().collect() }
    }

    /// Does what is due at `now`. Returns the groups whose version moved, with the version.
    pub fn tick(
        &mut self,
        now: Elapsed,
        wall: WallTime,
        surroundings: &dyn Surroundings,
    ) -> Vec<(String, u64)> {
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
            if group.consumer.is_some() {
                let context = self.context(&name, surroundings);
                group.downgrade_if_classic(&context, &mut moment);
            }
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
    pub fn query(&self, query: &GroupQuery, surroundings: &dyn Surroundings) -> GroupAnswer {
        let absent = Group::default();
        let found = self.groups.get(query.group.as_str());
        let group = found.map_or(&absent, |group| group.as_ref());
        match &query.ask {
            GroupAsk::Join { member, .. } if group.consumer.is_some() => {
                let progress = group.consumer.as_ref().map(|group| group.join_progress(member));
                let progress = progress.unwrap_or(Err(GroupRejected::UnknownMember));
                GroupAnswer::Join(progress.map(Progress::Ready))
            }
            GroupAsk::Join { member, request } => {
                let overtaken = group.members.get(member).is_some_and(|m| m.request != *request);
                if overtaken {
                    return GroupAnswer::Join(Err(GroupRejected::RebalanceInProgress));
                }
                GroupAnswer::Join(group.join_progress(member))
            }
            GroupAsk::Sync { member, generation } => GroupAnswer::Sync(match &group.consumer {
                Some(group) => {
                    group.sync_progress(member, *generation, surroundings).map(Progress::Ready)
                }
                None => group.sync_progress(member, *generation),
            }),
            GroupAsk::Offsets { partitions, reader } => {
                GroupAnswer::Offsets(group.read_offsets(partitions.as_deref(), reader.as_ref()))
            }
            GroupAsk::Heartbeat { member, instance, generation } => {
                let instance = instance.as_deref();
                GroupAnswer::Heartbeat(match &group.consumer {
                    Some(group) => group.classic_heartbeat(member, instance, *generation),
                    None => group.heartbeat(member, instance, *generation),
                })
            }
            GroupAsk::Describe => {
                let classic = found.filter(|group| group.consumer.is_none());
                GroupAnswer::Described(classic.map(|group| group.describe()))
            }
            GroupAsk::ConsumerHeartbeat(heartbeat) => {
                let context = self.context(&query.group, surroundings);
                let is_known = found.is_some();
                let answer = group.ask_consumer_heartbeat(heartbeat, is_known, &context);
                GroupAnswer::ConsumerHeartbeat(answer)
            }
            GroupAsk::ConsumerDescribe => {
                let settings = self.context(&query.group, surroundings).settings;
                let described = group.consumer.as_ref().map(|group| group.describe(&settings));
                GroupAnswer::ConsumerDescribed(described)
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
            protocol_type: group.listed_protocol_type(),
            kind: group.kind(),
        };
        groups.take(limit).map(one).collect()
    }

    /// The version of a group: moves whenever a parked join or sync may have become answerable,
    /// which offsets and signs of life do not. Of an absent group it is larger than any it had.
    pub fn version(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(self.counter, |group| group.version)
    }

    /// Every member whose silence counts.
    pub fn members_for_liveness<'a>(
        &'a self,
        surroundings: &'a dyn Surroundings,
    ) -> impl Iterator<Item = LivenessMember> + 'a {
        self.groups.iter().flat_map(move |(name, group)| {
            let consumer = group.consumer.as_ref();
            let timeout = consumer.map(|_| settings::session_timeout_ms(name, surroundings));
            let consumers = consumer.into_iter().flat_map(|group| group.members.iter());
            let consumers = consumers.map(move |(id, member)| {
                let own = member.classic.as_ref().map(|classic| classic.session_timeout_ms);
                (id, member.touched, own.or(timeout).unwrap_or(u32::MAX))
            });
            let watched = group.watched_members().chain(consumers);
            watched.map(|(member, touched, session_timeout_ms)| LivenessMember {
                group: name.to_string(),
                member: member.clone(),
                touched,
                session_timeout_ms,
            })
        })
    }

    /// Topics came, went or grew: consumer groups look again at their next heartbeat.
    pub fn catalog_changed(&mut self) {
        if self.consumers > 0 {
            self.catalog = self.catalog.saturating_add(1);
        }
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
        let consumers = self.groups.values().filter(|group| group.consumer.is_some()).count();
        let members: usize = self.groups.values().map(|group| group.consumer_members()).sum();
        if (consumers, members) != (self.consumers, self.consumer_members) {
            return Some(("", "consumer groups and their members are counted"));
        }
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

    /// Whether what is held would be misread by builds that know no limits of a join.
    pub(crate) fn has_own_limits(&self) -> bool {
        self.groups.values().any(|group| match &group.phase {
            Phase::PreparingRebalance(preparing) => {
                preparing.initial.is_some_and(|initial| initial.delay_ms.is_some())
            }
            Phase::Empty { .. } | Phase::CompletingRebalance(_) | Phase::Stable { .. } => false,
        })
    }

    /// The counter behind versions, touches and joins, for a snapshot.
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    /// The version of the catalog that consumer groups have to have seen, for a snapshot.
    pub(crate) fn catalog(&self) -> u64 {
        self.catalog
    }

    /// Whether there are consumer groups.
    pub(crate) fn has_consumers(&self) -> bool {
        self.consumers > 0
    }

    /// Every group, ascending by name, for a snapshot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_ref(), group.as_ref()))
    }

    /// Puts a snapshot together; an error names the invariant it breaks.
    pub(crate) fn restore(
        settings: GroupSettings,
        (counter, catalog): (u64, u64),
        groups: impl IntoIterator<Item = (String, Group)>,
    ) -> Result<Self, &'static str> {
        let mut restored = Self { counter, catalog, ..Self::new(settings) };
        for (name, group) in groups {
            if restored.groups.contains_key(name.as_str()) {
                return Err("each group is there once");
            }
            restored.consumers += usize::from(group.consumer.is_some());
            restored.consumer_members += group.consumer_members();
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

    fn context<'a>(&self, name: &'a str, surroundings: &'a dyn Surroundings) -> Context<'a> {
        let settings = settings::ConsumerSettings::of(name, surroundings);
        let (catalog, members) = (self.catalog, self.consumer_members);
        Context { name, settings, surroundings, catalog, members }
    }

    fn moment(&self, now: Elapsed, wall: WallTime) -> Moment {
        Moment { now, wall, settings: self.settings, limits: None, counter: self.counter }
    }

    /// Puts a group back, or forgets it when nothing of it is worth keeping. Returns its version.
    fn store(&mut self, name: &str, known: Option<&Group>, group: Group) -> (String, u64) {
        let before = known.and_then(Group::next_deadline);
        let after = if group.is_blank() { None } else { group.next_deadline() };
        let version = group.version;
        let was_consumer = known.is_some_and(|group| group.consumer.is_some());
        self.consumers -= usize::from(was_consumer);
        self.consumers += usize::from(group.consumer.is_some());
        self.consumer_members -= known.map_or(0, Group::consumer_members);
        self.consumer_members += group.consumer_members();
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
