//! Incremental fetch sessions (KIP-227) [pure]: a consumer names what changed, the answer lists
//! what changed. Sessions live with their connection and die with it.
//!
//! # Invariants
//! - A session's epoch grows by one with each request; 0 opens, -1 closes.
//! - An incremental answer lists a partition only with data, an error, or moved pointers.
//! - A partition that gave data goes to the end of the line, so that none starves.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::wire::{error_code::ErrorCode, walk::TopicRef};

/// Sessions of one connection; a client uses one for each of its fetchers.
const SESSIONS_MAX: usize = 16;
/// Partitions of one session; a client with more fetches without one.
const PARTITIONS_MAX: usize = 100_000;

/// A partition as the request names it.
pub type PartitionKey = (TopicRef, i32);

/// What a request asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The first offset wanted.
    pub offset: i64,
    /// At most this many bytes.
    pub bytes_max: i32,
    /// The leader epoch the client knows, or -1.
    pub leader_epoch: i32,
}

/// What an answer says of one partition, as far as sessions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether records are in it.
    pub has_records: bool,
    /// The error code.
    pub error: ErrorCode,
    /// The high watermark.
    pub high_watermark: i64,
    /// The log start offset.
    pub log_start: i64,
}

/// The session part of a request.
#[derive(Clone, Copy, Debug)]
pub struct SessionRequest {
    /// The session named, 0 for none.
    pub id: i32,
    /// Its epoch: 0 opens, -1 closes or none.
    pub epoch: i32,
    /// Whether topics are named by id (v13+).
    pub by_id: bool,
}

/// How one request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Without a session, in full.
    Full,
    /// The first answer of this session, in full.
    Opened(i32),
    /// Only what changed.
    Incremental(i32),
}

/// What a request begins: how it is answered, and what to fetch, in order.
pub type Begun = (Context, Vec<(PartitionKey, Asked)>);

#[derive(Debug)]
struct Entry {
    asked: Asked,
    /// What the client was told last; `None` makes the next answer list it.
    told: Option<(i64, i64)>,
    /// Its place in the line.
    turn: u64,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    by_id: bool,
    entries: BTreeMap<PartitionKey, Entry>,
    line: BTreeMap<u64, PartitionKey>,
    next_turn: u64,
}

/// Partitions that the sessions of an agent hold, of all connections: what a partition costs is
/// about 250 B, so this bounds them to some 100 MB. Clones share the count.
#[derive(Clone, Debug)]
pub struct SessionRoom {
    held: Arc<AtomicUsize>,
    partitions_max: usize,
}

impl SessionRoom {
    /// Room for this many partitions.
    pub fn new(partitions_max: usize) -> Self {
        Self { held: Arc::default(), partitions_max }
    }

    fn take(&self, partitions: usize) -> bool {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(partitions).filter(|held| *held <= self.partitions_max)
        });
        taken.is_ok()
    }

    fn give(&self, partitions: usize) {
        self.held.fetch_sub(partitions, Ordering::Relaxed);
    }
}

impl Default for SessionRoom {
    fn default() -> Self {
        Self::new(400_000)
    }
}

/// The fetch sessions of one connection.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<i32, Session>,
    room: SessionRoom,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.room.give(self.sessions.values().map(|session| session.entries.len()).sum());
    }
}

impl Sessions {
    /// None yet; they take their partitions from `room`.
    pub fn new(room: SessionRoom) -> Self {
        Self { sessions: BTreeMap::new(), room }
    }

    /// Applies a request. `fresh_id` names a session that is opened now; it must be positive and
    /// random, so that another connection's id is not mistaken for one of this.
    ///
    /// # Errors
    /// The code of the whole answer.
    pub fn begin(
        &mut self,
        request: SessionRequest,
        fresh_id: impl FnOnce() -> i32,
        asked: Vec<(PartitionKey, Asked)>,
        forgotten: impl Iterator<Item = PartitionKey>,
    ) -> Result<Begun, ErrorCode> {
        match request.epoch {
            -1 => {
                self.close(request.id);
                Ok((Context::Full, asked))
            }
            0 => {
                self.close(request.id);
                Ok(self.open(request.by_id, fresh_id(), asked))
            }
            _ => self.resume(request, asked, forgotten),
        }
    }

