//! One session's ordered stream of parts, go-back-N [pure].
//!
//! When a PUT ends, the batches of the object whose predecessors were sent, or stand earlier in
//! the same part, get a part with the next `commit_seq`; the others wait for a later part. Parts
//! are kept until answered, and sent again from the first unanswered one after a gap or on a new
//! connection.
//!
//! # Invariants
//! - A part's content is frozen by its first transmission: a repeat is the same bytes.
//! - A batch stands in at most one part; one that was withdrawn is in none and never will be.
//! - `low_seq` never falls, and no part names an object below one promised before it.
//!
//! # Not here
//! The connection (`writer`), and what clients are told (`ledger`).

use std::collections::{BTreeMap, VecDeque};

use aquifer_metadata::machine::command::{
    BatchOutcome, CommitPart, CommitReply, PartBatch, PartExtent, PartProducer,
};
use aquifer_storage::model::{CommitSeq, ObjectSeq, SessionId, TopicPartition};

use super::{BatchId, buffer::PlacedBatch, chain::Chains};

/// A session opens an object only this far above the `low_seq` that metadata has applied, so that
/// the possible orphans of a dead session can be named.
pub(super) const OBJECT_WINDOW: u64 = 1024;
/// Keeps a part's log entry well below 1 MiB.
const PART_BATCHES_MAX: usize = 4096;

/// The stream of one session.
#[derive(Debug)]
pub(super) struct CommitStream {
    session: SessionId,
    next_object: ObjectSeq,
    applied_low: ObjectSeq,
    /// Objects with batches that are in no part yet.
    objects: BTreeMap<ObjectSeq, Object>,
    next_commit: CommitSeq,
    /// Unanswered parts, contiguous up to `next_commit` but for answered ones in between.
    parts: BTreeMap<CommitSeq, Part>,
    /// The next part to transmit on this connection.
    cursor: CommitSeq,
    /// Transmissions on this connection, in order, each with the round it belongs to.
    unanswered: VecDeque<(CommitSeq, u64)>,
    /// Counts rewinds: a gap answered to an older round says nothing new.
    round: u64,
    fenced: bool,
}

#[derive(Debug)]
struct Object {
    /// Ids are given on arrival, so this is the order of the requests.
    batches: BTreeMap<BatchId, PlacedBatch>,
    object_bytes: u64,
    landed: bool,
}

#[derive(Debug)]
struct Part {
    object: ObjectSeq,
    object_bytes: u64,
    batches: Vec<PlacedBatch>,
    /// Set by the first transmission.
    frozen: Option<CommitPart>,
}

/// What a reply says.
#[derive(Debug, PartialEq)]
pub(super) enum Replied {
    /// Nothing new.
    Nothing,
    /// The part was applied; the outcome of each batch.
    Applied(Vec<(BatchId, BatchOutcome)>),
    /// The session is fenced: these have definitely not happened.
    Fenced(Vec<BatchId>),
    /// Metadata contradicts itself about these: their outcome cannot be known any more.
    Unknowable(Vec<BatchId>),
}

