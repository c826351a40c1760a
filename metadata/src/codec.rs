//! Entries, snapshots and gRPC messages as protobuf. Conversions only; no I/O.
//!
//! Bytes are judged before they are used: an unknown command, a level above ours, a count that the
//! bytes do not hold, or a number outside its type is an error, and never sizes an allocation.

mod admin;
pub mod command;
pub mod config;
pub mod group;
pub mod part;
pub mod query;
pub mod reply;
pub mod snapshot;
pub mod watch;

pub(crate) mod column;
mod row;

use std::collections::BTreeMap;

use aquifer_storage::model::{
    Lineage, NodeId, ObjectName, ObjectSeq, Offset, PartitionIndex, SessionId, TopicId,
    TopicPartition,
};
use bytes::Bytes;

pub use self::{
    command::{
        command_from_proto, command_to_proto, decode_entry, encode_entry, is_kept_by_encoding,
    },
    query::{answer_from_proto, answer_to_proto, query_from_proto, query_to_proto},
    reply::{
        applied_reply_from_proto, applied_reply_to_proto, commit_reply_from_proto,
        commit_reply_to_proto, reply_from_proto, reply_to_proto,
    },
    snapshot::{decode_snapshot, encode_snapshot},
    watch::{
        watch_event_from_proto, watch_event_to_proto, watch_request_from_proto,
        watch_request_to_proto,
    },
};
use crate::{machine::command::HostPort, proto};

/// Bytes or a message that cannot be what they claim to be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// Not protobuf, or cut short.
    #[error("malformed protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A part that must be there is not, or is one this build does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// A value is outside its range.
    #[error("{0} is out of range")]
    Invalid(&'static str),
    /// There is more of it than is allowed.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// Written by a newer build: this node must stop rather than misread it.
    #[error("level {level} is above {supported}, the newest this build knows")]
    LevelTooHigh {
        /// The entry's or snapshot's level.
        level: u32,
        /// [`crate::machine::LEVEL`].
        supported: u32,
    },
}

/// The longest host or zone name.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest topic name, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Config overrides of one topic.
pub const CONFIGS_MAX: usize = 1024;

pub(crate) fn check_level(level: u32) -> Result<(), CodecError> {
    let supported = crate::machine::LEVEL;
    if level > supported {
        return Err(CodecError::LevelTooHigh { level, supported });
    }
    Ok(())
}

fn name(text: String, what: &'static str, bytes_max: usize) -> Result<String, CodecError> {
    if text.len() > bytes_max { Err(CodecError::TooLong(what)) } else { Ok(text) }
}

fn zone(zone: Option<String>) -> Result<Option<String>, CodecError> {
    zone.map(|zone| name(zone, "zone", NAME_BYTES_MAX)).transpose()
}

fn narrow<T, U: TryFrom<T>>(value: T, what: &'static str) -> Result<U, CodecError> {
    U::try_from(value).map_err(|_| CodecError::Invalid(what))
}

fn offset(value: i64) -> Result<Offset, CodecError> {
    Offset::new(value).ok_or(CodecError::Invalid("offset"))
}

fn topic_to_proto(topic: TopicId) -> Bytes {
    Bytes::copy_from_slice(topic.as_bytes())
}

fn topic_from_proto(bytes: &[u8]) -> Result<TopicId, CodecError> {
    let bytes = bytes.try_into().map_err(|_| CodecError::Invalid("topic id"))?;
    Ok(TopicId::from_bytes(bytes))
}

pub(crate) fn partition_to_proto(partition: TopicPartition) -> proto::TopicPartition {
    proto::TopicPartition {
        topic: topic_to_proto(partition.topic),
        partition: partition.partition.value(),
    }
}

pub(crate) fn partition_from_proto(
    partition: Option<proto::TopicPartition>,
) -> Result<TopicPartition, CodecError> {
    let partition = partition.ok_or(CodecError::Missing("partition"))?;
    if partition.partition < 0 {
        return Err(CodecError::Invalid("partition"));
    }
    Ok(TopicPartition {
        topic: topic_from_proto(&partition.topic)?,
        partition: PartitionIndex::new(partition.partition),
    })
}

fn host_port_to_proto(address: &HostPort) -> proto::HostPort {
    proto::HostPort { host: address.host.clone(), port: u32::from(address.port) }
}

fn host_port_from_proto(address: Option<proto::HostPort>) -> Result<HostPort, CodecError> {
    let address = address.ok_or(CodecError::Missing("address"))?;
    Ok(HostPort {
        host: name(address.host, "host", NAME_BYTES_MAX)?,
        port: narrow(address.port, "port")?,
    })
}

/// A node id read from a message: they count from 1.
fn node_id(value: i32) -> Result<NodeId, CodecError> {
    if value < 1 { Err(CodecError::Invalid("node id")) } else { Ok(NodeId::new(value)) }
}

pub(crate) fn lineage_to_proto(lineage: Lineage) -> proto::Lineage {
    proto::Lineage { number: lineage.number, nonce: lineage.nonce }
}

pub(crate) fn lineage_from_proto(lineage: Option<proto::Lineage>) -> Result<Lineage, CodecError> {
    let lineage = lineage.ok_or(CodecError::Missing("lineage"))?;
    Ok(Lineage { number: lineage.number, nonce: lineage.nonce })
}

fn object_to_proto(name: &ObjectName) -> proto::ObjectName {
    proto::ObjectName {
        lineage: Some(lineage_to_proto(name.lineage)),
        session: name.session.value(),
        seq: name.seq.value(),
        merged: name.merged,
    }
}

fn object_from_proto(name: Option<proto::ObjectName>) -> Result<ObjectName, CodecError> {
    let name = name.ok_or(CodecError::Missing("object"))?;
    Ok(ObjectName {
        lineage: lineage_from_proto(name.lineage)?,
        session: SessionId::new(name.session),
        seq: ObjectSeq::new(name.seq),
        merged: name.merged,
    })
}

fn configs_to_proto(configs: &BTreeMap<String, String>) -> Vec<proto::Config> {
    let config = |(name, value): (&String, &String)| proto::Config {
        name: name.clone(),
        value: value.clone(),
    };
    configs.iter().map(config).collect()
}

fn configs_from_proto(configs: Vec<proto::Config>) -> Result<BTreeMap<String, String>, CodecError> {
    if configs.len() > CONFIGS_MAX {
        return Err(CodecError::TooLong("configs"));
    }
    Ok(configs.into_iter().map(|config| (config.name, config.value)).collect())
}

#[cfg(test)]
mod tests;
