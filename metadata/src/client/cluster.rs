//! Operations on the metadata group, as an operator or a node that joins asks for them: of any
//! node, which names the leader if only that can do it.

use std::{collections::VecDeque, future::Future, time::Duration};

use aquifer_storage::{
    model::Lineage,
    seam::{MonoTime, Seams},
};
use async_trait::async_trait;
use tonic::transport::Channel;

use super::remote::connection;
use crate::{
    machine::LEVEL,
    proto::{
        self, Caller, Refusal, change_voters_reply::Reply as ChangeKind,
        change_voters_request::Change, cluster_client::ClusterClient,
        join_reply::Reply as JoinKind, refusal::Kind, ship_snapshot_reply::Reply as ShipKind,
        status_reply::Reply as StatusKind, transfer_leader_reply::Reply as TransferKind,
    },
};

pub use crate::proto::{GroupStatus, MemberStatus, ShippedSnapshot};

/// How long an operation may take: a change of the members waits for a majority twice.
const DEADLINE: Duration = Duration::from_secs(15);
/// One node is waited for this long before the next one is asked.
const ANSWER_MAX: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(100);

/// Why an operation was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// No node answered, or none leads.
    #[error("no metadata node can do it: {0}")]
    Unavailable(String),
    /// It was refused, and had no effect.
    #[error("{0}")]
    Refused(String),
    /// It may still happen: look at the status.
    #[error("it may or may not have happened, see the status: {0}")]
    Indefinite(String),
}

/// The members of the group, to look at and to change: the agent's seam to Kafka's quorum APIs.
#[async_trait]
pub trait Quorum: Send + Sync + 'static {
    /// How the group stands, as the leader sees it where it can be asked.
    async fn quorum(&self) -> Result<GroupStatus, OperationError>;

    /// Makes a learner a voter, or removes a member for ever.
    async fn change_voters(&self, change: VoterChange) -> Result<GroupStatus, OperationError>;
}

/// One change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterChange {
    /// The learner with this id becomes a voter.
    Add(u64),
    /// The member with this id is removed; the id is then used up.
    Remove(u64),
}

/// The group's answer to a node that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The cluster.
    pub cluster_id: String,
    /// The life of it.
    pub lineage: Lineage,
    /// The id of the node that joins, for ever.
    pub id: u64,
}

/// The metadata group as an operator sees it.
pub struct Operator {
    addresses: Vec<String>,
    seams: Seams,
}

type Grpc = ClusterClient<Channel>;

fn caller() -> Option<Caller> {
    Some(Caller { cluster_id: String::new(), level: LEVEL })
}

impl Operator {
    /// Asks the nodes at `addresses`, each `host:port`.
    pub fn new(addresses: Vec<String>, seams: Seams) -> Self {
        Self { addresses, seams }
    }

    /// How the first node that answers sees the group, with the hash of its state if `hashed`.
    pub async fn status(&self, hashed: bool) -> Result<GroupStatus, OperationError> {
        let ask = |mut grpc: Grpc| async move {
            let request = proto::StatusRequest { caller: caller(), hashed };
            Ok(match grpc.status(request).await?.into_inner().reply {
                Some(StatusKind::Status(status)) => Some(Ok(status)),
                Some(StatusKind::Refusal(refusal)) => Some(Err(refusal)),
                None => None,
            })
        };
        self.ask(false, ask).await
    }

    /// As [`Self::status`], as the leader sees it: only it knows how far the others are.
    pub async fn leader_status(&self, hashed: bool) -> Result<GroupStatus, OperationError> {
        let status = self.status(hashed).await?;
        let leader = status.members.iter().find(|member| Some(member.id) == status.leader);
        match leader {
            Some(leader) if leader.id != status.node && !leader.address.is_empty() => {
                let leader = Self::new(vec![leader.address.clone()], self.seams.clone());
                Ok(leader.status(hashed).await.unwrap_or(status))
            }
            _ => Ok(status),
        }
    }

    /// Makes the learner `id` a voter.
    pub async fn add_voter(&self, id: u64) -> Result<GroupStatus, OperationError> {
        self.change(Change::Add(id)).await
    }

    /// Removes the voter or learner `id`, whose id is then used up.
    pub async fn remove_voter(&self, id: u64) -> Result<GroupStatus, OperationError> {
        self.change(Change::Remove(id)).await
    }

    async fn change(&self, change: Change) -> Result<GroupStatus, OperationError> {
        let ask = |mut grpc: Grpc| async move {
            let request = proto::ChangeVotersRequest { caller: caller(), change: Some(change) };
            Ok(match grpc.change_voters(request).await?.into_inner().reply {
                Some(ChangeKind::Status(status)) => Some(Ok(status)),
                Some(ChangeKind::Refusal(refusal)) => Some(Err(refusal)),
                None => None,
            })
        };
        self.ask(true, ask).await
    }

