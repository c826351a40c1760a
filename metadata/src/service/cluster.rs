//! Operations on the group: how it stands, who joins and leaves it, who leads.

use tonic::{Request, Response, Status};

use super::{
    Service,
    admission::{admit, malformed, named},
};
use crate::{
    node::shipping::Shipped,
    proto::{
        self, Refusal, change_voters_reply::Reply as ChangeKind, change_voters_request::Change,
        cluster_server::Cluster, join_reply::Reply as JoinKind,
        ship_snapshot_reply::Reply as ShipKind, status_reply::Reply as StatusKind,
        transfer_leader_reply::Reply as TransferKind,
    },
    raft::Member,
};

#[tonic::async_trait]
impl Cluster for Service {
    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusReply>, Status> {
        let named = named(request.metadata());
        let request = request.into_inner();
        let reply = admit(request.caller, named, self.node.identity());
        let reply = reply.map(|()| self.node.status(request.hashed));
        let reply = Some(reply.map_or_else(StatusKind::Refusal, StatusKind::Status));
        Ok(Response::new(proto::StatusReply { reply }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinReply>, Status> {
        let reply = self.joined(request).await;
        let reply = Some(reply.map_or_else(JoinKind::Refusal, JoinKind::Joined));
        Ok(Response::new(proto::JoinReply { reply }))
    }

    async fn change_voters(
        &self,
        request: Request<proto::ChangeVotersRequest>,
    ) -> Result<Response<proto::ChangeVotersReply>, Status> {
        let reply = self.changed(request).await;
        let reply = Some(reply.map_or_else(ChangeKind::Refusal, ChangeKind::Status));
        Ok(Response::new(proto::ChangeVotersReply { reply }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderReply>, Status> {
        let reply = self.handed_over(request).await;
        let reply = Some(reply.map_or_else(TransferKind::Refusal, TransferKind::Leader));
        Ok(Response::new(proto::TransferLeaderReply { reply }))
    }

    async fn ship_snapshot(
        &self,
        request: Request<proto::ShipSnapshotRequest>,
    ) -> Result<Response<proto::ShipSnapshotReply>, Status> {
        let named = named(request.metadata());
        let admitted = admit(request.into_inner().caller, named, self.node.identity());
        let shipped = match admitted {
            Ok(()) => self.node.ship_snapshot().await.map_err(|error| self.refusal(error)),
            Err(refusal) => Err(refusal),
        };
        let reply = match shipped {
            Ok(Shipped { index, key }) => {
                ShipKind::Shipped(proto::ShippedSnapshot { index: index.value(), key })
            }
            Err(refusal) => ShipKind::Refusal(refusal),
        };
        Ok(Response::new(proto::ShipSnapshotReply { reply: Some(reply) }))
    }
}

impl Service {
    async fn joined(&self, request: Request<proto::JoinRequest>) -> Result<proto::Joined, Refusal> {
        let named = named(request.metadata());
        let request = request.into_inner();
        admit(request.caller, named, self.node.identity())?;
        let (address, incarnation) = (request.address, request.incarnation);
        if address.is_empty() || incarnation == 0 {
            return Err(malformed(
                "a node that joins says where it is reached, and on what folder",
            ));
        }
        let joining = Member { address, incarnation };
        let id = self.node.admit(joining).await.map_err(|error| self.refusal(error))?;
        let identity = self.node.identity();
        let lineage =
            proto::Lineage { number: identity.lineage.number, nonce: identity.lineage.nonce };
        let cluster_id = identity.cluster_id.clone();
        Ok(proto::Joined { cluster_id, lineage: Some(lineage), id })
    }

    async fn changed(
        &self,
        request: Request<proto::ChangeVotersRequest>,
    ) -> Result<proto::GroupStatus, Refusal> {
        let named = named(request.metadata());
        let request = request.into_inner();
        admit(request.caller, named, self.node.identity())?;
        let changed = match request.change {
            Some(Change::Add(id)) => self.node.add_voter(id).await,
            Some(Change::Remove(id)) => self.node.remove_member(id).await,
            None => return Err(malformed("no change is named")),
        };
        changed.map_err(|error| self.refusal(error))?;
        Ok(self.node.status(false))
    }

    async fn handed_over(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<u64, Refusal> {
        let named = named(request.metadata());
        let request = request.into_inner();
        admit(request.caller, named, self.node.identity())?;
        // To its end, whether or not the caller waits for it.
        let (done, outcome) = tokio::sync::oneshot::channel();
        let node = self.node.clone();
        self.node.seams().spawn("transfer", async move {
            let _ = done.send(node.transfer_leader(request.to).await); // The caller may be gone.
        });
        let stopped = |_| malformed("the metadata node is stopping");
        outcome.await.map_err(stopped)?.map_err(|error| self.refusal(error))
    }
}
