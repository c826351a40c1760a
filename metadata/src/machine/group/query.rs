//! Reads of one group.

use aquifer_storage::model::TopicPartition;
use bytes::Bytes;

use super::{
    command::{CommittedOffset, Progress, RequestId},
    consumer::{
        command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
        query::ConsumerGroupDescription,
    },
    types::{GenerationId, GroupKind, GroupRejected, GroupState, JoinResult, MemberId, SyncResult},
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
        /// Who reads them, where it says so; it must be a member in this epoch.
        reader: Option<OffsetReader>,
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
    /// How the group stands; a consumer group is none here.
    Describe,
    /// A heartbeat in a consumer group, which the leader answers and notes if it changes nothing.
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// How a consumer group stands.
    ConsumerDescribe,
}

/// A member of a consumer group that reads offsets (OffsetFetch v9 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetReader {
    /// The member.
    pub member: MemberId,
    /// The epoch it is in.
    pub epoch: i32,
}

/// The answer to a [`GroupQuery`].
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAnswer {
    /// To `Join`.
    Join(Result<Progress<JoinResult>, GroupRejected>),
    /// To `Sync`.
    Sync(Result<Progress<SyncResult>, GroupRejected>),
    /// To `Offsets`; partitions without a committed offset are left out.
    Offsets(Result<Vec<(TopicPartition, CommittedOffset)>, GroupRejected>),
    /// To `Heartbeat`.
    Heartbeat(Result<(), GroupRejected>),
    /// To `Describe`; `None` when there is no such group.
    Described(Option<GroupDescription>),
    /// To `ConsumerHeartbeat`; `None`: it would change something, so it has to be proposed.
    ConsumerHeartbeat(Option<Result<ConsumerHeartbeatResult, ConsumerRejected>>),
    /// To `ConsumerDescribe`; `None` when there is no such consumer group.
    ConsumerDescribed(Option<ConsumerGroupDescription>),
}

/// A group in a list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListed {
    /// Its id.
    pub group: String,
    /// Where it is in its round.
    pub state: GroupState,
    /// `None` for a simple group.
    pub protocol_type: Option<String>,
    /// By which protocol it goes.
    pub kind: GroupKind,
}

/// How a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Where it is in its round.
    pub state: GroupState,
    /// `None` for a simple group.
    pub protocol_type: Option<String>,
    /// The assignor; only of a stable group.
    pub protocol: Option<String>,
    /// The members in the order of joining.
    pub members: Vec<MemberDescription>,
}

/// A member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// What it told the assignor; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}
