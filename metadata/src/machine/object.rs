//! Objects that a commit named, how many rows still use each, and which are garbage.
//!
//! # Invariants
//! - An object's live runs are exactly the rows that name it.
//! - An object is condemned only when it has no live run and no commit can name it any more: its
//!   session is fenced, or promised by `low_seq` not to. So a condemned object never comes back.
//! - Nothing is deleted here: a condemned object waits for the collector, which looks at the index
//!   it was condemned at.

use std::ops::Bound;

use aquifer_storage::model::{Lineage, LogIndex, ObjectName, ObjectSeq, SessionId};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// An object's short name in rows. Reused once an object is forgotten, so never outside this state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId(pub u32);

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRow {
    /// Its full name, from which its key is computed.
    pub name: ObjectName,
    /// Its length in bytes.
    pub bytes: u64,
    /// Rows that name it.
    pub live_runs: u32,
    /// The index at which it became garbage.
    pub condemned: Option<LogIndex>,
}

/// The key of the index by name: objects of one session lie together.
type NameKey = (SessionId, ObjectSeq, bool, Lineage);

/// Every object the bucket holds by order of this state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Objects {
    by_id: RedBlackTreeMapSync<ObjectId, ObjectRow>,
    by_name: RedBlackTreeMapSync<NameKey, ObjectId>,
    condemned: RedBlackTreeSetSync<(LogIndex, ObjectId)>,
    /// Where the search for a free id starts.
    next_id: ObjectId,
}

fn key(name: &ObjectName) -> NameKey {
    (name.session, name.seq, name.merged, name.lineage)
}

impl Objects {
    /// The id of an object, given to it now if it is new.
    pub fn intern(&mut self, name: ObjectName, bytes: u64) -> ObjectId {
        if let Some(id) = self.by_name.get(&key(&name)) {
            return *id;
        }
        let mut id = self.next_id;
        while self.by_id.contains_key(&id) {
            id = ObjectId(id.0.wrapping_add(1)); // Ends: 2^32 objects do not fit into memory.
        }
        self.next_id = ObjectId(id.0.wrapping_add(1));
        self.restore(id, ObjectRow { name, bytes, live_runs: 0, condemned: None });
        id
    }

    /// Puts an object in place, from a snapshot.
    pub fn restore(&mut self, id: ObjectId, row: ObjectRow) {
        self.by_name.insert_mut(key(&row.name), id);
        if let Some(index) = row.condemned {
            self.condemned.insert_mut((index, id));
        }
        self.by_id.insert_mut(id, row);
    }

    /// Where the search for a free id starts.
    pub fn next_id(&self) -> ObjectId {
        self.next_id
    }

    /// Sets where the search for a free id starts, from a snapshot.
    pub fn restore_next_id(&mut self, id: ObjectId) {
        self.next_id = id;
    }

    /// The object of a row.
    pub fn get(&self, id: ObjectId) -> Option<&ObjectRow> {
        self.by_id.get(&id)
    }

    /// So many new rows name the object.
    pub fn add_runs(&mut self, id: ObjectId, count: u32) {
        let row = self.by_id.get_mut(&id).expect("a row names an interned object");
        row.live_runs += count;
    }

    /// A row that named the object is gone; returns the object when it was the last one.
    pub fn remove_run(&mut self, id: ObjectId) -> Option<ObjectName> {
        let row = self.by_id.get_mut(&id).expect("a row names an interned object");
        row.live_runs = row.live_runs.checked_sub(1).expect("live runs equal the rows that exist");
        (row.live_runs == 0).then_some(row.name)
    }

    /// Condemns an object that nobody can name any more, if no row does.
    pub fn condemn(&mut self, name: &ObjectName, at: LogIndex) {
        let Some(id) = self.by_name.get(&key(name)).copied() else { return };
        let row = self.by_id.get_mut(&id).expect("both indexes hold the same objects");
        if row.live_runs == 0 && row.condemned.is_none() {
            row.condemned = Some(at);
            self.condemned.insert_mut((at, id));
        }
    }

    /// Condemns the unused of a session's objects with seqs in `[from, to)`, which it will not name
    /// again; `to` is `None` for all of them.
    pub fn condemn_unused(
        &mut self,
        session: SessionId,
        (from, to): (ObjectSeq, Option<ObjectSeq>),
        at: LogIndex,
    ) {
        let lowest = Lineage { number: 0, nonce: 0 };
        let start = Bound::Included((session, from, false, lowest));
        let end = match to {
            Some(to) if to <= from => return,
            Some(to) => Bound::Excluded((session, to, false, lowest)),
            None => {
                let highest = Lineage { number: u32::MAX, nonce: u64::MAX };
                Bound::Included((session, ObjectSeq::new(u64::MAX), true, highest))
            }
        };
        let ids: Vec<ObjectId> =
            self.by_name.range::<NameKey, _>((start, end)).map(|(_, id)| *id).collect();
        for id in ids {
            let name = self.by_id.get(&id).expect("both indexes hold the same objects").name;
            self.condemn(&name, at);
        }
    }

    /// Every object, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &ObjectRow)> {
        self.by_id.iter().map(|(id, row)| (*id, row))
    }

    /// Garbage, the oldest first.
    pub fn condemned(&self) -> impl Iterator<Item = (LogIndex, ObjectId)> {
        self.condemned.iter().copied()
    }
}
