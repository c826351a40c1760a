//! Incremental fetch sessions (KIP-227) [pure]: a consumer names what changed, the answer lists
//! what changed. Sessions live with their connection and die with it.
//!
//! # Invariants
//! - A session's epoch grows by one with each request; 0 opens, -1 closes.
//! - An incremental answer lists a partition only with data, an error, or moved pointers.
//! - A partition that gave data goes to the end of the line, so that none starves.
//! - A partition sleeps from an answer that told it at its end until it is pushed, named in a
//!   request, or read at another isolation level: until then looking at it would change no answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aquifer_storage::model::TopicPartition;

use super::line::{Line, Turn, Wanted};
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

impl Asked {
    /// The same of a partition that is known.
    pub fn of(&self, partition: TopicPartition) -> Wanted {
        Wanted {
            partition,
            offset: self.offset,
            bytes_max: usize::try_from(self.bytes_max).unwrap_or(0),
            leader_epoch: (0 <= self.leader_epoch).then_some(self.leader_epoch),
        }
    }
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
    /// Whether it can be told nothing else before it is pushed.
    pub is_at_end: bool,
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
    /// Whether only what is committed is read.
    pub committed: bool,
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

/// One partition that must be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its turn.
    pub turn: u64,
    /// As the request names it.
    pub key: PartitionKey,
    /// What is asked of it.
    pub asked: Asked,
}

/// What a request begins: how it is answered, and what must be looked at, in turn.
pub type Begun = (Context, Vec<Due>);

#[derive(Debug)]
struct Entry {
    asked: Asked,
    /// What the client was told last; `None` makes the next answer list it.
    told: Option<(i64, i64)>,
    /// Its place in the line.
    turn: u64,
    /// What the key named when it was looked up last.
    partition: Option<TopicPartition>,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    by_id: bool,
    committed: bool,
    entries: BTreeMap<PartitionKey, Entry>,
    /// Those that do not sleep, by turn.
    awake: BTreeMap<u64, PartitionKey>,
    /// Who is to be woken by a push.
    keys: BTreeMap<TopicPartition, PartitionKey>,
    /// Partitions that were named and are no longer.
    left: Vec<TopicPartition>,
    next_turn: u64,
}

/// Partitions that the sessions of an agent hold, of all connections: what a partition costs is
/// about 350 B, so this bounds them to some 140 MB. Clones share the count.
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
                Ok((Context::Full, full(asked)))
            }
            0 => {
                self.close(request.id);
                Ok(self.open(request, fresh_id(), asked))
            }
            _ => self.resume(request, asked, forgotten),
        }
    }

    fn close(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.room.give(session.entries.len());
        }
    }

    fn open(
        &mut self,
        request: SessionRequest,
        id: i32,
        asked: Vec<(PartitionKey, Asked)>,
    ) -> Begun {
        let is_full = SESSIONS_MAX <= self.sessions.len() || self.sessions.contains_key(&id);
        if id <= 0 || is_full || asked.is_empty() || PARTITIONS_MAX < asked.len() {
            return (Context::Full, full(asked));
        }
        let mut session = Session::new(&request);
        for (key, one) in &asked {
            session.put(detached(key), *one);
        }
        if !self.room.take(session.entries.len()) {
            return (Context::Full, full(asked));
        }
        let due = session.due();
        self.sessions.insert(id, session);
        (Context::Opened(id), due)
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
        if PARTITIONS_MAX < after {
            // The client asks again in full, and is then served without a session.
            self.close(request.id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if after == 0 {
            self.close(request.id);
            return Ok((Context::Full, Vec::new()));
        }
        let session = self.sessions.get_mut(&request.id).ok_or(unknown)?;
        if session.committed != request.committed {
            session.committed = request.committed;
            session.wake_all();
        }
        Ok((Context::Incremental(request.id), session.due()))
    }

    /// Whether there is such a session.
    pub fn is_open(&self, id: i32) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Partitions were pushed since the last answer of a session.
    pub fn wake(&mut self, id: i32, pushed: &BTreeSet<TopicPartition>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            for partition in pushed {
                session.wake(*partition);
            }
        }
    }

    /// What the key of a partition that is due names now, or nothing. Then it does not sleep.
    pub fn bind(&mut self, id: i32, due: &Due, partition: Option<TopicPartition>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.bind(&due.key, partition);
        }
    }

    /// Takes the partitions that a session does not name any more.
    pub fn left(&mut self, id: i32) -> Vec<TopicPartition> {
        self.sessions.get_mut(&id).map_or_else(Vec::new, |session| session.take_left())
    }

    /// The line of a session.
    pub fn line(&mut self, id: i32) -> Option<SessionLine<'_>> {
        self.sessions.get_mut(&id).map(|session| SessionLine { session })
    }

    /// Whose turn it is in a session, of those that are awake.
    pub fn key(&self, id: i32, turn: u64) -> Option<&PartitionKey> {
        self.sessions.get(&id)?.awake.get(&turn)
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
        } else if told.is_at_end && entry.partition.is_some() {
            session.awake.remove(&entry.turn);
        }
        listed
    }
}

