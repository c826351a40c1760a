//! Linearizable indexes: one round of the group serves every request that waits for it. A follower
//! asks the leader for one, and waits until it has applied as much itself.

use std::time::Duration;

use crate::raft::{
    library::ReadPolicy,
    network::{PeerError, Peers},
};
use aquifer_storage::{error::Outcome, model::LogIndex, seam::Seams};
use tokio::sync::{mpsc, oneshot, watch};

use super::leadership::{Leadership, NotLeader};
use crate::{
    client::CallError,
    proto::{self, leader_index_reply::Reply},
    raft::RaftHandle,
};

/// Requests waiting for a round, more than any agent coalesces to.
const WAITING_MAX: usize = 4096;
/// A round that takes longer is asked for again, of whoever leads by then.
const ROUND_MAX: Duration = Duration::from_secs(2);

type Answer = Result<LogIndex, CallError>;

/// Asks for linearizable indexes. Cheap to clone.
#[derive(Clone)]
pub struct ReadIndex {
    asks: mpsc::Sender<oneshot::Sender<Answer>>,
}

fn unavailable(reason: impl ToString) -> CallError {
    CallError { call: "read index", outcome: Outcome::Unavailable, reason: reason.to_string() }
}

impl ReadIndex {
    /// A handle and the task that serves it.
    pub fn new(source: Source) -> (Self, impl Future<Output = ()> + Send) {
        let (asks, waiting) = mpsc::channel(WAITING_MAX);
        (Self { asks }, serve(source, waiting))
    }

    /// An index at or after everything answered before this call, which this node has applied.
    pub async fn fresh(&self) -> Answer {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).await.map_err(|_| unavailable("the node is stopping"))?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the node is stopping")))
    }
}

/// Where linearizable indexes come from.
pub struct Source {
    /// The group, while this node leads it.
    pub raft: RaftHandle,
    /// Who leads.
    pub leadership: Leadership,
    /// The way there.
    pub peers: Peers,
    /// How far this node has applied.
    pub applied: watch::Receiver<LogIndex>,
    /// Deadlines.
    pub seams: Seams,
}

impl Source {
    async fn round(&mut self) -> Answer {
        match self.leadership.term() {
            Ok(_) => self.lead_round().await,
            Err(NotLeader { leader: Some((id, member)), .. }) if id != self.peers.me().id => {
                let index = self.ask(id, &member).await.map_err(unavailable)?;
                let caught_up = self.applied.wait_for(|applied| index <= *applied);
                match self.seams.timeout(ROUND_MAX, caught_up).await {
                    Some(Ok(_)) => Ok(index),
                    _ => Err(unavailable(format!("this node has not applied {index} yet"))),
                }
            }
            Err(not_leader) => Err(not_leader.refusal_of("read index")),
        }
    }

    /// Until a majority confirmed that this node leads.
    async fn lead_round(&self) -> Answer {
        let confirming = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match self.seams.timeout(ROUND_MAX, confirming).await {
            Some(Ok(read)) => Ok(LogIndex::new(read.log_id().index)),
            Some(Err(error)) => Err(unavailable(error)),
            None => Err(unavailable("no majority confirmed in time that this node leads")),
        }
    }

    async fn ask(&self, id: u64, member: &crate::raft::Member) -> Result<LogIndex, PeerError> {
        let send = |mut grpc: crate::raft::network::Grpc, peer| {
            let request = proto::LeaderIndexRequest { peer: Some(peer) };
            async move { grpc.leader_index(request).await }
        };
        match self.peers.call((id, member), ROUND_MAX, send).await?.reply {
            Some(Reply::Index(index)) => Ok(LogIndex::new(index)),
            Some(Reply::Refusal(refusal)) if refusal.kind() == proto::refusal::Kind::NotLeader => {
                Err(PeerError::Unreachable { id, reason: refusal.reason })
            }
            Some(Reply::Refusal(refusal)) => Err(self.peers.refused(id, refusal)),
            None => Err(PeerError::Unreachable { id, reason: "no index in its answer".into() }),
        }
    }
}

async fn serve(mut source: Source, mut waiting: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut asks = Vec::new();
    // Whoever asks while a round is under way waits for the next: it may have seen a later answer.
    while waiting.recv_many(&mut asks, WAITING_MAX).await != 0 {
        let answer = source.round().await;
        for ask in asks.drain(..) {
            let _ = ask.send(answer.clone()); // The caller may be gone.
        }
    }
}
