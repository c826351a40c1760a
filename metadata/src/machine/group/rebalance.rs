//! The round a group goes through: prepare, join, sync, and what falls due when members are slow.
//!
//! # Invariants
//! - A generation begins exactly when a join phase completes, and generations only grow.
//! - Deadlines are data: calling [`Group::tick`] early or twice changes nothing.

use bytes::Bytes;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use super::{
    command::{Progress, Sync},
    state::{Group, InitialDelay, Moment, Phase, Preparing, Syncing},
    types::{GenerationId, GroupRejected, MemberId, SyncResult},
};

/// What a sync comes to.
type SyncAnswer = Result<Progress<SyncResult>, GroupRejected>;

impl Group {
    /// A member waits for the next generation; starts the rebalance if none goes on.
    pub fn rejoin(&mut self, id: &MemberId, moment: &mut Moment) {
        if let Phase::PreparingRebalance(preparing) = &mut self.phase {
            preparing.joined.insert_mut(id.clone());
            self.complete_join_if_all_joined(moment);
        } else {
            self.prepare_rebalance(Some(id), moment);
        }
    }

    /// Asks everyone to rejoin. A group that was empty is held open for more members first.
    pub fn prepare_rebalance(&mut self, joiner: Option<&MemberId>, moment: &mut Moment) {
        let timeout_ms = self.rebalance_timeout_ms();
        let delay_ms = u64::from(moment.limits().initial_rebalance_delay_ms);
        let initial = matches!(self.phase, Phase::Empty { .. }).then(|| InitialDelay {
            remaining_ms: timeout_ms.saturating_sub(delay_ms),
            newcomer: false,
            delay_ms: moment.limits.map(|limits| limits.initial_rebalance_delay_ms),
        });
        let wait_ms = if initial.is_some() { delay_ms } else { timeout_ms };
        let mut joined = Set::new_sync();
        if let Some(joiner) = joiner {
            joined.insert_mut(joiner.clone());
        }
        let deadline = moment.now.plus_millis(wait_ms);
        self.phase = Phase::PreparingRebalance(Preparing { joined, deadline, initial });
        self.changed(moment);
        if self.members.is_empty() {
            // Ids that were given out are not waited for where nobody waits.
            self.complete_join(moment);
        }
        self.complete_join_if_all_joined(moment);
    }

    /// Whether nobody is waited for: neither members nor ids given out.
    pub fn all_joined(&self) -> bool {
        match &self.phase {
            Phase::PreparingRebalance(preparing) => {
                self.pending.is_empty() && preparing.joined.size() == self.members.size()
            }
            Phase::Empty { .. } | Phase::CompletingRebalance(_) | Phase::Stable { .. } => false,
        }
    }

    /// Completes a join phase that waits for nobody, but not one held open for newcomers.
    pub fn complete_join_if_all_joined(&mut self, moment: &mut Moment) {
        let held_open = match &self.phase {
            Phase::PreparingRebalance(preparing) => preparing.initial.is_some(),
            Phase::Empty { .. } | Phase::CompletingRebalance(_) | Phase::Stable { .. } => true,
        };
        if !held_open && self.all_joined() {
            self.complete_join(moment);
        }
    }

    /// Takes everybody out; what was committed stays.
    pub fn expel_everybody(&mut self, moment: &mut Moment) {
        self.pending = Map::new_sync();
        if let Some(group) = &mut self.consumer {
            group.expel_everybody(moment);
        }
        if matches!(self.phase, Phase::Empty { .. }) {
            return;
        }
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in &ids {
            self.remove_member(id);
        }
        self.generation = next_generation(self.generation);
        self.protocol = None;
        self.phase = Phase::Empty { since: Some(moment.wall) };
        self.changed(moment);
    }

