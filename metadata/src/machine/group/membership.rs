//! Who is in: joining, leaving and being expired. Follows Kafka's `GroupMetadataManager`.
//!
//! # Invariants
//! - A join is identified by its request: one that was applied is answered, not applied again.
//! - A static member's instance is held by one member id at a time; the previous one is fenced.

use super::{
    MEMBER_JOIN_TIMEOUT_MS, PENDING_MEMBERS_MAX,
    command::{Join, LeavingMember, Progress},
    state::{Group, Member, Moment, PendingMember, Phase, distinct_protocols},
    types::{GroupRejected, JoinResult, JoinedMember, MemberId},
};

/// What a join comes to.
type JoinAnswer = Result<Progress<JoinResult>, GroupRejected>;

impl Group {
    /// A member joins or rejoins.
    pub fn join(&mut self, join: &Join, moment: &mut Moment) -> JoinAnswer {
        if let Some(answer) = self.answer_repeated(join) {
            return answer;
        }
        if !self.has_room_for(&join.member, moment) {
            if self.remove_member(&join.member).is_some() {
                self.changed(moment);
                self.complete_join_if_all_joined(moment);
            }
            return Err(GroupRejected::GroupFull);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return Err(GroupRejected::InconsistentProtocol);
        }
        if join.member.is_empty() {
            self.join_unknown(join, moment)
        } else {
            self.join_known(join, moment)
        }
    }

    /// The answer to a join that was applied before, or that a later one overtook.
    fn answer_repeated(&self, join: &Join) -> Option<JoinAnswer> {
        let id = if !join.member.is_empty() {
            &join.member
        } else if let Some(instance) = &join.instance {
            self.instances.get(instance)?
        } else {
            &join.proposed_member
        };
        if join.member.is_empty()
            && let Some(pending) = self.pending.get(id)
            && pending.request == join.request
        {
            return Some(Err(GroupRejected::MemberIdRequired(id.clone())));
        }
        let member = self.members.get(id)?;
        if member.request == join.request {
            return Some(self.join_progress(id));
        }
        let overtaken = member.request.session == join.request.session
            && member.request.number > join.request.number;
        overtaken.then_some(Err(GroupRejected::RebalanceInProgress))
    }

    /// Kafka's `acceptJoiningMember`: in the join phase those count that wait already.
    fn has_room_for(&self, id: &MemberId, moment: &Moment) -> bool {
        let size_max = usize::try_from(moment.limits().max_size).unwrap_or(usize::MAX);
        match &self.phase {
            Phase::Empty { .. } => true,
            Phase::PreparingRebalance(preparing) => {
                preparing.joined.contains(id) || preparing.joined.size() < size_max
            }
            Phase::CompletingRebalance(_) | Phase::Stable { .. } => {
                self.members.contains_key(id) || self.members.size() < size_max
            }
        }
    }

    /// A join without a member id.
    fn join_unknown(&mut self, join: &Join, moment: &mut Moment) -> JoinAnswer {
        let id = &join.proposed_member;
        if let Some(instance) = &join.instance {
            return match self.instances.get(instance).cloned() {
                Some(holder) => self.replace_static_member(&holder, join, moment),
                None => self.add_member(id, join, moment),
            };
        }
        if !join.require_known_member {
            return self.add_member(id, join, moment);
        }
        if id.is_empty() {
            return Err(GroupRejected::UnknownMember);
        }
        if !self.members.contains_key(id) {
            if self.pending.size() >= PENDING_MEMBERS_MAX {
                return Err(GroupRejected::GroupFull);
            }
            let deadline = moment.now.plus_millis(u64::from(join.session_timeout_ms));
            let pending = PendingMember { deadline, request: join.request };
            self.pending.insert_mut(id.clone(), pending);
        }
        Err(GroupRejected::MemberIdRequired(id.clone()))
    }

