//! What holds of every group between two commands. Checked by tests, the simulator, and of a
//! snapshot before it is used.

use rpds::RedBlackTreeSetSync as Set;

use super::{
    state::{Group, Phase},
    types::MemberId,
};

impl Group {
    /// The first invariant that does not hold, as a sentence.
    pub(crate) fn broken_invariant(&self) -> Option<&'static str> {
        if let Some(law) = self.consumer.as_ref().and_then(|group| group.broken_invariant()) {
            return Some(law);
        }
        let laws: [(bool, &str); 8] = [
            (self.has_one_body(), "a group goes by one protocol"),
            (self.is_empty_as_it_says(), "a group is empty exactly when it has no members"),
            (self.leader_is_member(), "the leader is a member, and members have one leader"),
            (self.phase_names_members(), "only members wait, sync or are assigned to"),
            (self.each_member_is_assigned(), "in a stable group each member has one assignment"),
            (self.instances_have_one_holder(), "an instance id is held by exactly one member"),
            (self.support_is_counted(), "members and the protocols they speak agree"),
            (self.pending_are_no_members(), "an id given out and not used is no member"),
        ];
        laws.into_iter().find(|(holds, _)| !holds).map(|(_, law)| law)
    }

    fn has_one_body(&self) -> bool {
        let is_classic = self.consumer.is_none();
        let is_untouched = self.members.is_empty() && self.pending.is_empty();
        is_classic || (is_untouched && self.phase == Phase::Empty { since: None })
    }

    fn is_empty_as_it_says(&self) -> bool {
        match &self.phase {
            Phase::Empty { .. } => self.members.is_empty(),
            // Ids given out may hold a join phase open that has lost its members.
            Phase::PreparingRebalance(_) => true,
            Phase::CompletingRebalance(_) | Phase::Stable { .. } => !self.members.is_empty(),
        }
    }

    fn leader_is_member(&self) -> bool {
        match &self.leader {
            Some(leader) => self.members.contains_key(leader),
            None => self.members.is_empty(),
        }
    }

    fn phase_names_members(&self) -> bool {
        let all_members = |ids: &Set<MemberId>| ids.iter().all(|id| self.members.contains_key(id));
        match &self.phase {
            Phase::Empty { .. } => true,
            Phase::PreparingRebalance(preparing) => all_members(&preparing.joined),
            Phase::CompletingRebalance(syncing) => {
                // The leader's sync ends the phase.
                let leader = self.leader.as_ref();
                all_members(&syncing.unsynced)
                    && leader.is_some_and(|leader| syncing.unsynced.contains(leader))
            }
            Phase::Stable { syncing, .. } => syncing.as_ref().is_none_or(|syncing| {
                !syncing.unsynced.is_empty() && all_members(&syncing.unsynced)
            }),
        }
    }

    fn each_member_is_assigned(&self) -> bool {
        match &self.phase {
            Phase::Stable { assignments, .. } => {
                self.protocol.is_some() && assignments.keys().eq(self.members.keys())
            }
            Phase::CompletingRebalance(_) => self.protocol.is_some(),
            Phase::Empty { .. } | Phase::PreparingRebalance(_) => true,
        }
    }

    fn instances_have_one_holder(&self) -> bool {
        let statics = self.members.values().filter(|member| member.instance.is_some()).count();
        let held = self.instances.iter().all(|(instance, holder)| {
            let member = self.members.get(holder);
            member.is_some_and(|member| member.instance.as_ref() == Some(instance))
        });
        held && statics == self.instances.size()
    }

    fn support_is_counted(&self) -> bool {
        let named: usize = self.members.values().map(|member| member.protocols.len()).sum();
        let counted: u64 = self.support.values().map(|count| u64::from(*count)).sum();
        let common = self.members.is_empty() || self.select_protocol().is_some();
        u64::try_from(named).is_ok_and(|named| named == counted) && common
    }

    fn pending_are_no_members(&self) -> bool {
        self.pending.keys().all(|id| !self.members.contains_key(id))
    }
}
