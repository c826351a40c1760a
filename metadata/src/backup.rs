//! Copies of the metadata group in the bucket: what they are called, what they hold, when they are
//! made and which of them a restore takes (DESIGN 7, "Restore").
//!
//! Under `meta/<lineage>/`: snapshots of the state, in parts, and chunks of the entries committed
//! since. Every key names the indexes it covers and the *run* that wrote it, one process, so that
//! no key is ever written twice with other bytes. Under `meta/lineage/`: one marker for each life
//! that a restore began.
//!
//! # Invariants
//! - Only committed entries, and states after them, are shipped.
//! - At each moment a snapshot and the entries since can be read: the next one is there before any
//!   of them is dropped, and the one before is kept as long as there is none newer than both.
//!
//! # Not here
//! The task that ships (`node::shipping`), beginning a life from a copy (`node::restore`).

use std::time::Duration;

use aquifer_storage::model::LogIndex;

pub mod bucket;
pub mod choice;
pub mod file;
pub mod kept;
pub mod key;
pub mod marker;
pub mod plan;

/// How far the copies in the bucket reach, as the node that makes them sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStatus {
    /// Everything up to here can be restored; `None` before the first snapshot of this leader.
    pub covered: Option<LogIndex>,
    /// How long ago that was everything there was: what a loss of the group now would cost.
    pub age: Option<Duration>,
    /// The entry that the oldest backup reaches which is certainly kept: an object that was garbage
    /// before it is named by no backup.
    pub oldest: Option<LogIndex>,
    /// Snapshots shipped since the start.
    pub snapshots: u64,
    /// Chunks of the log shipped since the start.
    pub chunks: u64,
    /// Bytes shipped since the start.
    pub bytes: u64,
    /// Requests that failed since the start, after their own retries.
    pub failures: u64,
}
