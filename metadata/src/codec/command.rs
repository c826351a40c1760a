//! Entries and their commands.

use aquifer_storage::model::{NodeId, SessionId, TopicId};
use bytes::Bytes;
use prost::Message;

use super::{
    CodecError, NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX, check_level, config, configs_from_proto,
    configs_to_proto, group, host_port_from_proto, host_port_to_proto, name, narrow, offset,
    part::{part_from_proto, part_is_kept_by_encoding, part_to_proto},
    partition_from_proto, partition_to_proto, topic_from_proto, topic_to_proto, zone,
};
use crate::{
    machine::{
        LEVEL,
        command::{
            Command, CreatePartitions, CreateTopic, DeleteRecords, Entry, RegisterSession, Stamp,
        },
        topic::PARTITIONS_MAX,
    },
    proto::{self, command::Command as Kind},
};

/// The longest encoded entry that is read. The proposer keeps to 1 MiB unless one command is
/// larger.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;

/// Commands of one entry.
pub const ENTRY_COMMANDS_MAX: usize = 1 << 16;

/// An entry as it stands in the log.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let message = proto::Entry {
        stamp: Some(stamp_to_proto(entry.stamp)),
        min_level: entry.min_level,
        commands: entry.commands.iter().map(command_to_proto).collect(),
    };
    message.encode_to_vec().into()
}

/// An entry from the log. Its level is judged first: what a newer build wrote is not an error of
/// the bytes.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(CodecError::TooLong("entry"));
    }
    let message = proto::Entry::decode(bytes)?;
    check_level(message.min_level)?;
    if message.commands.len() > ENTRY_COMMANDS_MAX {
        return Err(CodecError::TooLong("commands"));
    }
    Ok(Entry {
        stamp: stamp_from_proto(message.stamp)?,
        min_level: message.min_level,
        commands: message.commands.into_iter().map(command_from_proto).collect::<Result<_, _>>()?,
    })
}

/// Whether [`decode_entry`] gives back `entry` exactly as it is. `false` also where that is not
/// looked into: of what clients say only commits are frequent.
pub fn is_kept_by_encoding(entry: &Entry) -> bool {
    entry.min_level <= LEVEL
        && entry.commands.len() <= ENTRY_COMMANDS_MAX
        && entry.commands.iter().all(|command| match command {
            Command::Commit(part) => part_is_kept_by_encoding(part),
            Command::Tick => true,
            _ => false,
        })
}

pub(super) fn stamp_to_proto(stamp: Stamp) -> proto::Stamp {
    proto::Stamp { boot: stamp.boot, mono_ms: stamp.mono_ms, wall_ms: stamp.wall_ms }
}

pub(super) fn stamp_from_proto(stamp: Option<proto::Stamp>) -> Result<Stamp, CodecError> {
    let stamp = stamp.ok_or(CodecError::Missing("stamp"))?;
    Ok(Stamp { boot: stamp.boot, mono_ms: stamp.mono_ms, wall_ms: stamp.wall_ms })
}

