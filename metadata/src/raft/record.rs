//! How the payloads of log entries and the heads of snapshots look on disk: protobuf, with field
//! numbers that are never reused. [pure]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{EntryPayload, Membership, vote::RaftLeaderId};
use prost::Message;

use super::{EncodedEntry, LogId, Member, SnapshotMeta, StoredMembership};

/// Bytes that are whole by their checksum and yet make no sense.
#[derive(Debug, thiserror::Error)]
#[error("{record} record: {reason}")]
pub struct RecordError {
    record: &'static str,
    reason: String,
}

impl RecordError {
    fn new(record: &'static str, reason: impl ToString) -> Self {
        Self { record, reason: reason.to_string() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct VoterSetRecord {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(fixed64, tag = "3")]
    incarnation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VoterSetRecord>,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<NodeRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(oneof = "PayloadRecord", tags = "2, 3, 4")]
    payload: Option<PayloadRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PayloadRecord {
    #[prost(bool, tag = "2")]
    Blank(bool),
    #[prost(bytes = "bytes", tag = "3")]
    Normal(Bytes),
    #[prost(message, tag = "4")]
    Membership(MembershipRecord),
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotMetaRecord {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    membership_at: Option<LogIdRecord>,
    #[prost(message, optional, tag = "3")]
    membership: Option<MembershipRecord>,
}

type LeaderId = openraft::alias::LeaderIdOf<super::TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::alias::PayloadOf<super::TypeConfig>;

fn log_id_to_record(id: &LogId) -> LogIdRecord {
    LogIdRecord { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

/// The log id of these numbers.
pub fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(term, node).to_committed(), index }
}

fn log_id_from_record(record: &LogIdRecord) -> LogId {
    log_id(record.term, record.node, record.index)
}

fn membership_to_record(membership: &Membership<u64, Member>) -> MembershipRecord {
    MembershipRecord {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| VoterSetRecord { voters: voters.iter().copied().collect() })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, member)| NodeRecord {
                id: *id,
                address: member.address.clone(),
                incarnation: member.incarnation,
            })
            .collect(),
    }
}

fn member_from_record(NodeRecord { address, incarnation, .. }: NodeRecord) -> Member {
    Member { address, incarnation }
}

fn membership_from_record(
    record: MembershipRecord,
) -> Result<Membership<u64, Member>, RecordError> {
    let configs: Vec<BTreeSet<u64>> =
        record.configs.into_iter().map(|set| set.voters.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Member> =
        record.nodes.into_iter().map(|node| (node.id, member_from_record(node))).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| RecordError::new("membership", error))
}

/// Encodes what an entry carries; its log id is the log's own.
pub fn encode_payload(payload: &Payload) -> Bytes {
    let payload = match payload {
        EntryPayload::Blank => PayloadRecord::Blank(true),
        EntryPayload::Normal(entry) => PayloadRecord::Normal(entry.0.clone()),
        EntryPayload::Membership(membership) => {
            PayloadRecord::Membership(membership_to_record(membership))
        }
    };
    EntryRecord { payload: Some(payload) }.encode_to_vec().into()
}

/// Decodes what an entry carries, without copying it.
pub fn decode_payload(bytes: Bytes) -> Result<Payload, RecordError> {
    let record = EntryRecord::decode(bytes).map_err(|error| RecordError::new("entry", error))?;
    match record.payload {
        Some(PayloadRecord::Blank(_)) => Ok(EntryPayload::Blank),
        Some(PayloadRecord::Normal(bytes)) => Ok(EntryPayload::Normal(EncodedEntry(bytes))),
        Some(PayloadRecord::Membership(record)) => {
            Ok(EntryPayload::Membership(membership_from_record(record)?))
        }
        None => Err(RecordError::new("entry", "no payload this build knows")),
    }
}

/// The commands that an entry carries, as the machine's codec writes them; `None` in an entry of
/// Raft's own.
pub fn commands_of(payload: Bytes) -> Result<Option<Bytes>, RecordError> {
    Ok(match decode_payload(payload)? {
        EntryPayload::Normal(entry) => Some(entry.0),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    })
}

/// What the snapshot covers that a group of one voter begins with: everything up to `last`.
pub fn single_voter(last: LogId, id: u64, member: Member) -> SnapshotMeta {
    let nodes = BTreeMap::from([(id, member)]);
    let membership = Membership::new(vec![BTreeSet::from([id])], nodes);
    let membership = membership.expect("the voter is among the nodes");
    SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    }
}

/// Encodes what a snapshot covers.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    SnapshotMetaRecord {
        last: meta.last_log_id.as_ref().map(log_id_to_record),
        membership_at: meta.last_membership.log_id().as_ref().map(log_id_to_record),
        membership: Some(membership_to_record(meta.last_membership.membership())),
    }
    .encode_to_vec()
}

/// Decodes what a snapshot covers.
pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, RecordError> {
    let record =
        SnapshotMetaRecord::decode(bytes).map_err(|error| RecordError::new("snapshot", error))?;
    let membership = membership_from_record(record.membership.unwrap_or_default())?;
    Ok(SnapshotMeta {
        last_log_id: record.last.as_ref().map(log_id_from_record),
        last_membership: StoredMembership::new(
            record.membership_at.as_ref().map(log_id_from_record),
            membership,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_payload_comes_back_as_it_was() {
        let member = |id| Member { address: format!("host-{id}"), incarnation: 100 + id };
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([1, 2, 3, 4].map(|id| (id, member(id)))),
        )
        .unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EncodedEntry(Bytes::from_static(b"commands"))),
            EntryPayload::Normal(EncodedEntry(Bytes::new())),
            EntryPayload::Membership(membership),
        ] {
            assert_eq!(decode_payload(encode_payload(&payload)).unwrap(), payload);
        }
    }

    #[test]
    fn a_payload_this_build_does_not_know_is_refused() {
        assert!(decode_payload(Bytes::new()).is_err());
        assert!(decode_payload(Bytes::from_static(&[0xff; 9])).is_err());
    }

    #[test]
    fn what_a_snapshot_covers_comes_back_as_it_was() {
        let at = |index| Some(log_id(2, 1, index));
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1])], []);
        let last_membership = StoredMembership::new(at(3), membership);
        let meta = SnapshotMeta { last_log_id: at(9), last_membership };
        assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&meta)).unwrap(), meta);
        let empty = SnapshotMeta::default();
        assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&empty)).unwrap(), empty);
    }
}
