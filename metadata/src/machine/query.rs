//! Reads of the replicated state, answered at one applied index.

use aquifer_storage::model::{
    Offset, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicPartition,
};

use super::effect::{Pointers, Run};
pub use super::group::query::{GroupAnswer, GroupListed, GroupQuery};

/// A question to the state machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Rows of a partition from the one that holds `offset` (or follows a hole there).
    Runs {
        /// The partition.
        partition: TopicPartition,
        /// Where to start.
        offset: Offset,
        /// At most this many rows.
        limit: u32,
    },
    /// The first row of a partition, from the one that holds `offset` on, that can have a record of
    /// this time. Answered as `Runs` with one row or none. Costs a look at each page of 512 rows
    /// and reading one or two of them: a millisecond for ten million rows.
    RunByTime {
        /// The partition.
        partition: TopicPartition,
        /// Where to start.
        offset: Offset,
        /// Which record is looked for.
        time: TimeSpec,
    },
    /// A question to one group's coordinator.
    Group(GroupQuery),
    /// How much partitions hold that hold anything, from one to another.
    Sizes {
        /// The first.
        from: TopicPartition,
        /// The last, included.
        to: TopicPartition,
        /// At most this many.
        limit: u32,
    },
    /// What is remembered of a partition's producers.
    Producers {
        /// The partition.
        partition: TopicPartition,
        /// Only those with a larger id.
        after: Option<ProducerId>,
        /// At most this many.
        limit: u32,
    },
    /// Which groups there are.
    Groups {
        /// Only those behind this one.
        after: Option<String>,
        /// At most this many.
        limit: u32,
    },
}

/// Which record of a partition is looked for by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSpec {
    /// The first one that is not older.
    Since(Timestamp),
    /// The newest; the first of those that are equally new.
    Newest,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Runs` and `RunByTime`; `None` when the partition does not exist.
    Runs(Option<PartitionRuns>),
    /// To `Group`.
    Group(GroupAnswer),
    /// To `Sizes`: bytes of record batches, ascending by partition. Fewer than the limit is all.
    Sizes(Vec<(TopicPartition, u64)>),
    /// To `Producers`, ascending; `None` when the partition does not exist. Fewer than the limit is
    /// all.
    Producers(Option<Vec<ActiveProducer>>),
    /// To `Groups`, ascending. Fewer than the limit is all.
    Groups(Vec<GroupListed>),
}

/// A producer on a partition, as remembered for deduplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer: ProducerId,
    /// The newest epoch seen.
    pub epoch: ProducerEpoch,
    /// Sequence of its last record.
    pub last_sequence: Sequence,
    /// Largest timestamp of its last batch.
    pub last_timestamp: Timestamp,
}

/// Rows and pointers of a partition, of one applied index.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionRuns {
    /// The pointers.
    pub pointers: Pointers,
    /// The rows, ascending.
    pub runs: Vec<Run>,
}
