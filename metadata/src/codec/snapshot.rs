//! The snapshot: everything (RELIABILITY G7), written and read row by row, so that neither side
//! ever holds the whole state a second time as messages.
//!
//! # Invariants
//! - The encoding is canonical: equal states give equal bytes, whatever led to them.
//! - `decode(encode(S)) == S`.

use prost::{
    Message,
    encoding::{self, WireType},
};

use super::{
    CodecError, check_level,
    command::{stamp_from_proto, stamp_to_proto},
    config, group, host_port_from_proto, host_port_to_proto, lineage_from_proto, lineage_to_proto,
    node_id, row, topic_from_proto, topic_to_proto,
    watch::{catalog_topic_from_proto, catalog_topic_to_proto},
};
use crate::{
    machine::{
        Elapsed, Genesis, MetadataState, invariants, object::ObjectId, producer::ProducerIds,
        time::Clocks,
    },
    proto,
};
use aquifer_storage::{
    model::{LogIndex, Offset, ProducerId, SessionId},
    planted::{self, Bug},
};

const HEADER: u32 = 1;
const TOPIC: u32 = 2;
const DELETED_TOPIC: u32 = 3;
const OBJECT: u32 = 4;
const LOG: u32 = 5;
const PRODUCER: u32 = 6;
const SESSION: u32 = 7;
const NODE: u32 = 8;
const GROUPS: u32 = 9;
const CONFIGS: u32 = 20;

/// The state as bytes: one `Snapshot` message.
pub fn encode_snapshot(state: &MetadataState) -> Vec<u8> {
    let mut bytes = Vec::new();
    for_each_row(state, &mut |tag, row| {
        encoding::encode_key(tag, WireType::LengthDelimited, &mut bytes);
        encoding::encode_varint(row.len() as u64, &mut bytes);
        bytes.extend_from_slice(row);
    });
    bytes
}

/// The state from bytes. Bytes that parse but contradict themselves are refused too: a node stops
/// rather than go on from them.
pub fn decode_snapshot(bytes: &[u8]) -> Result<MetadataState, CodecError> {
    let mut rest = bytes;
    let (tag, header) = next_row(&mut rest)?;
    if tag != HEADER {
        return Err(CodecError::Missing("snapshot header"));
    }
    let mut state = header_from_proto(proto::SnapshotHeader::decode(header)?)?;
    while !rest.is_empty() {
        let (tag, row) = next_row(&mut rest)?;
        read_row(&mut state, tag, row)?;
    }
    state.complete();
    match invariants::violations(&state).first() {
        Some(_) => Err(CodecError::Invalid("snapshot: an invariant of the state")),
        None => Ok(state),
    }
}

/// The sum of the rows' hashes. Each row is hashed with its place, so the sum does not depend on
/// the order of rows, and could be kept up to date row by row.
pub fn state_hash(state: &MetadataState) -> u64 {
    let mut sum = 0_u64;
    for_each_row(state, &mut |tag, row| {
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, row);
        sum = sum.wrapping_add(spread(checksum ^ (u64::from(tag) << 56) ^ row.len() as u64));
    });
    sum
}

/// Spreads every bit over all (the finalizer of SplitMix64): sums of checksums, which are linear,
/// would cancel out.
const fn spread(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Gives every row of the snapshot, encoded, in canonical order.
fn for_each_row(state: &MetadataState, give: &mut impl FnMut(u32, &[u8])) {
    let mut buffer = Vec::new();
    let mut give = |tag, message: &dyn EncodeRow| {
        buffer.clear();
        message.encode_row(&mut buffer);
        give(tag, &buffer);
    };
    give(HEADER, &header_to_proto(state));
    for topic in state.topics.iter() {
        give(TOPIC, &catalog_topic_to_proto(topic));
    }
    for (topic, at) in state.topics.deleted() {
        let topic = topic_to_proto(topic);
        give(DELETED_TOPIC, &proto::DeletedTopicRow { topic, at_elapsed_ms: at.millis() });
    }
    for (id, object) in state.objects.iter() {
        give(OBJECT, &row::object_row_to_proto(id, &object));
    }
    for (partition, log) in state.logs.iter() {
        give(LOG, &row::log_to_proto(partition, log));
    }
    let kept = if planted::is(Bug::DedupeNotInSnapshot) { 0 } else { usize::MAX };
    for (key, producer) in state.producers.iter().take(kept) {
        give(PRODUCER, &row::producer_to_proto(*key, producer));
    }
    for (id, session) in state.sessions.iter() {
        give(SESSION, &row::session_to_proto(id, session));
    }
    for (address, id) in state.nodes.iter() {
        let address = Some(host_port_to_proto(address));
        give(NODE, &proto::NodeRow { address, node_id: id.value() });
    }
    give(GROUPS, &group::groups_to_proto(&state.groups));
    for (key, overrides) in state.configs.iter() {
        give(CONFIGS, &config::resource_to_proto(key, overrides));
    }
}

/// A message whose type the row's tag says.
trait EncodeRow {
    fn encode_row(&self, bytes: &mut Vec<u8>);
}

impl<M: Message> EncodeRow for M {
    fn encode_row(&self, bytes: &mut Vec<u8>) {
        self.encode(bytes).expect("a vector takes any number of bytes");
    }
}

/// Splits the next row off `rest`.
fn next_row<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), CodecError> {
    let (tag, wire_type) = encoding::decode_key(rest)?;
    encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
    let length = encoding::decode_varint(rest)?;
    let length = usize::try_from(length).map_err(|_| CodecError::TooLong("snapshot row"))?;
    let (row, after) = rest.split_at_checked(length).ok_or(CodecError::Missing("snapshot row"))?;
    *rest = after;
    Ok((tag, row))
}

