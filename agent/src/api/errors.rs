//! Refusals as Kafka's error codes: one exhaustive table for each kind.

use aquifer_metadata::{
    client::CallError,
    machine::{
        command::TopicRejected, config::ConfigRejected as AlterRejected,
        group::types::GroupRejected,
    },
};
use aquifer_storage::error::Outcome;

use crate::{
    configs::alter::AlterRefused, topic_config::ConfigRejected, wire::error_code::ErrorCode,
};

/// A group command or question that metadata did not answer. Clients look for the coordinator and
/// ask again, which the retry keys make harmless. Also where the outcome is not known: as in Kafka,
/// whose clients take a timeout here for fatal.
pub fn coordinator_error(error: &CallError) -> ErrorCode {
    match error.outcome {
        // Too large for one command, mostly: trying again would go on for ever.
        Outcome::Rejected => ErrorCode::UnknownServerError,
        Outcome::Indefinite | Outcome::Fenced | Outcome::Unavailable | Outcome::Corrupt => {
            ErrorCode::CoordinatorNotAvailable
        }
    }
}

/// A topic command that metadata did not answer.
pub fn admin_error(error: &CallError) -> ErrorCode {
    match error.outcome {
        // May have happened: the client must look.
        Outcome::Indefinite => ErrorCode::RequestTimedOut,
        Outcome::Rejected | Outcome::Fenced | Outcome::Unavailable | Outcome::Corrupt => {
            ErrorCode::NotController
        }
    }
}

/// A group's refusal.
pub fn group_error(rejected: &GroupRejected) -> ErrorCode {
    match rejected {
        GroupRejected::UnknownMember => ErrorCode::UnknownMemberId,
        GroupRejected::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
        GroupRejected::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupRejected::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupRejected::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupRejected::FencedInstance => ErrorCode::FencedInstanceId,
        GroupRejected::UnknownGroup => ErrorCode::GroupIdNotFound,
        GroupRejected::GroupFull => ErrorCode::GroupMaxSizeReached,
        GroupRejected::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupRejected::NonEmpty => ErrorCode::NonEmptyGroup,
        GroupRejected::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        GroupRejected::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupRejected::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
        GroupRejected::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupRejected::InvalidRegex => ErrorCode::InvalidRegularExpression,
        GroupRejected::InvalidRequest => ErrorCode::InvalidRequest,
        GroupRejected::NotStable => ErrorCode::CoordinatorLoadInProgress,
        GroupRejected::EpochUnknown => ErrorCode::UnsupportedVersion,
    }
}

/// A topic command's refusal, with words for people.
pub fn topic_error(rejected: &TopicRejected, name: &str) -> (ErrorCode, String) {
    match rejected {
        TopicRejected::AlreadyExists { .. } => {
            (ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists."))
        }
        TopicRejected::Collides { with } => (
            ErrorCode::InvalidTopicException,
            format!("Topic '{name}' collides with existing topic: {with}"),
        ),
        TopicRejected::IdReused => {
            (ErrorCode::RequestTimedOut, "the drawn topic id exists, try again".to_owned())
        }
        TopicRejected::Unknown => {
            (ErrorCode::UnknownTopicOrPartition, format!("Topic '{name}' does not exist."))
        }
        TopicRejected::TooManyPartitions => {
            (ErrorCode::PolicyViolation, "the cluster's partition limit is reached".to_owned())
        }
    }
}

/// A config's refusal.
pub fn config_error(rejected: &ConfigRejected) -> ErrorCode {
    match rejected {
        ConfigRejected::Unknown(_)
        | ConfigRejected::Null(_)
        | ConfigRejected::Invalid(_)
        | ConfigRejected::Tiered => ErrorCode::InvalidConfig,
    }
}

/// The refusal of a change of configs.
pub fn alter_error(refused: &AlterRefused) -> ErrorCode {
    match refused {
        AlterRefused::Config(_) => ErrorCode::InvalidConfig,
        AlterRefused::Request(_) => ErrorCode::InvalidRequest,
        AlterRefused::Rejected(AlterRejected::UnknownTopic) => ErrorCode::UnknownTopicOrPartition,
        AlterRefused::Rejected(AlterRejected::Order { .. }) => ErrorCode::InvalidConfig,
        AlterRefused::Rejected(AlterRejected::ResourceFull | AlterRejected::StoreFull) => {
            ErrorCode::PolicyViolation
        }
    }
}
