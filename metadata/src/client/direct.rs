//! [`Metadata`] in process, for `aquifer up`: no serialization, no loopback connection.

use std::{collections::VecDeque, sync::Arc};

use aquifer_storage::{
    error::Outcome,
    model::{CommitSeq, LogIndex, SessionId},
};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{
    CallError, CommitStream, Heartbeat, Metadata, WatchStream,
    cluster::{GroupStatus, OperationError, Quorum, VoterChange},
};
use crate::{
    machine::{
        command::{AppliedReply, Command, CommitPart, CommitReply, Reply},
        query::{Answer, Query},
    },
    node::{
        CommitStreamGuard, MetadataNode,
        proposer::{Receipt, outcome_of},
    },
};

/// Parts buffered in a stream's channel, and parts under way: more only grows latency.
const PARTS_MAX: usize = 256;

/// The metadata of a node in this process. Cheap to clone.
#[derive(Clone)]
pub struct DirectClient {
    node: MetadataNode,
    /// Whose watch streams these are.
    session: Arc<watch::Sender<Option<SessionId>>>,
}

impl DirectClient {
    /// The client of `node`.
    pub fn new(node: MetadataNode) -> Self {
        Self { node, session: Arc::default() }
    }

    fn note_session(&self, session: SessionId) {
        self.session.send_if_modified(|known| known.replace(session) != Some(session));
    }
}

#[async_trait]
impl Metadata for DirectClient {
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        self.node.propose(command).await
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.node.read_index().await
    }

    async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        self.node.query(query).await
    }

    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        let heard = self.node.heartbeat(session)?;
        if matches!(heard, Heartbeat::Live { .. }) {
            self.note_session(session);
        }
        Ok(heard)
    }

    async fn open_commits(&self, session: SessionId) -> Result<CommitStream, CallError> {
        let guard = self.node.replace_commit_stream(session)?;
        let (parts, incoming) = mpsc::channel(PARTS_MAX);
        let (outgoing, replies) = mpsc::channel(PARTS_MAX);
        let serving = serve_commits(self.node.clone(), guard, incoming, outgoing);
        self.node.seams().spawn("commits", serving);
        Ok(CommitStream { parts, replies })
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        self.node.open_watch(seen, Some(self.session.subscribe())).await
    }
}

#[async_trait]
impl Quorum for DirectClient {
    async fn quorum(&self) -> Result<GroupStatus, OperationError> {
        Ok(self.node.status(false))
    }

    async fn change_voters(&self, change: VoterChange) -> Result<GroupStatus, OperationError> {
        let changed = match change {
            VoterChange::Add(id) => self.node.add_voter(id).await,
            VoterChange::Remove(id) => self.node.remove_member(id).await,
        };
        changed.map_err(|error| match error.outcome {
            Outcome::Unavailable => OperationError::Unavailable(error.reason),
            Outcome::Indefinite => OperationError::Indefinite(error.reason),
            Outcome::Rejected | Outcome::Fenced | Outcome::Corrupt => {
                OperationError::Refused(error.reason)
            }
        })?;
        Ok(self.node.status(false))
    }
}

/// Proposes parts as they come, without waiting for replies, and answers in their order. Ends
/// when either end is gone, a newer stream takes over, this node leads no more, or an outcome is
/// not known: what was sent and not answered is then decided by sending it again.
async fn serve_commits(
    node: MetadataNode,
    mut guard: CommitStreamGuard,
    mut incoming: mpsc::Receiver<CommitPart>,
    outgoing: mpsc::Sender<(CommitSeq, CommitReply)>,
) {
    let mut under_way: VecDeque<(CommitSeq, Receipt)> = VecDeque::new();
    let mut lost = std::pin::pin!(guard.lost());
    loop {
        let room = under_way.len() < PARTS_MAX;
        let first = async {
            match under_way.front_mut() {
                Some((seq, receipt)) => (*seq, receipt.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut guard.ended => return,
            () = outgoing.closed() => return,
            () = &mut lost => break,
            (seq, result) = first => {
                under_way.pop_front();
                let Ok(Ok(AppliedReply { reply: Reply::Commit(reply), .. })) = result else {
                    return;
                };
                if outgoing.send((seq, reply)).await.is_err() {
                    return;
                }
            }
            part = incoming.recv(), if room => {
                let Some(part) = part else { break };
                let seq = part.commit_seq;
                match node.proposer().submit(Command::Commit(part)).await {
                    Ok(receipt) => under_way.push_back((seq, receipt)),
                    Err(error) => {
                        if error.outcome == Outcome::Rejected {
                            tracing::error!(%error, "a commit part was refused");
                        }
                        return;
                    }
                }
            }
        }
    }
    // What was handed over is still answered, unless this node is cut off.
    let seams = node.seams().clone();
    let answering = answer_rest(under_way, outgoing);
    let overdue = async {
        guard.lost().await;
        seams.sleep(guard.grace()).await;
    };
    tokio::select! {
        () = answering => {}
        () = overdue => {}
    }
}

async fn answer_rest(
    under_way: VecDeque<(CommitSeq, Receipt)>,
    outgoing: mpsc::Sender<(CommitSeq, CommitReply)>,
) {
    for (seq, receipt) in under_way {
        let Ok(AppliedReply { reply: Reply::Commit(reply), .. }) = outcome_of(receipt).await else {
            return;
        };
        if outgoing.send((seq, reply)).await.is_err() {
            return;
        }
    }
}
