//! Raft's requests and replies as messages between nodes. What an entry carries goes as the bytes
//! the log holds. [pure]

use bytes::Bytes;
use openraft::{
    EntryPayload,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
        VoteRequest, VoteResponse,
    },
};

use super::{EncodedEntry, LogId, RaftEntry, TypeConfig, Vote, record};
use crate::proto::{self, raft_append_reply::Reply as AppendKind, raft_log_entry::Payload};

/// A message that Raft cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft message: {0}")]
pub struct WireError(String);

fn missing(what: &str) -> WireError {
    WireError(format!("{what} is missing"))
}

/// A log id.
pub fn log_id_to_proto(id: &LogId) -> proto::RaftLogId {
    proto::RaftLogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

/// A log id.
pub fn log_id_from_proto(id: &proto::RaftLogId) -> LogId {
    record::log_id(id.term, id.node, id.index)
}

/// A vote.
pub fn vote_to_proto(vote: &Vote) -> proto::RaftVote {
    let leader = vote.leader_id();
    proto::RaftVote { term: leader.term, node: leader.node_id, committed: vote.is_committed() }
}

/// A vote.
///
/// # Errors
/// There is none.
pub fn vote_from_proto(vote: Option<&proto::RaftVote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or_else(|| missing("the vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    })
}

/// A request for a vote, by a candidate or, with `pre`, one that may become one.
pub fn vote_request_to_proto(
    request: &VoteRequest<TypeConfig>,
    peer: proto::Peer,
    pre: bool,
) -> proto::RaftVoteRequest {
    proto::RaftVoteRequest {
        peer: Some(peer),
        vote: Some(vote_to_proto(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to_proto),
        transfer: request.leadership_transfer,
        pre,
    }
}

/// A request for a vote.
///
/// # Errors
/// Something is missing.
pub fn vote_request_from_proto(
    request: &proto::RaftVoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let last = request.last.as_ref().map(log_id_from_proto);
    let mut read = VoteRequest::new(vote_from_proto(request.vote.as_ref())?, last);
    read.leadership_transfer = request.transfer;
    Ok(read)
}

/// The answer to a request for a vote.
pub fn voted_to_proto(voted: &VoteResponse<TypeConfig>) -> proto::RaftVoted {
    proto::RaftVoted {
        vote: Some(vote_to_proto(&voted.vote)),
        granted: voted.vote_granted,
        last: voted.last_log_id.as_ref().map(log_id_to_proto),
    }
}

/// The answer to a request for a vote.
///
/// # Errors
/// Something is missing.
pub fn voted_from_proto(voted: &proto::RaftVoted) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = vote_from_proto(voted.vote.as_ref())?;
    let last = voted.last.as_ref().map(log_id_from_proto);
    Ok(VoteResponse::new(vote, last, voted.granted))
}

fn entry_to_proto(entry: RaftEntry) -> proto::RaftLogEntry {
    let RaftEntry { log_id, payload } = entry;
    let payload = match payload {
        EntryPayload::Blank => Payload::Blank(true),
        EntryPayload::Normal(entry) => Payload::Normal(entry.0),
        membership @ EntryPayload::Membership(_) => {
            Payload::Membership(record::encode_payload(&membership))
        }
    };
    proto::RaftLogEntry {
        term: log_id.leader_id.term,
        node: log_id.leader_id.node_id,
        index: log_id.index,
        payload: Some(payload),
    }
}

fn entry_from_proto(entry: proto::RaftLogEntry) -> Result<RaftEntry, WireError> {
    let log_id = record::log_id(entry.term, entry.node, entry.index);
    let payload = match entry.payload {
        Some(Payload::Blank(_)) => EntryPayload::Blank,
        Some(Payload::Normal(bytes)) => EntryPayload::Normal(EncodedEntry(bytes)),
        Some(Payload::Membership(bytes)) => match record::decode_payload(bytes) {
            Ok(membership @ EntryPayload::Membership(_)) => membership,
            Ok(_) => return Err(WireError(format!("entry {} has no membership", entry.index))),
            Err(error) => return Err(WireError(error.to_string())),
        },
        None => return Err(missing("what an entry carries")),
    };
    Ok(RaftEntry { log_id, payload })
}

/// Entries, or a heartbeat. `peer` stands in the first request of a stream.
pub fn append_to_proto(
    request: AppendEntriesRequest<TypeConfig>,
    peer: Option<proto::Peer>,
) -> proto::RaftAppendRequest {
    proto::RaftAppendRequest {
        peer,
        vote: Some(vote_to_proto(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to_proto),
        commit: request.leader_commit.as_ref().map(log_id_to_proto),
        entries: request.entries.into_iter().map(entry_to_proto).collect(),
    }
}

/// Entries, or a heartbeat: each entry follows the one before it.
///
/// # Errors
/// Something is missing, or the entries have a hole.
pub fn append_from_proto(
    request: proto::RaftAppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let vote = vote_from_proto(request.vote.as_ref())?;
    let prev = request.prev.as_ref().map(log_id_from_proto);
    let mut next = prev.as_ref().map_or(0, |prev| prev.index.saturating_add(1));
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        if entry.index != next {
            return Err(WireError(format!("entry {} stands where {next} belongs", entry.index)));
        }
        next = next.saturating_add(1);
        entries.push(entry_from_proto(entry)?);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: prev,
        entries,
        leader_commit: request.commit.as_ref().map(log_id_from_proto),
    })
}

/// What became of entries.
pub fn appended_to_proto(result: &StreamAppendResult<TypeConfig>) -> proto::RaftAppendReply {
    let reply = match result {
        Ok(last) => {
            AppendKind::Matched(proto::RaftMatched { last: last.as_ref().map(log_id_to_proto) })
        }
        Err(StreamAppendError::Conflict(at)) => AppendKind::Conflict(log_id_to_proto(at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendKind::Higher(vote_to_proto(vote)),
    };
    proto::RaftAppendReply { reply: Some(reply) }
}

/// What became of entries; the refusal, if they were refused.
///
/// # Errors
/// Something is missing.
pub fn appended_from_proto(
    reply: proto::RaftAppendReply,
) -> Result<Result<StreamAppendResult<TypeConfig>, proto::Refusal>, WireError> {
    Ok(Ok(match reply.reply {
        Some(AppendKind::Matched(matched)) => Ok(matched.last.as_ref().map(log_id_from_proto)),
        Some(AppendKind::Conflict(at)) => Err(StreamAppendError::Conflict(log_id_from_proto(&at))),
        Some(AppendKind::Higher(vote)) => {
            Err(StreamAppendError::HigherVote(vote_from_proto(Some(&vote))?))
        }
        Some(AppendKind::Refusal(refusal)) => return Ok(Err(refusal)),
        None => return Err(missing("what became of the entries")),
    }))
}

/// Who shall lead next.
pub fn transfer_to_proto(
    request: &TransferLeaderRequest<TypeConfig>,
    peer: proto::Peer,
) -> proto::RaftTransferRequest {
    proto::RaftTransferRequest {
        peer: Some(peer),
        leader: Some(vote_to_proto(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to_proto),
    }
}

/// Who shall lead next.
///
/// # Errors
/// Something is missing.
pub fn transfer_from_proto(
    request: &proto::RaftTransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let leader = vote_from_proto(request.leader.as_ref())?;
    let last = request.last.as_ref().map(log_id_from_proto);
    Ok(TransferLeaderRequest::new(leader, request.to, last))
}

/// The checksum over the pieces of a snapshot.
pub fn snapshot_crc(body: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
}

/// Cuts a snapshot into pieces, without copying.
pub fn pieces(body: Bytes, piece_bytes: usize) -> impl Iterator<Item = Bytes> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(piece_bytes));
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> RaftEntry {
        let payload = EntryPayload::Normal(EncodedEntry(Bytes::from_static(b"entry")));
        RaftEntry { log_id: record::log_id(3, 1, index), payload }
    }

    fn request(prev: Option<u64>, indexes: &[u64]) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: prev.map(|index| record::log_id(2, 1, index)),
            entries: indexes.iter().map(|index| entry(*index)).collect(),
            leader_commit: Some(record::log_id(2, 1, 4)),
        }
    }

    #[test]
    fn entries_arrive_as_they_were_sent() {
        let blank = RaftEntry { log_id: record::log_id(3, 1, 7), payload: EntryPayload::Blank };
        let mut sent = request(Some(4), &[5, 6]);
        sent.entries.push(blank);
        let read = append_from_proto(append_to_proto(sent.clone(), None)).unwrap();
        assert_eq!(read.entries, sent.entries);
        assert_eq!(read.prev_log_id, sent.prev_log_id);
        assert_eq!(read.leader_commit, sent.leader_commit);
        assert_eq!(read.vote, sent.vote);
    }

    #[test]
    fn entries_with_a_hole_never_reach_raft() {
        for (prev, indexes) in
            [(Some(4), &[6][..]), (Some(4), &[5, 7]), (None, &[1]), (Some(u64::MAX), &[0])]
        {
            let sent = append_to_proto(request(prev, indexes), None);
            assert!(append_from_proto(sent).is_err(), "{prev:?} {indexes:?}");
        }
        assert!(append_from_proto(append_to_proto(request(None, &[0, 1]), None)).is_ok());
        let empty = proto::RaftAppendRequest::default();
        assert_eq!(append_from_proto(empty).unwrap_err(), missing("the vote"));
    }

    #[test]
    fn pieces_make_up_the_whole() {
        for length in [0, 1, 3, 4, 5, 8] {
            let body = Bytes::from((0..length).collect::<Vec<u8>>());
            let pieces: Vec<Bytes> = pieces(body.clone(), 4).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 4 && !piece.is_empty()));
            assert_eq!(pieces.concat(), body);
        }
    }
}
