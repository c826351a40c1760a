//! Committed offsets: who may commit, and what is kept.
//!
//! # Invariants
//! - A committed offset changes only by a commit of the current generation's member, or, while
//!   the group is empty, by anyone who names no generation.

use aquifer_storage::{
    model::{PartitionIndex, TopicId, TopicPartition},
    planted::{self, Bug},
};

use super::{
    command::{CommitOffsets, CommittedOffset, PartitionIndexError},
    query::OffsetReader,
    state::{Group, Moment, Phase, StoredOffset},
    surroundings::Surroundings,
    types::GroupRejected,
};

impl Group {
    /// Stores the offsets of partitions that exist; tells those that do not.
    pub fn commit_offsets(
        &mut self,
        commit: &CommitOffsets,
        surroundings: &dyn Surroundings,
        moment: &mut Moment,
    ) -> Result<Vec<PartitionIndexError>, GroupRejected> {
        self.validate_commit(commit)?;
        self.touch(&commit.member, moment);
        let mut gone = Vec::new();
        for (position, (partition, committed)) in (0_u32..).zip(&commit.offsets) {
            if surroundings.has(*partition) {
                let stored = StoredOffset { committed: committed.clone(), at: moment.wall };
                self.offsets.insert_mut(*partition, stored);
            } else {
                let partition = partition.partition;
                gone.push(PartitionIndexError { partition, position });
            }
        }
        Ok(gone)
    }

    /// Kafka's `ClassicGroup.validateOffsetCommit`.
    fn validate_commit(&self, commit: &CommitOffsets) -> Result<(), GroupRejected> {
        if let Some(group) = &self.consumer {
            return group.validate_commit(commit);
        }
        if commit.generation.is_none() && matches!(self.phase, Phase::Empty { .. }) {
            return Ok(());
        }
        let names_a_member =
            commit.generation.is_some() || !commit.member.is_empty() || commit.instance.is_some();
        if !names_a_member {
            return Err(GroupRejected::UnknownMember);
        }
        self.validate_member(&commit.member, commit.instance.as_deref())?;
        if commit.generation != Some(self.generation) && !planted::is(Bug::GenerationIgnored) {
            return Err(GroupRejected::IllegalGeneration);
        }
        match &self.phase {
            Phase::CompletingRebalance(_) => Err(GroupRejected::RebalanceInProgress),
            // While members still join, the ones that have to give up partitions commit.
            Phase::Empty { .. } | Phase::PreparingRebalance(_) | Phase::Stable { .. } => Ok(()),
        }
    }

    /// The committed offsets of some partitions, or of all, for a member in its epoch or for who
    /// does not say who it is.
    pub fn read_offsets(
        &self,
        partitions: Option<&[TopicPartition]>,
        reader: Option<&OffsetReader>,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, GroupRejected> {
        if let (Some(group), Some(reader)) = (&self.consumer, reader) {
            group.validate_fetch(reader)?;
        }
        Ok(self.committed(partitions))
    }

    /// The committed offsets of some partitions, or of all.
    pub fn committed(
        &self,
        partitions: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, CommittedOffset)> {
        let Some(partitions) = partitions else {
            let all = self.offsets.iter();
            return all.map(|(partition, stored)| (*partition, stored.committed.clone())).collect();
        };
        let found = partitions.iter().filter_map(|partition| {
            self.offsets.get(partition).map(|stored| (*partition, stored.committed.clone()))
        });
        found.collect()
    }

    /// Forgets the offsets of a deleted topic.
    pub fn remove_topic(&mut self, topic: TopicId) {
        let removed: Vec<TopicPartition> = self.partitions_of(topic).collect();
        for partition in &removed {
            self.offsets.remove_mut(partition);
        }
    }

    /// The partitions of a topic that have a committed offset.
    pub fn partitions_of(&self, topic: TopicId) -> impl Iterator<Item = TopicPartition> + '_ {
        let first = TopicPartition { topic, partition: PartitionIndex::new(i32::MIN) };
        let last = TopicPartition { topic, partition: PartitionIndex::new(i32::MAX) };
        self.offsets.range(first..=last).map(|(partition, _)| *partition)
    }
}
