//! Objects that a commit named, how many rows still use each, and which are garbage.
//!
//! # Invariants
//! - An object's live runs are exactly the rows that name it.
//! - An object is condemned only when it has no live run and no commit can name it any more: its
//!   session is fenced, or promised by `low_seq` not to. So a condemned object never comes back.
//! - Nothing is deleted here: a condemned object waits for the collector, which looks at the index
//!   it was condemned at.
//!
//! # Non-obvious
//! - Only open objects, those that a commit may still name, are found by their name. There are
//!   few: at most 1024 per live session. All others are reached from rows, by id.

use std::{ops::Bound, sync::Arc};

use aquifer_storage::model::{Lineage, LogIndex, ObjectName, ObjectSeq, SessionId};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// Ids of one page of the table.
const PAGE_IDS: u32 = 256;

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

/// An [`ObjectRow`] as it is stored.
#[derive(Clone, Copy, Debug)]
struct Slot {
    session: SessionId,
    seq: ObjectSeq,
    bytes: u64,
    /// Rows that name it; once it is condemned, which takes that there are none, the index of that.
    mark: u64,
    /// The place of its lineage in [`Objects::lineages`].
    lineage: u32,
    merged: bool,
    is_condemned: bool,
}

const _: () = assert!(size_of::<Option<Slot>>() <= 40, "an object costs at most 40 bytes");

/// The objects of consecutive ids, the [`Arc`] of many states.
#[derive(Clone, Debug)]
struct Page(Box<[Option<Slot>]>);

impl Page {
    fn empty() -> Self {
        Self(vec![None; PAGE_IDS as usize].into())
    }
}

/// The page of an id and its place there.
fn place(id: ObjectId) -> (u32, usize) {
    (id.0 / PAGE_IDS, (id.0 % PAGE_IDS) as usize)
}

/// The key of the index by name: objects of one session lie together.
type NameKey = (SessionId, ObjectSeq, Lineage);

fn key(name: &ObjectName) -> NameKey {
    (name.session, name.seq, name.lineage)
}

/// Every object the bucket holds by order of this state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pages: RedBlackTreeMapSync<u32, Arc<Page>>,
    /// The lineages that objects are of: one, and one more with each restore of the cluster.
    lineages: Arc<Vec<Lineage>>,
    /// Those that a commit may still name.
    open: RedBlackTreeMapSync<NameKey, ObjectId>,
    condemned: RedBlackTreeSetSync<(LogIndex, ObjectId)>,
    /// Where the search for a free id starts.
    next_id: ObjectId,
}

impl Objects {
    /// The id of an object that a commit may name, given to it now if it is new.
    pub fn intern(&mut self, name: ObjectName, bytes: u64) -> ObjectId {
        if let Some(id) = self.open.get(&key(&name)) {
            return *id;
        }
        let mut id = self.next_id;
        while self.slot(id).is_some() {
            id = ObjectId(id.0.wrapping_add(1)); // Ends: 2^32 objects do not fit into memory.
        }
        self.next_id = ObjectId(id.0.wrapping_add(1));
        self.restore(id, &ObjectRow { name, bytes, live_runs: 0, condemned: None });
        self.open.insert_mut(key(&name), id);
        id
    }

    /// Puts an object in place, from a snapshot. [`Self::restore_open`] comes behind the last one.
    pub fn restore(&mut self, id: ObjectId, row: &ObjectRow) {
        if let Some(index) = row.condemned {
            self.condemned.insert_mut((index, id));
        }
        let slot = Slot {
            session: row.name.session,
            seq: row.name.seq,
            bytes: row.bytes,
            mark: row.condemned.map_or(row.live_runs.into(), LogIndex::value),
            lineage: self.lineage_place(row.name.lineage),
            merged: row.name.merged,
            is_condemned: row.condemned.is_some(),
        };
        let (page, at) = place(id);
        if !self.pages.contains_key(&page) {
            self.pages.insert_mut(page, Arc::new(Page::empty()));
        }
        let page = self.pages.get_mut(&page).expect("it was just made");
        Arc::make_mut(page).0[at] = Some(slot);
    }

