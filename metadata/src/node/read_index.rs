//! Linearizable indexes: one round of the group serves every request that waits for it.

use crate::raft::library::ReadPolicy;
use aquifer_storage::{error::Outcome, model::LogIndex};
use tokio::sync::{mpsc, oneshot};

use crate::{client::CallError, raft::RaftHandle};

/// Requests waiting for a round, more than any agent coalesces to.
const WAITING_MAX: usize = 4096;

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
    pub fn new(raft: RaftHandle) -> (Self, impl Future<Output = ()> + Send) {
        let (asks, waiting) = mpsc::channel(WAITING_MAX);
        (Self { asks }, serve(raft, waiting))
    }

    /// An index at or after everything answered before this call, which this node has applied.
    pub async fn fresh(&self) -> Answer {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).await.map_err(|_| unavailable("the node is stopping"))?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the node is stopping")))
    }
}

async fn serve(raft: RaftHandle, mut waiting: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut asks = Vec::new();
    // Whoever asks while a round is under way waits for the next: it may have seen a later answer.
    while waiting.recv_many(&mut asks, WAITING_MAX).await != 0 {
        let answer = match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(LogIndex::new(read.log_id().index)),
            Err(error) => Err(unavailable(error)),
        };
        for ask in asks.drain(..) {
            let _ = ask.send(answer.clone()); // The caller may be gone.
        }
    }
}