/// A command as a message.
pub fn command_to_proto(command: &Command) -> proto::Command {
    let kind = match command {
        Command::RegisterSession(register) => Kind::RegisterSession(proto::RegisterSession {
            request: register.request,
            advertised: Some(host_port_to_proto(&register.advertised)),
            zone: register.zone.clone(),
        }),
        Command::FenceSession { session } => {
            Kind::FenceSession(proto::FenceSession { session: session.value() })
        }
        Command::Commit(part) => Kind::Commit(part_to_proto(part)),
        Command::CreateTopic(create) => Kind::CreateTopic(proto::CreateTopic {
            topic: topic_to_proto(create.topic),
            name: create.name.clone(),
            partitions: create.partitions,
            replication_factor: u32::from(create.replication_factor),
            configs: configs_to_proto(&create.configs),
        }),
        Command::DeleteTopic { topic } => {
            Kind::DeleteTopic(proto::DeleteTopic { topic: topic_to_proto(*topic) })
        }
        Command::AllocateProducerIds { session } => {
            Kind::AllocateProducerIds(proto::AllocateProducerIds { session: session.value() })
        }
        Command::DeleteRecords(delete) => Kind::DeleteRecords(proto::DeleteRecords {
            partition: Some(partition_to_proto(delete.partition)),
            before: delete.before.map(|before| before.value()),
        }),
        Command::Group(command) => Kind::Group(group::command_to_proto(command)),
        Command::CreatePartitions(create) => Kind::CreatePartitions(proto::CreatePartitions {
            topic: topic_to_proto(create.topic),
            partitions: create.partitions,
        }),
        Command::UnregisterNode { node } => {
            Kind::UnregisterNode(proto::UnregisterNode { node_id: node.value() })
        }
        Command::Tick => Kind::Tick(proto::Tick {}),
        Command::AlterConfigs(alter) => Kind::AlterConfigs(config::alter_to_proto(alter)),
    };
    proto::Command { command: Some(kind) }
}

/// A command from a message, with everything checked that needs no state.
pub fn command_from_proto(command: proto::Command) -> Result<Command, CodecError> {
    Ok(match command.command.ok_or(CodecError::Missing("command"))? {
        Kind::RegisterSession(register) => Command::RegisterSession(RegisterSession {
            request: register.request,
            advertised: host_port_from_proto(register.advertised)?,
            zone: zone(register.zone)?,
        }),
        Kind::FenceSession(fence) => {
            Command::FenceSession { session: SessionId::new(fence.session) }
        }
        Kind::Commit(part) => Command::Commit(part_from_proto(&part)?),
        Kind::CreateTopic(create) => Command::CreateTopic(create_topic_from_proto(create)?),
        Kind::DeleteTopic(delete) => {
            Command::DeleteTopic { topic: topic_from_proto(&delete.topic)? }
        }
        Kind::AllocateProducerIds(allocate) => {
            Command::AllocateProducerIds { session: SessionId::new(allocate.session) }
        }
        Kind::DeleteRecords(delete) => Command::DeleteRecords(DeleteRecords {
            partition: partition_from_proto(delete.partition)?,
            before: delete.before.map(offset).transpose()?,
        }),
        Kind::Group(command) => Command::Group(group::command_from_proto(command)?),
        Kind::CreatePartitions(create) => {
            let partitions = partition_count(create.partitions)?;
            let topic = topic_from_proto(&create.topic)?;
            Command::CreatePartitions(CreatePartitions { topic, partitions })
        }
        Kind::UnregisterNode(unregister) => {
            Command::UnregisterNode { node: NodeId::new(unregister.node_id) }
        }
        Kind::Tick(proto::Tick {}) => Command::Tick,
        Kind::AlterConfigs(alter) => Command::AlterConfigs(config::alter_from_proto(alter)?),
    })
}

fn partition_count(count: u32) -> Result<u32, CodecError> {
    let is_sane = 0 < count && u64::from(count) <= PARTITIONS_MAX;
    if is_sane { Ok(count) } else { Err(CodecError::Invalid("partition count")) }
}

fn create_topic_from_proto(create: proto::CreateTopic) -> Result<CreateTopic, CodecError> {
    let topic = topic_from_proto(&create.topic)?;
    if topic == TopicId::ZERO {
        return Err(CodecError::Invalid("topic id"));
    }
    let partitions = partition_count(create.partitions)?;
    let configs = configs_from_proto(create.configs)?;
    for key in configs.keys() {
        if key.len() > NAME_BYTES_MAX {
            return Err(CodecError::TooLong("config name"));
        }
    }
    Ok(CreateTopic {
        topic,
        name: name(create.name, "topic name", TOPIC_NAME_BYTES_MAX)?,
        partitions,
        replication_factor: narrow(create.replication_factor, "replication factor")?,
        configs,
    })
}
