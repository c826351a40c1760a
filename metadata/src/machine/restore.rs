//! The next life of a cluster, begun from a copy of its state that may be out of date (DESIGN 7).
//!
//! What happened after the copy was made is not known: entries may have been acknowledged, offsets
//! bound, ids given. So nothing that could have been given out is given again.
//!
//! # Invariants
//! - A next offset lies beyond every offset that a life before can have bound: a partition's log
//!   gets a hole of [`Hole::offsets`] offsets for each life between the copy and this one, itself
//!   included. Rows stay contiguous: the hole is a row, over a batch that holds no record.
//! - Session and producer ids lie beyond all that were given ([`IDS_JUMPED`] for each such life).
//! - No session lives and no group has a member: whoever had one is of a life before.
//! - Records, their offsets, committed offsets, topics, node ids and what deduplicates retries
//!   stay.
//!
//! # Not here
//! Which copy is taken (`backup`), whose number the life has (`node::restore`).

use aquifer_storage::{
    format::record_batch::HOLE_OFFSETS_MAX,
    model::{
        Lineage, ObjectName, ObjectSeq, PartitionIndex, ProducerId, SessionId, Timestamp, TopicId,
        TopicPartition,
    },
};

use super::{
    Genesis, MetadataState,
    partition_log::{NewBatch, PartitionLog},
    producer::ProducerIds,
};

/// Session ids and producer ids jump by so many: a life would have to give out a million a second
/// for ten days, none of them in the copy.
pub const IDS_JUMPED: u64 = 1_000_000_000_000;

/// The object whose only batch the holes of all partitions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Offsets that a life may have bound in one partition after the copy, at least 1.
    pub offsets: u32,
    /// Length of the object in bytes. Its batch stands first.
    pub object_bytes: u64,
    /// Length of the batch in bytes.
    pub batch_bytes: u32,
}

/// A life that begins from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextLife {
    /// Its number is above that of the copy.
    pub lineage: Lineage,
    /// The hole that stands for one life's offsets.
    pub hole: Hole,
    /// How many of them every partition gets, at least 1: one for each life that may have bound
    /// offsets after the copy.
    pub holes: u32,
}

/// Why a life cannot begin from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreRefused {
    /// The new life is not later than the copy's.
    #[error("lineage {next} does not come after lineage {copy} of the backup")]
    NotLater {
        /// What was asked for.
        next: Lineage,
        /// The copy's.
        copy: Lineage,
    },
    /// The jump is none, or larger than a batch can say.
    #[error("the offset jump must be from 1 to {HOLE_OFFSETS_MAX}")]
    Jump,
    /// A partition's offsets would pass 2^63.
    #[error("partition {partition} has no room for a jump of its offsets: take a smaller one")]
    Offsets {
        /// The first such partition.
        partition: TopicPartition,
    },
    /// The ids would pass their range.
    #[error("there is no room for a jump of the ids")]
    Ids,
}

impl MetadataState {
    /// The name of the object that [`Self::restored`] fills every hole with. Nobody else ever has
    /// it: its session is of the new life, and no agent gets it.
    pub fn hole_object(&self, life: &NextLife) -> Result<ObjectName, RestoreRefused> {
        let session = self.sessions.last().value().checked_add(ids_jumped(life)?);
        let session = SessionId::new(session.ok_or(RestoreRefused::Ids)?);
        let (lineage, seq) = (life.lineage, ObjectSeq::new(0));
        Ok(ObjectName { lineage, session, seq, merged: false })
    }

    /// The state that the next life begins with.
    ///
    /// # Errors
    /// What the life asks for cannot be; nothing is changed then.
    pub fn restored(&self, life: &NextLife) -> Result<Self, RestoreRefused> {
        let copy = self.genesis.lineage;
        if life.lineage.number <= copy.number {
            return Err(RestoreRefused::NotLater { next: life.lineage, copy });
        }
        let mut next = self.clone();
        let filling = self.hole_object(life)?;
        next.end_sessions();
        next.sessions.restore_last(filling.session);
        let producer = i64::try_from(ids_jumped(life)?).map_err(|_| RestoreRefused::Ids)?;
        let producer = self.producer_ids.next().value().checked_add(producer);
        let producer = ProducerId::new(producer.ok_or(RestoreRefused::Ids)?);
        next.producer_ids = ProducerIds::restore(producer);
        next.groups.expel_everybody(self.clocks.elapsed(), self.clocks.wall());
        next.leave_holes(life, filling)?;
        let cluster_id = self.genesis.cluster_id.clone();
        next.genesis = Genesis { cluster_id, lineage: life.lineage }.into();
        Ok(next)
    }

    /// Sessions keep what they can be asked for, and accept nothing.
    fn end_sessions(&mut self) {
        for session in self.live_sessions() {
            self.fence_session(session, &mut Vec::new());
        }
    }

    fn leave_holes(&mut self, life: &NextLife, filling: ObjectName) -> Result<(), RestoreRefused> {
        let Hole { offsets, object_bytes, batch_bytes } = life.hole;
        if !(1..=HOLE_OFFSETS_MAX).contains(&offsets) || life.holes == 0 {
            return Err(RestoreRefused::Jump);
        }
        let partitions = self.partitions();
        if partitions.is_empty() {
            return Ok(()); // An object that nothing refers to is not interned.
        }
        let object = self.objects.intern(filling, object_bytes);
        let batch = NewBatch {
            object,
            position: 0,
            length: batch_bytes,
            record_count: offsets,
            max_timestamp: Timestamp::NONE,
        };
        for partition in partitions {
            let mut log = self.logs.get(partition).map_or_else(PartitionLog::default, Clone::clone);
            for _ in 0..life.holes {
                let placed = log.append(&batch).ok_or(RestoreRefused::Offsets { partition })?;
                // Each is a batch of its own at the start of the object, and so a row of its own.
                self.objects.add_runs(object, u32::from(placed.is_new_row));
            }
            self.logs.restore(partition, log);
        }
        Ok(())
    }

    /// Every partition there is, also those that never held a record.
    fn partitions(&self) -> Vec<TopicPartition> {
        let of = |(topic, count): (TopicId, u32)| {
            let index = (0..count).filter_map(|index| i32::try_from(index).ok());
            index.map(move |index| TopicPartition { topic, partition: PartitionIndex::new(index) })
        };
        self.topics.iter().map(|topic| (topic.id, topic.partitions)).flat_map(of).collect()
    }
}

fn ids_jumped(life: &NextLife) -> Result<u64, RestoreRefused> {
    IDS_JUMPED.checked_mul(u64::from(life.holes)).ok_or(RestoreRefused::Ids)
}