impl CommitStream {
    /// The stream of a session that has sent nothing.
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            session,
            next_object: ObjectSeq::new(0),
            applied_low: ObjectSeq::new(0),
            objects: BTreeMap::new(),
            next_commit: CommitSeq::new(0),
            parts: BTreeMap::new(),
            cursor: CommitSeq::new(0),
            unanswered: VecDeque::new(),
            round: 0,
            fenced: false,
        }
    }

    /// Whether another object may be opened.
    pub(super) fn can_open(&self) -> bool {
        !self.fenced && self.next_object.value() < self.applied_low.value() + OBJECT_WINDOW
    }

    /// Numbers an object whose PUT starts now.
    ///
    /// # Panics
    /// When [`Self::can_open`] is false.
    pub(super) fn open(&mut self, batches: Vec<PlacedBatch>, object_bytes: u64) -> ObjectSeq {
        assert!(self.can_open(), "an object is opened only inside the window");
        let seq = self.next_object;
        self.next_object = seq.next();
        let batches = batches.into_iter().map(|batch| (batch.id, batch)).collect();
        self.objects.insert(seq, Object { batches, object_bytes, landed: false });
        seq
    }

    /// The object's PUT succeeded; whether anything of it is still wanted.
    pub(super) fn landed(&mut self, seq: ObjectSeq) -> bool {
        let Some(object) = self.objects.get_mut(&seq) else { return false };
        object.landed = true;
        true
    }

    /// The batches of an object that are in no part.
    pub(super) fn unassigned(&self, seq: ObjectSeq) -> Vec<BatchId> {
        let object = self.objects.get(&seq);
        object.map_or_else(Vec::new, |object| object.batches.keys().copied().collect())
    }

    /// Gives parts to every batch that may leave; returns them with their parts.
    pub(super) fn assign(&mut self, chains: &mut Chains) -> Vec<(BatchId, CommitSeq)> {
        let mut assigned = Vec::new();
        if self.fenced {
            return assigned;
        }
        loop {
            let before = assigned.len();
            let landed: Vec<ObjectSeq> =
                self.objects.iter().filter(|(_, o)| o.landed).map(|(seq, _)| *seq).collect();
            for seq in landed {
                self.assign_object(seq, chains, &mut assigned);
            }
            // A part may have freed batches of an earlier object.
            if assigned.len() == before {
                return assigned;
            }
        }
    }

    fn assign_object(
        &mut self,
        seq: ObjectSeq,
        chains: &mut Chains,
        assigned: &mut Vec<(BatchId, CommitSeq)>,
    ) {
        let Some(object) = self.objects.get_mut(&seq) else { return };
        let mut ready = Vec::new();
        object.batches.retain(|_, batch| {
            let leaves = chains.is_next(&batch.key, batch.id);
            if leaves {
                chains.assign(&batch.key, batch.id);
                ready.push(*batch);
            }
            !leaves
        });
        let object_bytes = object.object_bytes;
        if object.batches.is_empty() {
            self.objects.remove(&seq);
        }
        for batches in ready.chunks(PART_BATCHES_MAX) {
            let commit_seq = self.push_part(seq, object_bytes, batches.to_vec());
            assigned.extend(batches.iter().map(|batch| (batch.id, commit_seq)));
        }
    }

    fn push_part(
        &mut self,
        object: ObjectSeq,
        object_bytes: u64,
        batches: Vec<PlacedBatch>,
    ) -> CommitSeq {
        let commit_seq = self.next_commit;
        self.next_commit = commit_seq.next();
        self.parts.insert(commit_seq, Part { object, object_bytes, batches, frozen: None });
        commit_seq
    }

    /// When the window is used up and no part on its way will move it, adds an empty part that
    /// carries the present `low_seq`.
    pub(super) fn move_window(&mut self) {
        let low = self.low_seq();
        if !self.fenced && !self.can_open() && self.parts.is_empty() && self.applied_low < low {
            // Of an object below the new window, which is the last that the present one has.
            let last = ObjectSeq::new(low.value() - 1);
            self.push_part(last, 0, Vec::new());
        }
    }

    /// Whether a part waits to be transmitted.
    pub(super) fn has_next(&self) -> bool {
        self.parts.range(self.cursor..).next().is_some()
    }

    /// The next part to transmit, and the batches that are sent by it for the first time. The
    /// caller hands it to the connection without fail.
    pub(super) fn next_part(&mut self, chains: &mut Chains) -> Option<(CommitPart, Vec<BatchId>)> {
        let acked_seq = self.acked_seq();
        let low_seq = self.low_seq();
        let (&commit_seq, part) = self.parts.range_mut(self.cursor..).next()?;
        let mut first_sent = Vec::new();
        let frozen = part.frozen.get_or_insert_with(|| {
            for batch in &part.batches {
                chains.sent(&batch.key, batch.id);
                first_sent.push(batch.id);
            }
            // From here on in the order of the outcomes. The sort is stable.
            part.batches.sort_by_key(|batch| batch.key.partition);
            let (producers, extents) = encode(&part.batches);
            CommitPart {
                session: self.session,
                commit_seq,
                acked_seq,
                low_seq,
                object_seq: part.object,
                object_bytes: part.object_bytes,
                producers,
                extents,
            }
        });
        let wire = frozen.clone();
        self.cursor = commit_seq.next();
        self.unanswered.push_back((commit_seq, self.round));
        Some((wire, first_sent))
    }

    /// Takes the reply to the oldest unanswered transmission of this connection.
    pub(super) fn replied(&mut self, commit_seq: CommitSeq, reply: CommitReply) -> Replied {
        let round = match self.unanswered.front() {
            Some(&(front, round)) if front == commit_seq => {
                self.unanswered.pop_front();
                round
            }
            // Out of order: the connection is not to be trusted with what it says of gaps.
            _ => self.round.wrapping_sub(1),
        };
        if self.parts.get(&commit_seq).is_some_and(|part| part.frozen.is_none()) {
            return Replied::Nothing; // An answer to something that was not asked.
        }
        match reply {
            CommitReply::Applied(outcomes) => self.applied(commit_seq, outcomes),
            CommitReply::Gap { next } => self.gap(next, round),
            CommitReply::Forgotten => match self.parts.remove(&commit_seq) {
                Some(part) => Replied::Unknowable(part.ids()),
                None => Replied::Nothing,
            },
            CommitReply::Fenced | CommitReply::SeqBelowLow => {
                match self.parts.remove(&commit_seq) {
                    Some(part) => Replied::Fenced(part.ids()),
                    None => Replied::Fenced(Vec::new()),
                }
            }
        }
    }

    fn applied(&mut self, commit_seq: CommitSeq, outcomes: Vec<BatchOutcome>) -> Replied {
        let Some(part) = self.parts.remove(&commit_seq) else { return Replied::Nothing };
        if let Some(frozen) = &part.frozen {
            self.applied_low = self.applied_low.max(frozen.low_seq);
        }
        if part.batches.len() != outcomes.len() {
            return Replied::Unknowable(part.ids());
        }
        Replied::Applied(part.ids().into_iter().zip(outcomes).collect())
    }

    fn gap(&mut self, next: CommitSeq, round: u64) -> Replied {
        if round != self.round {
            return Replied::Nothing;
        }
        let first = self.acked_seq();
        if next < first || self.next_commit < next {
            // Metadata lost or invented parts: nothing it says of this stream can be believed.
            let parts = std::mem::take(&mut self.parts);
            return Replied::Unknowable(parts.values().flat_map(Part::ids).collect());
        }
        if next < self.cursor {
            self.cursor = next;
            self.round += 1;
        }
        Replied::Nothing
    }

    /// The connection is gone: what it did not answer is sent again on the next one.
    pub(super) fn disconnected(&mut self) {
        self.unanswered.clear();
        self.round += 1;
        self.cursor = self.acked_seq();
    }

    /// Whether transmissions wait for replies.
    pub(super) fn awaits_replies(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Takes an unsent batch out of its object: it will be in no part.
    pub(super) fn withdraw_from_object(&mut self, seq: ObjectSeq, id: BatchId) {
        let Some(object) = self.objects.get_mut(&seq) else { return };
        object.batches.remove(&id);
        if object.batches.is_empty() {
            self.objects.remove(&seq);
        }
    }

    /// Takes an unsent batch out of its part. The part keeps its place in the stream.
    ///
    /// # Panics
    /// When the part was transmitted: its batches are metadata's to decide.
    pub(super) fn withdraw_from_part(&mut self, commit_seq: CommitSeq, id: BatchId) {
        let Some(part) = self.parts.get_mut(&commit_seq) else { return };
        assert!(part.frozen.is_none(), "a transmitted part is frozen");
        part.batches.retain(|batch| batch.id != id);
    }

    /// The session ended: what was not sent never will be. Returns that, and what was sent and
    /// stays to be asked for.
    pub(super) fn fence(&mut self) -> Fenced {
        self.fenced = true;
        let objects = std::mem::take(&mut self.objects);
        let mut unsent: Vec<BatchId> =
            objects.values().flat_map(|object| object.batches.keys().copied()).collect();
        let mut undecided = Vec::new();
        self.parts.retain(|_, part| {
            let sent = part.frozen.is_some();
            if sent { &mut undecided } else { &mut unsent }.extend(part.ids());
            sent
        });
        Fenced { unsent, undecided }
    }

    /// Batches sent and not answered.
    pub(super) fn undecided(&self) -> Vec<BatchId> {
        self.parts.values().filter(|part| part.frozen.is_some()).flat_map(Part::ids).collect()
    }

    /// Whether the session ended and everything it sent is answered.
    pub(super) fn is_over(&self) -> bool {
        self.fenced && self.parts.is_empty()
    }

    /// The first sequence whose result is still wanted.
    fn acked_seq(&self) -> CommitSeq {
        self.parts.keys().next().copied().unwrap_or(self.next_commit)
    }

    /// No object below this will be named by a part that is not transmitted yet.
    fn low_seq(&self) -> ObjectSeq {
        let unassigned = self.objects.keys().next().copied();
        let parts = self.parts.values().map(|part| part.object).min();
        unassigned.into_iter().chain(parts).min().unwrap_or(self.next_object)
    }
}

