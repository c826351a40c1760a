//! Words of the group protocol as types.

use bytes::Bytes;

/// A member's id within its group; empty means "none yet".
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(String);

impl MemberId {
    /// Wraps a member id from the wire.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is "none yet".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A generation of a group: counts completed joins, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(i32);

impl GenerationId {
    /// Wraps a generation.
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The number, for encoding.
    pub const fn value(self) -> i32 {
        self.0
    }
}

/// A completed join, as one member sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinResult {
    /// The new generation.
    pub generation: GenerationId,
    /// The group's protocol type.
    pub protocol_type: String,
    /// The assignor all members support.
    pub protocol: String,
    /// The member that computes the assignment.
    pub leader: MemberId,
    /// The asking member.
    pub member: MemberId,
    /// For the leader: every member with its metadata; for others empty.
    pub members: Vec<JoinedMember>,
    /// Whether the leader shall not compute a new assignment (a static leader came back).
    pub skip_assignment: bool,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A completed sync, as one member sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncResult {
    /// The group's protocol type.
    pub protocol_type: String,
    /// The assignor.
    pub protocol: String,
    /// The member's assignment.
    pub assignment: Bytes,
}

/// Where a group is in its round, by Kafka's names; `Dead` is the absence of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Members are asked to rejoin.
    PreparingRebalance,
    /// The leader's assignment is awaited.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
    /// Of a consumer group: a new assignment is to be computed.
    Assigning,
    /// Of a consumer group: members are on their way to their assignment.
    Reconciling,
}

/// Which protocol a group goes by; it may change while the group is empty, and by migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Members assign (JoinGroup, SyncGroup).
    Classic,
    /// The coordinator assigns (ConsumerGroupHeartbeat).
    Consumer,
}

/// Why a group refused. Each names one Kafka error code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRejected {
    /// The member is not in the group.
    UnknownMember,
    /// The member must come back with this id.
    MemberIdRequired(MemberId),
    /// The generation is not the current one.
    IllegalGeneration,
    /// A rebalance is going on: rejoin.
    RebalanceInProgress,
    /// No assignor is common to all members, or the protocol type differs.
    InconsistentProtocol,
    /// Another member took over this `group.instance.id`.
    FencedInstance,
    /// No such group.
    UnknownGroup,
    /// `group.max.size` is reached.
    GroupFull,
    /// The session timeout is outside its limits.
    InvalidSessionTimeout,
    /// The group has members.
    NonEmpty,
    /// The member's epoch is not the one the group knows: it has to join again.
    FencedMemberEpoch,
    /// A commit or fetch of offsets comes from another epoch than the member's.
    StaleMemberEpoch,
    /// The `group.instance.id` is held by another member.
    UnreleasedInstance,
    /// There is no such assignor.
    UnsupportedAssignor,
    /// The expression cannot be parsed, or costs too much.
    InvalidRegex,
    /// The request contradicts itself or the group.
    InvalidRequest,
    /// The group has to be stable for this: come again.
    NotStable,
    /// A member with an epoch has to commit in a version that knows of it.
    EpochUnknown,
}
