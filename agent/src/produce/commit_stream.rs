//! One session's ordered stream of parts, go-back-N [pure].
//!
//! When a PUT ends, the batches of the object whose predecessors were sent, or stand earlier in
//! the same part, get a part with the next `commit_seq`; the others wait for a later part. Parts
//! are kept until answered, and sent again from the first unanswered one after a gap or on a new
//! connection.
//!
//! # Invariants
//! - A part's content is frozen by its first transmission: a repeat is the same bytes.
//! - An object holds each partition's batches together, so parts in the order of their places do.
//! - A batch stands in at most one part; one that was withdrawn is in none and never will be.
//! - `low_seq` never falls, and no part names an object below one promised before it.
//!
//! # Not here
//! The connection (`writer`), and what clients are told (`ledger`).

use std::collections::{BTreeMap, VecDeque};

use aquifer_metadata::machine::command::{
    BatchOutcome, CommitPart, CommitReply, PartBatch, PartExtent, PartProducer,
};
use aquifer_storage::{
    format::record_batch::BatchProducer,
    model::{CommitSeq, ObjectSeq, SessionId},
};

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
    /// In no part yet, in the order of their places. Those that were withdrawn stay here, but
    /// their chains know them no more and will not let them go.
    batches: Vec<PlacedBatch>,
    /// How many of them were not withdrawn.
    wanted: usize,
    object_bytes: u64,
    landed: bool,
}

#[derive(Debug)]
struct Part {
    object: ObjectSeq,
    object_bytes: u64,
    /// In the order of their places, which is that of the outcomes.
    batches: Vec<PlacedBatch>,
    /// Set by the first transmission.
    frozen: Option<Frozen>,
}

/// What the first transmission of a part said besides its batches.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    acked_seq: CommitSeq,
    low_seq: ObjectSeq,
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

    /// The number of the object that is opened next.
    pub(super) fn next_object(&self) -> ObjectSeq {
        self.next_object
    }

    /// Numbers an object whose PUT starts now.
    ///
    /// # Panics
    /// When [`Self::can_open`] is false.
    pub(super) fn open(&mut self, batches: Vec<PlacedBatch>, object_bytes: u64) -> ObjectSeq {
        assert!(self.can_open(), "an object is opened only inside the window");
        let seq = self.next_object;
        self.next_object = seq.next();
        let wanted = batches.len();
        self.objects.insert(seq, Object { batches, wanted, object_bytes, landed: false });
        seq
    }

    /// The object's PUT succeeded; whether anything of it is still wanted.
    pub(super) fn landed(&mut self, seq: ObjectSeq) -> bool {
        let Some(object) = self.objects.get_mut(&seq) else { return false };
        object.landed = true;
        true
    }

    /// Whether the object is in the bucket.
    pub(super) fn is_landed(&self, seq: ObjectSeq) -> bool {
        self.objects.get(&seq).is_some_and(|object| object.landed)
    }

    /// Whether the part was transmitted, or answered: its batches are metadata's to decide.
    pub(super) fn is_sent(&self, seq: CommitSeq) -> bool {
        self.parts.get(&seq).is_none_or(|part| part.frozen.is_some())
    }

    /// The batches of an object that are in no part, and perhaps some that were withdrawn.
    pub(super) fn unassigned(&self, seq: ObjectSeq) -> Vec<BatchId> {
        let object = self.objects.get(&seq);
        object.map_or_else(Vec::new, |object| ids(&object.batches).collect())
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
        let leaves = |batch: &mut PlacedBatch| chains.assign(batch.chain, batch.id);
        let ready: Vec<PlacedBatch> = object.batches.extract_if(.., leaves).collect();
        object.wanted -= ready.len();
        let object_bytes = object.object_bytes;
        if object.wanted == 0 {
            self.objects.remove(&seq);
        }
        for batches in chunks(ready) {
            let first = assigned.len();
            assigned.extend(ids(&batches).map(|id| (id, self.next_commit)));
            let commit_seq = self.push_part(seq, object_bytes, batches);
            debug_assert!(assigned[first..].iter().all(|(_, seq)| *seq == commit_seq));
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

    /// The next part to transmit. The caller hands it to the connection without fail.
    pub(super) fn next_part(&mut self, chains: &mut Chains) -> Option<CommitPart> {
        let now = Frozen { acked_seq: self.acked_seq(), low_seq: self.low_seq() };
        let (&commit_seq, part) = self.parts.range_mut(self.cursor..).next()?;
        let frozen = *part.frozen.get_or_insert_with(|| {
            for batch in &part.batches {
                chains.sent(batch.chain, batch.id);
            }
            now
        });
        let (producers, extents) = encode(&part.batches);
        let wire = CommitPart {
            session: self.session,
            commit_seq,
            acked_seq: frozen.acked_seq,
            low_seq: frozen.low_seq,
            object_seq: part.object,
            object_bytes: part.object_bytes,
            producers,
            extents,
        };
        self.cursor = commit_seq.next();
        self.unanswered.push_back((commit_seq, self.round));
        Some(wire)
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
                Some(part) => Replied::Unknowable(part.ids().collect()),
                None => Replied::Nothing,
            },
            CommitReply::Fenced | CommitReply::SeqBelowLow => {
                match self.parts.remove(&commit_seq) {
                    Some(part) => Replied::Fenced(part.ids().collect()),
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
            return Replied::Unknowable(part.ids().collect());
        }
        Replied::Applied(part.ids().zip(outcomes).collect())
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
    /// Its chain knows it no more.
    pub(super) fn withdraw_from_object(&mut self, seq: ObjectSeq) {
        let Some(object) = self.objects.get_mut(&seq) else { return };
        object.wanted -= 1;
        if object.wanted == 0 {
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
            objects.values().flat_map(|object| ids(&object.batches)).collect();
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
    fn ids(&self) -> impl Iterator<Item = BatchId> {
        ids(&self.batches)
    }
}

fn ids(batches: &[PlacedBatch]) -> impl Iterator<Item = BatchId> {
    batches.iter().map(|batch| batch.id)
}

/// At most as many batches at a time as a part takes.
fn chunks(mut batches: Vec<PlacedBatch>) -> impl Iterator<Item = Vec<PlacedBatch>> {
    std::iter::from_fn(move || {
        let rest = batches.split_off(batches.len().min(PART_BATCHES_MAX));
        let chunk = std::mem::replace(&mut batches, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The wire form of batches in the order of their places, with their producers interned.
fn encode(batches: &[PlacedBatch]) -> (Vec<PartProducer>, Vec<PartExtent>) {
    let mut producers = Vec::new();
    let mut interned = BTreeMap::new();
    let mut intern = |producer: BatchProducer| {
        let index = *interned.entry((producer.id, producer.epoch)).or_insert_with(|| {
            producers.push(PartProducer { id: producer.id, epoch: producer.epoch });
            producers.len() - 1
        });
        let index = u32::try_from(index).expect("a part has few thousand batches");
        (index, producer.base_sequence)
    };
    let mut encoded = |batch: &PlacedBatch| PartBatch {
        position: batch.position,
        length: batch.length,
        record_count: batch.record_count,
        max_timestamp: batch.max_timestamp,
        producer: batch.producer.map(&mut intern),
    };
    let extents = batches
        .chunk_by(|one, next| one.partition == next.partition)
        .map(|extent| PartExtent {
            partition: extent[0].partition,
            batches: extent.iter().map(&mut encoded).collect(),
        })
        .collect();
    (producers, extents)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