    /// Hands leadership to `to`, or to the voter that is furthest; returns who leads then.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, OperationError> {
        let ask = |mut grpc: Grpc| async move {
            let request = proto::TransferLeaderRequest { caller: caller(), to };
            Ok(match grpc.transfer_leader(request).await?.into_inner().reply {
                Some(TransferKind::Leader(leader)) => Some(Ok(leader)),
                Some(TransferKind::Refusal(refusal)) => Some(Err(refusal)),
                None => None,
            })
        };
        self.ask(true, ask).await
    }

    /// Has the leader ship a snapshot to the bucket now.
    pub async fn ship_snapshot(&self) -> Result<ShippedSnapshot, OperationError> {
        let ask = |mut grpc: Grpc| async move {
            let request = proto::ShipSnapshotRequest { caller: caller() };
            Ok(match grpc.ship_snapshot(request).await?.into_inner().reply {
                Some(ShipKind::Shipped(shipped)) => Some(Ok(shipped)),
                Some(ShipKind::Refusal(refusal)) => Some(Err(refusal)),
                None => None,
            })
        };
        self.ask(true, ask).await
    }

    /// Asks to be admitted as a learner that is reached at `address`. Asking again is harmless:
    /// the `incarnation` of its data folder names the node.
    pub async fn join(&self, address: &str, incarnation: u64) -> Result<Admission, OperationError> {
        let ask = |mut grpc: Grpc| async move {
            let address = address.to_owned();
            let request = proto::JoinRequest { caller: caller(), address, incarnation };
            Ok(match grpc.join(request).await?.into_inner().reply {
                Some(JoinKind::Joined(joined)) => Some(Ok(joined)),
                Some(JoinKind::Refusal(refusal)) => Some(Err(refusal)),
                None => None,
            })
        };
        let joined = self.ask(false, ask).await?;
        let lineage = joined.lineage.unwrap_or_default();
        let lineage = Lineage { number: lineage.number, nonce: lineage.nonce };
        Ok(Admission { cluster_id: joined.cluster_id, lineage, id: joined.id })
    }

    /// Asks one node after the other, and whom they name as the leader, until one answers.
    /// `has_effect`: an answer that does not come leaves it open whether it happened.
    async fn ask<T, F>(
        &self,
        has_effect: bool,
        send: impl Fn(Grpc) -> F,
    ) -> Result<T, OperationError>
    where
        F: Future<Output = Result<Option<Result<T, Refusal>>, tonic::Status>>,
    {
        let until = self.seams.clock.mono() + DEADLINE;
        let mut next: VecDeque<String> = self.addresses.iter().cloned().collect();
        let mut reason = "no address of a metadata node is given".to_owned();
        while let Some(address) = next.pop_front() {
            let refusal = match self.ask_one(&address, &send).await {
                Answer::Given(answer) => return Ok(answer),
                Answer::Refused(refusal) => refusal,
                Answer::Silent { reason, arrived } if has_effect && arrived => {
                    return Err(OperationError::Indefinite(reason));
                }
                Answer::Silent { reason: why, .. } => {
                    reason = why;
                    continue;
                }
            };
            reason = format!("{address}: {}", refusal.reason);
            match refusal.kind() {
                Kind::NotLeader if self.left(until) => {
                    if refusal.leader.is_empty() {
                        next.push_back(address);
                    } else {
                        next.push_front(refusal.leader);
                        next.push_back(address);
                    }
                    self.seams.sleep(PAUSE).await;
                }
                Kind::Unavailable | Kind::NotLeader => {}
                Kind::Indefinite | Kind::Unspecified if has_effect => {
                    return Err(OperationError::Indefinite(reason));
                }
                Kind::Indefinite | Kind::Unspecified => {}
                _ => return Err(OperationError::Refused(refusal.reason)),
            }
        }
        Err(OperationError::Unavailable(reason))
    }

    fn left(&self, until: MonoTime) -> bool {
        self.seams.clock.mono() < until
    }

    async fn ask_one<T, F>(&self, address: &str, send: &impl Fn(Grpc) -> F) -> Answer<T>
    where
        F: Future<Output = Result<Option<Result<T, Refusal>>, tonic::Status>>,
    {
        let channel = match connection::connect(address, &self.seams).await {
            Ok(channel) => channel,
            Err(reason) => {
                let reason = format!("{address}: {reason}");
                return Answer::Silent { reason, arrived: false };
            }
        };
        let silent =
            |why: String| Answer::Silent { reason: format!("{address}: {why}"), arrived: true };
        match self.seams.timeout(ANSWER_MAX, send(ClusterClient::new(channel))).await {
            Some(Ok(Some(Ok(answer)))) => Answer::Given(answer),
            Some(Ok(Some(Err(refusal)))) => Answer::Refused(refusal),
            Some(Ok(None)) => silent("the answer cannot be read".to_owned()),
            Some(Err(status)) => silent(connection::with_sources(&status)),
            None => silent(format!("no answer within {ANSWER_MAX:?}")),
        }
    }
}

#[async_trait]
impl Quorum for Operator {
    async fn quorum(&self) -> Result<GroupStatus, OperationError> {
        self.leader_status(false).await
    }

    async fn change_voters(&self, change: VoterChange) -> Result<GroupStatus, OperationError> {
        match change {
            VoterChange::Add(id) => self.add_voter(id).await,
            VoterChange::Remove(id) => self.remove_voter(id).await,
        }
    }
}

enum Answer<T> {
    Given(T),
    Refused(Refusal),
    Silent { reason: String, arrived: bool },
}
