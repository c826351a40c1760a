//! What other nodes of the group ask this one. A message is read only if it is meant for this node
//! and comes from one of its cluster and lineage, on the data folder that the membership names.

use std::time::Duration;

use aquifer_storage::model::{LogIndex, SessionId};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Service,
    admission::{malformed, refusal},
    streams::{Replies, replies},
};
use crate::{
    node::MetadataNode,
    proto::{
        self, Refusal, compare_reply::Reply as CompareKind, hello_reply::Reply as HelloKind,
        leader_index_reply::Reply as IndexKind, presence_reply::Reply as PresenceKind,
        raft_append_reply::Reply as AppendKind, raft_server::Raft,
        raft_snapshot_reply::Reply as SnapshotKind, raft_snapshot_request::Request as SnapshotAsk,
        raft_transfer_reply::Reply as TransferKind, raft_vote_reply::Reply as VoteKind,
        refusal::Kind,
    },
    raft::{
        TypeConfig,
        library::{AppendEntriesRequest, Snapshot, TransferLeaderError},
        record, wire,
    },
};

/// The next piece of a snapshot is waited for this long.
const PIECE_MAX: Duration = Duration::from_secs(10);
/// Memory that is set aside for a snapshot before it arrives.
const SNAPSHOT_BYTES_AHEAD: u64 = 16 << 20;

fn stopping(error: impl std::fmt::Display) -> Refusal {
    refusal(Kind::Unavailable, error)
}

#[tonic::async_trait]
impl Raft for Service {
    async fn vote(
        &self,
        request: Request<proto::RaftVoteRequest>,
    ) -> Result<Response<proto::RaftVoteReply>, Status> {
        let reply = self.voted(request.into_inner()).await;
        let reply = Some(reply.map_or_else(VoteKind::Refusal, VoteKind::Voted));
        Ok(Response::new(proto::RaftVoteReply { reply }))
    }

    async fn beat(
        &self,
        request: Request<proto::RaftAppendRequest>,
    ) -> Result<Response<proto::RaftAppendReply>, Status> {
        let reply = self.beaten(request.into_inner()).await;
        Ok(Response::new(reply.unwrap_or_else(refused)))
    }

    type AppendStream = Replies<proto::RaftAppendReply>;

    async fn append(
        &self,
        request: Request<Streaming<proto::RaftAppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (outgoing, replies) = replies();
        let task = appended(self.node.clone(), request.into_inner(), outgoing.clone());
        self.spawn_stream("append-grpc", outgoing, task, refused);
        Ok(Response::new(replies))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::RaftSnapshotRequest>>,
    ) -> Result<Response<proto::RaftSnapshotReply>, Status> {
        let reply = installed(&self.node, request.into_inner()).await;
        let reply = Some(reply.map_or_else(SnapshotKind::Refusal, SnapshotKind::Vote));
        Ok(Response::new(proto::RaftSnapshotReply { reply }))
    }

    async fn transfer(
        &self,
        request: Request<proto::RaftTransferRequest>,
    ) -> Result<Response<proto::RaftTransferReply>, Status> {
        let reply = self.transferred(request.into_inner()).await;
        let reply = Some(reply.unwrap_or_else(TransferKind::Refusal));
        Ok(Response::new(proto::RaftTransferReply { reply }))
    }

    async fn leader_index(
        &self,
        request: Request<proto::LeaderIndexRequest>,
    ) -> Result<Response<proto::LeaderIndexReply>, Status> {
        let reply = self.led_index(request.into_inner()).await;
        let reply = Some(reply.map_or_else(IndexKind::Refusal, IndexKind::Index));
        Ok(Response::new(proto::LeaderIndexReply { reply }))
    }