/// The line of a session: those that sleep are left out until they are pushed.
#[derive(Debug)]
pub struct SessionLine<'a> {
    session: &'a mut Session,
}

impl Line for SessionLine<'_> {
    fn is_empty(&self) -> bool {
        self.session.keys.is_empty()
    }

    fn begin(&mut self, pushed: &BTreeSet<TopicPartition>) -> Vec<Turn> {
        for partition in pushed {
            self.session.wake(*partition);
        }
        self.session.turns()
    }

    fn pushed(&mut self, pushed: &BTreeSet<TopicPartition>) -> Vec<Turn> {
        let woken = |partition: &TopicPartition| self.session.wake(*partition);
        let mut turns: Vec<Turn> = pushed.iter().filter_map(woken).collect();
        turns.sort_unstable_by_key(|(turn, _)| *turn);
        turns
    }

    fn all(&mut self) -> Vec<Turn> {
        self.session.wake_all();
        self.session.turns()
    }
}

impl Session {
    fn new(request: &SessionRequest) -> Self {
        let SessionRequest { by_id, committed, .. } = *request;
        Self {
            next_epoch: 1,
            by_id,
            committed,
            entries: BTreeMap::new(),
            awake: BTreeMap::new(),
            keys: BTreeMap::new(),
            left: Vec::new(),
            next_turn: 0,
        }
    }

    fn put(&mut self, key: PartitionKey, asked: Asked) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.asked = asked;
            self.awake.insert(entry.turn, key);
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.awake.insert(turn, key.clone());
        self.entries.insert(key, Entry { asked, told: None, turn, partition: None });
    }

    fn forget(&mut self, key: &PartitionKey) {
        self.bind(key, None);
        if let Some(entry) = self.entries.remove(key) {
            self.awake.remove(&entry.turn);
        }
    }

    fn bind(&mut self, key: &PartitionKey, partition: Option<TopicPartition>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = std::mem::replace(&mut entry.partition, partition);
        if before == partition {
            return;
        }
        if let Some(before) = before {
            self.keys.remove(&before);
            self.left.push(before);
        }
        if let Some(partition) = partition {
            self.keys.insert(partition, key.clone());
        }
    }

    /// A topic that was created anew may have taken over a partition's key and given it back.
    fn take_left(&mut self) -> Vec<TopicPartition> {
        let mut left = std::mem::take(&mut self.left);
        left.retain(|partition| !self.keys.contains_key(partition));
        left
    }

    /// Wakes one that was pushed; its turn, if it is of this session.
    fn wake(&mut self, partition: TopicPartition) -> Option<Turn> {
        let key = self.keys.get(&partition)?;
        let entry = self.entries.get(key)?;
        self.awake.entry(entry.turn).or_insert_with(|| key.clone());
        Some((entry.turn, entry.asked.of(partition)))
    }

    fn wake_all(&mut self) {
        let all = self.entries.iter().map(|(key, entry)| (entry.turn, key.clone()));
        self.awake = all.collect();
    }

    fn due(&self) -> Vec<Due> {
        let due = |(turn, key): (&u64, &PartitionKey)| Due {
            turn: *turn,
            key: key.clone(),
            asked: self.entries[key].asked,
        };
        self.awake.iter().map(due).collect()
    }

    /// Those awake that name a partition.
    fn turns(&self) -> Vec<Turn> {
        let turn = |(turn, key): (&u64, &PartitionKey)| {
            let entry = &self.entries[key];
            entry.partition.map(|partition| (*turn, entry.asked.of(partition)))
        };
        self.awake.iter().filter_map(turn).collect()
    }

    fn send_to_end_of_line(&mut self, key: &PartitionKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.awake.remove(&entry.turn);
        entry.turn = self.next_turn;
        self.awake.insert(entry.turn, key.clone());
        self.next_turn += 1;
    }
}

/// Without a session everything is due.
fn full(asked: Vec<(PartitionKey, Asked)>) -> Vec<Due> {
    let due = |(turn, (key, asked))| Due { turn, key, asked };
    (0..).zip(asked).map(due).collect()
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
