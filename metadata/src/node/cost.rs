//! What a command costs an entry: about how many bytes of log, and how many partitions it
//! touches. An estimate from above, cheap enough to make for each command. [pure]

use super::proposer::ENTRY_TOUCHES_MAX;
use crate::machine::{
    command::{AlterConfigs, Command, GroupCommand},
    config::{ConfigAction, ConfigChange, ConfigOrder, ConfigResource},
    group::{command::GroupAction, consumer::command::ConsumerHeartbeat},
};

/// Tags, lengths and numbers of one element.
const ELEMENT_BYTES: usize = 40;

/// What a command costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// About its encoded length; at least 1.
    pub bytes: usize,
    /// Partitions it reads or changes.
    pub touches: usize,
}

impl Cost {
    /// The cost of `command`.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::RegisterSession(register) => {
                let zone = register.zone.as_ref().map_or(0, String::len);
                Self::bytes(register.advertised.host.len() + zone)
            }
            Command::Commit(part) => {
                let batches: usize = part.extents.iter().map(|extent| extent.batches.len()).sum();
                let elements = part.producers.len() + part.extents.len() + batches;
                Self { touches: part.extents.len(), ..Self::bytes(elements * ELEMENT_BYTES) }
            }
            Command::CreateTopic(create) => {
                let configs: usize = create
                    .configs
                    .iter()
                    .map(|(key, value)| key.len() + value.len() + ELEMENT_BYTES)
                    .sum();
                // A topic above the limit of an entry takes an entry of its own.
                let touches = (create.partitions as usize).min(ENTRY_TOUCHES_MAX);
                Self { touches, ..Self::bytes(create.name.len() + configs) }
            }
            Command::CreatePartitions(create) => {
                let touches = (create.partitions as usize).min(ENTRY_TOUCHES_MAX);
                Self { touches, ..Self::bytes(0) }
            }
            Command::DeleteRecords(_) => Self { touches: 1, ..Self::bytes(0) },
            Command::Group(group) => Self::of_group(group),
            Command::AlterConfigs(alter) => Self::bytes(Self::of_configs(alter)),
            Command::FenceSession { .. }
            | Command::DeleteTopic { .. }
            | Command::AllocateProducerIds { .. }
            | Command::UnregisterNode { .. }
            | Command::Tick => Self::bytes(0),
        }
    }

    /// The cost of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, touches: self.touches + other.touches }
    }

    fn bytes(variable: usize) -> Self {
        Self { bytes: 2 * ELEMENT_BYTES + variable, touches: 0 }
    }

    fn of_configs(alter: &AlterConfigs) -> usize {
        let action = |action: &ConfigAction| match action {
            ConfigAction::Set(value) => value.len(),
            ConfigAction::Delete => 0,
            ConfigAction::Append(list) | ConfigAction::Subtract(list) => {
                list.items.len() + list.default.len()
            }
        };
        let change: usize = match &alter.change {
            ConfigChange::Incremental(ops) => {
                ops.iter().map(|op| op.name.len() + action(&op.action) + ELEMENT_BYTES).sum()
            }
            ConfigChange::Replace(overrides) => {
                overrides.iter().map(|(name, value)| name.len() + value.len() + ELEMENT_BYTES).sum()
            }
        };
        let resource = match &alter.resource {
            ConfigResource::Topic(_) => ELEMENT_BYTES,
            ConfigResource::Other(key) => key.name.len() + ELEMENT_BYTES,
        };
        let order = |order: &ConfigOrder| order.lesser.0.len() + order.greater.0.len();
        let orders: usize = alter.orders.iter().map(|one| order(one) + 2 * ELEMENT_BYTES).sum();
        resource + change + orders
    }

    fn of_group(command: &GroupCommand) -> Self {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len) + ELEMENT_BYTES;
        let (action, touches) = match &command.action {
            GroupAction::Join(join) => {
                let protocols: usize = join
                    .protocols
                    .iter()
                    .map(|(name, metadata)| name.len() + metadata.len() + ELEMENT_BYTES)
                    .sum();
                let ids = join.member.as_str().len() + join.proposed_member.as_str().len();
                let client = join.client_id.len() + join.client_host.len();
                (protocols + ids + client + join.protocol_type.len() + text(&join.instance), 0)
            }
            GroupAction::Sync(sync) => {
                let assignments: usize = sync
                    .assignments
                    .iter()
                    .map(|(member, bytes)| member.as_str().len() + bytes.len() + ELEMENT_BYTES)
                    .sum();
                let names = text(&sync.instance) + text(&sync.protocol_type) + text(&sync.protocol);
                (assignments + names + sync.member.as_str().len(), 0)
            }
            GroupAction::Leave { members } => {
                let ids = members.iter().map(|m| m.member.as_str().len() + text(&m.instance));
                (ids.sum(), 0)
            }
            GroupAction::CommitOffsets(commit) => {
                let offsets: usize = commit
                    .offsets
                    .iter()
                    .map(|(_, offset)| offset.metadata.len() + 2 * ELEMENT_BYTES)
                    .sum();
                let ids = commit.member.as_str().len() + text(&commit.instance);
                (offsets + ids, commit.offsets.len())
            }
            GroupAction::ExpireMember { member, .. } => (member.as_str().len(), 0),
            GroupAction::Delete => (0, 0),
            GroupAction::DeleteOffsets { topics } | GroupAction::ExpireOffsets { topics, .. } => {
                let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
                let names: usize = topics.iter().map(|topic| topic.name.len()).sum();
                (names + (topics.len() + partitions) * ELEMENT_BYTES, partitions)
            }
            GroupAction::ConsumerHeartbeat(heartbeat) => Self::of_heartbeat(heartbeat),
        };
        Self { touches, ..Self::bytes(command.group.len() + action) }
    }

    /// Bytes and touches of a member's heartbeat.
    fn of_heartbeat(heartbeat: &ConsumerHeartbeat) -> (usize, usize) {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len) + ELEMENT_BYTES;
        let names = [&heartbeat.instance, &heartbeat.rack, &heartbeat.regex, &heartbeat.assignor];
        let names: usize = names.into_iter().map(text).sum();
        let client = heartbeat.client_id.len() + heartbeat.client_host.len();
        let subscribed = heartbeat.subscribed.iter().flatten();
        let subscribed: usize = subscribed.map(|name| name.len() + ELEMENT_BYTES).sum();
        let owned = heartbeat.owned.iter().flatten().map(|topic| topic.partitions.len());
        let owned: usize = owned.map(|partitions| (1 + partitions) * ELEMENT_BYTES).sum();
        (heartbeat.member.as_str().len() + names + client + subscribed + owned, 0)
    }
}