/// What [`CommitStream::fence`] leaves.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fenced {
    /// Definitely did not happen.
    pub(super) unsent: Vec<BatchId>,
    /// Still to be asked for.
    pub(super) undecided: Vec<BatchId>,
}

impl Part {
    fn ids(&self) -> Vec<BatchId> {
        self.batches.iter().map(|batch| batch.id).collect()
    }
}

/// The wire form of batches sorted by partition, with their producers interned.
fn encode(batches: &[PlacedBatch]) -> (Vec<PartProducer>, Vec<PartExtent>) {
    let mut producers = Vec::new();
    let mut interned = BTreeMap::new();
    let mut extents: Vec<PartExtent> = Vec::new();
    for batch in batches {
        let producer = batch.producer.map(|producer| {
            let index = *interned.entry((producer.id, producer.epoch)).or_insert_with(|| {
                producers.push(PartProducer { id: producer.id, epoch: producer.epoch });
                producers.len() - 1
            });
            let index = u32::try_from(index).expect("a part has few thousand batches");
            (index, producer.base_sequence)
        });
        let encoded = PartBatch {
            position: batch.position,
            length: batch.length,
            record_count: batch.record_count,
            max_timestamp: batch.max_timestamp,
            producer,
        };
        extent_of(&mut extents, batch.key.partition).batches.push(encoded);
    }
    (producers, extents)
}

fn extent_of(extents: &mut Vec<PartExtent>, partition: TopicPartition) -> &mut PartExtent {
    if extents.last().is_none_or(|extent| extent.partition != partition) {
        extents.push(PartExtent { partition, batches: Vec::new() });
    }
    extents.last_mut().expect("an extent was pushed above")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
