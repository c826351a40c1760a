//! [`Metadata`] over gRPC: one connection at a time, to whichever node answers.
//!
//! # Invariants
//! - A command is sent again by itself only when a node said that it had no effect, or when it
//!   never left. Everything else is `Indefinite`, whatever the transport calls it.
//! - Calls without effects are tried at another node as long as their deadline allows.
//! - A node that does not lead names the leader, which is asked next, and from then on. While there
//!   is none, everyone is asked in turn until the deadline.

pub(crate) mod connection;
pub mod lineage;
mod streams;

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aquifer_storage::{
    error::Outcome,
    model::{Lineage, LogIndex, SessionId, Timestamp},
    seam::Seams,
};
use async_trait::async_trait;
use prost::Message;
use tokio::sync::watch;
use tonic::{
    Code, ConnectError, Status, metadata::MetadataMap, service::interceptor::InterceptedService,
    transport::Channel,
};

use self::{connection::Connections, lineage::NameLineage};
use super::{CallError, CommitStream, Heartbeat, Metadata, WatchStream};
use crate::{
    codec::{answer_from_proto, applied_reply_from_proto, command_to_proto, query_to_proto},
    machine::{
        LEVEL,
        command::{AppliedReply, Command},
        query::{Answer, Query},
    },
    proto::{
        self, Refusal, heartbeat_reply::Reply as HeartbeatKind, metadata_client::MetadataClient,
        propose_reply::Reply as ProposeKind, query_reply::Reply as QueryKind,
        read_index_reply::Reply as ReadIndexKind, refusal::Kind,
    },
};

/// A node takes no larger message: the largest command and what surrounds it.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// A client takes no larger message: a catalog of hundreds of thousands of topics.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes under way on one stream: one commit part never waits for another's window.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes under way on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What surrounds a command in its message.
const ENVELOPE_BYTES_MAX: usize = 1024;
/// Times a call is tried, at least: the first try may find a connection that just broke.
const TRIES_MIN: usize = 2;
/// A search for the leader pauses so long between two nodes that do not know one.
const LEADER_PAUSE: Duration = Duration::from_millis(20);

/// Where the metadata nodes are.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// `host:port` of each node.
    pub addresses: Vec<String>,
    /// The cluster they must be of; without it, it is learned from the first reply.
    pub cluster_id: Option<String>,
    /// The life of that cluster they must be of; without it, it is learned as well.
    pub lineage: Option<Lineage>,
    /// How long a call may take, connecting and further tries included.
    pub deadline: Duration,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        let deadline = Duration::from_secs(5);
        Self { addresses: Vec::new(), cluster_id: None, lineage: None, deadline }
    }
}

/// The metadata of a cluster over the network. Cheap to clone.
#[derive(Clone)]
pub struct RemoteClient {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    cluster_id: OnceLock<String>,
    lineage: OnceLock<Lineage>,
    deadline: Duration,
    /// Named by the watch stream, so that its end makes the session absent.
    session: watch::Sender<Option<SessionId>>,
    /// The furthest that a leader said it is, in answers to heartbeats.
    leader_index: AtomicU64,
    seams: Seams,
}

type Grpc = MetadataClient<InterceptedService<Channel, NameLineage>>;

/// What was called, and what its failure may leave behind.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    has_effect: bool,
}

/// A reply as it was heard: whose it is, and what it says; `None` when that cannot be read.
struct Heard<T> {
    cluster_id: String,
    lineage: Option<Lineage>,
    reply: Option<Result<T, Refusal>>,
}

/// One try of a call that gave no answer.
struct Failed {
    error: CallError,
    again: Again,
}

/// Who may do better, if nothing happens twice by it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Again {
    /// Nobody.
    No,
    /// Another node, or the same one again.
    Elsewhere,
    /// The leader, at this address if it is known.
    Leader(Option<String>),
}

impl RemoteClient {
    /// A client of the nodes in `config`. Connects with the first call.
    pub fn new(config: RemoteConfig, seams: Seams) -> Self {
        let cluster_id = OnceLock::new();
        if let Some(known) = config.cluster_id.filter(|id| !id.is_empty()) {
            cluster_id.get_or_init(|| known);
        }
        let lineage = config.lineage.map(OnceLock::from).unwrap_or_default();
        let connections = Connections::new(config.addresses, seams.clone());
        let (deadline, session) = (config.deadline, watch::Sender::new(None));
        let leader_index = AtomicU64::default();
        let inner =
            Inner { connections, cluster_id, lineage, deadline, session, leader_index, seams };
        Self { inner: Arc::new(inner) }
    }