fn read_row(state: &mut MetadataState, tag: u32, bytes: &[u8]) -> Result<(), CodecError> {
    match tag {
        TOPIC => {
            state.topics.restore(catalog_topic_from_proto(proto::CatalogTopic::decode(bytes)?)?);
        }
        DELETED_TOPIC => {
            let row = proto::DeletedTopicRow::decode(bytes)?;
            let at = Elapsed::from_millis(row.at_elapsed_ms);
            state.topics.restore_deleted(topic_from_proto(&row.topic)?, at);
        }
        OBJECT => {
            let (id, object) = row::object_row_from_proto(proto::ObjectRow::decode(bytes)?)?;
            state.objects.restore(id, &object);
        }
        LOG => {
            let (partition, log) = row::log_from_proto(&proto::LogRow::decode(bytes)?)?;
            state.logs.restore(partition, log);
        }
        PRODUCER => {
            let (key, producer) = row::producer_from_proto(
                proto::ProducerRow::decode(bytes)?,
                state.clocks.elapsed(),
            )?;
            state.producers.restore(key, producer);
        }
        SESSION => {
            let (id, session) = row::session_from_proto(proto::SessionRow::decode(bytes)?)?;
            state.sessions.restore(id, session);
        }
        NODE => {
            let node = proto::NodeRow::decode(bytes)?;
            state.nodes.restore(host_port_from_proto(node.address)?, node_id(node.node_id)?);
        }
        GROUPS => {
            state.groups = group::groups_from_proto(proto::GroupsSnapshot::decode(bytes)?)?;
        }
        CONFIGS => {
            let row = proto::ResourceConfigs::decode(bytes)?;
            let (key, overrides) = config::resource_from_proto(row)?;
            state.configs.restore(key, overrides);
        }
        _ => return Err(CodecError::Missing("snapshot section")),
    }
    Ok(())
}

/// The first level of builds that know every row of this snapshot.
fn level(state: &MetadataState) -> u32 {
    if state.groups.has_consumers() || state.groups.has_own_limits() {
        return 3;
    }
    // Rows below a log start are forgotten by and by, which builds of level 1 would not do.
    let is_deleted = state.logs.iter().any(|(_, log)| Offset::ZERO < log.log_start());
    let configs = state.configs.iter().map(|(key, _)| key.kind.level()).max();
    configs.unwrap_or(1).max(if is_deleted { 2 } else { 1 })
}

fn header_to_proto(state: &MetadataState) -> proto::SnapshotHeader {
    let last_node = state.nodes.last();
    // Counted by builds of level 1, which would give an id twice.
    let has_gaps = usize::try_from(last_node.value()) != Ok(state.nodes.iter().count());
    proto::SnapshotHeader {
        min_level: level(state).max(if has_gaps { 2 } else { 1 }),
        cluster_id: state.genesis.cluster_id.clone(),
        lineage: Some(lineage_to_proto(state.genesis.lineage)),
        index: state.index.value(),
        term: state.clocks.term(),
        stamp: Some(stamp_to_proto(state.clocks.stamp())),
        elapsed_ms: state.clocks.elapsed().millis(),
        last_session: state.sessions.last().value(),
        next_producer_id: state.producer_ids.next().value(),
        next_object_id: state.objects.next_id().0,
        last_node_id: has_gaps.then_some(last_node.value()),
    }
}

fn header_from_proto(header: proto::SnapshotHeader) -> Result<MetadataState, CodecError> {
    check_level(header.min_level)?;
    let lineage = lineage_from_proto(header.lineage)?;
    let mut state = MetadataState::new(Genesis { cluster_id: header.cluster_id, lineage });
    state.index = LogIndex::new(header.index);
    let elapsed = Elapsed::from_millis(header.elapsed_ms);
    state.clocks = Clocks::restore(elapsed, stamp_from_proto(header.stamp)?, header.term);
    if header.next_producer_id < 0 {
        return Err(CodecError::Invalid("producer id"));
    }
    state.producer_ids = ProducerIds::restore(ProducerId::new(header.next_producer_id));
    state.sessions.restore_last(SessionId::new(header.last_session));
    state.objects.restore_next_id(ObjectId(header.next_object_id));
    if let Some(last) = header.last_node_id {
        state.nodes.restore_last(node_id(last)?);
    }
    Ok(state)
}