    /// Finds again which objects a commit may name.
    pub fn restore_open(&mut self, may_be_named: impl Fn(&ObjectName) -> bool) {
        let named = self.iter().filter(|(_, row)| may_be_named(&row.name));
        let open: Vec<_> = named.map(|(id, row)| (key(&row.name), id)).collect();
        self.open = open.into_iter().collect();
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
    pub fn get(&self, id: ObjectId) -> Option<ObjectRow> {
        self.slot(id).map(|slot| self.row(slot))
    }

    /// So many new rows name the object.
    pub fn add_runs(&mut self, id: ObjectId, count: u32) {
        let slot = self.slot_mut(id).expect("a row names an interned object");
        assert!(!slot.is_condemned, "nobody names a condemned object");
        slot.mark += u64::from(count);
    }

    /// A row that named the object is gone; returns the object when it was the last one.
    pub fn remove_run(&mut self, id: ObjectId) -> Option<ObjectName> {
        let slot = self.slot_mut(id).expect("a row names an interned object");
        assert!(!slot.is_condemned, "a condemned object has no rows");
        slot.mark = slot.mark.checked_sub(1).expect("live runs equal the rows that exist");
        let unused = (slot.mark == 0).then_some(*slot);
        unused.map(|slot| self.row(&slot).name)
    }

    /// Condemns an object that nobody can name any more, if no row does.
    pub fn condemn(&mut self, id: ObjectId, at: LogIndex) {
        let slot = self.slot_mut(id).expect("an object is condemned before it is forgotten");
        if !slot.is_condemned && slot.mark == 0 {
            (slot.is_condemned, slot.mark) = (true, at.value());
            self.condemned.insert_mut((at, id));
        }
    }

    /// Closes a session's objects with seqs in `[from, to)`, which it will not name again, and
    /// condemns the unused among them; `to` is `None` for all of them.
    pub fn close(
        &mut self,
        session: SessionId,
        (from, to): (ObjectSeq, Option<ObjectSeq>),
        at: LogIndex,
    ) {
        let lowest = Lineage { number: 0, nonce: 0 };
        let start = Bound::Included((session, from, lowest));
        let end = match to {
            Some(to) if to <= from => return,
            Some(to) => Bound::Excluded((session, to, lowest)),
            None => {
                let highest = Lineage { number: u32::MAX, nonce: u64::MAX };
                Bound::Included((session, ObjectSeq::new(u64::MAX), highest))
            }
        };
        let closed: Vec<(NameKey, ObjectId)> =
            self.open.range::<NameKey, _>((start, end)).map(|(key, id)| (*key, *id)).collect();
        for (key, id) in closed {
            self.open.remove_mut(&key);
            self.condemn(id, at);
        }
    }

    /// Every object, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, ObjectRow)> {
        self.pages.iter().flat_map(move |(page, slots)| {
            let first = page * PAGE_IDS;
            let ids = (first..=first + (PAGE_IDS - 1)).map(ObjectId);
            let slots = ids.zip(slots.0.iter());
            slots.filter_map(move |(id, slot)| slot.as_ref().map(|slot| (id, self.row(slot))))
        })
    }

    /// Those that a commit may still name, in any order.
    pub fn open(&self) -> impl Iterator<Item = ObjectId> {
        self.open.values().copied()
    }

    /// Garbage, the oldest first.
    pub fn condemned(&self) -> impl Iterator<Item = (LogIndex, ObjectId)> {
        self.condemned.iter().copied()
    }

    fn slot(&self, id: ObjectId) -> Option<&Slot> {
        let (page, at) = place(id);
        self.pages.get(&page)?.0[at].as_ref()
    }

    fn slot_mut(&mut self, id: ObjectId) -> Option<&mut Slot> {
        let (page, at) = place(id);
        Arc::make_mut(self.pages.get_mut(&page)?).0[at].as_mut()
    }

    fn row(&self, slot: &Slot) -> ObjectRow {
        let lineage = self.lineages[slot.lineage as usize];
        let Slot { session, seq, bytes, mark, merged, is_condemned, .. } = *slot;
        let live_runs = if is_condemned { 0 } else { mark };
        ObjectRow {
            name: ObjectName { lineage, session, seq, merged },
            bytes,
            live_runs: u32::try_from(live_runs).expect("2^32 rows do not fit into memory"),
            condemned: is_condemned.then_some(LogIndex::new(mark)),
        }
    }

    /// The place of a lineage, found or made. Objects are mostly of the newest.
    fn lineage_place(&mut self, lineage: Lineage) -> u32 {
        let known = self.lineages.iter().rposition(|known| *known == lineage);
        let place = known.unwrap_or_else(|| {
            Arc::make_mut(&mut self.lineages).push(lineage);
            self.lineages.len() - 1
        });
        u32::try_from(place).expect("a lineage takes a restore of the cluster")
    }
}

#[cfg(test)]
mod tests;