    /// The cluster, once known.
    pub fn cluster_id(&self) -> Option<&str> {
        self.inner.cluster_id.get().map(String::as_str)
    }

    /// The life of the cluster, once known.
    pub fn lineage(&self) -> Option<Lineage> {
        self.inner.lineage.get().copied()
    }

    fn caller(&self) -> Option<proto::Caller> {
        let cluster_id = self.cluster_id().unwrap_or_default().to_owned();
        Some(proto::Caller { cluster_id, level: LEVEL })
    }

    fn note_session(&self, session: SessionId) {
        self.inner.session.send_if_modified(|known| known.replace(session) != Some(session));
    }

    /// Calls one node after the other until one answers, for as long as that is safe.
    async fn call<T, F>(
        &self,
        call: Call,
        send: impl Fn(Grpc, Option<proto::Caller>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Heard<T>, Status>>,
    {
        self.call_on(call, send).await.map(|(answer, _)| answer)
    }

    /// As [`Self::call`], with the number of the connection that the answer came on.
    async fn call_on<T, F>(
        &self,
        call: Call,
        send: impl Fn(Grpc, Option<proto::Caller>) -> F,
    ) -> Result<(T, u64), CallError>
    where
        F: Future<Output = Result<Heard<T>, Status>>,
    {
        let under_way = AtomicU64::new(0);
        let trying = async {
            let mut tries = self.inner.connections.node_count().max(TRIES_MIN);
            loop {
                let Failed { error, again } = match self.attempt(call, &under_way, &send).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                };
                match again {
                    Again::Elsewhere if 1 < tries => tries -= 1,
                    Again::Leader(Some(_)) => self.pause(LEADER_PAUSE / 8).await,
                    Again::Leader(None) => self.pause(LEADER_PAUSE).await,
                    Again::No | Again::Elsewhere => return Err(error),
                }
            }
        };
        match self.inner.seams.timeout(self.inner.deadline, trying).await {
            Some(result) => result,
            None => {
                let connection = under_way.load(Ordering::Relaxed);
                self.inner.connections.leave(connection);
                let indefinite = call.has_effect && connection != 0;
                let outcome = if indefinite { Outcome::Indefinite } else { Outcome::Unavailable };
                let reason = format!("no answer within {:?}", self.inner.deadline);
                Err(CallError { call: call.name, outcome, reason })
            }
        }
    }

    /// Half of it is jitter, so that agents do not come all at once.
    async fn pause(&self, full: Duration) {
        let random = (self.inner.seams.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        self.inner.seams.sleep(full / 2 + (full / 2).mul_f64(random)).await;
    }

    /// One try. While it lasts, `under_way` is the connection it was sent on; else 0.
    async fn attempt<T, F>(
        &self,
        call: Call,
        under_way: &AtomicU64,
        send: impl Fn(Grpc, Option<proto::Caller>) -> F,
    ) -> Result<(T, u64), Failed>
    where
        F: Future<Output = Result<Heard<T>, Status>>,
    {
        let connection = self.inner.connections.current().await.map_err(|reason| Failed {
            error: call.error(Outcome::Unavailable, reason),
            again: Again::No, // Every node was tried.
        })?;
        let naming = NameLineage(self.inner.lineage.get().copied());
        let grpc = MetadataClient::with_interceptor(connection.channel.clone(), naming)
            .max_decoding_message_size(REPLY_BYTES_MAX);
        under_way.store(connection.id, Ordering::Relaxed);
        let result = match send(grpc, self.caller()).await {
            Ok(heard) => self.judge(call, heard),
            Err(status) => Err(call.broken(&status)),
        };
        under_way.store(0, Ordering::Relaxed);
        match &result {
            Err(Failed { again: Again::Leader(leader), .. }) => {
                self.inner.connections.follow(connection.id, leader.clone());
            }
            Err(Failed { error, again })
                if *again != Again::No || error.outcome == Outcome::Indefinite =>
            {
                self.inner.connections.leave(connection.id);
            }
            _ => {}
        }
        result.map(|answer| (answer, connection.id))
    }

    /// What a reply means. The first one tells which cluster this is.
    fn judge<T>(&self, call: Call, heard: Heard<T>) -> Result<T, Failed> {
        let failed =
            |outcome, reason: String, again| Failed { error: call.error(outcome, reason), again };
        let foreign = |reason| Err(failed(Outcome::Rejected, reason, Again::No));
        let refusal = match heard.reply {
            Some(Ok(answer)) => {
                let ours = self.inner.cluster_id.get_or_init(|| heard.cluster_id.clone());
                if *ours != heard.cluster_id {
                    return foreign(format!("answered by cluster {}", heard.cluster_id));
                }
                let Some(lineage) = heard.lineage else { return Ok(answer) };
                if *self.inner.lineage.get_or_init(|| lineage) != lineage {
                    return foreign(format!("answered by lineage {lineage}"));
                }
                return Ok(answer);
            }
            Some(Err(refusal)) => refusal,
            None => {
                let outcome = if call.has_effect { Outcome::Indefinite } else { Outcome::Corrupt };
                return Err(failed(outcome, "the reply cannot be read".into(), Again::No));
            }
        };
        if refusal.kind() == Kind::NotLeader {
            let leader = Some(refusal.leader).filter(|leader| !leader.is_empty());
            return Err(failed(Outcome::Unavailable, refusal.reason, Again::Leader(leader)));
        }
        let outcome = match refusal.kind() {
            Kind::ForeignCluster | Kind::LevelTooHigh | Kind::Malformed | Kind::Rejected => {
                Outcome::Rejected
            }
            Kind::Fenced => Outcome::Fenced,
            Kind::Unavailable | Kind::NotLeader => Outcome::Unavailable,
            Kind::Corrupt => Outcome::Corrupt,
            Kind::Indefinite | Kind::Unspecified if call.has_effect => Outcome::Indefinite,
            Kind::Indefinite | Kind::Unspecified => Outcome::Unavailable,
        };
        // Asking the only node again at once would get the same answer.
        let elsewhere = outcome == Outcome::Unavailable && 1 < self.inner.connections.node_count();
        let again = if elsewhere { Again::Elsewhere } else { Again::No };
        Err(failed(outcome, refusal.reason, again))
    }
}

impl Call {
    const fn read(name: &'static str) -> Self {
        Self { name, has_effect: false }
    }

    fn error(self, outcome: Outcome, reason: impl ToString) -> CallError {
        CallError { call: self.name, outcome, reason: reason.to_string() }
    }

    /// What a transport status leaves behind: nothing only when the call never left.
    fn broken(self, status: &Status) -> Failed {
        let (outcome, again) = match status.code() {
            Code::Unimplemented => (Outcome::Rejected, Again::No),
            _ if never_left(status) || !self.has_effect => (Outcome::Unavailable, Again::Elsewhere),
            _ => (Outcome::Indefinite, Again::No),
        };
        let reason = format!("{}: {}", status.code(), status.message());
        Failed { error: self.error(outcome, reason), again }
    }
}

/// Whether no connection could be made to send the call on.
fn never_left(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[async_trait]
impl Metadata for RemoteClient {
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        let call = Call { name: "propose", has_effect: true };
        let command = command_to_proto(&command);
        let command_bytes = command.encoded_len();
        if REQUEST_BYTES_MAX - ENVELOPE_BYTES_MAX < command_bytes {
            let reason = format!("command of {command_bytes} bytes is too large for one message");
            return Err(call.error(Outcome::Rejected, reason));
        }
        let send = |mut grpc: Grpc, caller| {
            let request = proto::ProposeRequest { caller, command: Some(command.clone()) };
            async move {
                let (lineage, heard) = opened_up(grpc.propose(request).await?);
                let reply = match heard.reply {
                    Some(ProposeKind::Applied(applied)) => {
                        applied_reply_from_proto(applied).ok().map(Ok)
                    }
                    Some(ProposeKind::Refusal(refusal)) => Some(Err(refusal)),
                    None => None,
                };
                Ok(Heard { cluster_id: heard.cluster_id, lineage, reply })
            }
        };
        self.call(call, send).await
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        let send = |mut grpc: Grpc, caller| async move {
            let response = grpc.read_index(proto::ReadIndexRequest { caller }).await?;
            let (lineage, heard) = opened_up(response);
            let reply = heard.reply.map(|reply| match reply {
                ReadIndexKind::Index(index) => Ok(LogIndex::new(index)),
                ReadIndexKind::Refusal(refusal) => Err(refusal),
            });
            Ok(Heard { cluster_id: heard.cluster_id, lineage, reply })
        };
        self.call(Call::read("read index"), send).await
    }

    async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        let query = query_to_proto(&query);
        let send = |mut grpc: Grpc, caller| {
            let request = proto::QueryRequest { caller, query: Some(query.clone()) };
            async move {
                let (lineage, heard) = opened_up(grpc.query(request).await?);
                let reply = match heard.reply {
                    Some(QueryKind::Answer(indexed)) => read_answer(indexed).map(Ok),
                    Some(QueryKind::Refusal(refusal)) => Some(Err(refusal)),
                    None => None,
                };
                Ok(Heard { cluster_id: heard.cluster_id, lineage, reply })
            }
        };
        self.call(Call::read("query"), send).await
    }

    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        self.beat(session, None).await
    }

