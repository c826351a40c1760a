//! What the coordinator remembers of one group, and the small steps every rule is made of.
//!
//! # Invariants
//! - `support` counts, for each protocol, the members that name it; `instances` is the reverse of
//!   the members' instance ids. Both are derived, and rebuilt from a snapshot.
//! - A group with members is never `Empty`, has a leader, and the leader is a member.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::model::TopicPartition;
use bytes::Bytes;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use super::{
    GroupSettings,
    command::{CommittedOffset, Join, RequestId},
    consumer::state::ConsumerGroup,
    types::{GenerationId, GroupRejected, MemberId},
};
use crate::machine::time::{Elapsed, WallTime};

/// The clocks, limits and counter one command is applied with.
#[derive(Debug)]
pub(crate) struct Moment {
    /// Deadlines are compared with this.
    pub now: Elapsed,
    /// Commit and emptiness times are taken from this.
    pub wall: WallTime,
    /// The cluster's limits.
    pub settings: GroupSettings,
    /// Those of the agent that was asked to join, which go before.
    pub limits: Option<GroupSettings>,
    /// The last number given as a version, touch or place in the order of joining.
    pub counter: u64,
}

impl Moment {
    /// The limits that count.
    pub fn limits(&self) -> GroupSettings {
        self.limits.unwrap_or(self.settings)
    }

    /// The next number: larger than every one before, in any group.
    pub fn count(&mut self) -> u64 {
        self.counter = self.counter.saturating_add(1);
        self.counter
    }
}

/// One group. Cloning is cheap: its collections are persistent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// Moves when a parked join or sync may have become answerable.
    pub version: u64,
    /// Counts completed joins.
    pub generation: GenerationId,
    /// `None` for a simple group: offsets only, never a member.
    pub protocol_type: Option<String>,
    /// The assignor of this generation.
    pub protocol: Option<String>,
    /// The member that assigns; there is one while there are members.
    pub leader: Option<MemberId>,
    /// Where the group is in its round of rebalancing.
    pub phase: Phase,
    /// Everyone who is in.
    pub members: Map<MemberId, Member>,
    /// The member that holds each `group.instance.id`.
    pub instances: Map<String, MemberId>,
    /// How many members name each protocol.
    pub support: Map<String, u32>,
    /// Ids given out with MEMBER_ID_REQUIRED that have not come back yet.
    pub pending: Map<MemberId, PendingMember>,
    /// What it is while it goes by the consumer protocol; then all of the above but the version
    /// is as of a group that nobody was in yet.
    pub consumer: Option<ConsumerGroup>,
    /// Committed offsets.
    pub offsets: Map<TopicPartition, StoredOffset>,
}

/// Kafka's group states; `Dead` is the absence of the group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// No members. Committed offsets may still exist.
    Empty {
        /// When the last member went; `None` if there never was one.
        since: Option<WallTime>,
    },
    /// Members are asked to rejoin.
    PreparingRebalance(Preparing),
    /// The generation is formed; the leader's assignment is awaited.
    CompletingRebalance(Syncing),
    /// Every member has its assignment.
    Stable {
        /// The leader's word, one entry per member.
        assignments: Map<MemberId, Bytes>,
        /// While some member has not fetched its assignment.
        syncing: Option<Syncing>,
    },
}

/// The join phase.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Preparing {
    /// Members that rejoined and wait.
    pub joined: Set<MemberId>,
    /// When the others are given up.
    pub deadline: Elapsed,
    /// Set while a group that was empty is held open for more members.
    pub initial: Option<InitialDelay>,
}

/// How long a group that was empty may still be held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InitialDelay {
    /// What is left of the rebalance timeout after the present deadline.
    pub remaining_ms: u64,
    /// Whether someone joined since the deadline was set.
    pub newcomer: bool,
    /// How much a newcomer extends it by, where that is not what the machine is set to.
    pub delay_ms: Option<u32>,
}

/// The sync phase.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Syncing {
    /// Members that have not asked for their assignment.
    pub unsynced: Set<MemberId>,
    /// When those are given up.
    pub deadline: Elapsed,
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// The id this static member's instance had before it restarted.
    pub replaced: Option<MemberId>,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Milliseconds without a sign of life until it is expired.
    pub session_timeout_ms: u32,
    /// Milliseconds it wants to have for rejoining.
    pub rebalance_timeout_ms: u32,
    /// Assignors, the preferred first, with its metadata; names are distinct.
    pub protocols: Arc<[(String, Bytes)]>,
    /// Its last join.
    pub request: RequestId,
    /// Moves with everything it does, and when the group answers it.
    pub touched: u64,
    /// Its place in the order of joining.
    pub order: u64,
    /// Whether its first join has not been answered yet.
    pub is_new: bool,
    /// Whether its last join was answered with "keep the assignment" (a static leader came back).
    pub skip_assignment: bool,
}

/// A member id that was given out and not used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingMember {
    /// When it is forgotten.
    pub deadline: Elapsed,
    /// The join it was given to.
    pub request: RequestId,
}

/// A committed offset and when it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredOffset {
    /// As the client committed it.
    pub committed: CommittedOffset,
    /// For expiry.
    pub at: WallTime,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            version: 0,
            generation: GenerationId::default(),
            protocol_type: None,
            protocol: None,
            leader: None,
            phase: Phase::Empty { since: None },
            members: Map::new_sync(),
            instances: Map::new_sync(),
            support: Map::new_sync(),
            pending: Map::new_sync(),
            consumer: None,
            offsets: Map::new_sync(),
        }
    }
}

