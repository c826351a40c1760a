//! What the log holds and where its next bytes go: decides, writes nothing. Pure.
//!
//! Every frame gets its place when it is accepted, so that a request which the disk has no room
//! for is refused before anything of it is written. The writer only follows.

use std::{collections::VecDeque, sync::Arc};

use super::{
    LogId, Rejection, Vote, WalError, WalState,
    disk::WalFile,
    frame::{Base, Record, SEGMENT_HEADER_BYTES},
    index::{Index, Place, Slot},
};

/// A segment that exists or is about to.
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) name: Arc<str>,
    pub(super) nonce: u64,
    /// `None` until the writer made it.
    pub(super) file: Option<Arc<dyn WalFile>>,
}

/// One thing for the writer to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Write the frame at `offset` of the current segment.
    Write { offset: u32, record: Record },
    /// Finish the current segment and turn a spare into the next.
    Roll(NewSegment),
    /// Once everything before is durable, remove these segments, oldest first.
    Remove(Vec<Arc<str>>),
}

/// What the writer needs to begin a segment.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) name: Arc<str>,
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    pub(super) base: Base,
}

/// How much of a segment a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// All but the reserve.
    Entries,
    /// Also the reserve: votes must be saved and purges free space when the disk is full.
    Control,
    /// All but the reserve, and never worth a segment: dropped when there is no room.
    Hint,
}

/// A request needs so many spare segments, more than there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SparesMissing(pub(super) u32);

/// Sizes, fixed at open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) segment_bytes: u32,
    pub(super) reserve_bytes: u32,
    pub(super) nonce: u64,
}

impl Sizes {
    /// Where the first frame behind a segment's base goes.
    fn head_end() -> u32 {
        let base = Record::Base(Base::default()).frame_bytes();
        SEGMENT_HEADER_BYTES + u32::try_from(base).expect("a base is small")
    }

    /// The largest frame of an entry.
    pub(super) fn frame_bytes_max(&self) -> u64 {
        u64::from(self.segment_bytes - self.reserve_bytes - Self::head_end())
    }

    /// A nonce of its own for each segment (splitmix64).
    pub(super) fn nonce_of(&self, sequence: u64) -> u64 {
        let mut z = self.nonce.wrapping_add(sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The log as accepted so far, durable or not.
///
/// # Invariants
/// - `purged < first`, and between them there is nothing once a replay is complete.
/// - `committed < next`.
pub(super) struct State {
    pub(super) sizes: Sizes,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// The last one that has its place in the log: what a start would find.
    committed_placed: Option<LogId>,
    pub(super) index: Index,
    /// Oldest first; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// Where the next frame goes.
    pub(super) offset: u32,
    /// Size of the current segment.
    pub(super) capacity: u32,
    /// Prepared segments that nothing accepted needs.
    pub(super) spares: u32,
    /// Everything before is durable.
    pub(super) durable: Place,
    pub(super) disk_full: bool,
    pub(super) stopped: Option<Arc<str>>,
}

impl State {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            vote: None,
            purged: None,
            committed: None,
            committed_placed: None,
            index: Index::default(),
            segments: VecDeque::new(),
            offset: 0,
            capacity: 0,
            spares: 0,
            durable: Place::default(),
            disk_full: false,
            stopped: None,
        }
    }

    /// Starts over at what a segment's base says.
    pub(super) fn reset(&mut self, base: &Base) {
        self.vote = base.vote;
        self.purged = base.purged;
        self.restore_committed(base.committed);
        self.index = Index::starting_at(base.next);
    }

    /// Takes the committed entry that a segment's base names.
    pub(super) fn restore_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
        self.committed_placed = committed;
    }

    pub(super) fn base(&self) -> Base {
        Base {
            next: self.index.next(),
            vote: self.vote,
            last: self.last(),
            purged: self.purged,
            committed: self.committed,
        }
    }

