//! A member joins, goes on or leaves. Follows Kafka's `GroupMetadataManager`.
//!
//! The same steps answer a heartbeat that changes nothing without an entry of the log: what would
//! change something is found out before it is done.
//!
//! # Invariants
//! - A refused heartbeat changes nothing.
//! - A `group.instance.id` is held by one member; another one gets it when that one is away.

use std::{collections::BTreeSet, sync::Arc};

use aquifer_storage::planted::{self, Bug};

use super::{
    AssignedTopic, MemberEpoch,
    command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
    re2,
    reconcile::{Goal, reconcile},
    refusal,
    settings::ConsumerSettings,
    state::{ConsumerGroup, ConsumerMember, MemberState, by_topic, flat},
    subscription::EXPRESSIONS_MAX,
};
use crate::machine::group::{
    command::LeavingMember,
    state::Moment,
    surroundings::Surroundings,
    types::{GroupRejected, GroupState, MemberId},
};

/// What a heartbeat comes to.
pub(crate) type Answer = Result<ConsumerHeartbeatResult, ConsumerRejected>;

/// A refusal that does not happen often enough to be kept small.
type Checked<T> = Result<T, ConsumerRejected>;

/// Milliseconds between heartbeats of a member that waits for others, in a small group.
const WAITING_INTERVAL_MS: u32 = 200;

/// The same in the largest groups.
const WAITING_INTERVAL_MAX_MS: u32 = 500;

/// The group a heartbeat goes to, and what it goes by.
pub(crate) struct Context<'a> {
    /// The group's id.
    pub name: &'a str,
    /// Its configs.
    pub settings: ConsumerSettings,
    /// Topics and configs.
    pub surroundings: &'a dyn Surroundings,
    /// The catalog's version.
    pub catalog: u64,
    /// Members of all consumer groups.
    pub members: usize,
}

/// Who a heartbeat is from.
struct Admitted {
    /// The member as it was; a new one has nothing.
    before: ConsumerMember,
    /// The member whose instance it takes over.
    replaces: Option<MemberId>,
}

impl ConsumerGroup {
    /// Applies a heartbeat of a member that joins or goes on.
    pub fn heartbeat(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
        context: &Context<'_>,
        moment: &mut Moment,
    ) -> Answer {
        let id = &heartbeat.member;
        let Admitted { before, replaces } = self.admit(heartbeat, context)?;
        let mut updated = updated(&before, heartbeat);
        let is_new_regex = before.regex != updated.regex;
        if is_new_regex && let Some(regex) = &updated.regex {
            self.check_regex(regex)?;
        }
        if let Some(old) = replaces {
            self.replace_member(&old, id, moment);
        }
        let has_new_subscription = is_new_regex || before.subscribed != updated.subscribed;
        updated.touched = moment.count();
        self.put_member(id, updated.clone());
        if let Some(regex) = &updated.regex {
            self.resolve(regex, context.surroundings);
        }
        self.renew(has_new_subscription, context, moment);
        self.share_with(id, &mut updated);
        let mut member = self.step(&updated, heartbeat, has_new_subscription, context);
        // A member that was of the classic protocol has no deadline of this one yet.
        if member != updated || before.classic.is_some() {
            let deadline = moment.now.plus_millis(member.rebalance_timeout_ms.max(1).into());
            let revokes = member.state == MemberState::UnrevokedPartitions;
            member.revoke_by = revokes.then_some(deadline);
            self.put_member(id, member.clone());
        }
        Ok(self.answer(heartbeat, &before, &member, context))
    }

    /// Looks again at topics and expressions where that is necessary, and assigns if it may.
    pub(super) fn renew(
        &mut self,
        has_new_subscription: bool,
        context: &Context<'_>,
        moment: &Moment,
    ) {
        if has_new_subscription {
            self.need_assignment();
        }
        if self.catalog_seen != context.catalog {
            let was_stale = self.is_stale;
            let changed = self.refresh(context.catalog, context.surroundings);
            if changed && !was_stale {
                self.bump_epoch();
            }
        }
        if self.may_assign(context, moment) {
            if self.is_stale {
                self.refresh(context.catalog, context.surroundings);
            }
            self.assign(context, moment);
        }
    }

