//! How a consumer group stands.

use super::{AssignedTopic, MemberEpoch};
use crate::machine::group::types::{GroupState, MemberId};

/// How a consumer group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// Where it is on its way to the next assignment.
    pub state: GroupState,
    /// Counts what makes a new assignment necessary.
    pub group_epoch: i32,
    /// The group epoch that the present target was computed in.
    pub assignment_epoch: i32,
    /// The assignor that most members prefer.
    pub assignor: String,
    /// The members by id.
    pub members: Vec<ConsumerMemberDescription>,
}

/// A member of a described consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `client.rack`.
    pub rack: Option<String>,
    /// The epoch it is in.
    pub epoch: MemberEpoch,
    /// As the client named itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Topics it names.
    pub subscribed: Vec<String>,
    /// The expression it subscribes by.
    pub regex: Option<String>,
    /// What it may hold now.
    pub assignment: Vec<AssignedTopic>,
    /// What it shall hold in the end.
    pub target: Vec<AssignedTopic>,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}
