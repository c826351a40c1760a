//! Members of the classic protocol in a consumer group: they join, sync and go on by their own
//! requests, and the coordinator assigns to them as to the others. Follows Kafka's
//! `classicGroupJoinToConsumerGroup` and its like.
//!
//! # Invariants
//! - Who is told to rejoin, or has joined and not synced, has its rebalance timeout to do so.

use std::{collections::BTreeSet, sync::Arc};

use aquifer_storage::model::{PartitionIndex, TopicPartition};
use bytes::Bytes;

use super::{
    AssignedTopic,
    heartbeat::Context,
    protocol::{NamedPartitions, Subscription, encode_assignment},
    reconcile::{Goal, reconcile},
    state::{ClassicSide, ConsumerGroup, ConsumerMember, MemberState, by_topic},
};
use crate::machine::group::{
    command::{Join, Sync},
    state::{Moment, distinct_protocols},
    surroundings::Surroundings,
    types::{GenerationId, GroupRejected, JoinResult, MemberId, SyncResult},
};

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// What a join comes to. Nothing waits here.
type Joined = Result<JoinResult, GroupRejected>;

impl ConsumerGroup {
    /// A member of the classic protocol joins or rejoins.
    pub fn join(&mut self, join: &Join, context: &Context<'_>, moment: &mut Moment) -> Joined {
        if let Some((id, member)) = self.repeated(join) {
            return Ok(join_result(id, member));
        }
        if self.members.is_empty() {
            // Who comes without an id finds the group a classic one again.
            return Err(GroupRejected::UnknownMember);
        }
        if !context.settings.allows_classic {
            return Err(GroupRejected::InconsistentProtocol);
        }
        let is_full = context.settings.max_size <= self.members.size();
        if is_full && !self.members.contains_key(&join.member) {
            return Err(GroupRejected::GroupFull);
        }
        let protocols = distinct_protocols(join);
        let subscription =
            protocols.first().and_then(|(_, bytes)| Subscription::decode(bytes.clone()));
        let speaks = join.protocol_type == CONSUMER && self.speaks_with(&protocols);
        let subscription = subscription.filter(|_| speaks);
        let subscription = subscription.ok_or(GroupRejected::InconsistentProtocol)?;
        let (id, before) = self.admit_classic(join, moment)?;
        let mut updated = ConsumerMember {
            instance: join.instance.clone().or_else(|| before.instance.clone()),
            rack: subscription.rack.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            subscribed: Arc::new(subscription.topics.iter().cloned().collect()),
            regex: None,
            classic: Some(ClassicSide {
                session_timeout_ms: join.session_timeout_ms,
                protocols,
                request: Some(join.request),
            }),
            touched: moment.count(),
            ..before.clone()
        };
        updated.revoke_by = None;
        let is_new = before.subscribed != updated.subscribed || before.regex.is_some();
        self.put_member(&id, updated.clone());
        self.renew(is_new, context, moment);
        self.share_with(&id, &mut updated);
        let owned = owned(&subscription.owned, context.surroundings);
        let target = self.target_of(&id);
        let goal = Goal {
            epoch: self.assignment_epoch,
            target: &target,
            subscribed: &self.topics_of(&updated, context.surroundings),
            has_new_subscription: is_new,
            owned: Some(&owned),
            is_free: &|partition| self.owners.get(&partition).is_none_or(|owner| *owner == id),
        };
        let mut member = reconcile(&updated, &goal);
        member.revoke_by = Some(deadline(&member, moment));
        let result = join_result(&id, &member);
        self.put_member(&id, member);
        Ok(result)
    }

    /// The member whose join this is again.
    fn repeated(&self, join: &Join) -> Option<(&MemberId, &ConsumerMember)> {
        let id = if !join.member.is_empty() {
            &join.member
        } else if let Some(instance) = &join.instance {
            self.instances.get(instance)?
        } else {
            &join.proposed_member
        };
        let (id, member) = self.members.get_key_value(id)?;
        let is_known = member.classic.as_ref()?.request == Some(join.request);
        is_known.then_some((id, member.as_ref()))
    }