    /// A join with a member id.
    fn join_known(&mut self, join: &Join, moment: &mut Moment) -> JoinAnswer {
        let id = &join.member;
        if self.pending.contains_key(id) && join.instance.is_none() {
            return self.add_member(id, join, moment);
        }
        self.validate_member(id, join.instance.as_deref())?;
        let protocols = distinct_protocols(join);
        let unchanged = self.members.get(id).is_some_and(|known| known.protocols == protocols);
        let keeps_generation = match &self.phase {
            Phase::Empty { .. } => return Err(GroupRejected::UnknownMember),
            Phase::PreparingRebalance(_) => false,
            // It may not have received the answer to its join.
            Phase::CompletingRebalance(_) => unchanged,
            // A leader that rejoins wants to assign again, for reasons of its own.
            Phase::Stable { .. } => unchanged && self.leader.as_ref() != Some(id),
        };
        if keeps_generation {
            self.note_join(id, join, moment);
            return self.join_progress(id);
        }
        self.update_member(id, join, moment);
        self.rejoin(id, moment);
        self.join_progress(id)
    }

    /// Adds a member under a new id.
    fn add_member(&mut self, id: &MemberId, join: &Join, moment: &mut Moment) -> JoinAnswer {
        if id.is_empty() || self.members.contains_key(id) {
            return Err(GroupRejected::UnknownMember);
        }
        let order = moment.count();
        let member = new_member(join, order);
        self.insert_member(id.clone(), member, &join.protocol_type);
        if let Phase::PreparingRebalance(preparing) = &mut self.phase
            && let Some(initial) = &mut preparing.initial
        {
            initial.newcomer = true;
        }
        self.rejoin(id, moment);
        self.join_progress(id)
    }

    /// A static member came back without its id: it takes over its instance's place. A stable
    /// group goes on as it was, unless its protocol would change.
    fn replace_static_member(
        &mut self,
        holder: &MemberId,
        join: &Join,
        moment: &mut Moment,
    ) -> JoinAnswer {
        let id = &join.proposed_member;
        if id.is_empty() || self.members.contains_key(id) || self.pending.contains_key(id) {
            return Err(GroupRejected::UnknownMember);
        }
        let Some(previous) = self.members.get(holder).cloned() else {
            return Err(GroupRejected::UnknownMember);
        };
        self.rename_member(holder, id, previous);
        self.update_member(id, join, moment);
        self.changed(moment);
        match &self.phase {
            Phase::Stable { .. } if self.protocol == self.select_protocol() => {
                let leads = self.leader.as_ref() == Some(id);
                if let Some(member) = self.members.get_mut(id) {
                    member.skip_assignment = leads;
                }
            }
            _ => self.rejoin(id, moment),
        }
        self.join_progress(id)
    }

    /// Moves everything of a static member to its new id.
    fn rename_member(&mut self, from: &MemberId, to: &MemberId, mut member: Member) {
        if let Some(instance) = &member.instance {
            self.instances.insert_mut(instance.clone(), to.clone());
        }
        member.replaced = Some(from.clone());
        member.is_new = false;
        self.members.remove_mut(from);
        self.members.insert_mut(to.clone(), member);
        if self.leader.as_ref() == Some(from) {
            self.leader = Some(to.clone());
        }
        match &mut self.phase {
            Phase::Empty { .. } | Phase::CompletingRebalance(_) => {}
            Phase::PreparingRebalance(preparing) => {
                preparing.joined.remove_mut(from);
            }
            Phase::Stable { assignments, syncing } => {
                if let Some(assignment) = assignments.get(from).cloned() {
                    assignments.remove_mut(from);
                    assignments.insert_mut(to.clone(), assignment);
                }
                if let Some(syncing) = syncing
                    && syncing.unsynced.remove_mut(from)
                {
                    syncing.unsynced.insert_mut(to.clone());
                }
            }
        }
    }

    /// Takes over what a rejoining member says of itself.
    fn update_member(&mut self, id: &MemberId, join: &Join, moment: &mut Moment) {
        self.note_join(id, join, moment);
        let Some(member) = self.members.get_mut(id) else { return };
        let previous = std::mem::replace(&mut member.protocols, distinct_protocols(join));
        let present = member.protocols.clone();
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.discount_support(&previous);
        self.count_support(&present);
    }

    /// Remembers a member's last join.
    fn note_join(&mut self, id: &MemberId, join: &Join, moment: &mut Moment) {
        if let Some(member) = self.members.get_mut(id) {
            member.request = join.request;
            member.skip_assignment = false;
            member.touched = moment.count();
        }
    }

