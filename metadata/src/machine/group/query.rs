//! Reads of one group.

use aquifer_storage::model::TopicPartition;

use super::{
    command::{CommittedOffset, Progress, RequestId},
    types::{GenerationId, GroupRejected, JoinResult, MemberId, SyncResult},
};

/// A question about one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupQuery {
    /// The group's id.
    pub group: String,
    /// The question.
    pub ask: GroupAsk,
}

/// What to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAsk {
    /// What became of a pending join.
    Join {
        /// The member.
        member: MemberId,
        /// The attempt.
        request: RequestId,
    },
    /// What became of a pending sync.
    Sync {
        /// The member.
        member: MemberId,
        /// The generation it joined.
        generation: GenerationId,
    },
    /// Committed offsets; `None` for all.
    Offsets {
        /// The partitions asked for.
        partitions: Option<Vec<TopicPartition>>,
    },
    /// Whether a member may go on: the check behind a heartbeat, which the leader answers and
    /// notes.
    Heartbeat {
        /// The member.
        member: MemberId,
        /// `group.instance.id` of a static member.
        instance: Option<String>,
        /// The generation it is in.
        generation: GenerationId,
    },
}

/// The answer to a [`GroupQuery`].
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAnswer {
    /// To `Join`.
    Join(Result<Progress<JoinResult>, GroupRejected>),
    /// To `Sync`.
    Sync(Result<Progress<SyncResult>, GroupRejected>),
    /// To `Offsets`; partitions without a committed offset are left out.
    Offsets(Vec<(TopicPartition, CommittedOffset)>),
    /// To `Heartbeat`.
    Heartbeat(Result<(), GroupRejected>),
}
