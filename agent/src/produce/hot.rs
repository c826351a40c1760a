//! The pure half of the write path in one call, so that `benches/hot.rs` can count what it costs.
//!
//! The modules it goes through stay private: this is the only door, and it is in no build but that
//! of the counting program (feature `bench-internals`).

use aquifer_metadata::machine::command::{CommitPart, CommitReply};
use aquifer_storage::{
    format::{object::BuiltObject, record_batch::ValidatedBatch},
    model::{SessionId, TopicPartition},
    seam::MonoTime,
};

use super::{
    AppendOutcome, BatchId, ConnectionId, DEADLINE_MAX, Permit,
    buffer::{Buffer, Incoming},
    ledger::{Arrival, Ledger},
};

/// A session's buffer and ledger.
pub struct WritePath {
    session: SessionId,
    buffer: Buffer,
    ledger: Ledger,
    now: MonoTime,
}

impl WritePath {
    /// Nothing buffered, in a session that just began.
    pub fn new(session: SessionId) -> Self {
        let mut ledger = Ledger::default();
        ledger.begin_session(session);
        let now = MonoTime::from_zero(DEADLINE_MAX);
        Self { session, buffer: Buffer::new(u64::MAX), ledger, now }
    }

    /// Takes batches, closes their object, and gives it and its part as if it had landed at once.
    ///
    /// # Panics
    /// When a batch does not follow those before it.
    pub fn commit(
        &mut self,
        batches: Vec<(TopicPartition, ValidatedBatch)>,
    ) -> (BuiltObject, CommitPart) {
        let deadline = self.now + DEADLINE_MAX;
        let permit = Permit::none();
        for (partition, batch) in batches {
            let arrival = Arrival::of(ConnectionId::default(), partition, &batch, deadline);
            let (id, chain) = self.ledger.admit(arrival);
            let chain = chain.expect("batches come in order");
            let incoming = Incoming { id, chain, partition, batch, deadline };
            self.buffer.push(self.now, incoming, &permit);
        }
        let ledger = &self.ledger;
        let closed = self.buffer.close_oldest(|id| ledger.is_live(id)).expect("a batch is live");
        let object_bytes = closed.built.object_bytes;
        let seq = self.ledger.open_object(self.session, closed.batches, object_bytes);
        self.ledger.put_succeeded(self.session, seq);
        let part = self.ledger.next_part(self.session).expect("the object landed");
        (closed.built, part)
    }

    /// Takes the reply to a part; the outcomes it decides.
    pub fn replied(&mut self, part: &CommitPart, reply: CommitReply) -> Vec<AppendOutcome> {
        self.ledger.replied(self.session, part.commit_seq, reply);
        let outcome = |(_, outcome): (BatchId, AppendOutcome)| outcome;
        self.ledger.take_decided().into_iter().map(outcome).collect()
    }
}
