//! The calls with one reply: parse, ask, map.

use aquifer_storage::model::SessionId;
use tonic::{Request, Response, Status, Streaming};

use super::{Service, admission::admit, streams::Replies};
use crate::{
    client::{Heartbeat, Metadata as _},
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
        let reply = self.proposed(request.into_inner()).await;
        let reply = Some(reply.map_or_else(ProposeKind::Refusal, ProposeKind::Applied));
        Ok(Response::new(proto::ProposeReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        let reply = self.index(request.into_inner()).await;
        let reply = Some(reply.map_or_else(ReadIndexKind::Refusal, ReadIndexKind::Index));
        Ok(Response::new(proto::ReadIndexReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn query(
        &self,
        request: Request<proto::QueryRequest>,
    ) -> Result<Response<proto::QueryReply>, Status> {
        let reply = self.answered(request.into_inner()).await;
        let reply = Some(reply.map_or_else(QueryKind::Refusal, QueryKind::Answer));
        Ok(Response::new(proto::QueryReply { cluster_id: self.cluster_id(), reply }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let reply = self.heard(request.into_inner()).unwrap_or_else(HeartbeatKind::Refusal);
        let cluster_id = self.cluster_id();
        Ok(Response::new(proto::HeartbeatReply { cluster_id, reply: Some(reply) }))
    }

    type CommitsStream = Replies<proto::CommitStreamReply>;

    async fn commits(
        &self,
        request: Request<Streaming<proto::CommitStreamRequest>>,
    ) -> Result<Response<Self::CommitsStream>, Status> {
        Ok(Response::new(self.serve_commits(request.into_inner())))
    }

    type WatchStream = Replies<proto::WatchStreamReply>;

    async fn watch(
        &self,
        request: Request<Streaming<proto::WatchStreamRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(self.serve_watch(request.into_inner())))
    }
}

impl Service {
    pub(super) fn cluster_id(&self) -> String {
        self.node.identity().cluster_id.clone()
    }

    async fn proposed(
        &self,
        request: proto::ProposeRequest,
    ) -> Result<proto::AppliedReply, Refusal> {
        admit(request.caller, &self.node.identity().cluster_id)?;
        let command = command_from_proto(request.command.ok_or(CodecError::Missing("command"))?)?;
        Ok(applied_reply_to_proto(&self.node.client().propose(command).await?))
    }

    async fn index(&self, request: proto::ReadIndexRequest) -> Result<u64, Refusal> {
        admit(request.caller, &self.node.identity().cluster_id)?;
        Ok(self.node.read_index().await?.value())
    }

    async fn answered(
        &self,
        request: proto::QueryRequest,
    ) -> Result<proto::IndexedAnswer, Refusal> {
        admit(request.caller, &self.node.identity().cluster_id)?;
        let query = request.query.ok_or(CodecError::Missing("query"))?;
        let mut query = crate::codec::query_from_proto(query)?;
        if let Query::Runs { limit, .. } = &mut query {
            *limit = (*limit).min(RUNS_PER_ANSWER_MAX);
        }
        let (index, answer) = self.node.query(query).await?;
        let answer = Some(answer_to_proto(&answer));
        Ok(proto::IndexedAnswer { index: index.value(), answer })
    }

    fn heard(&self, request: proto::HeartbeatRequest) -> Result<HeartbeatKind, Refusal> {
        admit(request.caller, &self.node.identity().cluster_id)?;
        Ok(match self.node.heartbeat(SessionId::new(request.session))? {
            Heartbeat::Live { wall, index } => HeartbeatKind::Live(proto::HeartbeatLive {
                wall_ms: wall.millis(),
                index: index.value(),
            }),
            Heartbeat::Fenced => HeartbeatKind::Fenced(proto::Done {}),
        })
    }
}
