//! The calls with one reply: parse, ask, map.

use aquifer_storage::model::{LogIndex, SessionId};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Service,
    admission::{Named, admit, named},
    streams::Replies,
};
use crate::{
    client::{Heartbeat, Metadata as _, remote::lineage},
    codec::{CodecError, answer_to_proto, applied_reply_to_proto, command_from_proto},
    machine::query::Query,
    proto::{
        self, Refusal, heartbeat_reply::Reply as HeartbeatKind, metadata_server::Metadata,
        propose_reply::Reply as ProposeKind, query_reply::Reply as QueryKind,
        read_index_reply::Reply as ReadIndexKind,
    },
};

/// Rows of one answer: the reply stays well under the size a client takes.
const RUNS_PER_ANSWER_MAX: u32 = 100_000;

#[tonic::async_trait]
impl Metadata for Service {
    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeReply>, Status> {
        let named = named(request.metadata());
        let reply = self.proposed(named, request.into_inner()).await;
        let reply = Some(reply.map_or_else(ProposeKind::Refusal, ProposeKind::Applied));
        Ok(self.reply(proto::ProposeReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        let named = named(request.metadata());
        let reply = self.index(named, request.into_inner()).await;
        let reply = Some(reply.map_or_else(ReadIndexKind::Refusal, ReadIndexKind::Index));
        Ok(self.reply(proto::ReadIndexReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn query(
        &self,
        request: Request<proto::QueryRequest>,
    ) -> Result<Response<proto::QueryReply>, Status> {
        let named = named(request.metadata());
        let reply = self.answered(named, request.into_inner()).await;
        let reply = Some(reply.map_or_else(QueryKind::Refusal, QueryKind::Answer));
        Ok(self.reply(proto::QueryReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let named = named(request.metadata());
        let reply = self.heard(named, request.into_inner());
        let reply = reply.unwrap_or_else(HeartbeatKind::Refusal);
        let cluster_id = self.cluster_id();
        Ok(self.reply(proto::HeartbeatReply { cluster_id, reply: Some(reply) }))
    }

    type CommitsStream = Replies<proto::CommitStreamReply>;

    async fn commits(
        &self,
        request: Request<Streaming<proto::CommitStreamRequest>>,
    ) -> Result<Response<Self::CommitsStream>, Status> {
        let named = named(request.metadata());
        Ok(self.reply(self.serve_commits(named, request.into_inner())))
    }

    type WatchStream = Replies<proto::WatchStreamReply>;

    async fn watch(
        &self,
        request: Request<Streaming<proto::WatchStreamRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let named = named(request.metadata());
        Ok(self.reply(self.serve_watch(named, request.into_inner())))
    }
}

impl Service {
    pub(super) fn cluster_id(&self) -> String {
        self.node.identity().cluster_id.clone()
    }

    /// Says with the reply which life of the cluster answered.
    fn reply<T>(&self, reply: T) -> Response<T> {
        let mut response = Response::new(reply);
        lineage::name_in(response.metadata_mut(), self.node.identity().lineage);
        response
    }

    async fn proposed(
        &self,
        named: Named,
        request: proto::ProposeRequest,
    ) -> Result<proto::AppliedReply, Refusal> {
        admit(request.caller, named, self.node.identity())?;
        let command = command_from_proto(request.command.ok_or(CodecError::Missing("command"))?)?;
        let applied = self.node.client().propose(command).await;
        Ok(applied_reply_to_proto(&applied.map_err(|error| self.refusal(error))?))
    }

    async fn index(&self, named: Named, request: proto::ReadIndexRequest) -> Result<u64, Refusal> {
        admit(request.caller, named, self.node.identity())?;
        let index = self.node.read_index().await.map_err(|error| self.refusal(error))?;
        Ok(index.value())
    }

    async fn answered(
        &self,
        named: Named,
        request: proto::QueryRequest,
    ) -> Result<proto::IndexedAnswer, Refusal> {
        admit(request.caller, named, self.node.identity())?;
        let query = request.query.ok_or(CodecError::Missing("query"))?;
        let mut query = crate::codec::query_from_proto(query)?;
        if let Query::Runs { limit, .. } = &mut query {
            *limit = (*limit).min(RUNS_PER_ANSWER_MAX);
        }
        let answered = self.node.query(query).await;
        let (index, answer) = answered.map_err(|error| self.refusal(error))?;
        let answer = Some(answer_to_proto(&answer));
        Ok(proto::IndexedAnswer { index: index.value(), answer })
    }

    fn heard(
        &self,
        named: Named,
        request: proto::HeartbeatRequest,
    ) -> Result<HeartbeatKind, Refusal> {
        admit(request.caller, named, self.node.identity())?;
        let session = SessionId::new(request.session);
        let heard = self.node.heartbeat(session).map_err(|error| self.refusal(error))?;
        if let (Some(seen), Heartbeat::Live { .. }) = (request.seen, heard) {
            self.node.took_in(session, LogIndex::new(seen));
        }
        Ok(match heard {
            Heartbeat::Live { wall, index } => HeartbeatKind::Live(proto::HeartbeatLive {
                wall_ms: wall.millis(),
                index: index.value(),
            }),
            Heartbeat::Fenced => HeartbeatKind::Fenced(proto::Done {}),
        })
    }
}