    async fn open_commits(&self, session: SessionId) -> Result<CommitStream, CallError> {
        let opened = self
            .call(Call::read("commits"), |grpc, caller| streams::commits(grpc, caller, session))
            .await?;
        self.note_session(session);
        Ok(opened.run(&self.inner.seams))
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        let mut session = self.inner.session.subscribe();
        let named = *session.borrow_and_update();
        let open = |grpc, caller| streams::watch(grpc, caller, (seen, named));
        let (opened, connection) = self.call_on(Call::read("watch"), open).await?;
        let leader = Leader { client: self.clone(), connection };
        Ok(opened.run(session, leader, &self.inner.seams))
    }
}

/// Where the leader is told what an agent took in, when its watch stream is another node's.
struct Leader {
    client: RemoteClient,
    /// Of the watch stream.
    connection: u64,
}

impl Leader {
    /// How far the leader is, as far as it is known.
    fn index(&self) -> LogIndex {
        LogIndex::new(self.client.inner.leader_index.load(Ordering::Relaxed))
    }

    /// The agent of `session` took in the catalog as of `seen`.
    fn tell(&self, session: SessionId, seen: LogIndex) {
        if self.client.inner.connections.current_id() == Some(self.connection) {
            return; // The stream says it.
        }
        let client = self.client.clone();
        self.client.inner.seams.spawn("took-in", async move {
            if let Err(error) = client.beat(session, Some(seen)).await {
                tracing::debug!(%error, "the leader was not told what this agent took in");
            }
        });
    }
}

