//! Which protocol a group goes by. It is one at a time, and changes while nobody is in.

use super::{
    MemberEpoch,
    command::ConsumerHeartbeat,
    heartbeat::{Answer, Context},
    refusal,
    state::ConsumerGroup,
};
use crate::machine::group::{
    state::{Group, Moment, Phase},
    types::GroupKind,
};

impl Group {
    /// By which protocol it goes.
    pub fn kind(&self) -> GroupKind {
        if self.consumer.is_some() { GroupKind::Consumer } else { GroupKind::Classic }
    }

    /// Its members, if it is a consumer group.
    pub fn consumer_members(&self) -> usize {
        self.consumer.as_ref().map_or(0, |group| group.members.size())
    }

    /// Applies a heartbeat. `is_known`: whether there was a group before.
    pub fn consumer_heartbeat(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
        is_known: bool,
        context: &Context<'_>,
        moment: &mut Moment,
    ) -> Answer {
        refusal::check(heartbeat, context.name, &context.settings)?;
        let leaves = heartbeat.epoch < MemberEpoch::JOINS;
        let is_empty_classic = matches!(self.phase, Phase::Empty { .. });
        let mut group = match &self.consumer {
            Some(group) => group.clone(),
            None if heartbeat.epoch == MemberEpoch::JOINS && is_empty_classic => {
                ConsumerGroup::new(moment.wall)
            }
            None if heartbeat.epoch == MemberEpoch::JOINS => self.upgraded(context, moment)?,
            None if is_known => return Err(refusal::other_protocol(context.name)),
            None => return Err(refusal::unknown_group(context.name, leaves)),
        };
        let answer = if leaves {
            group.leave(heartbeat, context, moment)?
        } else {
            group.heartbeat(heartbeat, context, moment)?
        };
        if self.consumer.is_none() {
            // What it was is forgotten, but for its offsets.
            let offsets = self.offsets.clone();
            *self = Self { version: moment.count(), offsets, ..Self::default() };
        }
        self.consumer = Some(group);
        Ok(answer)
    }

    /// The answer to a heartbeat that changes nothing; `None` for one that may.
    pub fn ask_consumer_heartbeat(
        &self,
        heartbeat: &ConsumerHeartbeat,
        is_known: bool,
        context: &Context<'_>,
    ) -> Option<Answer> {
        if let Err(rejected) = refusal::check(heartbeat, context.name, &context.settings) {
            return Some(Err(rejected));
        }
        match &self.consumer {
            Some(group) => group.ask(heartbeat, context),
            None if heartbeat.epoch <= MemberEpoch::JOINS => None,
            None if is_known => Some(Err(refusal::other_protocol(context.name))),
            None => Some(Err(refusal::unknown_group(context.name, false))),
        }
    }

    /// A member of the classic protocol comes to a group that nobody is in.
    pub fn become_classic_if_empty(&mut self, moment: &mut Moment) {
        if self.consumer.as_ref().is_some_and(ConsumerGroup::is_empty) {
            self.consumer = None;
            self.changed(moment);
        }
    }
}
