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
    format::record_batch::ValidatedBatch,
    model::{CommitSeq, ObjectSeq, SessionId, TopicPartition},
    seam::MonoTime,
};

use super::{
    AppendOutcome, BatchId, ConnectionId,
    buffer::PlacedBatch,
    chain::{ChainId, ChainKey, ChainPlace, Chains},
    commit_stream::{CommitStream, Replied},
};

/// Everything undecided, of this session and of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next_batch: BatchId,
    /// Batches that arrived one after the other, by the id of the first.
    groups: BTreeMap<BatchId, Group>,
    /// By the group's first batch.
    deadlines: BTreeSet<(MonoTime, BatchId)>,
    chains: Chains,
    /// Connections with groups here.
    connections: BTreeMap<ConnectionId, Connection>,
    current: Option<SessionId>,
    /// The newest session ever begun: one that ended here never begins again.
    latest: Option<SessionId>,
    streams: BTreeMap<SessionId, CommitStream>,
    decided: Vec<(BatchId, AppendOutcome)>,
}

/// Batches of one connection and deadline whose ids follow one another: mostly those of a request.
#[derive(Debug)]
struct Group {
    connection: ConnectionId,
    deadline: MonoTime,
    /// `None` where a batch is decided.
    records: Vec<Option<Record>>,
    undecided: usize,
    /// The deadline has passed.
    expired: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    chain: ChainId,
    place: Option<ChainPlace>,
    stage: Stage,
    /// Its client was told `Unknown` already.
    answered: bool,
    /// Its chain is held until it is decided.
    holds: bool,
}

#[derive(Debug, Default)]
struct Connection {
    groups: usize,
    closed: bool,
}

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Buffered,
    /// In an object whose PUT was started.
    InObject(SessionId, ObjectSeq),
    /// In a part; in metadata's hands once that is transmitted.
    InPart(SessionId, CommitSeq),
}

/// A batch that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) key: ChainKey,
    pub(super) place: Option<ChainPlace>,
    pub(super) deadline: MonoTime,
}

impl Arrival {
    /// A batch of a connection's request.
    pub(super) fn of(
        connection: ConnectionId,
        partition: TopicPartition,
        batch: &ValidatedBatch,
        deadline: MonoTime,
    ) -> Self {
        let producer = batch.header().producer();
        let place = producer.map(|it| ChainPlace { epoch: it.epoch, sequence: it.base_sequence });
        let key = ChainKey { connection, producer: producer.map(|it| it.id), partition };
        Self { key, place, deadline }
    }
}

impl Ledger {
    /// The id of the batch that arrives next.
    pub(super) fn next_batch(&self) -> BatchId {
        self.next_batch
    }

    /// Takes a batch; without a chain when that is broken, and then it is not remembered.
    pub(super) fn admit(&mut self, arrival: Arrival) -> (BatchId, Option<ChainId>) {
        let id = self.next_batch;
        self.next_batch = id.next();
        let Arrival { key, place, deadline } = arrival;
        let chain = self.chains.admit(key, place, id);
        if let Some(chain) = chain {
            let stage = Stage::Buffered;
            let record = Record { chain, place, stage, answered: false, holds: false };
            self.remember(id, (key.connection, deadline), record);
        }
        (id, chain)
    }

    fn remember(
        &mut self,
        id: BatchId,
        (connection, deadline): (ConnectionId, MonoTime),
        record: Record,
    ) {
        if let Some((first, group)) = self.groups.iter_mut().next_back()
            && first.advance(group.records.len()) == id
            && (group.connection, group.deadline) == (connection, deadline)
            && !group.expired
        {
            group.records.push(Some(record));
            group.undecided += 1;
            return;
        }
        let (records, undecided, expired) = (vec![Some(record)], 1, false);
        let group = Group { connection, deadline, records, undecided, expired };
        self.groups.insert(id, group);
        self.deadlines.insert((deadline, id));
        self.connections.entry(connection).or_default().groups += 1;
    }

    fn record(&self, id: BatchId) -> Option<&Record> {
        let (first, group) = self.groups.range(..=id).next_back()?;
        group.records.get(id.distance_from(*first))?.as_ref()
    }

    fn record_mut(&mut self, id: BatchId) -> Option<&mut Record> {
        let (first, group) = self.groups.range_mut(..=id).next_back()?;
        group.records.get_mut(id.distance_from(*first))?.as_mut()
    }

    /// Whether a batch is still wanted.
    pub(super) fn is_live(&self, id: BatchId) -> bool {
        self.record(id).is_some()
    }

    /// Whether every client has its answer.
    pub(super) fn is_settled(&self) -> bool {
        let mut records = self.groups.values().flat_map(|group| group.records.iter().flatten());
        records.all(|record| record.answered)
    }

    /// The live session, if it may open another object.
    pub(super) fn open_session(&self) -> Option<SessionId> {
        let session = self.current?;
        self.streams.get(&session).filter(|stream| stream.can_open()).map(|_| session)
    }