impl RemoteClient {
    async fn beat(
        &self,
        session: SessionId,
        seen: Option<LogIndex>,
    ) -> Result<Heartbeat, CallError> {
        let seen = seen.map(LogIndex::value);
        let send = |mut grpc: Grpc, caller| async move {
            let request = proto::HeartbeatRequest { caller, session: session.value(), seen };
            let (lineage, heard) = opened_up(grpc.heartbeat(request).await?);
            let reply = heard.reply.map(|reply| match reply {
                HeartbeatKind::Live(live) => Ok(Heartbeat::Live {
                    wall: Timestamp::from_millis(live.wall_ms),
                    index: LogIndex::new(live.index),
                }),
                HeartbeatKind::Fenced(_) => Ok(Heartbeat::Fenced),
                HeartbeatKind::Refusal(refusal) => Err(refusal),
            });
            Ok(Heard { cluster_id: heard.cluster_id, lineage, reply })
        };
        let heard = self.call(Call::read("heartbeat"), send).await?;
        if let Heartbeat::Live { index, .. } = &heard {
            self.note_session(session);
            self.inner.leader_index.fetch_max(index.value(), Ordering::Relaxed);
        }
        Ok(heard)
    }
}

/// Who answered, and what.
fn opened_up<T>(response: tonic::Response<T>) -> (Option<Lineage>, T) {
    let lineage = lineage_of(response.metadata());
    (lineage, response.into_inner())
}

/// A header that cannot be read says no more than none.
fn lineage_of(headers: &MetadataMap) -> Option<Lineage> {
    lineage::named_in(headers).ok().flatten()
}

fn read_answer(indexed: proto::IndexedAnswer) -> Option<(LogIndex, Answer)> {
    let answer = answer_from_proto(indexed.answer?).ok()?;
    Some((LogIndex::new(indexed.index), answer))
}