    /// The answer to a heartbeat that changes nothing; `None` for one that does.
    pub fn ask(&self, heartbeat: &ConsumerHeartbeat, context: &Context<'_>) -> Option<Answer> {
        if heartbeat.epoch <= MemberEpoch::JOINS {
            return None;
        }
        let before = match self.admit(heartbeat, context) {
            Ok(admitted) => admitted.before,
            Err(rejected) => return Some(Err(rejected)),
        };
        let is_current =
            self.catalog_seen == context.catalog && self.assignment_epoch == self.epoch;
        if !is_current || updated(&before, heartbeat) != before {
            return None;
        }
        if self.step(&before, heartbeat, false, context) != before {
            return None;
        }
        Some(Ok(self.answer(heartbeat, &before, &before, context)))
    }

    /// Who the heartbeat is from, unless it may not be.
    fn admit(&self, heartbeat: &ConsumerHeartbeat, context: &Context<'_>) -> Checked<Admitted> {
        let id = &heartbeat.member;
        let joins = heartbeat.epoch == MemberEpoch::JOINS;
        if context.settings.max_size <= self.members.size() && !self.members.contains_key(id) {
            return Err(refusal::full(context.settings.max_size));
        }
        let new = Admitted { before: ConsumerMember::default(), replaces: None };
        let Some(instance) = &heartbeat.instance else {
            let Some(member) = self.members.get(id) else {
                return if joins {
                    Ok(new)
                } else {
                    Err(refusal::unknown_member(id, context.name))
                };
            };
            check_epoch(member, heartbeat)?;
            return Ok(Admitted { before: (**member).clone(), replaces: None });
        };
        let Some(holder) = self.instances.get(instance) else {
            if !joins {
                return Err(refusal::unknown_instance(instance));
            }
            let known = self.members.get(id).map(|member| (**member).clone());
            return Ok(Admitted { before: known.unwrap_or_default(), replaces: None });
        };
        let member = &self.members[holder];
        if joins {
            let is_away = member.epoch == MemberEpoch::LEAVES_FOR_A_WHILE.value();
            if !is_away && member.classic.is_none() {
                return Err(refusal::unreleased(id, instance, holder));
            }
            let before = ConsumerMember { epoch: 0, previous_epoch: 0, ..(**member).clone() };
            return Ok(Admitted { before, replaces: Some(holder.clone()) });
        }
        if holder != id {
            return Err(refusal::fenced(id, instance, holder));
        }
        check_epoch(member, heartbeat)?;
        Ok(Admitted { before: (**member).clone(), replaces: None })
    }

    /// An expression is judged when its first member comes with it.
    fn check_regex(&self, regex: &str) -> Checked<()> {
        if self.expressions.contains_key(regex) {
            return Ok(());
        }
        if EXPRESSIONS_MAX <= self.expressions.size() {
            return Err(refusal::regex(regex, "the group has too many others"));
        }
        re2::compile(regex).map(drop).map_err(|reason| refusal::regex(regex, reason))
    }

    /// A static member is back under another id: what was its own still is.
    pub(super) fn replace_member(&mut self, old: &MemberId, id: &MemberId, moment: &Moment) {
        let target = self.target_of(old);
        self.take_member(old, moment.wall);
        if old != id {
            self.take_member(id, moment.wall);
        }
        self.targets.insert_mut(id.clone(), target);
    }

    /// The member after its next step.
    fn step(
        &self,
        member: &ConsumerMember,
        heartbeat: &ConsumerHeartbeat,
        has_new_subscription: bool,
        context: &Context<'_>,
    ) -> ConsumerMember {
        if !has_new_subscription && member.is_reconciled_to(self.assignment_epoch) {
            return member.clone(); // Most heartbeats.
        }
        let id = &heartbeat.member;
        let subscribed = self.topics_of(member, context.surroundings);
        let goal = Goal {
            epoch: self.assignment_epoch,
            target: &self.target_of(id),
            subscribed: &subscribed,
            has_new_subscription,
            owned: heartbeat.owned.as_deref(),
            is_free: &|partition| {
                self.owners.get(&partition).is_none_or(|owner| owner == id)
                    || planted::is(Bug::HeldPartitionGiven)
            },
        };
        reconcile(member, &goal)
    }