    fn close(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.room.give(session.entries.len());
        }
    }

    fn open(&mut self, by_id: bool, id: i32, asked: Vec<(PartitionKey, Asked)>) -> Begun {
        let full = SESSIONS_MAX <= self.sessions.len() || self.sessions.contains_key(&id);
        if id <= 0 || full || asked.is_empty() || PARTITIONS_MAX < asked.len() {
            return (Context::Full, asked);
        }
        let (entries, line) = (BTreeMap::new(), BTreeMap::new());
        let mut session = Session { next_epoch: 1, by_id, entries, line, next_turn: 0 };
        for (key, one) in &asked {
            session.put(detached(key), *one);
        }
        if !self.room.take(session.entries.len()) {
            return (Context::Full, asked);
        }
        self.sessions.insert(id, session);
        (Context::Opened(id), asked)
    }

    fn resume(
        &mut self,
        request: SessionRequest,
        asked: Vec<(PartitionKey, Asked)>,
        forgotten: impl Iterator<Item = PartitionKey>,
    ) -> Result<Begun, ErrorCode> {
        let unknown = ErrorCode::FetchSessionIdNotFound;
        let session = self.sessions.get_mut(&request.id).ok_or(unknown)?;
        if session.by_id != request.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        if session.next_epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        let before = session.entries.len();
        for key in forgotten {
            session.forget(&key);
        }
        for (key, one) in asked {
            session.put(detached(&key), one);
        }
        let after = session.entries.len();
        self.room.give(before.saturating_sub(after));
        let grown = after.saturating_sub(before);
        if !self.room.take(grown) {
            self.sessions.remove(&request.id);
            self.room.give(before);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let session = &self.sessions[&request.id];
        if PARTITIONS_MAX < after {
            // The client asks again in full, and is then served without a session.
            self.close(request.id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if session.entries.is_empty() {
            self.close(request.id);
            return Ok((Context::Full, Vec::new()));
        }
        let wanted = session.line.values().map(|key| (key.clone(), session.entries[key].asked));
        Ok((Context::Incremental(request.id), wanted.collect()))
    }

    /// Notes what the answer says of a partition and returns whether it must be listed.
    pub fn tell(&mut self, context: Context, key: &PartitionKey, told: Told) -> bool {
        let (id, listed_anyway) = match context {
            Context::Full => return true,
            Context::Opened(id) => (id, true),
            Context::Incremental(id) => (id, false),
        };
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let Some(entry) = session.entries.get_mut(key) else { return true };
        let pointers = (told.high_watermark, told.log_start);
        let failed = told.error != ErrorCode::None;
        let listed = listed_anyway || told.has_records || failed || entry.told != Some(pointers);
        entry.told = (!failed).then_some(pointers);
        // One that cannot be read must not be the first each time: the first gets the batch that
        // is too large for the answer.
        if told.has_records || failed {
            session.send_to_end_of_line(key);
        }
        listed
    }
}

impl Session {
    fn put(&mut self, key: PartitionKey, asked: Asked) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.asked = asked;
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.line.insert(turn, key.clone());
        self.entries.insert(key, Entry { asked, told: None, turn });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.line.remove(&entry.turn);
        }
    }

    fn send_to_end_of_line(&mut self, key: &PartitionKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.line.remove(&entry.turn);
        entry.turn = self.next_turn;
        self.line.insert(entry.turn, key.clone());
        self.next_turn += 1;
    }
}

/// A key that does not keep the request's frame in memory.
fn detached((topic, index): &PartitionKey) -> PartitionKey {
    let topic = match topic {
        TopicRef::Name(name) => TopicRef::Name(name.detached()),
        TopicRef::Id(id) => TopicRef::Id(*id),
    };
    (topic, *index)
}

#[cfg(test)]
mod tests;