    /// Begins the next generation with those who rejoined. Static members stay in without.
    pub fn complete_join(&mut self, moment: &mut Moment) {
        let Phase::PreparingRebalance(preparing) = &self.phase else { return };
        let joined = preparing.joined.clone();
        for id in self.absent_dynamic_members(&joined) {
            self.remove_member(&id);
        }
        if self.members.is_empty() {
            self.generation = next_generation(self.generation);
            self.protocol = None;
            self.phase = Phase::Empty { since: Some(moment.wall) };
            self.changed(moment);
            return;
        }
        if !self.elect_joined_leader(&joined) {
            // Only silent static members are left: their sessions decide.
            let deadline = moment.now.plus_millis(self.rebalance_timeout_ms());
            self.phase = Phase::PreparingRebalance(Preparing { joined, deadline, initial: None });
            self.changed(moment);
            return;
        }
        self.generation = next_generation(self.generation);
        self.protocol = self.select_protocol();
        let mut unsynced = Set::new_sync();
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.touched = moment.count();
                member.is_new = false;
                member.skip_assignment = false;
            }
            unsynced.insert_mut(id);
        }
        let deadline = moment.now.plus_millis(self.rebalance_timeout_ms());
        self.phase = Phase::CompletingRebalance(Syncing { unsynced, deadline });
        self.changed(moment);
    }

    /// Dynamic members that did not rejoin.
    fn absent_dynamic_members(&self, joined: &Set<MemberId>) -> Vec<MemberId> {
        let absent = self
            .members
            .iter()
            .filter(|(id, member)| member.instance.is_none() && !joined.contains(*id));
        absent.map(|(id, _)| id.clone()).collect()
    }

    /// Keeps the leader if it rejoined, else the longest member that did leads. False if none did.
    fn elect_joined_leader(&mut self, joined: &Set<MemberId>) -> bool {
        if self.leader.as_ref().is_some_and(|leader| joined.contains(leader)) {
            return true;
        }
        let Some(leader) = self.first_member(|id| joined.contains(id)) else { return false };
        self.leader = Some(leader);
        true
    }

    /// A member asks for its assignment; the leader brings everyone's.
    pub fn sync(&mut self, sync: &Sync, moment: &mut Moment) -> SyncAnswer {
        let id = &sync.member;
        self.validate_member(id, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupRejected::IllegalGeneration);
        }
        if differs(sync.protocol_type.as_ref(), self.protocol_type.as_ref())
            || differs(sync.protocol.as_ref(), self.protocol.as_ref())
        {
            return Err(GroupRejected::InconsistentProtocol);
        }
        match &mut self.phase {
            Phase::Empty { .. } => return Err(GroupRejected::UnknownMember),
            Phase::PreparingRebalance(_) => return Err(GroupRejected::RebalanceInProgress),
            Phase::CompletingRebalance(syncing) => {
                syncing.unsynced.remove_mut(id);
                if self.leader.as_ref() == Some(id) {
                    self.assign(&sync.assignments, moment);
                }
            }
            Phase::Stable { syncing: waiting, .. } => {
                if let Some(syncing) = waiting {
                    syncing.unsynced.remove_mut(id);
                }
                waiting.take_if(|syncing| syncing.unsynced.is_empty());
            }
        }
        self.touch(id, moment);
        self.sync_progress(id, sync.generation)
    }

    /// Stores the leader's assignment. A member it left out gets an empty one, a stranger none.
    fn assign(&mut self, given: &[(MemberId, Bytes)], moment: &mut Moment) {
        let Phase::CompletingRebalance(syncing) = &self.phase else { return };
        let syncing = syncing.clone();
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        let mut assignments = Map::new_sync();
        for id in ids {
            if !syncing.unsynced.contains(&id) {
                self.touch(&id, moment);
            }
            assignments.insert_mut(id, Bytes::new());
        }
        for (id, assignment) in given {
            if let Some(place) = assignments.get_mut(id) {
                *place = assignment.clone();
            }
        }
        let syncing = (!syncing.unsynced.is_empty()).then_some(syncing);
        self.phase = Phase::Stable { assignments, syncing };
        self.changed(moment);
    }

    /// What became of a member's sync.
    pub fn sync_progress(&self, id: &MemberId, generation: GenerationId) -> SyncAnswer {
        if !self.members.contains_key(id) {
            return Err(self.gone(id));
        }
        if generation > self.generation {
            return Err(GroupRejected::IllegalGeneration);
        }
        if generation < self.generation {
            return Err(GroupRejected::RebalanceInProgress);
        }
        match &self.phase {
            Phase::Empty { .. } => Err(GroupRejected::UnknownMember),
            Phase::PreparingRebalance(_) => Err(GroupRejected::RebalanceInProgress),
            Phase::CompletingRebalance(_) => {
                Ok(Progress::Pending { member: id.clone(), version: self.version })
            }
            Phase::Stable { assignments, .. } => Ok(Progress::Ready(SyncResult {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                protocol: self.protocol.clone().unwrap_or_default(),
                assignment: assignments.get(id).cloned().unwrap_or_default(),
            })),
        }
    }

    /// Whether a member may go on as it is.
    pub fn heartbeat(
        &self,
        id: &MemberId,
        instance: Option<&str>,
        generation: GenerationId,
    ) -> Result<(), GroupRejected> {
        self.validate_member(id, instance)?;
        if generation != self.generation {
            return Err(GroupRejected::IllegalGeneration);
        }
        match &self.phase {
            Phase::Empty { .. } => Err(GroupRejected::UnknownMember),
            Phase::PreparingRebalance(_) => Err(GroupRejected::RebalanceInProgress),
            Phase::CompletingRebalance(_) | Phase::Stable { .. } => Ok(()),
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, moment: &mut Moment) {
        self.expire_pending_members(moment);
        if let Some(group) = &mut self.consumer {
            group.tick(moment);
        }
        // A deadline reached sets one that lies ahead, or none; a held-open join may be extended
        // by nothing once, when the delay is zero.
        while self.phase_deadline().is_some_and(|deadline| deadline <= moment.now) {
            match &self.phase {
                Phase::Empty { .. } => return,
                Phase::PreparingRebalance(_) => self.extend_or_complete_join(moment),
                Phase::CompletingRebalance(_) | Phase::Stable { .. } => self.expire_syncs(moment),
            }
        }
    }

    /// Forgets ids that were given out and not used.
    fn expire_pending_members(&mut self, moment: &mut Moment) {
        let due: Vec<MemberId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= moment.now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &due {
            self.pending.remove_mut(id);
        }
        if !due.is_empty() && self.all_joined() {
            self.complete_join(moment);
        }
    }

    /// The join phase's deadline: a newcomer during the initial delay extends it.
    fn extend_or_complete_join(&mut self, moment: &mut Moment) {
        let Phase::PreparingRebalance(preparing) = &mut self.phase else { return };
        if let Some(initial) = &mut preparing.initial
            && initial.newcomer
            && initial.remaining_ms > 0
        {
            let delay_ms = initial.delay_ms.unwrap_or(moment.settings.initial_rebalance_delay_ms);
            let delay_ms = u64::from(delay_ms).min(initial.remaining_ms);
            initial.newcomer = false;
            initial.remaining_ms -= delay_ms;
            preparing.deadline = moment.now.plus_millis(delay_ms);
            return;
        }
        self.complete_join(moment);
    }

    /// The sync phase's deadline: who did not sync is out.
    fn expire_syncs(&mut self, moment: &mut Moment) {
        let unsynced = match &self.phase {
            Phase::CompletingRebalance(syncing) => syncing.unsynced.clone(),
            Phase::Stable { syncing: Some(syncing), .. } => syncing.unsynced.clone(),
            Phase::Stable { syncing: None, .. }
            | Phase::Empty { .. }
            | Phase::PreparingRebalance(_) => return,
        };
        for id in unsynced.iter() {
            self.remove_member(id);
        }
        self.prepare_rebalance(None, moment);
    }
}

/// Whether a sync names something else than the group has.
fn differs(named: Option<&String>, present: Option<&String>) -> bool {
    matches!((named, present), (Some(named), Some(present)) if named != present)
}

/// The next generation; the number space (two billion rebalances) starts over at its end.
fn next_generation(generation: GenerationId) -> GenerationId {
    GenerationId::new(generation.value().checked_add(1).unwrap_or(1))
}
