//! Sessions: one life of an agent process each, and the order of its commits (DESIGN 4.6, 6).
//!
//! # Invariants
//! - A session id is never reused.
//! - A part happened if and only if its `commit_seq` is below the session's `next_commit_seq`.
//! - `low_seq` never falls, and no part names an object below it or [`OPEN_OBJECTS_MAX`] beyond it:
//!   the possible orphans of a session can always be named.
//! - A fenced session accepts nothing, but goes on answering what became of its parts.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use aquifer_storage::{
    model::{CommitSeq, NodeId, ObjectName, ObjectSeq, SessionId},
    planted::{self, Bug},
};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{
    command::{BatchOutcome, CommitPart, CommitReply, HostPort, RegisterSession},
    time::Elapsed,
};

/// Object seqs a session may open beyond its applied `low_seq`.
pub const OPEN_OBJECTS_MAX: u64 = 1024;

/// Unread results kept per session; beyond it the oldest are forgotten. Far above what a working
/// agent leaves unread, so only a broken one ever notices.
pub(crate) const RESULTS_MAX: usize = 8192;

/// How long a fenced session's results can still be read.
pub(crate) const UNREAD_KEPT: Duration = Duration::from_secs(10 * 60);

/// How long a fenced session can be asked how far it came.
pub(crate) const FENCED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The outcomes of one part.
pub(crate) type PartOutcomes = Arc<[BatchOutcome]>;

/// One session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    /// The registration's retry key.
    pub request: u64,
    /// The node id of its address.
    pub node: NodeId,
    /// The address clients are told.
    pub advertised: HostPort,
    /// The zone.
    pub zone: Option<String>,
    /// The part that is applied next.
    pub next_commit_seq: CommitSeq,
    /// No smaller object seq is named again.
    pub low_seq: ObjectSeq,
    /// When it was fenced.
    pub fenced: Option<Elapsed>,
    /// Outcomes of parts that were not yet acknowledged.
    pub results: RedBlackTreeMapSync<CommitSeq, PartOutcomes>,
}

impl Session {
    /// What a part that is not the next one is told; `Ok` for the next one.
    fn admit(&self, part: &CommitPart) -> Result<(), CommitReply> {
        match part.commit_seq.cmp(&self.next_commit_seq) {
            Ordering::Less if planted::is(Bug::CommitRetryApplied) => Ok(()),
            Ordering::Less => Err(self.result_of(part.commit_seq)),
            Ordering::Greater | Ordering::Equal
                if self.fenced.is_some() && !planted::is(Bug::FenceFromMemory) =>
            {
                Err(CommitReply::Fenced)
            }
            Ordering::Greater => Err(CommitReply::Gap { next: self.next_commit_seq }),
            Ordering::Equal if self.keeps_promise(part) => Ok(()),
            Ordering::Equal => Err(CommitReply::SeqBelowLow),
        }
    }

    fn result_of(&self, part: CommitSeq) -> CommitReply {
        match self.results.get(&part) {
            Some(outcomes) => CommitReply::Applied(outcomes.to_vec()),
            None => CommitReply::Forgotten,
        }
    }

    /// Whether the part's object and promise lie in the window that the applied promise opens.
    fn keeps_promise(&self, part: &CommitPart) -> bool {
        let low = self.low_seq.value();
        let window = low..low.saturating_add(OPEN_OBJECTS_MAX);
        window.contains(&part.object_seq.value())
            && (window.contains(&part.low_seq.value()) || part.low_seq.value() == window.end)
    }
}

/// Every session that is live or still remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    by_id: RedBlackTreeMapSync<SessionId, Session>,
    /// Live sessions by their retry key.
    by_request: RedBlackTreeMapSync<u64, SessionId>,
    /// Fenced sessions, the oldest first.
    fenced_by_age: RedBlackTreeSetSync<(Elapsed, SessionId)>,
    /// Those among them that still hold results.
    unread_by_age: RedBlackTreeSetSync<(Elapsed, SessionId)>,
    /// The last id given.
    last: SessionId,
}

