//! What the coordinator remembers of one consumer group.
//!
//! # Invariants
//! - `owners`, `instances` and `deadlines` are derived from the members, and rebuilt from a
//!   snapshot.
//! - A partition that a member holds, or has to give up, is nobody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::{
    model::{PartitionIndex, TopicId, TopicPartition},
    planted::{self, Bug},
};
use bytes::Bytes;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use super::AssignedTopic;
use crate::machine::{
    group::{
        command::RequestId,
        types::{GroupState, MemberId},
    },
    time::{Elapsed, WallTime},
};

/// Partitions that a member holds, each with the epoch it was given in.
pub(crate) type Owned = BTreeMap<TopicPartition, i32>;

/// Partitions that a member shall hold.
pub(crate) type Target = BTreeSet<TopicPartition>;

/// Topics with their number of partitions.
pub(crate) type TopicSizes = BTreeMap<TopicId, u32>;

/// One consumer group. Cloning is cheap: its collections are persistent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerGroup {
    /// Counts what makes a new assignment necessary.
    pub epoch: i32,
    /// The epoch the target was computed in.
    pub assignment_epoch: i32,
    /// When that was; `None` before the first.
    pub assigned_at: Option<Elapsed>,
    /// Since when nobody is in; `None` while somebody is.
    pub empty_since: Option<WallTime>,
    /// What members subscribe to, as of `catalog_seen`.
    pub topics: Arc<TopicSizes>,
    /// The topics that each expression stands for, as of `catalog_seen`.
    pub expressions: Map<String, Arc<BTreeSet<TopicId>>>,
    /// The catalog's version when both were found.
    pub catalog_seen: u64,
    /// Whether members came, went or changed what they read since then: both are found anew before
    /// the next assignment, and not for each member of a thousand that restart.
    pub is_stale: bool,
    /// Everyone who is in.
    pub members: Map<MemberId, Arc<ConsumerMember>>,
    /// What each of them shall hold; none for who joined since.
    pub targets: Map<MemberId, Arc<Target>>,
    /// Who holds, or has to give up, a partition.
    pub owners: Map<TopicPartition, MemberId>,
    /// The member that holds each `group.instance.id`.
    pub instances: Map<String, MemberId>,
    /// When members have to have given up what they were told to.
    pub deadlines: Set<(Elapsed, MemberId)>,
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerMember {
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `client.rack`.
    pub rack: Option<String>,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Milliseconds it gets for giving up partitions.
    pub rebalance_timeout_ms: u32,
    /// Topics it names; mostly shared with the others.
    pub subscribed: Arc<BTreeSet<String>>,
    /// The expression it subscribes by; never empty.
    pub regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// The epoch it was told; -2 while it, a static member, is away.
    pub epoch: i32,
    /// The one before, which it is in while it has not heard of this one.
    pub previous_epoch: i32,
    /// Where it is on its way to its target.
    pub state: MemberState,
    /// What it may hold.
    pub assigned: Arc<Owned>,
    /// What it has to give up.
    pub revoking: Arc<Owned>,
    /// When it has to have done so; of the classic protocol: have rejoined or synced.
    pub revoke_by: Option<Elapsed>,
    /// Of a member of the classic protocol.
    pub classic: Option<ClassicSide>,
    /// Moves with everything it does that changes something.
    pub touched: u64,
}

/// What is known only of members of the classic protocol.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassicSide {
    /// Milliseconds without a sign of life until it is expired.
    pub session_timeout_ms: u32,
    /// Assignors, the preferred first, with its metadata; names are distinct.
    pub protocols: Arc<[(String, Bytes)]>,
    /// Its last join; `None` for one that joined when the group was a classic one.
    pub request: Option<RequestId>,
}

/// Where a member is on its way to its target, by Kafka's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has the target of its epoch.
    #[default]
    Stable,
    /// It has to give up partitions before it gets to the next epoch.
    UnrevokedPartitions,
    /// It waits for partitions that others have to give up.
    UnreleasedPartitions,
}

