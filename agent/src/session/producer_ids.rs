//! Hands out producer ids from blocks that metadata gives to the session.

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{
    client::{CallError, Metadata},
    machine::command::{Command, ProducerIdBlock, Reply},
};
use aquifer_storage::{
    error::Outcome,
    model::{ProducerId, SessionId},
    seam::Seams,
};
use tokio::sync::{mpsc, oneshot};

use super::Session;

/// Callers that may wait for a block at once; more wait for a place.
pub(super) const WAITING_MAX: usize = 1024;
const TRY_MAX: Duration = Duration::from_secs(5);

pub(super) type IdReply = oneshot::Sender<Result<ProducerId, CallError>>;

/// The one task that owns the current block. A block outlives its session: ids are never given
/// twice, by anyone.
pub(super) struct ProducerIds {
    pub(super) metadata: Arc<dyn Metadata>,
    pub(super) seams: Seams,
    pub(super) session: Session,
    pub(super) inbox: mpsc::Receiver<IdReply>,
}

impl ProducerIds {
    pub(super) async fn run(mut self) {
        let mut block = IdBlock::default();
        while let Some(reply) = self.inbox.recv().await {
            let id = match block.next() {
                Some(id) => Ok(id),
                None => self.allocate().await.and_then(|allocated| {
                    block = IdBlock::new(allocated);
                    block.next().ok_or_else(|| unavailable("metadata gave an empty block"))
                }),
            };
            // A caller that went away leaves a hole, which is harmless.
            let _ = reply.send(id);
        }
    }

    async fn allocate(&self) -> Result<ProducerIdBlock, CallError> {
        let Some(registered) = self.session.current() else {
            return Err(unavailable("the agent has no session"));
        };
        let session = registered.session;
        let call = self.metadata.propose(Command::AllocateProducerIds { session });
        let answer = self.seams.timeout(TRY_MAX, call).await;
        match answer.ok_or_else(|| unavailable("no answer in time"))??.reply {
            Reply::ProducerIds(Ok(block)) => Ok(block),
            Reply::ProducerIds(Err(_)) => Err(self.fenced(session)),
            _ => Err(unavailable("metadata answered another question")),
        }
    }

    fn fenced(&self, session: SessionId) -> CallError {
        self.session.fenced(session);
        unavailable("the session is fenced")
    }
}

/// What is left of a block.
#[derive(Default)]
struct IdBlock {
    next: i64,
    end: i64,
}

impl IdBlock {
    fn new(block: ProducerIdBlock) -> Self {
        let next = block.first.value();
        Self { next, end: next.saturating_add(i64::from(block.count)) }
    }

    fn next(&mut self) -> Option<ProducerId> {
        (self.next < self.end).then(|| {
            let id = ProducerId::new(self.next);
            self.next += 1;
            id
        })
    }
}

/// A lost block is harmless, so every failure here is definite for the caller.
fn unavailable(reason: &str) -> CallError {
    CallError {
        call: "allocate_producer_ids",
        outcome: Outcome::Unavailable,
        reason: reason.to_owned(),
    }
}