    fn answer(
        &self,
        heartbeat: &ConsumerHeartbeat,
        before: &ConsumerMember,
        member: &ConsumerMember,
        context: &Context<'_>,
    ) -> ConsumerHeartbeatResult {
        // One who says everything has to be told everything: it may not have got the last answer.
        let says_all = heartbeat.rebalance_timeout_ms.is_some()
            && (heartbeat.subscribed.is_some() || heartbeat.regex.is_some())
            && heartbeat.owned.is_some();
        let is_told =
            heartbeat.epoch == MemberEpoch::JOINS || says_all || before.assigned != member.assigned;
        let waits = member.state != MemberState::Stable || self.assignment_epoch < self.epoch;
        let mut heartbeat_interval_ms = context.settings.heartbeat_interval_ms(context.members);
        if waits {
            heartbeat_interval_ms = heartbeat_interval_ms.min(self.waiting_interval_ms());
        }
        ConsumerHeartbeatResult {
            member: heartbeat.member.clone(),
            epoch: MemberEpoch::new(member.epoch),
            heartbeat_interval_ms,
            assignment: is_told.then(|| by_topic(member.assigned.keys().copied())),
        }
    }

    /// Who waits for others, or for an assignment, asks more often.
    fn waiting_interval_ms(&self) -> u32 {
        let members = u32::try_from(self.members.size()).unwrap_or(u32::MAX);
        (members / 2).clamp(WAITING_INTERVAL_MS, WAITING_INTERVAL_MAX_MS)
    }

    /// A member leaves for good or, a static one, for a while.
    pub fn leave(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
        context: &Context<'_>,
        moment: &mut Moment,
    ) -> Answer {
        let id = &heartbeat.member;
        let Some(instance) = &heartbeat.instance else {
            if !self.members.contains_key(id) {
                return Err(refusal::unknown_member(id, context.name));
            }
            self.fence(id, moment);
            return Ok(gone(heartbeat));
        };
        let holder = self.instances.get(instance);
        let holder = holder.ok_or_else(|| refusal::unknown_instance(instance))?;
        if holder != id {
            return Err(refusal::fenced(id, instance, holder));
        }
        if heartbeat.epoch != MemberEpoch::LEAVES_FOR_A_WHILE {
            self.fence(id, moment);
            return Ok(gone(heartbeat));
        }
        let member = ConsumerMember::clone(&self.members[id]);
        let assigned = member.assigned.keys().map(|partition| (*partition, 0)).collect();
        let away = ConsumerMember {
            epoch: MemberEpoch::LEAVES_FOR_A_WHILE.value(),
            assigned: Arc::new(assigned),
            revoking: Arc::default(),
            revoke_by: None,
            ..member
        };
        self.put_member(id, away);
        Ok(gone(heartbeat))
    }

    /// Members are removed by a LeaveGroup, as operators do: whatever protocol they speak.
    pub fn leave_by_request(
        &mut self,
        members: &[LeavingMember],
        moment: &Moment,
    ) -> Vec<Result<(), GroupRejected>> {
        let mut gone = BTreeSet::new();
        let mut results = Vec::with_capacity(members.len());
        for leaving in members {
            let found = self.leaving(leaving);
            results.push(found.as_ref().map(drop).map_err(Clone::clone));
            gone.extend(found.ok());
        }
        for id in &gone {
            self.take_member(id, moment.wall);
        }
        if !gone.is_empty() {
            self.need_assignment();
        }
        results
    }

