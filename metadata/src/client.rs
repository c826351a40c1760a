//! The agent's one view of metadata. `aquifer up` answers it in process; `remote` over gRPC.

pub mod cluster;
#[cfg(feature = "server")]
pub mod direct;
pub mod remote;

use std::time::Duration;

use aquifer_storage::{
    error::Outcome,
    model::{CommitSeq, LogIndex, SessionId, Timestamp},
};
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    machine::{
        command::{AppliedReply, Command, CommitPart, CommitReply},
        query::{Answer, Query},
    },
    watch::{WatchEvent, WatchRequest},
};

/// An agent that the leader does not hear for so long, by the leader's clock, is fenced.
pub const FENCED_AFTER: Duration = Duration::from_secs(15);

/// A call to metadata that gave no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("metadata {call}: {outcome}: {reason}")]
pub struct CallError {
    /// Which call.
    pub call: &'static str,
    /// `Unavailable`: certainly no effect. `Indefinite`: it may still be applied.
    pub outcome: Outcome,
    /// What the node or the network said.
    pub reason: String,
}

/// What a heartbeat tells an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The session is live; the leader's wall time and applied index.
    Live {
        /// The leader's wall clock.
        wall: Timestamp,
        /// The leader's applied index.
        index: LogIndex,
    },
    /// The session is fenced: stop, register again.
    Fenced,
}

/// The two ends of a session's ordered commit stream. Dropping either end closes it; what was sent
/// and not answered is then undecided, and is sent again on the next stream (DESIGN 4.6).
#[derive(Debug)]
pub struct CommitStream {
    /// Parts, in `commit_seq` order.
    pub parts: mpsc::Sender<CommitPart>,
    /// One reply per part, in order.
    pub replies: mpsc::Receiver<(CommitSeq, CommitReply)>,
}

/// The two ends of a watch stream.
#[derive(Debug)]
pub struct WatchStream {
    /// What to watch.
    pub requests: mpsc::Sender<WatchRequest>,
    /// What changed. Starts with `Catalog`.
    pub events: mpsc::Receiver<WatchEvent>,
}

/// Metadata as an agent sees it: the seam between the two.
#[async_trait]
pub trait Metadata: Send + Sync + 'static {
    /// Replicates `command` and answers from its apply.
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError>;

    /// An index at or after every command answered before this call began, anywhere.
    async fn read_index(&self) -> Result<LogIndex, CallError>;

    /// Answers `query` at a linearizable index, which is returned.
    async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError>;

    /// Tells the leader that `session` lives.
    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError>;

    /// Opens the session's commit stream. A session has one; a new one replaces it.
    async fn open_commits(&self, session: SessionId) -> Result<CommitStream, CallError>;

    /// Opens a watch stream at a node that has applied at least `seen`.
    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError>;
}