    /// Numbers an object of the live session whose PUT starts now. Batches that are not wanted any
    /// more are in its bytes only.
    pub(super) fn open_object(
        &mut self,
        session: SessionId,
        mut batches: Vec<PlacedBatch>,
        object_bytes: u64,
    ) -> ObjectSeq {
        let expected = "the caller asked for the live session";
        let seq = self.streams.get(&session).expect(expected).next_object();
        batches.retain(|batch| match self.record_mut(batch.id) {
            Some(record) => {
                record.stage = Stage::InObject(session, seq);
                true
            }
            None => false,
        });
        self.streams.get_mut(&session).expect(expected).open(batches, object_bytes)
    }

    /// The object is in the bucket.
    pub(super) fn put_succeeded(&mut self, session: SessionId, seq: ObjectSeq) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        if stream.landed(seq) {
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
            if let Some(record) = self.record_mut(id) {
                record.holds = true;
                let chain = record.chain;
                self.chains.hold(chain);
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
        self.streams.get_mut(&session)?.next_part(&mut self.chains)
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
        while let Some(&(deadline, first)) = self.deadlines.first() {
            if now < deadline {
                break;
            }
            self.deadlines.pop_first();
            let Some(group) = self.groups.get_mut(&first) else { continue };
            group.expired = true;
            for index in 0..group.records.len() {
                withdrawn |= self.expire_batch(first.advance(index));
            }
        }
        if withdrawn {
            self.assign();
        }
    }

    /// Ends a batch at its deadline; whether it is in no part now.
    fn expire_batch(&mut self, id: BatchId) -> bool {
        let Some(&Record { stage, .. }) = self.record(id) else { return false };
        let outcome = match stage {
            Stage::InPart(session, seq)
                if self.streams.get(&session).is_none_or(|stream| stream.is_sent(seq)) =>
            {
                if let Some(record) = self.record_mut(id) {
                    record.answered = true;
                }
                self.decided.push((id, AppendOutcome::Unknown));
                return false;
            }
            // It will never be committed, but the store was asked and did not answer.
            Stage::InObject(session, seq)
                if self.streams.get(&session).is_none_or(|stream| !stream.is_landed(seq)) =>
            {
                AppendOutcome::Unknown
            }
            Stage::Buffered | Stage::InObject(..) | Stage::InPart(..) => AppendOutcome::Unavailable,
        };
        self.fail(id, outcome);
        true
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
            if let Some(record) = self.record_mut(id) {
                record.stage = Stage::InPart(session, seq);
            }
        }
        if let Some(stream) = self.streams.get_mut(&session) {
            stream.move_window();
        }
    }

    /// Ends a batch that its client sends again, and with it what follows in its chain: it did
    /// not happen, or nobody can tell any more.
    fn fail(&mut self, id: BatchId, outcome: AppendOutcome) {
        let Some((_, group)) = self.groups.range(..=id).next_back() else { return };
        let connection = group.connection;
        let Some(&Record { chain, place, .. }) = self.record(id) else { return };
        let followers = self.chains.fail(chain, id, place);
        if self.connections.get(&connection).is_some_and(|connection| connection.closed) {
            // Nobody sends anything again on it.
            self.chains.close(connection);
        }
        let Some(record) = self.remove(id) else { return };
        self.decide(id, record, outcome);
        for follower in followers {
            if let Some(record) = self.remove(follower) {
                self.decide(follower, record, AppendOutcome::BrokenChain);
            }
        }
    }

    /// Ends a batch that metadata decided.
    fn settle(&mut self, id: BatchId, outcome: AppendOutcome) {
        if let Some(record) = self.remove(id) {
            self.decide(id, record, outcome);
        }
    }

    /// Takes a batch out of wherever it waits.
    fn remove(&mut self, id: BatchId) -> Option<Record> {
        let (&first, group) = self.groups.range_mut(..=id).next_back()?;
        let record = group.records.get_mut(id.distance_from(first))?.take()?;
        group.undecided -= 1;
        let is_over = group.undecided == 0;
        match record.stage {
            Stage::Buffered => {}
            Stage::InObject(session, seq) => {
                if let Some(stream) = self.streams.get_mut(&session) {
                    stream.withdraw_from_object(seq);
                }
            }
            Stage::InPart(session, seq) => {
                if let Some(stream) = self.streams.get_mut(&session) {
                    stream.withdraw_from_part(seq, id);
                }
            }
        }
        if record.holds {
            self.chains.release(record.chain);
        }
        self.chains.forget(record.chain);
        if is_over {
            self.remove_group(first);
        }
        Some(record)
    }

    fn remove_group(&mut self, first: BatchId) {
        let Some(group) = self.groups.remove(&first) else { return };
        self.deadlines.remove(&(group.deadline, first));
        if let Entry::Occupied(mut entry) = self.connections.entry(group.connection) {
            entry.get_mut().groups -= 1;
            if entry.get().groups == 0 {
                entry.remove();
            }
        }
    }

    fn decide(&mut self, id: BatchId, record: Record, outcome: AppendOutcome) {
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
