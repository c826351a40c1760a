//! Every batch between its arrival and its outcome: ties chains, commit streams and deadlines
//! together, and decides what each client is told [pure].
//!
//! # Invariants
//! - Every admitted batch gets exactly one outcome.
//! - A definite failure is final: the batch is in no part and never will be, or metadata said no.
//! - A batch that was sent and is undecided at its deadline is `Unknown`.
//!
//! # Not here
//! PUTs, connections and clocks (`writer`).

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use aquifer_metadata::machine::command::{BatchOutcome, CommitPart, CommitReply};
use aquifer_storage::{
    model::{CommitSeq, ObjectSeq, SessionId},
    seam::MonoTime,
};

use super::{
    AppendOutcome, BatchId, ConnectionId,
    buffer::ClosedObject,
    chain::{ChainKey, ChainPlace, Chains},
    commit_stream::{CommitStream, Replied},
};

/// Everything undecided, of this session and of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next_batch: BatchId,
    batches: BTreeMap<BatchId, Record>,
    deadlines: BTreeSet<(MonoTime, BatchId)>,
    chains: Chains,
    /// Connections with batches here.
    connections: BTreeMap<ConnectionId, Connection>,
    current: Option<SessionId>,
    /// The newest session ever begun: one that ended here never begins again.
    latest: Option<SessionId>,
    streams: BTreeMap<SessionId, CommitStream>,
    decided: Vec<(BatchId, AppendOutcome)>,
}

#[derive(Debug)]
struct Record {
    key: ChainKey,
    place: Option<ChainPlace>,
    deadline: MonoTime,
    stage: Stage,
    /// Its client was told `Unknown` already.
    answered: bool,
    /// Its chain is held until it is decided.
    holds: bool,
}

#[derive(Debug, Default)]
struct Connection {
    batches: usize,
    closed: bool,
}

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Buffered,
    /// In an object whose PUT was started.
    Uploading(SessionId, ObjectSeq),
    /// In the bucket, waiting for its predecessors.
    Landed(SessionId, ObjectSeq),
    /// In a part that was not transmitted.
    Assigned(SessionId, CommitSeq),
    /// In metadata's hands.
    Sent,
}

/// A batch that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) key: ChainKey,
    pub(super) place: Option<ChainPlace>,
    pub(super) deadline: MonoTime,
}

impl Ledger {
    /// Takes a batch; `false` when its chain is broken, and then it is not remembered.
    pub(super) fn admit(&mut self, arrival: Arrival) -> (BatchId, bool) {
        let id = self.next_batch;
        self.next_batch = id.next();
        let Arrival { key, place, deadline } = arrival;
        let admitted = self.chains.admit(key, place, id);
        if admitted {
            let stage = Stage::Buffered;
            let record = Record { key, place, deadline, stage, answered: false, holds: false };
            self.batches.insert(id, record);
            self.connections.entry(key.connection).or_default().batches += 1;
            self.deadlines.insert((deadline, id));
        }
        (id, admitted)
    }

    /// Whether a batch is still wanted.
    pub(super) fn is_live(&self, id: BatchId) -> bool {
        self.batches.contains_key(&id)
    }

    /// Whether every client has its answer.
    pub(super) fn is_settled(&self) -> bool {
        self.batches.values().all(|record| record.answered)
    }

    /// The live session, if it may open another object.
    pub(super) fn open_session(&self) -> Option<SessionId> {
        let session = self.current?;
        self.streams.get(&session).filter(|stream| stream.can_open()).map(|_| session)
    }

    /// Numbers an object of the live session whose PUT starts now.
    pub(super) fn open_object(&mut self, session: SessionId, object: &ClosedObject) -> ObjectSeq {
        let stream = self.streams.get_mut(&session).expect("the caller asked for the live session");
        let seq = stream.open(object.batches.clone(), object.built.object_bytes);
        for batch in &object.batches {
            if let Some(record) = self.batches.get_mut(&batch.id) {
                record.stage = Stage::Uploading(session, seq);
            }
        }
        seq
    }

