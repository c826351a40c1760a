//! Commands to a group's coordinator and their replies. Joining and syncing never wait
//! here: the reply says "pending", the agent waits for the group's version to move and asks again.

use aquifer_storage::model::{
    LeaderEpoch, Offset, PartitionIndex, SessionId, TopicId, TopicPartition,
};
use bytes::Bytes;

use super::{
    GroupSettings,
    consumer::command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
    types::{GenerationId, GroupRejected, JoinResult, MemberId, SyncResult},
};

/// A command and the group it goes to.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCommand {
    /// The group's id.
    pub group: String,
    /// What to do.
    pub action: GroupAction,
}

/// What to do with a group.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAction {
    /// A member joins or rejoins.
    Join(Join),
    /// A member gives (as leader) or asks for its assignment.
    Sync(Sync),
    /// Members leave.
    Leave {
        /// The members; the reply has one result for each, in order.
        members: Vec<LeavingMember>,
    },
    /// Offsets are committed.
    CommitOffsets(CommitOffsets),
    /// The leader has not heard of a member for its session timeout.
    ExpireMember {
        /// The member.
        member: MemberId,
        /// The member's `touched` version that was judged; no effect when it has moved.
        judged: u64,
    },
    /// The group is forgotten, with its offsets.
    Delete,
    /// Committed offsets are forgotten.
    DeleteOffsets {
        /// Which.
        topics: Vec<TopicOffsets>,
    },
    /// A member of a consumer group joins, goes on or leaves.
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// What is too old of these offsets is forgotten, and the group when nothing of it is left.
    ExpireOffsets {
        /// Which may be too old.
        topics: Vec<TopicOffsets>,
        /// `offsets.retention.minutes`, in milliseconds.
        retention_ms: u64,
    },
}

/// Offsets of one topic that are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// The topic.
    pub topic: TopicId,
    /// Its name, by which members subscribe.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<PartitionIndex>,
}

impl TopicOffsets {
    /// Its partitions.
    pub fn topic_partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let topic = self.topic;
        self.partitions.iter().map(move |partition| TopicPartition { topic, partition: *partition })
    }
}

/// A JoinGroup. `request` makes a retry after a lost reply harmless.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Unique per attempt: the agent's session and a counter.
    pub request: RequestId,
    /// Empty for a new member.
    pub member: MemberId,
    /// The id a new member gets, drawn by the agent: `<client id>-<uuid>`.
    pub proposed_member: MemberId,
    /// Whether a new dynamic member must come back with its id first (JoinGroup v4+).
    pub require_known_member: bool,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Milliseconds without a heartbeat until the member is expired.
    pub session_timeout_ms: u32,
    /// Milliseconds members get to rejoin.
    pub rebalance_timeout_ms: u32,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// Supported assignors, the preferred first, with the member's metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// The limits the asked agent was started with; `None` is the machine's own.
    pub limits: Option<GroupSettings>,
}

/// Identifies one attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The agent's session.
    pub session: SessionId,
    /// Counts the session's requests.
    pub number: u64,
}

/// A SyncGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// The member.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// The generation it joined.
    pub generation: GenerationId,
    /// v5+: must equal the group's when present.
    pub protocol_type: Option<String>,
    /// v5+: must equal the group's when present.
    pub protocol: Option<String>,
    /// From the leader: every member's assignment; else empty.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct LeavingMember {
    /// Its id; may be empty when `instance` names it.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
}

/// An OffsetCommit. Partitions that do not exist were refused before.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitOffsets {
    /// The member; empty for a simple consumer.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `None` for a simple consumer (-1 on the wire). The member epoch in a consumer group.
    pub generation: Option<GenerationId>,
    /// Whether the request's version knows of member epochs (v9).
    pub knows_epochs: bool,
    /// The offsets, at most one per partition.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, if known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own note, at most `offset.metadata.max.bytes`.
    pub metadata: String,
}

/// The reply to a [`GroupCommand`].
#[derive(Clone, Debug, PartialEq)]
pub enum GroupReply {
    /// To `Join`.
    Join(Result<Progress<JoinResult>, GroupRejected>),
    /// To `Sync`.
    Sync(Result<Progress<SyncResult>, GroupRejected>),
    /// To `Leave`, one per member.
    Leave(Vec<Result<(), GroupRejected>>),
    /// To `CommitOffsets`: whole, or per partition that is gone.
    CommitOffsets(Result<Vec<PartitionIndexError>, GroupRejected>),
    /// To `ExpireMember` and `ExpireOffsets`.
    Done,
    /// To `Delete`.
    Deleted(Result<(), GroupRejected>),
    /// To `DeleteOffsets`: per topic, whether members subscribe to it. Then its offsets stay.
    OffsetsDeleted(Result<Vec<bool>, GroupRejected>),
    /// To `ConsumerHeartbeat`.
    ConsumerHeartbeat(Result<ConsumerHeartbeatResult, ConsumerRejected>),
}

/// A partition whose offset was not stored because it does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionIndexError {
    /// The partition's place in its topic.
    pub partition: PartitionIndex,
    /// Its place in the request's list.
    pub position: u32,
}

/// An answer that may have to wait for other members.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress<T> {
    /// The answer.
    Ready(T),
    /// Ask again when the group's version passes this one.
    Pending {
        /// The member id to ask with (a new member learns its id here).
        member: MemberId,
        /// The version at which the answer was not there yet.
        version: u64,
    },
}