    /// Whether all members of the classic protocol speak one of these.
    fn speaks_with(&self, protocols: &[(String, Bytes)]) -> bool {
        let speaks = |member: &ConsumerMember, name: &String| {
            let classic = member.classic.as_ref();
            classic.is_none_or(|classic| classic.protocols.iter().any(|(own, _)| own == name))
        };
        protocols.iter().any(|(name, _)| self.members.values().all(|member| speaks(member, name)))
    }

    /// The id a member joins with and what it was before.
    fn admit_classic(
        &mut self,
        join: &Join,
        moment: &Moment,
    ) -> Result<(MemberId, ConsumerMember), GroupRejected> {
        let is_unknown = join.member.is_empty();
        let id = if is_unknown { &join.proposed_member } else { &join.member };
        if id.is_empty() {
            return Err(GroupRejected::UnknownMember);
        }
        let known = || self.members.get(id).map(|member| (**member).clone());
        let Some(instance) = &join.instance else {
            if is_unknown && join.require_known_member {
                return Err(GroupRejected::MemberIdRequired(id.clone()));
            }
            return Ok((id.clone(), known().unwrap_or_default()));
        };
        match self.instances.get(instance).cloned() {
            None if is_unknown => Ok((id.clone(), known().unwrap_or_default())),
            None => Err(GroupRejected::UnknownMember),
            Some(holder) if holder == *id => Ok((id.clone(), known().unwrap_or_default())),
            Some(_) if !is_unknown => Err(GroupRejected::FencedInstance),
            Some(holder) => {
                let before = ConsumerMember::clone(&self.members[&holder]);
                self.replace_member(&holder, id, moment);
                Ok((id.clone(), ConsumerMember { epoch: 0, previous_epoch: 0, ..before }))
            }
        }
    }

    /// The member a classic request is of.
    fn classic_member(
        &self,
        id: &MemberId,
        instance: Option<&str>,
        generation: GenerationId,
    ) -> Result<(&ConsumerMember, &ClassicSide), GroupRejected> {
        if let Some(instance) = instance {
            let holder = self.instances.get(instance).ok_or(GroupRejected::UnknownMember)?;
            if holder != id {
                return Err(GroupRejected::FencedInstance);
            }
        }
        let member = self.members.get(id).ok_or(GroupRejected::UnknownMember)?;
        let classic = member.classic.as_ref().ok_or(GroupRejected::UnknownMember)?;
        if member.epoch != generation.value() {
            return Err(GroupRejected::IllegalGeneration);
        }
        Ok((member, classic))
    }

    /// What became of a join; who was converted while it waited shall rejoin.
    pub fn join_progress(&self, id: &MemberId) -> Joined {
        let member = self.members.get(id).ok_or(GroupRejected::UnknownMember)?;
        let joined = member.classic.as_ref().is_some_and(|classic| classic.request.is_some());
        if joined { Ok(join_result(id, member)) } else { Err(GroupRejected::RebalanceInProgress) }
    }

    /// A member asks for its assignment.
    pub fn sync(
        &mut self,
        sync: &Sync,
        surroundings: &dyn Surroundings,
        moment: &mut Moment,
    ) -> Result<SyncResult, GroupRejected> {
        let instance = sync.instance.as_deref();
        let (member, classic) = self.classic_member(&sync.member, instance, sync.generation)?;
        let (name, _) = classic.protocols.first().ok_or(GroupRejected::InconsistentProtocol)?;
        let differs =
            |named: &Option<String>, own: &str| named.as_deref().is_some_and(|n| n != own);
        if differs(&sync.protocol_type, CONSUMER) || differs(&sync.protocol, name) {
            return Err(GroupRejected::InconsistentProtocol);
        }
        let result = self.synced(member, classic, surroundings)?;
        // Who has to give something up is not done with its assignment: it comes again.
        let revokes = member.state == MemberState::UnrevokedPartitions;
        let revoke_by = revokes.then(|| deadline(member, moment));
        let member = ConsumerMember { revoke_by, touched: moment.count(), ..member.clone() };
        self.put_member(&sync.member, member);
        Ok(result)
    }