    async fn presence(
        &self,
        request: Request<proto::PresenceRequest>,
    ) -> Result<Response<proto::PresenceReply>, Status> {
        let request = request.into_inner();
        let told = self.node.admit_peer(request.peer.as_ref()).map(|_| {
            let absent = request.absent.into_iter().map(SessionId::new).collect();
            self.node.learn_absent(request.term, absent);
            proto::Done {}
        });
        let reply = Some(told.map_or_else(PresenceKind::Refusal, PresenceKind::Done));
        Ok(Response::new(proto::PresenceReply { reply }))
    }

    async fn compare(
        &self,
        request: Request<proto::CompareRequest>,
    ) -> Result<Response<proto::CompareReply>, Status> {
        let request = request.into_inner();
        let reply = match self.node.admit_peer(request.peer.as_ref()) {
            Err(refusal) => CompareKind::Refusal(refusal),
            Ok(from) => {
                let index = LogIndex::new(request.index);
                // Only the leader compared.
                let leads = self.node.leadership().term().err().and_then(|not| not.leader);
                let differs = request.differs && leads.is_some_and(|(leader, _)| leader == from);
                match self.node.compare(index, request.hash, differs) {
                    Some(hash) => CompareKind::Hash(hash),
                    None => CompareKind::Unknown(proto::Done {}),
                }
            }
        };
        Ok(Response::new(proto::CompareReply { reply: Some(reply) }))
    }

    async fn hello(
        &self,
        request: Request<proto::HelloRequest>,
    ) -> Result<Response<proto::HelloReply>, Status> {
        let reply = match self.node.admit_peer(request.into_inner().peer.as_ref()) {
            Ok(_) => self.node.hello().await.map_err(stopping),
            Err(refusal) => Err(refusal),
        };
        let reply = Some(reply.map_or_else(HelloKind::Refusal, HelloKind::Hello));
        Ok(Response::new(proto::HelloReply { reply }))
    }
}

fn refused(refusal: Refusal) -> proto::RaftAppendReply {
    proto::RaftAppendReply { reply: Some(AppendKind::Refusal(refusal)) }
}

impl Service {
    async fn voted(&self, request: proto::RaftVoteRequest) -> Result<proto::RaftVoted, Refusal> {
        self.node.admit_peer(request.peer.as_ref())?;
        let vote = wire::vote_request_from_proto(&request).map_err(malformed)?;
        let raft = self.node.raft();
        let voted = if request.pre { raft.pre_vote(vote).await } else { raft.vote(vote).await };
        voted.map(|voted| wire::voted_to_proto(&voted)).map_err(stopping)
    }

    async fn beaten(
        &self,
        request: proto::RaftAppendRequest,
    ) -> Result<proto::RaftAppendReply, Refusal> {
        self.node.admit_peer(request.peer.as_ref())?;
        let append = wire::append_from_proto(request).map_err(malformed)?;
        let mut answers = self.node.raft().stream_append(stream::iter([append])).boxed();
        match answers.next().await {
            Some(Ok(result)) => Ok(wire::appended_to_proto(&result)),
            Some(Err(error)) => Err(stopping(error)),
            None => Err(stopping("the metadata node is stopping")),
        }
    }

    async fn transferred(
        &self,
        request: proto::RaftTransferRequest,
    ) -> Result<TransferKind, Refusal> {
        self.node.admit_peer(request.peer.as_ref())?;
        let transfer = wire::transfer_from_proto(&request).map_err(malformed)?;
        match self.node.raft().handle_transfer_leader(transfer).await.map_err(stopping)? {
            Ok(()) => Ok(TransferKind::Done(proto::Done {})),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                Ok(TransferKind::VoteChanged(wire::vote_to_proto(&actual)))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                let last = actual.as_ref().map(wire::log_id_to_proto);
                Ok(TransferKind::NotFlushed(proto::RaftMatched { last }))
            }
        }
    }

    async fn led_index(&self, request: proto::LeaderIndexRequest) -> Result<u64, Refusal> {
        self.node.admit_peer(request.peer.as_ref())?;
        if let Err(not_leader) = self.node.leadership().term() {
            return Err(self.refusal(not_leader.refusal_of("read index")));
        }
        let index = self.node.read_index().await;
        index.map(|index| index.value()).map_err(|error| self.refusal(error))
    }
}

