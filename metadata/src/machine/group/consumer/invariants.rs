//! What holds of every consumer group between two commands.

use std::collections::BTreeSet;

use super::{
    MemberEpoch,
    state::{ConsumerGroup, ConsumerMember, MemberState},
};

impl ConsumerGroup {
    /// The first invariant that does not hold, as a sentence.
    pub(crate) fn broken_invariant(&self) -> Option<&'static str> {
        let laws: [(bool, &str); 8] = [
            (self.epochs_are_ordered(), "no epoch is ahead of the group's"),
            (self.owners_are_one(), "a partition that a member holds is nobody else's"),
            (self.instances_have_one_holder(), "an instance id is held by exactly one member"),
            (
                self.deadlines_are_of_revoking(),
                "who gives up partitions has a deadline, as others of the classic protocol may",
            ),
            (self.targets_are_apart(), "no partition is meant for two members"),
            (self.targets_are_of_members(), "only members have a target"),
            (
                self.is_empty_as_it_says(),
                "a group is empty since some time exactly when nobody is in",
            ),
            (self.expressions_are_used(), "only expressions of members are resolved"),
        ];
        laws.into_iter().find(|(holds, _)| !holds).map(|(_, law)| law)
    }

    fn epochs_are_ordered(&self) -> bool {
        let is_behind = |member: &ConsumerMember| member.epoch <= self.assignment_epoch;
        self.assignment_epoch <= self.epoch && self.members.values().all(|member| is_behind(member))
    }

    fn owners_are_one(&self) -> bool {
        let mut held = 0;
        let mut known = true;
        for (id, member) in self.members.iter() {
            for partition in member.assigned.keys().chain(member.revoking.keys()) {
                held += 1;
                known &= self.owners.get(partition) == Some(id);
            }
        }
        known && held == self.owners.size()
    }

    fn instances_have_one_holder(&self) -> bool {
        let statics = self.members.values().filter(|member| member.instance.is_some()).count();
        let held = self.instances.iter().all(|(instance, holder)| {
            let member = self.members.get(holder);
            member.is_some_and(|member| member.instance.as_ref() == Some(instance))
        });
        held && statics == self.instances.size()
    }

    fn deadlines_are_of_revoking(&self) -> bool {
        let with_deadline = self
            .members
            .iter()
            .filter_map(|(id, member)| member.revoke_by.map(|deadline| (deadline, id.clone())));
        let expected: BTreeSet<_> = with_deadline.collect();
        let as_state = self.members.values().all(|member| {
            let is_away = member.epoch == MemberEpoch::LEAVES_FOR_A_WHILE.value();
            let gives_up = member.state == MemberState::UnrevokedPartitions && !is_away;
            match member.revoke_by {
                Some(_) => gives_up || member.classic.is_some(),
                None => !gives_up,
            }
        });
        as_state && self.deadlines.iter().eq(expected.iter())
    }

    fn targets_are_apart(&self) -> bool {
        let mut all = BTreeSet::new();
        self.targets.values().flat_map(|target| target.iter()).all(|one| all.insert(*one))
    }

    fn targets_are_of_members(&self) -> bool {
        self.targets.keys().all(|id| self.members.contains_key(id))
    }

    fn is_empty_as_it_says(&self) -> bool {
        self.members.is_empty() == self.empty_since.is_some()
    }

    fn expressions_are_used(&self) -> bool {
        let used = |regex: &String| {
            self.members.values().any(|member| member.regex.as_ref() == Some(regex))
        };
        self.is_stale || self.expressions.keys().all(used)
    }
}
