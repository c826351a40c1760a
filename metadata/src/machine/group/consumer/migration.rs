//! Groups that change their protocol while members are in: to the consumer protocol when the first
//! member of it comes, and back when the last one goes (`group.consumer.migration.policy`).

use std::sync::Arc;

use aquifer_storage::model::SessionId;
use bytes::Bytes;
use rpds::RedBlackTreeMapSync as Map;

use super::{
    classic::{CONSUMER, classic_assignment, owned},
    command::ConsumerRejected,
    heartbeat::Context,
    protocol::{Subscription, decode_assignment},
    refusal,
    state::{ClassicSide, ConsumerGroup, ConsumerMember, Owned, Target, flat},
};
use crate::machine::group::{
    command::RequestId,
    state::{Group, Member, Moment, Phase},
    types::GenerationId,
};

impl Group {
    /// The group with its members as a consumer group.
    ///
    /// # Errors
    /// Upgrades are off, the members speak something else than Kafka's consumers do, or they are
    /// rebalancing: what each of them still reads is known of a stable group only.
    pub(super) fn upgraded(
        &self,
        context: &Context<'_>,
        moment: &Moment,
    ) -> Result<ConsumerGroup, ConsumerRejected> {
        let refuse = |reason: &str| Err(refusal::no_upgrade(context.name, reason));
        if !context.settings.allows_upgrade {
            return refuse("online upgrade is disabled");
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return refuse("the group does not use the consumer embedded protocol");
        }
        if context.settings.max_size < self.members.size() {
            return refuse("the group size exceeds the consumer group maximum size");
        }
        let assignments = match &self.phase {
            Phase::Stable { assignments, .. } => Some(assignments),
            Phase::Empty { .. } | Phase::PreparingRebalance(_) | Phase::CompletingRebalance(_) => {
                None
            }
        };
        let mut group = ConsumerGroup::new(moment.wall);
        let epoch = self.generation.value();
        (group.epoch, group.assignment_epoch) = (epoch, epoch);
        for (id, member) in self.members.iter() {
            let given = assignments.and_then(|all| all.get(id)).cloned().unwrap_or_default();
            let Some((converted, has_own)) = self.converted(member, given, &group, context) else {
                return refuse("the embedded consumer protocol is malformed");
            };
            if has_own {
                return refuse(
                    "an unsupported custom assignor is in use. Please refer to the documentation \
                     or switch to a default assignor before re-attempting the upgrade",
                );
            }
            let target: Target = converted.assigned.keys().copied().collect();
            group.targets.insert_mut(id.clone(), Arc::new(target));
            group.put_member(id, converted);
        }
        if assignments.is_none() {
            return Err(refusal::not_stable(context.name));
        }
        group.refresh(context.catalog, context.surroundings);
        Ok(group)
    }

    /// A member as one of a consumer group; whether its assignor told it something of its own.
    fn converted(
        &self,
        member: &Member,
        given: Bytes,
        group: &ConsumerGroup,
        context: &Context<'_>,
    ) -> Option<(ConsumerMember, bool)> {
        let (given, has_own) = decode_assignment(given)?;
        let name = self.protocol.as_ref().or(member.protocols.first().map(|(name, _)| name))?;
        let subscription = Subscription::decode(member.metadata(name))?;
        let given = owned(&given, context.surroundings);
        // An assignor of a client may have given a partition twice.
        let free = flat(&given).filter(|partition| !group.owners.contains_key(partition));
        let epoch = self.generation.value();
        let assigned: Owned = free.map(|partition| (partition, epoch)).collect();
        let converted = ConsumerMember {
            instance: member.instance.clone(),
            rack: subscription.rack,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            subscribed: Arc::new(subscription.topics.into_iter().collect()),
            epoch,
            previous_epoch: epoch,
            assigned: Arc::new(assigned),
            classic: Some(ClassicSide {
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
                request: None,
            }),
            touched: member.touched,
            ..ConsumerMember::default()
        };
        Some((converted, has_own))
    }

    /// Goes back to the classic protocol once only members of it are left; they rejoin.
    pub fn downgrade_if_classic(&mut self, context: &Context<'_>, moment: &mut Moment) {
        let Some(group) = self.consumer.as_ref().filter(|group| group.is_all_classic()) else {
            return;
        };
        let size_max = usize::try_from(moment.settings.max_size).unwrap_or(usize::MAX);
        if !context.settings.allows_downgrade || size_max < group.members.size() {
            return;
        }
        let group = group.clone();
        let offsets = self.offsets.clone();
        *self = Self { version: self.version, offsets, ..Self::default() };
        // That of the members: what made a new epoch necessary is the rebalance that begins here.
        self.generation = GenerationId::new(group.assignment_epoch);
        let mut assignments = Map::new_sync();
        for (id, member) in group.members.iter() {
            let Some(classic) = &member.classic else { continue };
            let assignment = classic_assignment(member, classic, context.surroundings);
            assignments.insert_mut(id.clone(), assignment);
            self.insert_member(id.clone(), classic_member(member, classic, moment), CONSUMER);
        }
        self.protocol = self.select_protocol();
        self.phase = Phase::Stable { assignments, syncing: None };
        self.prepare_rebalance(None, moment);
    }
}

fn classic_member(member: &ConsumerMember, classic: &ClassicSide, moment: &mut Moment) -> Member {
    let order = moment.count();
    let none = RequestId { session: SessionId::new(0), number: 0 };
    Member {
        instance: member.instance.clone(),
        replaced: None,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms: classic.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocols: classic.protocols.clone(),
        request: classic.request.unwrap_or(none),
        touched: order,
        order,
        is_new: false,
        skip_assignment: false,
    }
}
