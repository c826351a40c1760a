//! What apply asks the world to do. Only told, never awaited: an effect is safe to run twice, and a
//! lost one is re-derived from state.

use aquifer_storage::model::{
    LeaderEpoch, ObjectName, Offset, OffsetRange, SessionId, Timestamp, TopicId, TopicPartition,
};

use super::config::ConfigKey;

/// One metadata row: where the bytes of offsets `[base, next)` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The offsets covered.
    pub offsets: OffsetRange,
    /// The object that holds the batches.
    pub object: ObjectName,
    /// The object's whole length in bytes.
    pub object_bytes: u64,
    /// First byte of the run within the object.
    pub position: u32,
    /// Length in bytes.
    pub length: u32,
    /// Largest timestamp of its batches.
    pub max_timestamp: Timestamp,
    /// Whether batches already carry their final offsets (merged objects); else the reader counts
    /// up from `offsets.base`.
    pub offsets_final: bool,
}

/// A partition's pointers, always `log_start <= last_stable <= high_watermark`. Nothing is in the
/// log before it is durable, so the high watermark is the log end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// First offset that can be read.
    pub log_start: Offset,
    /// First offset of an open transaction, else the high watermark.
    pub last_stable: Offset,
    /// The next offset to be assigned.
    pub high_watermark: Offset,
    /// The lineage number.
    pub leader_epoch: LeaderEpoch,
}

/// Something the world should learn from an applied entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A topic was created, deleted or reconfigured.
    TopicChanged(TopicId),
    /// A partition took batches: `runs` replace the rows from `from` on (the last row may have
    /// grown), and the pointers moved.
    PartitionAdvanced {
        /// The partition.
        partition: TopicPartition,
        /// Base of the first of `runs`: rows at or beyond it are replaced.
        from: Offset,
        /// The new rows, contiguous up to the high watermark.
        runs: Vec<Run>,
        /// The pointers afterwards.
        pointers: Pointers,
    },
    /// The config overrides of a resource that is not a topic changed.
    ConfigsChanged(ConfigKey),
    /// A session was registered or fenced: node lists may differ.
    NodesChanged,
    /// This session is fenced.
    SessionFenced(SessionId),
    /// A group's version moved: parked joins and syncs may be answerable.
    GroupChanged {
        /// The group.
        group: String,
        /// Its version.
        version: u64,
    },
}
