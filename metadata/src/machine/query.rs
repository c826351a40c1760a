//! Reads of the replicated state, answered at one applied index.

use aquifer_storage::model::{Offset, TopicPartition};

use super::effect::{Pointers, Run};
pub use super::group::query::{GroupAnswer, GroupQuery};

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
    /// A question to one group's coordinator.
    Group(GroupQuery),
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Runs`; `None` when the partition does not exist.
    Runs(Option<PartitionRuns>),
    /// To `Group`.
    Group(GroupAnswer),
}

/// Rows and pointers of a partition, of one applied index.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionRuns {
    /// The pointers.
    pub pointers: Pointers,
    /// The rows, ascending.
    pub runs: Vec<Run>,
}