    /// The last entry, or what was purged when there is none.
    pub(super) fn last(&self) -> Option<LogId> {
        let next = self.index.next();
        let last = next.checked_sub(1).and_then(|index| self.index.id(index));
        last.or_else(|| self.purged.filter(|purged| purged.index.checked_add(1) == Some(next)))
    }

    pub(super) fn summary(&self) -> WalState {
        WalState {
            vote: self.vote,
            purged: self.purged,
            last: self.last(),
            committed: self.committed,
        }
    }

    /// Whether a purge of `id` has nothing to do. A greater id of the last index purged is noted:
    /// it names better what lies before the first entry.
    pub(super) fn is_purged(&self, id: &LogId) -> bool {
        let first = self.index.first();
        let is_better = id.index.checked_add(1) == Some(first) && self.purged < Some(*id);
        id.index < first && !is_better
    }

    /// Whether the log may take the record next.
    pub(super) fn check(&self, record: &Record) -> Result<(), Rejection> {
        match record {
            Record::Append(entry) => self.check_entry(entry.id.index, self.index.next()),
            Record::TruncateFrom(first) => self.check_truncate(*first),
            // The next index must stay a number.
            Record::Purge(id) | Record::Committed(id) => self.check_number(id.index),
            Record::Base(_) | Record::Vote(_) => Ok(()),
        }
    }

    fn check_number(&self, index: u64) -> Result<(), Rejection> {
        let expected = self.index.next();
        let ok = index != u64::MAX;
        ok.then_some(()).ok_or(Rejection::NotContiguous { expected, given: index })
    }

    pub(super) fn check_entry(&self, given: u64, expected: u64) -> Result<(), Rejection> {
        self.check_number(given)?;
        let ok = given == expected;
        ok.then_some(()).ok_or(Rejection::NotContiguous { expected, given })
    }

    fn check_truncate(&self, first: u64) -> Result<(), Rejection> {
        if self.index.next() < first {
            return Err(Rejection::NotContiguous { expected: self.index.next(), given: first });
        }
        if let Some(purged) = self.purged.filter(|purged| first <= purged.index) {
            return Err(Rejection::Purged { first, purged: purged.index });
        }
        match self.committed.filter(|committed| first <= committed.index) {
            Some(committed) => Err(Rejection::Committed { first, committed: committed.index }),
            None => Ok(()),
        }
    }

    /// Takes the record, whose frame is at `place`. `check` must have allowed it.
    pub(super) fn apply(&mut self, record: &Record, place: Place, cached: bool) {
        match record {
            Record::Base(_) => {}
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Append(entry) => {
                let slot = Slot {
                    term: entry.id.term,
                    node_id: entry.id.node_id,
                    place,
                    frame_bytes: u32::try_from(record.frame_bytes()).expect("fits a segment"),
                };
                self.index.push(slot, cached.then(|| entry.payload.clone()));
            }
            Record::TruncateFrom(first) => self.index.truncate_from(*first),
            Record::Purge(id) => {
                self.purged = self.purged.max(Some(*id));
                self.index.purge_below(id.index + 1);
            }
            Record::Committed(id) => self.restore_committed(Some(*id)),
        }
    }

    /// The committed entry as a record, unless the log says it already.
    pub(super) fn hint(&self) -> Option<Record> {
        let new = self.committed.filter(|_| self.committed != self.committed_placed);
        new.map(Record::Committed)
    }

    /// What goes in front of `records`: the hint, when that takes no segment. When it would, or
    /// when the first record begins a segment, the hint is left to that segment's base.
    fn hint_before(&self, records: &[Record], class: Class) -> Option<Record> {
        let first = records.first().filter(|_| class == Class::Entries)?;
        let hint = self.hint()?;
        let bytes = hint.frame_bytes();
        let fits_here = u64::from(self.offset) + bytes + first.frame_bytes()
            <= self.limit(self.capacity, class);
        let sizes = [bytes].into_iter().chain(records.iter().map(Record::frame_bytes));
        (fits_here && self.room_missing(sizes, class).is_none()).then_some(hint)
    }

