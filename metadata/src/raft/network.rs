//! The road to the other nodes, over gRPC. Every call has a deadline, and names both ends.
//!
//! A peer is reached over three connections that share nothing: what must arrive in time (votes,
//! heartbeats) never waits behind entries, nor entries behind a snapshot.
//!
//! # Invariants
//! - What did not come back counts for nothing: no vote and no entry is ever assumed.
//! - One request of the append stream has one answer, in order; without an answer for
//!   [`APPEND_MAX`] the stream is given up.

mod append;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::seam::Seams;
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::SnapshotOf,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
};
use tonic::transport::Channel;

use super::{Member, TypeConfig, Vote, peer::Myself, record, wire};
use crate::{
    client::remote::connection,
    proto::{
        self, raft_client::RaftClient, raft_snapshot_reply::Reply as SnapshotKind,
        raft_snapshot_request::Request as SnapshotAsk, raft_transfer_reply::Reply as TransferKind,
        raft_vote_reply::Reply as VoteKind,
    },
};

/// A node takes no larger message from another: 4 MiB of entries, or one that is larger.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// An answer to entries waits for an fsync there; a disk that takes longer is not alive.
pub const APPEND_MAX: Duration = Duration::from_secs(3);
/// Snapshots are cut into pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// A snapshot takes at most this long, and a second more per MiB.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30);

/// A client of another node.
pub type Grpc = RaftClient<Channel>;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, questions: small, and in time.
    Control,
    /// Entries.
    Entries,
    /// Snapshots.
    Snapshots,
}

/// The other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    me: Myself,
    seams: Seams,
    links: Mutex<HashMap<(u64, Lane), (String, Channel)>>,
    /// What each refused last: said once.
    refusals: Mutex<BTreeMap<u64, String>>,
}

/// Why a call to another node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It did not arrive, or its answer did not.
    #[error("node {id} cannot be reached: {reason}")]
    Unreachable {
        /// Who was called.
        id: u64,
        /// What the transport said.
        reason: String,
    },
    /// It was read and refused.
    #[error("node {id} refused: {reason}")]
    Refused {
        /// Who was called.
        id: u64,
        /// Which refusal.
        kind: proto::refusal::Kind,
        /// What it said.
        reason: String,
    },
}

impl Peers {
    /// The nodes around `me`.
    pub fn new(me: Myself, seams: Seams) -> Self {
        let (links, refusals) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { me, seams, links, refusals }) }
    }

    /// This node.
    pub fn me(&self) -> &Myself {
        &self.shared.me
    }

    /// A client of node `id`. Connects with the first call, and again after a failure.
    ///
    /// # Errors
    /// The address is none.
    pub fn client(&self, id: u64, member: &Member, lane: Lane) -> Result<Grpc, PeerError> {
        let mut links = self.shared.links.lock().expect("no panic while held");
        let known = links.get(&(id, lane)).filter(|(address, _)| *address == member.address);
        let channel = match known {
            Some((_, channel)) => channel.clone(),
            None => {
                let made = connection::lazy(&member.address, &self.shared.seams);
                let channel = made.map_err(|reason| PeerError::Unreachable { id, reason })?;
                links.insert((id, lane), (member.address.clone(), channel.clone()));
                channel
            }
        };
        Ok(RaftClient::new(channel).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX))
    }

    /// Calls node `id` on the control lane, for at most `deadline`.
    ///
    /// # Errors
    /// There was no answer in time.
    pub async fn call<T, F>(
        &self,
        (id, member): (u64, &Member),
        deadline: Duration,
        send: impl FnOnce(Grpc, proto::Peer) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let client = self.client(id, member, Lane::Control)?;
        let calling = send(client, self.shared.me.speaking_to(id, member));
        self.within(id, deadline, calling).await
    }

    async fn within<T>(
        &self,
        id: u64,
        deadline: Duration,
        calling: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, PeerError> {
        let unreachable = |reason| PeerError::Unreachable { id, reason };
        match self.shared.seams.timeout(deadline, calling).await {
            Some(Ok(answer)) => Ok(answer.into_inner()),
            Some(Err(status)) => Err(unreachable(connection::with_sources(&status))),
            None => Err(unreachable(format!("no answer within {deadline:?}"))),
        }
    }

    /// What each node refused last, and why.
    pub fn refusals(&self) -> BTreeMap<u64, String> {
        self.shared.refusals.lock().expect("no panic while held").clone()
    }

    /// What a refusal means; said in the log when it is a new one.
    pub fn refused(&self, id: u64, refusal: proto::Refusal) -> PeerError {
        let kind = refusal.kind();
        let mut refusals = self.shared.refusals.lock().expect("no panic while held");
        if refusals.get(&id) != Some(&refusal.reason) {
            tracing::error!(node = id, reason = refusal.reason, "a metadata node refused this one");
            refusals.insert(id, refusal.reason.clone());
        }
        PeerError::Refused { id, kind, reason: refusal.reason }
    }
}

/// An answer that makes no sense: the peer is broken, and is left alone for a while.
fn unreadable(id: u64) -> PeerError {
    PeerError::Unreachable { id, reason: "its answer cannot be read".into() }
}

impl From<PeerError> for Unreachable<TypeConfig> {
    fn from(error: PeerError) -> Self {
        Self::from_string(error)
    }
}

