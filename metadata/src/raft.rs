//! The Raft group: the only module that knows the Raft crate. We write no consensus; what is ours
//! is the log store over the write-ahead log, the snapshot file and the adapter to the machine.
//!
//! # Invariants
//! - Vote and log entries are on disk, in one order, before they count (`log_store`).
//! - A damaged log or snapshot stops the node: it never votes on what it cannot read.
//! - An entry above this build's level stops the node: it would be misread.
//! - Replies leave only from apply, after the entry's index was published.

/// The words of the Raft library that the node says: all it knows of it.
pub(crate) mod library {
    pub(crate) use openraft::raft::{AppendEntriesRequest, TransferLeaderError};
    pub(crate) use openraft::{
        ChangeMembers, Config, ReadPolicy, SnapshotPolicy, StorageHelper,
        async_runtime::{instant::Instant, watch::WatchReceiver},
        impls::ProgressResponder,
    };

    /// A snapshot and what it covers.
    pub(crate) type Snapshot = openraft::alias::SnapshotOf<super::TypeConfig, bytes::Bytes>;
}

pub mod log_store;
pub mod network;
pub mod own_entries;
pub mod peer;
pub mod record;
pub mod runtime;
pub mod snapshot_file;
pub mod state_machine;
pub mod wire;

use std::fmt;

use aquifer_storage::model::LogIndex;
use bytes::Bytes;
use openraft::alias;

use crate::machine::command::Reply;

openraft::declare_raft_types!(
    /// The types our Raft group is made of.
    pub TypeConfig:
        D = EncodedEntry,
        R = EntryReply,
        Node = Member,
        AsyncRuntime = runtime::SeededRuntime,
);

/// A Raft entry of our group.
pub type RaftEntry = alias::EntryOf<TypeConfig>;
/// The place of an entry in the log.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Who leads, or wants to.
pub type Vote = alias::VoteOf<TypeConfig>;
/// The voters and learners as of an entry.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A handle to the running group member.
pub type RaftHandle = openraft::Raft<TypeConfig, state_machine::StateMachine>;

/// An encoded [`crate::machine::command::Entry`]: encoded once by the proposer, stored and sent
/// as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedEntry(pub Bytes);

impl fmt::Debug for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedEntry({} bytes)", self.0.len())
    }
}

impl fmt::Display for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A node as the membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Where the others reach it, `host:port`; empty for a single voter that nobody calls.
    pub address: String,
    /// Of its data folder; 0 is not known, and not checked.
    pub incarnation: u64,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// What applying an entry answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntryReply {
    /// The entry's index.
    pub index: LogIndex,
    /// One reply per command, in order. Empty for entries of Raft's own.
    pub replies: Vec<Reply>,
}