    /// What became of a member's join.
    pub fn join_progress(&self, id: &MemberId) -> JoinAnswer {
        let Some(member) = self.members.get(id) else { return Err(self.gone(id)) };
        match &self.phase {
            Phase::PreparingRebalance(preparing) if preparing.joined.contains(id) => {
                Ok(Progress::Pending { member: id.clone(), version: self.version })
            }
            // Its join was completed and the next rebalance began before it heard of that. The
            // last generation's answer makes it sync, which tells it to rejoin.
            _ => Ok(Progress::Ready(self.join_result(id, member))),
        }
    }

    /// The present generation as a member sees it.
    fn join_result(&self, id: &MemberId, member: &Member) -> JoinResult {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let mut members = Vec::new();
        if leader == *id {
            members.extend(self.members.iter().map(|(other_id, other)| JoinedMember {
                member: other_id.clone(),
                instance: other.instance.clone(),
                metadata: other.metadata(&protocol),
            }));
        }
        JoinResult {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader,
            member: id.clone(),
            members,
            skip_assignment: member.skip_assignment,
        }
    }

    /// Members leave, each by its id, or a static one by its instance alone.
    pub fn leave(
        &mut self,
        members: &[LeavingMember],
        moment: &mut Moment,
    ) -> Vec<Result<(), GroupRejected>> {
        let version = self.version;
        let results = members.iter().map(|leaving| self.remove_leaving(leaving, moment)).collect();
        match &self.phase {
            Phase::Empty { .. } => {}
            Phase::PreparingRebalance(_) => self.complete_join_if_all_joined(moment),
            Phase::CompletingRebalance(_) | Phase::Stable { .. } => {
                if self.version != version {
                    self.prepare_rebalance(None, moment);
                }
            }
        }
        results
    }

    /// Removes one leaving member.
    fn remove_leaving(
        &mut self,
        leaving: &LeavingMember,
        moment: &mut Moment,
    ) -> Result<(), GroupRejected> {
        let id = if leaving.member.is_empty() {
            let instance = leaving.instance.as_ref();
            let holder = instance.and_then(|instance| self.instances.get(instance));
            holder.cloned().ok_or(GroupRejected::UnknownMember)?
        } else if self.pending.remove_mut(&leaving.member) {
            return Ok(());
        } else {
            self.validate_member(&leaving.member, leaving.instance.as_deref())?;
            leaving.member.clone()
        };
        self.remove_member(&id);
        self.changed(moment);
        Ok(())
    }

    /// Removes a member that was silent for its session timeout, unless it did something since,
    /// or waits for the group (a first join waits for a limited time only).
    pub fn expire_member(&mut self, id: &MemberId, judged: u64, moment: &mut Moment) {
        let Some(member) = self.members.get(id) else { return };
        if member.touched != judged || (self.awaits(id) && !member.is_new) {
            return;
        }
        self.remove_member(id);
        self.changed(moment);
        match &self.phase {
            Phase::Empty { .. } => {}
            Phase::PreparingRebalance(_) if self.all_joined() => self.complete_join(moment),
            Phase::PreparingRebalance(_) => {}
            Phase::CompletingRebalance(_) | Phase::Stable { .. } => {
                self.prepare_rebalance(None, moment);
            }
        }
    }

    /// Members whose silence counts, with their touch and the milliseconds they may be silent.
    pub fn watched_members(&self) -> impl Iterator<Item = (&MemberId, u64, u32)> {
        self.members.iter().filter_map(|(id, member)| match (self.awaits(id), member.is_new) {
            (true, false) => None,
            (true, true) => Some((id, member.touched, MEMBER_JOIN_TIMEOUT_MS)),
            (false, _) => Some((id, member.touched, member.session_timeout_ms)),
        })
    }
}

/// A member as its first join describes it.
fn new_member(join: &Join, order: u64) -> Member {
    Member {
        instance: join.instance.clone(),
        replaced: None,
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        session_timeout_ms: join.session_timeout_ms,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        protocols: distinct_protocols(join),
        request: join.request,
        touched: order,
        order,
        is_new: true,
        skip_assignment: false,
    }
}
