//! How a consumer group stands, for who looks at it.

use super::{
    MemberEpoch,
    query::{ConsumerGroupDescription, ConsumerMemberDescription},
    settings::ConsumerSettings,
    state::{ConsumerGroup, ConsumerMember, Target, by_topic},
};
use crate::machine::group::types::MemberId;

impl ConsumerGroup {
    /// The group with its members.
    pub fn describe(&self, settings: &ConsumerSettings) -> ConsumerGroupDescription {
        let member = |(id, member): (&MemberId, &std::sync::Arc<ConsumerMember>)| {
            // What it has to give up is its own until it did.
            let held: Target =
                member.assigned.keys().chain(member.revoking.keys()).copied().collect();
            ConsumerMemberDescription {
                member: id.clone(),
                instance: member.instance.clone(),
                rack: member.rack.clone(),
                epoch: MemberEpoch::new(member.epoch),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                subscribed: member.subscribed.iter().cloned().collect(),
                regex: member.regex.clone(),
                assignment: by_topic(held.into_iter()),
                target: by_topic(self.target_of(id).iter().copied()),
                is_classic: member.classic.is_some(),
            }
        };
        ConsumerGroupDescription {
            state: self.state(),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor(settings).0,
            members: self.members.iter().map(member).collect(),
        }
    }
}