/// One peer, as Raft calls it for one purpose.
pub struct Road {
    peers: Peers,
    id: u64,
    member: Member,
    heartbeats: bool,
}

impl Road {
    fn peer(&self) -> proto::Peer {
        self.peers.shared.me.speaking_to(self.id, &self.member)
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre: bool,
    ) -> Result<VoteResponse<TypeConfig>, PeerError> {
        let send = |mut grpc: Grpc, peer| {
            let request = wire::vote_request_to_proto(&rpc, peer, pre);
            async move { grpc.vote(request).await }
        };
        let reply = self.peers.call((self.id, &self.member), option.soft_ttl(), send).await?;
        match reply.reply {
            Some(VoteKind::Voted(voted)) => {
                wire::voted_from_proto(&voted).map_err(|_| unreadable(self.id))
            }
            Some(VoteKind::Refusal(refusal)) => Err(self.peers.refused(self.id, refusal)),
            None => Err(unreadable(self.id)),
        }
    }

    async fn beat(
        &self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<StreamAppendResult<TypeConfig>, PeerError> {
        let send = |mut grpc: Grpc, peer| {
            let request = wire::append_to_proto(rpc, Some(peer));
            async move { grpc.beat(request).await }
        };
        let reply = self.peers.call((self.id, &self.member), option.soft_ttl(), send).await?;
        match wire::appended_from_proto(reply) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(refusal)) => Err(self.peers.refused(self.id, refusal)),
            Err(_) => Err(unreadable(self.id)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
    ) -> Result<SnapshotResponse<TypeConfig>, PeerError> {
        let body = snapshot.snapshot;
        let head = proto::RaftSnapshotHead {
            peer: Some(self.peer()),
            vote: Some(wire::vote_to_proto(&vote)),
            meta: record::encode_snapshot_meta(&snapshot.meta).into(),
            bytes: body.len() as u64,
            crc: wire::snapshot_crc(&body),
        };
        let deadline = SNAPSHOT_MAX + Duration::from_secs(body.len() as u64 >> 20);
        let pieces = wire::pieces(body, PIECE_BYTES).map(SnapshotAsk::Piece);
        let asks = std::iter::once(SnapshotAsk::Head(head)).chain(pieces);
        let asks = asks.map(|ask| proto::RaftSnapshotRequest { request: Some(ask) });
        let mut grpc = self.peers.client(self.id, &self.member, Lane::Snapshots)?;
        let sending = grpc.snapshot(stream::iter(asks));
        match self.peers.within(self.id, deadline, sending).await?.reply {
            Some(SnapshotKind::Vote(vote)) => {
                let vote = wire::vote_from_proto(Some(&vote)).map_err(|_| unreadable(self.id))?;
                Ok(SnapshotResponse::new(vote))
            }
            Some(SnapshotKind::Refusal(refusal)) => Err(self.peers.refused(self.id, refusal)),
            None => Err(unreadable(self.id)),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Road;

    async fn new_client(&mut self, id: u64, member: &Member) -> Road {
        Road { peers: self.clone(), id, member: member.clone(), heartbeats: false }
    }

    async fn new_heartbeat_client(&mut self, id: u64, member: &Member) -> Road {
        Road { peers: self.clone(), id, member: member.clone(), heartbeats: true }
    }
}

fn unreachable(error: PeerError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(error.into())
}

impl RaftNetworkV2<TypeConfig> for Road {
    type SnapshotData = Bytes;

    /// Never called: entries go by [`Self::stream_append`].
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let result = self.beat(rpc, &option).await.map_err(unreachable)?;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if !self.heartbeats {
            return append::open(self, input);
        }
        let beating = async move {
            let answers: BoxStream<'s, _> = match input.next().await {
                None => stream::empty().boxed(),
                Some(rpc) => {
                    let result = self.beat(rpc, &option).await.map_err(unreachable)?;
                    stream::iter([Ok(result)]).boxed()
                }
            };
            Ok(answers)
        };
        beating.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, option, false).await.map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, option, true).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => {
                sent.map_err(|error| StreamingError::Unreachable(error.into()))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let expected = (*request.from_leader(), request.last_log_id().copied());
        let send = |mut grpc: Grpc, peer| {
            let request = wire::transfer_to_proto(&request, peer);
            async move { grpc.transfer(request).await }
        };
        let calling = self.peers.call((self.id, &self.member), option.soft_ttl(), send);
        let reply = calling.await.map_err(unreachable)?.reply;
        let broken = |_| RPCError::Network(NetworkError::from_string(unreadable(self.id)));
        match reply {
            Some(TransferKind::Done(_)) => Ok(Ok(())),
            Some(TransferKind::VoteChanged(vote)) => {
                let actual = wire::vote_from_proto(Some(&vote)).map_err(broken)?;
                Ok(Err(TransferLeaderError::VoteChanged { expected: expected.0, actual }))
            }
            Some(TransferKind::NotFlushed(matched)) => {
                let actual = matched.last.as_ref().map(wire::log_id_from_proto);
                Ok(Err(TransferLeaderError::LogNotFlushed { expected: expected.1, actual }))
            }
            Some(TransferKind::Refusal(refusal)) => {
                Err(unreachable(self.peers.refused(self.id, refusal)))
            }
            None => Err(unreachable(unreadable(self.id))),
        }
    }
}