    /// The member that is to be removed.
    fn leaving(&self, leaving: &LeavingMember) -> Result<MemberId, GroupRejected> {
        let id = &leaving.member;
        let Some(instance) = &leaving.instance else {
            let is_in = self.members.contains_key(id);
            return if is_in { Ok(id.clone()) } else { Err(GroupRejected::UnknownMember) };
        };
        let holder = self.instances.get(instance).ok_or(GroupRejected::UnknownMember)?;
        if !id.is_empty() && holder != id {
            return Err(GroupRejected::FencedInstance);
        }
        Ok(holder.clone())
    }

    /// Takes a member out; what it held is free, and a new assignment is necessary.
    pub fn fence(&mut self, id: &MemberId, moment: &Moment) {
        self.take_member(id, moment.wall);
        self.need_assignment();
    }

    /// Takes a member out that was silent for its session timeout, unless it did something since.
    pub fn expire_member(&mut self, id: &MemberId, judged: u64, moment: &Moment) {
        let is_unchanged = self.members.get(id).is_some_and(|member| member.touched == judged);
        if is_unchanged && !planted::is(Bug::SilenceIgnored) {
            self.fence(id, moment);
        }
    }

    /// Takes those out whose time for giving up partitions is over.
    pub fn tick(&mut self, moment: &Moment) {
        while let Some((deadline, id)) = self.deadlines.first().cloned()
            && deadline <= moment.now
        {
            self.fence(&id, moment);
        }
    }

    /// Takes everybody out.
    pub fn expel_everybody(&mut self, moment: &Moment) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in &ids {
            self.take_member(id, moment.wall);
        }
        if !ids.is_empty() {
            self.need_assignment();
        }
    }

    /// Members are others, or read something else, than when the last assignment was made.
    fn need_assignment(&mut self) {
        self.is_stale = true;
        self.bump_epoch();
    }

    /// Makes a new assignment necessary.
    fn bump_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.state() == GroupState::Empty
    }
}

/// The member as the heartbeat describes it.
fn updated(before: &ConsumerMember, heartbeat: &ConsumerHeartbeat) -> ConsumerMember {
    let or = |said: &Option<String>, known: &Option<String>| said.clone().or_else(|| known.clone());
    let mut member = ConsumerMember {
        instance: or(&heartbeat.instance, &before.instance),
        rack: or(&heartbeat.rack, &before.rack),
        assignor: or(&heartbeat.assignor, &before.assignor),
        client_id: heartbeat.client_id.clone(),
        client_host: heartbeat.client_host.clone(),
        classic: None,
        ..before.clone()
    };
    if before.classic.is_some() {
        member.revoke_by = None;
    }
    if let Some(timeout_ms) = heartbeat.rebalance_timeout_ms {
        member.rebalance_timeout_ms = timeout_ms;
    }
    if let Some(names) = &heartbeat.subscribed {
        let names: BTreeSet<String> = names.iter().cloned().collect();
        if names != *before.subscribed {
            member.subscribed = Arc::new(names);
        }
    }
    if let Some(regex) = &heartbeat.regex {
        member.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
    }
    member
}

/// Refuses an epoch that is not the member's, except the one before while it holds nothing that it
/// was not given since: then the last answer did not reach it.
fn check_epoch(member: &ConsumerMember, heartbeat: &ConsumerHeartbeat) -> Checked<()> {
    let epoch = heartbeat.epoch.value();
    if epoch == 0 || epoch == member.epoch {
        return Ok(());
    }
    let holds_no_more = |owned: &Vec<AssignedTopic>| {
        flat(owned).all(|partition| member.assigned.contains_key(&partition))
    };
    let missed_one =
        epoch == member.previous_epoch && heartbeat.owned.as_ref().is_some_and(holds_no_more);
    if epoch < member.epoch && missed_one {
        return Ok(());
    }
    Err(refusal::fenced_epoch(epoch, member.epoch))
}

/// The answer to who leaves.
fn gone(heartbeat: &ConsumerHeartbeat) -> ConsumerHeartbeatResult {
    ConsumerHeartbeatResult {
        member: heartbeat.member.clone(),
        epoch: heartbeat.epoch,
        heartbeat_interval_ms: 0,
        assignment: None,
    }
}