impl Default for ConsumerMember {
    fn default() -> Self {
        Self {
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            subscribed: Arc::default(),
            regex: None,
            assignor: None,
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Arc::default(),
            revoking: Arc::default(),
            revoke_by: None,
            classic: None,
            touched: 0,
        }
    }
}

impl ConsumerMember {
    /// Whether it has the target of this epoch.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// What it holds or has to give up.
    fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.assigned.keys().chain(self.revoking.keys()).copied()
    }
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new(wall: WallTime) -> Self {
        Self {
            epoch: 1,
            assignment_epoch: 0,
            assigned_at: None,
            empty_since: Some(wall),
            topics: Arc::default(),
            expressions: Map::new_sync(),
            catalog_seen: 0,
            is_stale: false,
            members: Map::new_sync(),
            targets: Map::new_sync(),
            owners: Map::new_sync(),
            instances: Map::new_sync(),
            deadlines: Set::new_sync(),
        }
    }

    /// Where it is on its way to the next assignment.
    pub fn state(&self) -> GroupState {
        if self.members.is_empty() {
            return GroupState::Empty;
        }
        if self.assignment_epoch < self.epoch {
            return GroupState::Assigning;
        }
        let is_there =
            |member: &Arc<ConsumerMember>| member.is_reconciled_to(self.assignment_epoch);
        if self.members.values().all(is_there) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Puts a member in, or in the place of what it was.
    pub fn put_member(&mut self, id: &MemberId, member: ConsumerMember) {
        if let Some(before) = self.members.get(id).cloned() {
            self.forget_derived(id, &before);
        }
        for partition in member.partitions() {
            self.owners.insert_mut(partition, id.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert_mut(instance.clone(), id.clone());
        }
        if let Some(deadline) = member.revoke_by {
            self.deadlines.insert_mut((deadline, id.clone()));
        }
        self.members.insert_mut(id.clone(), Arc::new(member));
        self.empty_since = None;
    }

    /// Takes a member out, with its target.
    pub fn take_member(&mut self, id: &MemberId, wall: WallTime) -> Option<Arc<ConsumerMember>> {
        let member = self.members.get(id)?.clone();
        self.forget_derived(id, &member);
        if planted::is(Bug::FencedKeepsPartitions) {
            for partition in member.partitions() {
                self.owners.insert_mut(partition, id.clone());
            }
        }
        self.members.remove_mut(id);
        self.targets.remove_mut(id);
        if self.members.is_empty() {
            self.empty_since = Some(wall);
        }
        Some(member)
    }

    fn forget_derived(&mut self, id: &MemberId, member: &ConsumerMember) {
        for partition in member.partitions() {
            if self.owners.get(&partition) == Some(id) {
                self.owners.remove_mut(&partition);
            }
        }
        if let Some(instance) = &member.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove_mut(instance);
        }
        if let Some(deadline) = member.revoke_by {
            self.deadlines.remove_mut(&(deadline, id.clone()));
        }
    }

    /// What a member shall hold; nothing for who joined since.
    pub fn target_of(&self, id: &MemberId) -> Arc<Target> {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// When somebody's time for giving up partitions ends first.
    pub fn next_deadline(&self) -> Option<Elapsed> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// Partitions by topic, both ascending.
pub(crate) fn by_topic(partitions: impl Iterator<Item = TopicPartition>) -> Vec<AssignedTopic> {
    let mut topics: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
    for TopicPartition { topic, partition } in partitions {
        topics.entry(topic).or_default().push(partition);
    }
    topics.into_iter().map(|(topic, partitions)| AssignedTopic { topic, partitions }).collect()
}

/// The partitions of a list by topic.
pub(crate) fn flat(topics: &[AssignedTopic]) -> impl Iterator<Item = TopicPartition> + '_ {
    topics.iter().flat_map(|AssignedTopic { topic, partitions }| {
        partitions.iter().map(|partition| TopicPartition { topic: *topic, partition: *partition })
    })
}
