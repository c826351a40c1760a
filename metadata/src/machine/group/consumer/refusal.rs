//! Refusals of heartbeats in Kafka's words, and the checks that need no group.

use super::{
    MemberEpoch,
    command::{ConsumerHeartbeat, ConsumerRejected},
    settings::ConsumerSettings,
};
use crate::machine::group::types::{GroupRejected, MemberId};

fn refuse(kind: GroupRejected, message: String) -> ConsumerRejected {
    ConsumerRejected { kind, message }
}

/// There is no group of that name.
pub(crate) fn unknown_group(name: &str, leaves: bool) -> ConsumerRejected {
    let kind = if leaves { "Group" } else { "Consumer group" };
    refuse(GroupRejected::UnknownGroup, format!("{kind} {name} not found."))
}

/// The group goes by another protocol.
pub(crate) fn other_protocol(name: &str) -> ConsumerRejected {
    refuse(GroupRejected::UnknownGroup, format!("Group {name} is not a consumer group."))
}

/// A classic group with members stays one.
pub(super) fn no_upgrade(name: &str, reason: &str) -> ConsumerRejected {
    let message =
        format!("Cannot upgrade classic group {name} to consumer group because {reason}.");
    refuse(GroupRejected::UnknownGroup, message)
}

/// A classic group with members becomes another once its rebalance is over.
pub(super) fn not_stable(name: &str) -> ConsumerRejected {
    let message = format!("Classic group {name} is rebalancing, and upgraded after that.");
    refuse(GroupRejected::NotStable, message)
}

pub(super) fn full(max_size: usize) -> ConsumerRejected {
    let message =
        format!("The consumer group has reached its maximum capacity of {max_size} members.");
    refuse(GroupRejected::GroupFull, message)
}

pub(super) fn unknown_member(id: &MemberId, group: &str) -> ConsumerRejected {
    let message = format!("Member {} is not a member of group {group}.", id.as_str());
    refuse(GroupRejected::UnknownMember, message)
}

pub(super) fn unknown_instance(instance: &str) -> ConsumerRejected {
    refuse(GroupRejected::UnknownMember, format!("Instance id {instance} is unknown."))
}

pub(super) fn unreleased(id: &MemberId, instance: &str, holder: &MemberId) -> ConsumerRejected {
    let message = format!(
        "Static member {} with instance id {instance} cannot join the group because the instance \
         id is owned by {} member.",
        id.as_str(),
        holder.as_str(),
    );
    refuse(GroupRejected::UnreleasedInstance, message)
}

pub(super) fn fenced(id: &MemberId, instance: &str, holder: &MemberId) -> ConsumerRejected {
    let message = format!(
        "Static member {} with instance id {instance} was fenced by member {}.",
        id.as_str(),
        holder.as_str(),
    );
    refuse(GroupRejected::FencedInstance, message)
}

pub(super) fn fenced_epoch(received: i32, known: i32) -> ConsumerRejected {
    let than = if known < received { "greater" } else { "smaller" };
    let message = format!(
        "The consumer group member has a {than} member epoch ({received}) than the one known by \
         the group coordinator ({known}). The member must abandon all its partitions and rejoin."
    );
    refuse(GroupRejected::FencedMemberEpoch, message)
}

pub(super) fn regex(regex: &str, reason: &str) -> ConsumerRejected {
    let message =
        format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {reason}.");
    refuse(GroupRejected::InvalidRegex, message)
}

/// Refuses a heartbeat that contradicts itself, in the order of Kafka's checks.
pub(crate) fn check(
    heartbeat: &ConsumerHeartbeat,
    group: &str,
    settings: &ConsumerSettings,
) -> Result<(), ConsumerRejected> {
    let is_empty = |text: &Option<String>| text.as_deref() == Some("");
    let epoch = heartbeat.epoch;
    let joins = epoch == MemberEpoch::JOINS;
    let holds_nothing = heartbeat.owned.as_ref().is_some_and(Vec::is_empty);
    let subscribes = heartbeat.subscribed.is_some() || heartbeat.regex.is_some();
    let checks = [
        (heartbeat.member.is_empty(), "MemberId can't be empty."),
        (group.is_empty(), "GroupId can't be empty."),
        (is_empty(&heartbeat.instance), "InstanceId can't be empty."),
        (is_empty(&heartbeat.rack), "RackId can't be empty."),
        (
            joins && heartbeat.rebalance_timeout_ms.is_none(),
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        (joins && !holds_nothing, "TopicPartitions must be empty when (re-)joining."),
        (
            joins && !subscribes,
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
             (re-)joining.",
        ),
        (
            epoch == MemberEpoch::LEAVES_FOR_A_WHILE && heartbeat.instance.is_none(),
            "InstanceId can't be null.",
        ),
        (epoch < MemberEpoch::LEAVES_FOR_A_WHILE, "MemberEpoch is invalid."),
    ];
    if let Some((_, message)) = checks.into_iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(refuse(GroupRejected::InvalidRequest, message.to_owned()));
    }
    let Some(named) = &heartbeat.assignor else { return Ok(()) };
    let supported: Vec<&str> = settings.assignors.iter().map(|(name, _)| name.as_str()).collect();
    if supported.contains(&named.as_str()) {
        return Ok(());
    }
    let supported = supported.join(", ");
    let message =
        format!("ServerAssignor {named} is not supported. Supported assignors: {supported}.");
    Err(refuse(GroupRejected::UnsupportedAssignor, message))
}