    /// The object is in the bucket.
    pub(super) fn put_succeeded(&mut self, session: SessionId, seq: ObjectSeq) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        if stream.landed(seq) {
            for id in stream.unassigned(seq) {
                if let Some(record) = self.batches.get_mut(&id) {
                    record.stage = Stage::Landed(session, seq);
                }
            }
            self.assign();
        }
    }

    /// The object is given up. Nobody else can send it, so its batches did not happen.
    pub(super) fn put_failed(
        &mut self,
        session: SessionId,
        seq: ObjectSeq,
        outcome: AppendOutcome,
    ) {
        let Some(stream) = self.streams.get(&session) else { return };
        for id in stream.unassigned(seq) {
            self.fail(id, outcome);
        }
        self.assign();
    }

    /// A session begins; the one before, if any, has ended. Session numbers only grow, so one
    /// that is not newer than the latest says nothing new.
    pub(super) fn begin_session(&mut self, session: SessionId) {
        if Some(session) <= self.latest {
            return;
        }
        self.end_session();
        self.current = Some(session);
        self.latest = Some(session);
        self.streams.insert(session, CommitStream::new(session));
    }

    /// The live session ended: what it did not send fails, what it sent stays to be asked for.
    pub(super) fn end_session(&mut self) {
        let Some(session) = self.current.take() else { return };
        let Some(stream) = self.streams.get_mut(&session) else { return };
        let fenced = stream.fence();
        for id in fenced.undecided {
            if let Some(record) = self.batches.get_mut(&id) {
                record.holds = true;
                self.chains.hold(&record.key);
            }
        }
        for id in fenced.unsent {
            self.fail(id, AppendOutcome::Unavailable);
        }
        self.sweep_streams();
    }

    /// Stops asking for what an ended session sent.
    pub(super) fn abandon_session(&mut self, session: SessionId) {
        if self.current == Some(session) {
            return;
        }
        let Some(stream) = self.streams.remove(&session) else { return };
        for id in stream.undecided() {
            self.fail(id, AppendOutcome::Unknown);
        }
        self.assign();
    }

    /// Sessions with a stream, and whether each is the live one.
    pub(super) fn sessions(&self) -> Vec<(SessionId, bool)> {
        self.streams.keys().map(|session| (*session, self.current == Some(*session))).collect()
    }

    /// Whether a session's stream has something to transmit.
    pub(super) fn has_part(&self, session: SessionId) -> bool {
        self.streams.get(&session).is_some_and(CommitStream::has_next)
    }

    /// Whether a session's stream waits for replies.
    pub(super) fn awaits_replies(&self, session: SessionId) -> bool {
        self.streams.get(&session).is_some_and(CommitStream::awaits_replies)
    }

    /// The next part to transmit. From here on its batches are metadata's to decide.
    pub(super) fn next_part(&mut self, session: SessionId) -> Option<CommitPart> {
        let stream = self.streams.get_mut(&session)?;
        let (part, sent) = stream.next_part(&mut self.chains)?;
        for id in sent {
            if let Some(record) = self.batches.get_mut(&id) {
                record.stage = Stage::Sent;
            }
        }
        Some(part)
    }

    /// A session's connection is gone.
    pub(super) fn disconnected(&mut self, session: SessionId) {
        if let Some(stream) = self.streams.get_mut(&session) {
            stream.disconnected();
        }
    }

    /// Takes a reply; whether the session turned out to be unusable.
    pub(super) fn replied(
        &mut self,
        session: SessionId,
        seq: CommitSeq,
        reply: CommitReply,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&session) else { return false };
        let unusable = match stream.replied(seq, reply) {
            Replied::Nothing => false,
            Replied::Applied(outcomes) => {
                for (id, outcome) in outcomes {
                    self.settle(id, outcome.into());
                }
                false
            }
            Replied::Fenced(ids) => {
                for id in ids {
                    self.fail(id, AppendOutcome::Unavailable);
                }
                true
            }
            Replied::Unknowable(ids) => {
                for id in ids {
                    self.fail(id, AppendOutcome::Unknown);
                }
                true
            }
        };
        if unusable && self.current == Some(session) {
            self.end_session();
        }
        self.sweep_streams();
        self.assign();
        unusable
    }

    /// Ends what is due at `now`.
    pub(super) fn expire(&mut self, now: MonoTime) {
        let mut withdrawn = false;
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if now < deadline {
                break;
            }
            self.deadlines.pop_first();
            let Some(record) = self.batches.get_mut(&id) else { continue };
            match record.stage {
                Stage::Sent => {
                    record.answered = true;
                    self.decided.push((id, AppendOutcome::Unknown));
                }
                // It will never be committed, but the store was asked and did not answer.
                Stage::Uploading(..) => {
                    self.fail(id, AppendOutcome::Unknown);
                    withdrawn = true;
                }
                Stage::Buffered | Stage::Landed(..) | Stage::Assigned(..) => {
                    self.fail(id, AppendOutcome::Unavailable);
                    withdrawn = true;
                }
            }
        }
        if withdrawn {
            self.assign();
        }
    }

    /// The next moment at which [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<MonoTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.chains.close(connection);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.closed = true;
        }
    }

    /// Outcomes since the last call.
    pub(super) fn take_decided(&mut self) -> Vec<(BatchId, AppendOutcome)> {
        std::mem::take(&mut self.decided)
    }

    fn assign(&mut self) {
        let Some(session) = self.current else { return };
        let Some(stream) = self.streams.get_mut(&session) else { return };
        for (id, seq) in stream.assign(&mut self.chains) {
            if let Some(record) = self.batches.get_mut(&id) {
                record.stage = Stage::Assigned(session, seq);
            }
        }
        stream.move_window();
    }

    /// Ends a batch that its client sends again, and with it what follows in its chain: it did
    /// not happen, or nobody can tell any more.
    fn fail(&mut self, id: BatchId, outcome: AppendOutcome) {
        let Some(&Record { key, place, .. }) = self.batches.get(&id) else { return };
        let followers = self.chains.fail(&key, id, place);
        if self.connections.get(&key.connection).is_some_and(|connection| connection.closed) {
            // Nobody sends anything again on it.
            self.chains.close(key.connection);
        }
        let Some(record) = self.remove(id) else { return };
        self.decide(id, &record, outcome);
        for follower in followers {
            if let Some(record) = self.remove(follower) {
                self.decide(follower, &record, AppendOutcome::BrokenChain);
            }
        }
    }

    /// Ends a batch that metadata decided.
    fn settle(&mut self, id: BatchId, outcome: AppendOutcome) {
        if let Some(record) = self.remove(id) {
            self.decide(id, &record, outcome);
        }
    }

    /// Takes a batch out of wherever it waits.
    fn remove(&mut self, id: BatchId) -> Option<Record> {
        let record = self.batches.remove(&id)?;
        self.deadlines.remove(&(record.deadline, id));
        match record.stage {
            Stage::Buffered | Stage::Sent => {}
            Stage::Uploading(session, seq) | Stage::Landed(session, seq) => {
                if let Some(stream) = self.streams.get_mut(&session) {
                    stream.withdraw_from_object(seq, id);
                }
            }
            Stage::Assigned(session, seq) => {
                if let Some(stream) = self.streams.get_mut(&session) {
                    stream.withdraw_from_part(seq, id);
                }
            }
        }
        if record.holds {
            self.chains.release(&record.key);
        }
        if let Entry::Occupied(mut entry) = self.connections.entry(record.key.connection) {
            entry.get_mut().batches -= 1;
            if entry.get().batches == 0 {
                entry.remove();
            }
        }
        Some(record)
    }

    fn decide(&mut self, id: BatchId, record: &Record, outcome: AppendOutcome) {
        if !record.answered {
            self.decided.push((id, outcome));
        }
    }

    fn sweep_streams(&mut self) {
        self.streams.retain(|_, stream| !stream.is_over());
    }
}

impl From<BatchOutcome> for AppendOutcome {
    fn from(outcome: BatchOutcome) -> Self {
        match outcome {
            BatchOutcome::Appended { base, log_start } => Self::Appended { base, log_start },
            BatchOutcome::Duplicate { base, max_timestamp, log_start } => {
                Self::Duplicate { base, max_timestamp, log_start }
            }
            BatchOutcome::Rejected(rejected) => Self::Rejected(rejected),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
