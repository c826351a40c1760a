//! What the log says of itself: what it holds, what was found at open, whether it takes requests.

use std::{ops::Range, sync::Arc};

#[cfg(doc)]
use super::Wal;
use super::{LogId, Vote};

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalState {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` when there is none.
    pub last: Option<LogId>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
}

/// What was found at open. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whether there was no log: of a node that had one, this is a loss.
    pub is_new: bool,
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` when there is none.
    pub last: Option<LogId>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    /// The indexes of the entries.
    pub entries: Range<u64>,
    /// The end of a write that a crash cut short, now removed. Nothing of it was acknowledged.
    pub torn: Option<TornTail>,
}

/// Bytes of an unsynced write that were removed at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: Arc<str>,
    /// Where in it.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// Whether the log takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalHealth {
    /// It does.
    Running,
    /// The next segment found no space. Take no commands, and call [`Wal::retry_space`].
    DiskFull,
    /// It will not again in this process.
    Stopped {
        /// The first failure.
        reason: Arc<str>,
    },
}
