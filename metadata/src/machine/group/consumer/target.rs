//! The target: who shall hold what, computed when the entry is applied.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    assignor::{Assignor, Candidate, assign},
    classic::deadline,
    heartbeat::Context,
    settings::ConsumerSettings,
    state::{ConsumerGroup, ConsumerMember, Target},
};
use crate::machine::group::state::Moment;

impl ConsumerGroup {
    /// Whether a new target is necessary, and the last one old enough.
    pub(super) fn may_assign(&self, context: &Context<'_>, moment: &Moment) -> bool {
        if self.epoch <= self.assignment_epoch {
            return false;
        }
        let Some(last) = self.assigned_at else { return true };
        let partitions: u64 = self.topics.values().map(|count| u64::from(*count)).sum();
        let elements = partitions + self.members.size() as u64;
        last.plus_millis(context.settings.assignment_interval_ms(elements)) <= moment.now
    }

    /// Computes the target of the present epoch.
    pub(super) fn assign(&mut self, context: &Context<'_>, moment: &Moment) {
        let held: Vec<Arc<Target>> = self.members.keys().map(|id| self.target_of(id)).collect();
        // Of the members whose subscriptions are one.
        let mut topics = BTreeMap::new();
        let mut topics_of = |member: &ConsumerMember| {
            let subscription = (Arc::as_ptr(&member.subscribed), member.regex.clone());
            let found = || Arc::new(self.topics_of(member, context.surroundings));
            Arc::clone(topics.entry(subscription).or_insert_with(found))
        };
        let candidates: Vec<Candidate<'_>> = self
            .members
            .iter()
            .zip(&held)
            .map(|((id, member), target)| Candidate {
                id,
                instance: member.instance.as_deref(),
                topics: topics_of(member),
                target,
            })
            .collect();
        let (_, assignor) = self.assignor(&context.settings);
        let targets = assign(assignor, &candidates, &self.topics);
        drop(candidates);
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for ((id, before), target) in ids.into_iter().zip(held).zip(targets) {
            if *before != target || !self.targets.contains_key(&id) {
                self.targets.insert_mut(id, Arc::new(target));
            }
        }
        // Members of the classic protocol come for it, or are out.
        let behind: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.classic.is_some() && member.epoch < self.epoch)
            .map(|(id, member)| (id.clone(), ConsumerMember::clone(member)))
            .collect();
        for (id, member) in behind {
            if member.revoke_by.is_none() {
                let revoke_by = Some(deadline(&member, moment));
                self.put_member(&id, ConsumerMember { revoke_by, ..member });
            }
        }
        self.assignment_epoch = self.epoch;
        self.assigned_at = Some(moment.now);
    }

    /// The assignor that most members prefer, or the first there is; in a tie the first in the
    /// order of the settings.
    pub fn assignor(&self, settings: &ConsumerSettings) -> (String, Assignor) {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|member| member.assignor.as_deref()) {
            *votes.entry(name).or_default() += 1;
        }
        let votes_of = |name: &str| votes.get(name).copied().unwrap_or(0);
        // Of equal ones `max_by_key` gives the last.
        let preferred = settings.assignors.iter().rev().max_by_key(|(name, _)| votes_of(name));
        preferred.cloned().unwrap_or(("uniform".to_owned(), Assignor::Uniform))
    }
}