    /// What a sync would be answered.
    pub fn sync_progress(
        &self,
        id: &MemberId,
        generation: GenerationId,
        surroundings: &dyn Surroundings,
    ) -> Result<SyncResult, GroupRejected> {
        let (member, classic) = self.classic_member(id, None, generation)?;
        self.synced(member, classic, surroundings)
    }

    fn synced(
        &self,
        member: &ConsumerMember,
        classic: &ClassicSide,
        surroundings: &dyn Surroundings,
    ) -> Result<SyncResult, GroupRejected> {
        let revokes = member.state == MemberState::UnrevokedPartitions;
        if member.epoch < self.assignment_epoch && !revokes {
            return Err(GroupRejected::RebalanceInProgress);
        }
        let protocol = classic.protocols.first().map(|(name, _)| name.clone());
        Ok(SyncResult {
            protocol_type: CONSUMER.to_owned(),
            protocol: protocol.unwrap_or_default(),
            assignment: classic_assignment(member, classic, surroundings),
        })
    }

    /// Whether a member may go on: not when it has to come for another assignment.
    pub fn classic_heartbeat(
        &self,
        id: &MemberId,
        instance: Option<&str>,
        generation: GenerationId,
    ) -> Result<(), GroupRejected> {
        let (member, _) = self.classic_member(id, instance, generation)?;
        let shall_rejoin = member.epoch < self.assignment_epoch
            || match member.state {
                MemberState::Stable => false,
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !self.waits_for_others(id, member),
            };
        if shall_rejoin { Err(GroupRejected::RebalanceInProgress) } else { Ok(()) }
    }

    /// Whether something that the member shall hold is still somebody else's.
    fn waits_for_others(&self, id: &MemberId, member: &ConsumerMember) -> bool {
        let target = self.target_of(id);
        let mut missing = target.iter().filter(|one| !member.assigned.contains_key(one));
        missing.any(|partition| self.owners.contains_key(partition))
    }

    /// Whether everybody left speaks the classic protocol.
    pub fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }
}

/// When a member has to have rejoined or synced.
pub(super) fn deadline(member: &ConsumerMember, moment: &Moment) -> crate::machine::Elapsed {
    moment.now.plus_millis(member.rebalance_timeout_ms.max(1).into())
}

fn join_result(id: &MemberId, member: &ConsumerMember) -> JoinResult {
    let classic = member.classic.as_ref();
    let protocol = classic.and_then(|classic| classic.protocols.first());
    JoinResult {
        generation: GenerationId::new(member.epoch),
        protocol_type: CONSUMER.to_owned(),
        protocol: protocol.map(|(name, _)| name.clone()).unwrap_or_default(),
        leader: MemberId::default(),
        member: id.clone(),
        members: Vec::new(),
        skip_assignment: false,
    }
}

/// A member's assignment as its client reads it.
pub(super) fn classic_assignment(
    member: &ConsumerMember,
    classic: &ClassicSide,
    surroundings: &dyn Surroundings,
) -> Bytes {
    let subscription = classic.protocols.first();
    let subscription = subscription.and_then(|(_, bytes)| Subscription::decode(bytes.clone()));
    let named: NamedPartitions = by_topic(member.assigned.keys().copied())
        .into_iter()
        .filter_map(|AssignedTopic { topic, partitions }| {
            let indexes = partitions.iter().map(|partition| partition.value());
            Some((surroundings.name_of(topic)?, indexes.collect()))
        })
        .collect();
    encode_assignment(subscription.map_or(0, |subscription| subscription.version), &named)
}

/// Partitions by the ids of their topics, of those that exist.
pub(super) fn owned(
    named: &NamedPartitions,
    surroundings: &dyn Surroundings,
) -> Vec<AssignedTopic> {
    let partitions: BTreeSet<TopicPartition> = named
        .iter()
        .filter_map(|(name, indexes)| Some((surroundings.topic(name)?.0, indexes)))
        .flat_map(|(topic, indexes)| {
            indexes
                .iter()
                .map(move |index| TopicPartition { topic, partition: PartitionIndex::new(*index) })
        })
        .collect();
    by_topic(partitions.into_iter())
}
