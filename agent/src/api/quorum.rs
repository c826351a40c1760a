//! The metadata group as Kafka's quorum APIs name it: voters, observers, directory ids. [pure]
//!
//! A learner is Kafka's observer. What Kafka calls a directory id names a data folder: here the
//! incarnation that the folder drew when it was made, twice.

use aquifer_metadata::client::cluster::{GroupStatus, MemberStatus, OperationError};

use crate::wire::{codec::Uuid, error_code::ErrorCode};

/// The one partition that the quorum APIs know.
pub const QUORUM_TOPIC: &str = "__cluster_metadata";

/// A node's id on the wire. Ids grow with the log and outgrow Kafka's after two billion entries;
/// the directory id still tells such nodes apart.
pub fn replica_id(member: u64) -> i32 {
    i32::try_from(member).unwrap_or(i32::MAX)
}

/// The directory id of a data folder.
pub fn directory_id(incarnation: u64) -> Uuid {
    let half = incarnation.to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half);
    bytes[8..].copy_from_slice(&half);
    Uuid::from_bytes(bytes)
}

/// The member a request names, by both of its ids.
pub fn member(status: &GroupStatus, id: i32, directory: Uuid) -> Option<&MemberStatus> {
    status
        .members
        .iter()
        .find(|member| replica_id(member.id) == id && directory_id(member.incarnation) == directory)
}

/// The refusal, if a request is meant for another cluster. Naming none is allowed.
pub fn check_cluster(named: Option<&str>, ours: &str) -> Result<(), (ErrorCode, String)> {
    match named {
        Some(named) if named != ours => {
            let reason = format!("the request is for cluster {named}, and this is {ours}");
            Err((ErrorCode::InconsistentClusterId, reason))
        }
        _ => Ok(()),
    }
}

/// A change that was not made, or may not have been. `refused` is the code of a refusal.
pub fn change_error(error: &OperationError, refused: ErrorCode) -> (ErrorCode, String) {
    let code = match error {
        OperationError::Unavailable(_) => ErrorCode::NotLeaderOrFollower,
        // May have happened: whoever asked must look.
        OperationError::Indefinite(_) => ErrorCode::RequestTimedOut,
        OperationError::Refused(_) => refused,
    };
    (code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: u64, incarnation: u64) -> MemberStatus {
        MemberStatus { id, incarnation, ..MemberStatus::default() }
    }

    #[test]
    fn a_member_is_named_by_its_id_and_its_folder() {
        let huge = u64::from(u32::MAX);
        let members = vec![of(1, 7), of(huge, 8), of(huge + 1, 9)];
        let status = GroupStatus { members, ..GroupStatus::default() };
        let found = |id, incarnation| member(&status, id, directory_id(incarnation)).map(|m| m.id);
        assert_eq!(found(1, 7), Some(1));
        assert_eq!(found(1, 8), None, "the folder of another node");
        assert_eq!(found(i32::MAX, 9), Some(huge + 1), "ids beyond Kafka's are told apart");
    }
}