impl Sessions {
    /// Starts a session, or finds the live one of an earlier try. The flag says that it is new.
    pub fn register(&mut self, register: &RegisterSession, node: NodeId) -> (SessionId, bool) {
        if let Some(id) = self.by_request.get(&register.request) {
            return (*id, false);
        }
        let id = self.last.next();
        self.last = id;
        let session = Session {
            request: register.request,
            node,
            advertised: register.advertised.clone(),
            zone: register.zone.clone(),
            next_commit_seq: CommitSeq::default(),
            low_seq: ObjectSeq::default(),
            fenced: None,
            results: RedBlackTreeMapSync::default(),
        };
        self.restore(id, session);
        (id, true)
    }

    /// Ends a session. The promise it leaves when it was live: only then something changed.
    pub fn fence(&mut self, id: SessionId, now: Elapsed) -> Option<ObjectSeq> {
        let mut session = self.by_id.get(&id).filter(|session| session.fenced.is_none())?.clone();
        let low_seq = session.low_seq;
        self.by_request.remove_mut(&session.request);
        session.fenced = Some(now);
        self.restore(id, session);
        Some(low_seq)
    }

    /// Whether a part is to be applied now; else what it is told.
    pub fn admit(&self, part: &CommitPart) -> Result<(), CommitReply> {
        self.by_id.get(&part.session).ok_or(CommitReply::Fenced)?.admit(part)
    }

    /// Notes an applied part's outcomes, and forgets those the agent has read. Returns how far the
    /// session's promise was before.
    pub fn complete(&mut self, part: &CommitPart, outcomes: &[BatchOutcome]) -> ObjectSeq {
        let session = self.by_id.get_mut(&part.session).expect("the part was admitted");
        session.results.insert_mut(part.commit_seq, outcomes.into());
        session.next_commit_seq = part.commit_seq.next();
        while let Some((oldest, _)) = session.results.first()
            && (*oldest < part.acked_seq || session.results.size() > RESULTS_MAX)
        {
            let oldest = *oldest;
            session.results.remove_mut(&oldest);
        }
        std::mem::replace(&mut session.low_seq, part.low_seq)
    }

    /// Forgets what fenced sessions left, when its time has come.
    pub fn sweep(&mut self, now: Elapsed) {
        while let Some((at, id)) = self.unread_by_age.first().copied()
            && now.since(at) >= UNREAD_KEPT
        {
            self.unread_by_age.remove_mut(&(at, id));
            if let Some(session) = self.by_id.get_mut(&id) {
                session.results = RedBlackTreeMapSync::default();
            }
        }
        while let Some((at, id)) = self.fenced_by_age.first().copied()
            && now.since(at) >= FENCED_KEPT
        {
            self.fenced_by_age.remove_mut(&(at, id));
            self.by_id.remove_mut(&id);
        }
    }

    /// Live sessions, ascending.
    pub fn live(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        // By retry key first: fenced sessions of a day are not walked over.
        let mut ids: Vec<SessionId> = self.by_request.values().copied().collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| (id, &self.by_id[&id]))
    }

    /// Whether the session lives.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.by_id.get(&id).is_some_and(|session| session.fenced.is_none())
    }

    /// Whether a commit may still name the object: it is one that its session flushed, and the
    /// session lives and did not promise otherwise.
    pub fn may_name(&self, object: &ObjectName) -> bool {
        let session = self.by_id.get(&object.session);
        let is_open = |s: &Session| s.fenced.is_none() && s.low_seq <= object.seq;
        !object.merged && session.is_some_and(is_open)
    }

    /// A session that is live or remembered.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// Every session, by id.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    /// The last id given.
    pub fn last(&self) -> SessionId {
        self.last
    }

    /// Sets the last id given, from a snapshot.
    pub fn restore_last(&mut self, last: SessionId) {
        self.last = last;
    }

    /// Puts a session in place.
    pub fn restore(&mut self, id: SessionId, session: Session) {
        match session.fenced {
            None => self.by_request.insert_mut(session.request, id),
            Some(at) => {
                self.fenced_by_age.insert_mut((at, id));
                if !session.results.is_empty() {
                    self.unread_by_age.insert_mut((at, id));
                }
            }
        }
        self.by_id.insert_mut(id, session);
    }
}

#[cfg(test)]
mod tests;
