//! Who may commit and read offsets in a consumer group.

use aquifer_storage::planted::{self, Bug};

use super::state::ConsumerGroup;
use crate::machine::group::{command::CommitOffsets, query::OffsetReader, types::GroupRejected};

impl ConsumerGroup {
    /// Kafka's `ConsumerGroup.validateOffsetCommit`: a member in its epoch, or in an earlier one
    /// if it was given the partitions no later than that.
    pub fn validate_commit(&self, commit: &CommitOffsets) -> Result<(), GroupRejected> {
        if commit.generation.is_none() && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&commit.member).ok_or(GroupRejected::UnknownMember)?;
        if member.classic.is_none() && !commit.knows_epochs {
            return Err(GroupRejected::EpochUnknown);
        }
        let epoch = commit.generation.map_or(-1, |epoch| epoch.value());
        if epoch == member.epoch {
            return Ok(());
        }
        let stale = || match member.classic {
            Some(_) => GroupRejected::IllegalGeneration,
            None => GroupRejected::StaleMemberEpoch,
        };
        if member.epoch < epoch {
            return Err(stale());
        }
        let given_by_then = commit.offsets.iter().all(|(partition, _)| {
            let given = member.assigned.get(partition).or_else(|| member.revoking.get(partition));
            given.is_some_and(|given| *given <= epoch)
        });
        if given_by_then || planted::is(Bug::StaleEpochCommitted) { Ok(()) } else { Err(stale()) }
    }

    /// Kafka's `ConsumerGroup.validateOffsetFetch`.
    pub fn validate_fetch(&self, reader: &OffsetReader) -> Result<(), GroupRejected> {
        let member = self.members.get(&reader.member).ok_or(GroupRejected::UnknownMember)?;
        match &member.classic {
            _ if member.epoch == reader.epoch => Ok(()),
            Some(_) => Err(GroupRejected::IllegalGeneration),
            None => Err(GroupRejected::StaleMemberEpoch),
        }
    }
}