impl Member {
    /// The metadata it gave for a protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

impl Group {
    /// Whether nothing of it is worth keeping: it never had a member and holds no offset.
    pub fn is_blank(&self) -> bool {
        self.generation == GenerationId::default()
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.consumer.is_none()
            && self.offsets.is_empty()
    }

    /// Wakes those who wait for the group.
    pub fn changed(&mut self, moment: &mut Moment) {
        self.version = moment.count();
    }

    /// Notes a sign of life.
    pub fn touch(&mut self, member: &MemberId, moment: &mut Moment) {
        if let Some(member) = self.members.get_mut(member) {
            member.touched = moment.count();
        }
    }

    /// The longest any member wants to have for rejoining. Never zero: a deadline lies ahead.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        u64::from(longest.unwrap_or(0)).max(1)
    }

    /// Refuses ids that are not members, and those whose instance was taken over.
    pub fn validate_member(
        &self,
        member: &MemberId,
        instance: Option<&str>,
    ) -> Result<(), GroupRejected> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupRejected::UnknownMember),
                Some(holder) if holder != member => return Err(GroupRejected::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupRejected::UnknownMember) }
    }

    /// Why an id that waited is no member any more.
    pub fn gone(&self, member: &MemberId) -> GroupRejected {
        let replaced = self.members.values().any(|other| other.replaced.as_ref() == Some(member));
        if replaced { GroupRejected::FencedInstance } else { GroupRejected::UnknownMember }
    }

    /// Whether a member with these protocols finds one that everyone speaks.
    pub fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if matches!(self.phase, Phase::Empty { .. }) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.is_common(name))
    }

    /// Whether every member names the protocol.
    fn is_common(&self, name: &str) -> bool {
        let count = self.support.get(name).copied().unwrap_or(0);
        usize::try_from(count).is_ok_and(|count| count == self.members.size())
    }

    /// The protocol with the most votes among the common ones; each member votes for the common
    /// one it prefers, and a tie goes to the first in the order of names.
    pub fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, u32> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|(name, _)| self.is_common(name));
            if let Some((name, _)) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// Takes a member in. The first one leads, and its protocol type is the group's.
    pub fn insert_member(&mut self, id: MemberId, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert_mut(instance.clone(), id.clone());
        }
        self.count_support(&member.protocols);
        self.pending.remove_mut(&id);
        self.members.insert_mut(id, member);
    }

    /// Takes a member, and what waits or is kept for it, out. Another one leads if it led.
    pub fn remove_member(&mut self, id: &MemberId) -> Option<Member> {
        let member = self.members.get(id)?.clone();
        self.members.remove_mut(id);
        self.discount_support(&member.protocols);
        if let Some(instance) = &member.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove_mut(instance);
        }
        match &mut self.phase {
            Phase::Empty { .. } => {}
            Phase::PreparingRebalance(preparing) => {
                preparing.joined.remove_mut(id);
            }
            Phase::CompletingRebalance(syncing) => {
                syncing.unsynced.remove_mut(id);
            }
            Phase::Stable { assignments, syncing } => {
                assignments.remove_mut(id);
                if let Some(syncing) = syncing {
                    syncing.unsynced.remove_mut(id);
                }
            }
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.first_member(|_| true);
        }
        Some(member)
    }

    /// The member that has been in for longest of those that qualify.
    pub fn first_member(&self, qualifies: impl Fn(&MemberId) -> bool) -> Option<MemberId> {
        let qualified = self.members.iter().filter(|(id, _)| qualifies(id));
        qualified.min_by_key(|(_, member)| member.order).map(|(id, _)| id.clone())
    }

    /// Counts a member's protocols.
    pub fn count_support(&mut self, protocols: &[(String, Bytes)]) {
        for (name, _) in protocols {
            let count = self.support.get(name).copied().unwrap_or(0);
            self.support.insert_mut(name.clone(), count.saturating_add(1));
        }
    }

    /// Takes back what [`Self::count_support`] counted.
    pub fn discount_support(&mut self, protocols: &[(String, Bytes)]) {
        for (name, _) in protocols {
            match self.support.get(name).copied() {
                Some(count) if count > 1 => self.support.insert_mut(name.clone(), count - 1),
                _ => {
                    self.support.remove_mut(name);
                }
            }
        }
    }

    /// Whether the member waits for the group rather than the group for it. Members that wait
    /// send no heartbeats.
    pub fn awaits(&self, id: &MemberId) -> bool {
        match &self.phase {
            Phase::Empty { .. } | Phase::Stable { .. } => false,
            Phase::PreparingRebalance(preparing) => preparing.joined.contains(id),
            Phase::CompletingRebalance(syncing) => !syncing.unsynced.contains(id),
        }
    }

    /// The deadline of the phase.
    pub fn phase_deadline(&self) -> Option<Elapsed> {
        match &self.phase {
            Phase::Empty { .. } => None,
            Phase::PreparingRebalance(preparing) => Some(preparing.deadline),
            Phase::CompletingRebalance(syncing) => Some(syncing.deadline),
            Phase::Stable { syncing, .. } => syncing.as_ref().map(|syncing| syncing.deadline),
        }
    }

    /// The first deadline of all.
    pub fn next_deadline(&self) -> Option<Elapsed> {
        let pending = self.pending.values().map(|pending| pending.deadline).min();
        let revoking = self.consumer.as_ref().and_then(ConsumerGroup::next_deadline);
        self.phase_deadline().into_iter().chain(pending).chain(revoking).min()
    }
}

/// A join's protocols without repeated names: the first of each counts.
pub(crate) fn distinct_protocols(join: &Join) -> Arc<[(String, Bytes)]> {
    let mut seen = BTreeSet::new();
    join.protocols.iter().filter(|(name, _)| seen.insert(name.as_str())).cloned().collect()
}