/// Hands a stream's entries to Raft as they come, and answers in their order.
async fn appended(
    node: MetadataNode,
    mut incoming: Streaming<proto::RaftAppendRequest>,
    outgoing: super::streams::Outgoing<proto::RaftAppendReply>,
) -> Result<(), Refusal> {
    let Ok(Some(first)) = incoming.message().await else { return Ok(()) };
    node.admit_peer(first.peer.as_ref())?;
    let first = wire::append_from_proto(first).map_err(malformed)?;
    let rest = stream::unfold(incoming, |mut incoming| async move {
        let request = read_append(&mut incoming).await?;
        Some((request, incoming))
    });
    let answers = node.raft().stream_append(stream::iter([first]).chain(rest));
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let answer = wire::appended_to_proto(&answer.map_err(stopping)?);
        if outgoing.send(Ok(answer)).await.is_err() {
            break; // The leader is gone.
        }
    }
    Ok(())
}

/// The next request; `None` ends the stream, in order or because it cannot be read.
async fn read_append(
    incoming: &mut Streaming<proto::RaftAppendRequest>,
) -> Option<AppendEntriesRequest<TypeConfig>> {
    let request = incoming.message().await.ok().flatten()?;
    wire::append_from_proto(request)
        .map_err(|error| tracing::error!(%error, "a leader sent entries that cannot be read"))
        .ok()
}

/// Takes a snapshot in and gives it to Raft, once it is whole.
async fn installed(
    node: &MetadataNode,
    mut incoming: Streaming<proto::RaftSnapshotRequest>,
) -> Result<proto::RaftVote, Refusal> {
    let head = match next_piece(node, &mut incoming).await? {
        Some(SnapshotAsk::Head(head)) => head,
        _ => return Err(malformed("a snapshot begins with its head")),
    };
    node.admit_peer(head.peer.as_ref())?;
    let vote = wire::vote_from_proto(head.vote.as_ref()).map_err(malformed)?;
    let meta = record::decode_snapshot_meta(&head.meta).map_err(malformed)?;
    let snapshot = receive(node, incoming, &head).await?;
    let snapshot = Snapshot { meta, snapshot };
    let answer = node.raft().install_full_snapshot(vote, snapshot).await.map_err(stopping)?;
    Ok(wire::vote_to_proto(&answer.vote))
}

async fn receive(
    node: &MetadataNode,
    mut incoming: Streaming<proto::RaftSnapshotRequest>,
    head: &proto::RaftSnapshotHead,
) -> Result<Bytes, Refusal> {
    // What it says of its size is believed as far as it came.
    let mut body = BytesMut::with_capacity(head.bytes.min(SNAPSHOT_BYTES_AHEAD) as usize);
    while (body.len() as u64) < head.bytes {
        match next_piece(node, &mut incoming).await? {
            Some(SnapshotAsk::Piece(piece)) => body.extend_from_slice(&piece),
            Some(SnapshotAsk::Head(_)) => return Err(malformed("a snapshot has one head")),
            None => return Err(malformed("the snapshot is cut short")),
        }
    }
    let body = body.freeze();
    if body.len() as u64 != head.bytes || wire::snapshot_crc(&body) != head.crc {
        return Err(refusal(Kind::Corrupt, "the snapshot did not arrive as it was sent"));
    }
    Ok(body)
}

async fn next_piece(
    node: &MetadataNode,
    incoming: &mut Streaming<proto::RaftSnapshotRequest>,
) -> Result<Option<SnapshotAsk>, Refusal> {
    match node.seams().timeout(PIECE_MAX, incoming.message()).await {
        Some(Ok(message)) => Ok(message.and_then(|message| message.request)),
        Some(Err(status)) => Err(malformed(status)),
        None => Err(malformed("the snapshot does not go on")),
    }
}