    fn limit(&self, capacity: u32, class: Class) -> u64 {
        match class {
            Class::Control => u64::from(capacity),
            Class::Entries | Class::Hint => {
                u64::from(capacity.saturating_sub(self.sizes.reserve_bytes))
            }
        }
    }

    /// How many spares must be there for frames of these sizes; `None` when they fit what is there.
    pub(super) fn room_missing(
        &self,
        frames: impl IntoIterator<Item = u64>,
        class: Class,
    ) -> Option<SparesMissing> {
        let mut offset = u64::from(self.offset);
        let mut limit = self.limit(self.capacity, class);
        let mut rolls: u32 = 0;
        for frame_bytes in frames {
            if limit < offset + frame_bytes {
                rolls = rolls.saturating_add(1);
                offset = u64::from(Sizes::head_end());
                limit = self.limit(self.sizes.segment_bytes, class);
            }
            offset += frame_bytes;
        }
        (self.spares < rolls).then_some(SparesMissing(rolls))
    }

    /// Accepts the records, which `check` must have allowed one after another, and says what to
    /// write; or accepts nothing. A hint that waits goes along with entries.
    pub(super) fn accept(
        &mut self,
        records: Vec<Record>,
        class: Class,
    ) -> Result<Vec<Step>, SparesMissing> {
        if let Some(missing) = self.room_missing(records.iter().map(Record::frame_bytes), class) {
            return Err(missing);
        }
        let hint = self.hint_before(&records, class);
        let mut steps = Vec::with_capacity(records.len() + 1);
        for record in hint.into_iter().chain(records) {
            let bytes = record.frame_bytes();
            if self.limit(self.capacity, class) < u64::from(self.offset) + bytes {
                steps.push(Step::Roll(self.roll()));
            }
            let segment = self.segments.back().expect("the log has a segment").sequence;
            let offset = self.offset;
            self.apply(&record, Place { segment, offset }, true);
            self.offset += u32::try_from(bytes).expect("fits a segment");
            let purged = matches!(record, Record::Purge(_));
            steps.push(Step::Write { offset, record });
            if purged {
                steps.push(Step::Remove(self.take_unneeded()));
            }
        }
        Ok(steps)
    }

    /// Moves on to the next segment, which takes a spare.
    pub(super) fn roll(&mut self) -> NewSegment {
        let sequence = self.segments.back().map_or(1, |current| current.sequence + 1);
        let nonce = self.sizes.nonce_of(sequence);
        let base = self.base();
        let mut name: Arc<str> = format!("wal-{:020}.log", base.next).into();
        if self.segments.iter().any(|segment| segment.name == name) {
            name = format!("wal-{:020}-{sequence}.log", base.next).into();
        }
        let segment = Segment { sequence, name: Arc::clone(&name), nonce, file: None };
        self.segments.push_back(segment);
        self.spares -= 1;
        self.committed_placed = base.committed;
        self.offset = Sizes::head_end();
        self.capacity = self.sizes.segment_bytes;
        NewSegment { name, sequence, nonce, base }
    }

    /// Forgets the segments before the oldest entry. The current one always stays.
    fn take_unneeded(&mut self) -> Vec<Arc<str>> {
        let current = self.segments.back().expect("the log has a segment").sequence;
        let needed = self.index.oldest_segment().unwrap_or(current);
        let mut removed = Vec::new();
        while let Some(segment) = self.segments.pop_front_if(|oldest| oldest.sequence < needed) {
            removed.push(segment.name);
        }
        removed
    }

    /// Why nothing is accepted any more, if so.
    pub(super) fn running(&self) -> Result<(), WalError> {
        match &self.stopped {
            Some(reason) => Err(WalError::Stopped { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    /// Stops for good; the first reason stays.
    pub(super) fn stop(&mut self, reason: impl Into<Arc<str>>) -> WalError {
        let reason = self.stopped.get_or_insert_with(|| reason.into());
        WalError::Stopped { reason: Arc::clone(reason) }
    }
}
