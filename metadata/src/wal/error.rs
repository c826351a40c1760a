//! What the log says when it refuses, and what a caller may conclude from it.

use std::{io, sync::Arc};

use aquifer_storage::error::Outcome;

use super::Callback;

/// A refusal or failure of the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The request does not fit the log as it is. Nothing was written.
    #[error("log request rejected: {0}")]
    Rejected(#[from] Rejection),
    /// The disk has no room for another segment. Nothing was written; retry once there is space.
    #[error("no disk space for another log segment")]
    DiskFull,
    /// A write or fsync failed earlier, or the log is closed. What was asked may have happened.
    #[error("log stopped: {reason}")]
    Stopped {
        /// The first failure.
        reason: Arc<str>,
    },
    /// Bytes that were once durable are damaged or missing. The node must not vote.
    #[error("log damaged: {file} at byte {offset}: {damage}; restore the file or replace the node")]
    Corrupt {
        /// The segment.
        file: Arc<str>,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The log belongs to another cluster or node.
    #[error("log segment {file} is of {found}, this is {expected}; check the data directory")]
    Foreign {
        /// The segment.
        file: Arc<str>,
        /// Cluster and node it was written by.
        found: Box<str>,
        /// Cluster and node that opened it.
        expected: Box<str>,
    },
    /// The log was written by a newer version.
    #[error("log segment {file} has format {found}, this version reads up to {supported}; upgrade")]
    NewerFormat {
        /// The segment.
        file: Arc<str>,
        /// Its format version.
        found: u16,
        /// The newest format this version reads.
        supported: u16,
    },
    /// The configuration cannot work.
    #[error("log configuration: {0}")]
    Config(&'static str),
    /// The disk failed while the log was opened.
    #[error("log {operation} {file}: {source}")]
    Io {
        /// `list`, `open`, `read` and so on.
        operation: &'static str,
        /// The file or directory.
        file: Arc<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl WalError {
    /// What the caller may conclude.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(_) | Self::Foreign { .. } | Self::NewerFormat { .. } => {
                Outcome::Rejected
            }
            Self::Config(_) => Outcome::Rejected,
            Self::DiskFull => Outcome::Unavailable,
            Self::Stopped { .. } | Self::Io { .. } => Outcome::Indefinite,
            Self::Corrupt { .. } => Outcome::Corrupt,
        }
    }

    pub(super) fn io(operation: &'static str, file: &str, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::DiskFull;
        }
        Self::Io { operation, file: file.into(), source: Arc::new(source) }
    }

    pub(super) fn corrupt(file: &str, offset: u64, damage: Damage) -> Self {
        Self::Corrupt { file: file.into(), offset, damage }
    }
}

/// Why a request does not fit the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Entries must follow each other without a hole.
    #[error("entry {given} does not follow the log, which expects {expected}")]
    NotContiguous {
        /// The index that must come next.
        expected: u64,
        /// The index that came.
        given: u64,
    },
    /// The entry does not fit a segment.
    #[error("entry {index} of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// The entry.
        index: u64,
        /// Its payload.
        bytes: u64,
        /// The largest payload.
        bytes_max: u64,
    },
    /// Entries up to this index are purged.
    #[error("truncating from {first} would cut below the purged entry {purged}")]
    Purged {
        /// The first index to remove.
        first: u64,
        /// The last purged index.
        purged: u64,
    },
    /// Committed entries are never removed from the end.
    #[error("truncating from {first} would cut the committed entry {committed}")]
    Committed {
        /// The first index to remove.
        first: u64,
        /// The last committed index.
        committed: u64,
    },
}

/// What is wrong with bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The first sector is not a segment header.
    #[error("segment header does not verify")]
    Header,
    /// The file is shorter or longer than it was made.
    #[error("file size does not match its header")]
    Size,
    /// A frame that was durable does not verify: a later one was written after its fsync.
    #[error("a durable frame does not verify")]
    Durable,
    /// A frame is wrong in a way that a torn write does not leave.
    #[error("a frame has flipped bits")]
    Flipped,
    /// A frame verifies, but what it says does not follow from what came before.
    #[error("a frame contradicts the log before it")]
    Contradiction,
    /// A segment or its entries are gone.
    #[error("entries before this are missing")]
    Missing,
    /// The log ends before what it says is committed.
    #[error("the log ends before its committed entry")]
    BelowCommitted,
}

/// A write that was not accepted, with its callback, which will not run.
pub struct Refused {
    /// Why.
    pub error: WalError,
    /// The callback, for another try.
    pub done: Callback,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refused({})", self.error)
    }
}

/// Whether an error only says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
