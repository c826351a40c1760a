//! A ConsumerGroupHeartbeat and its reply.

use aquifer_storage::model::{PartitionIndex, TopicId};

use crate::machine::group::types::{GroupRejected, MemberId};

/// A member's epoch: from 1, the group's epoch it has caught up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberEpoch(i32);

impl MemberEpoch {
    /// Sent by who joins, or joins again after it was fenced.
    pub const JOINS: Self = Self(0);
    /// Sent by who leaves.
    pub const LEAVES: Self = Self(-1);
    /// Sent by a static member that leaves and means to come back.
    pub const LEAVES_FOR_A_WHILE: Self = Self(-2);

    /// Wraps an epoch from the wire.
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The number, for encoding.
    pub const fn value(self) -> i32 {
        self.0
    }
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedTopic {
    /// The topic.
    pub topic: TopicId,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionIndex>,
}

/// A ConsumerGroupHeartbeat; `None` is "as before".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    /// Never empty: who joins without an id (v0) is given one by the agent.
    pub member: MemberId,
    /// The epoch it is in, or what it wants.
    pub epoch: MemberEpoch,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `client.rack`.
    pub rack: Option<String>,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Milliseconds it wants to have for giving up partitions.
    pub rebalance_timeout_ms: Option<u32>,
    /// Names of topics.
    pub subscribed: Option<Vec<String>>,
    /// An expression that names of topics match; empty for none.
    pub regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// What it holds.
    pub owned: Option<Vec<AssignedTopic>>,
}

/// The answer to a heartbeat that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatResult {
    /// The member.
    pub member: MemberId,
    /// The epoch it is in from now on; what it sent, when it leaves.
    pub epoch: MemberEpoch,
    /// Milliseconds until its next heartbeat.
    pub heartbeat_interval_ms: u32,
    /// What it may hold; `None`: as it was told before.
    pub assignment: Option<Vec<AssignedTopic>>,
}

/// Why a heartbeat was refused, and Kafka's words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRejected {
    /// Why.
    pub kind: GroupRejected,
    /// The message for the client.
    pub message: String,
}
