//! Which copies a restore tries, and in which order [pure].
//!
//! The latest life first, and of it the newest snapshot; then entries, chunk by chunk, each chosen
//! to reach as far as can be. What cannot be read is left out, and the choice made again.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_storage::model::{Lineage, LogIndex};

use super::key::{BackupName, Covers};

/// A snapshot with all its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeSnapshot {
    /// The life it is of.
    pub lineage: Lineage,
    /// The entry it reaches.
    pub index: LogIndex,
    /// The parts, in order.
    pub parts: Vec<BackupName>,
}

/// The snapshots that can be tried, the best first. Of lives with one number, which two restores at
/// once may have begun, the one that `owner` names goes first.
pub fn snapshots(names: &BTreeSet<BackupName>, owner: Lineage) -> Vec<WholeSnapshot> {
    let mut found: BTreeMap<(Lineage, LogIndex, u64, u32), BTreeMap<u32, BackupName>> =
        BTreeMap::new();
    for name in names {
        if let Covers::Snapshot { index, part, parts } = name.covers
            && part < parts
        {
            let parts_found = found.entry((name.lineage, index, name.run, parts)).or_default();
            parts_found.insert(part, *name);
        }
    }
    let whole =
        found.into_iter().filter(|((_, _, _, parts), found)| *parts as usize == found.len());
    let mut whole: Vec<WholeSnapshot> = whole
        .map(|((lineage, index, ..), parts)| WholeSnapshot {
            lineage,
            index,
            parts: parts.into_values().collect(),
        })
        .collect();
    whole.sort_by_key(|one| (one.lineage.number, one.lineage == owner, one.index));
    whole.reverse();
    whole
}

/// The chunk that goes on behind `index` and reaches furthest.
pub fn chunk_behind(
    names: &BTreeSet<BackupName>,
    lineage: Lineage,
    index: LogIndex,
) -> Option<BackupName> {
    let reach = |name: &BackupName| match name.covers {
        Covers::Log { first, last } if name.lineage == lineage => {
            (first <= index.next() && index < last).then_some(last)
        }
        _ => None,
    };
    names.iter().filter_map(|name| reach(name).map(|last| (last, *name))).max().map(|(_, n)| n)
}

/// The last entry that any copy of `lineage` claims to reach.
pub fn furthest(names: &BTreeSet<BackupName>, lineage: Lineage) -> Option<LogIndex> {
    let reach = |name: &BackupName| match name.covers {
        Covers::Snapshot { index, .. } => index,
        Covers::Log { last, .. } => last,
    };
    names.iter().filter(|name| name.lineage == lineage).map(reach).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Lineage = Lineage { number: 0, nonce: 5 };
    const OTHER: Lineage = Lineage { number: 1, nonce: 9 };
    const OWNER: Lineage = Lineage { number: 1, nonce: 2 };

    fn snapshot(lineage: Lineage, index: u64, (part, parts): (u32, u32)) -> BackupName {
        let covers = Covers::Snapshot { index: LogIndex::new(index), part, parts };
        BackupName { lineage, covers, run: 1 }
    }

    fn log(lineage: Lineage, first: u64, last: u64) -> BackupName {
        let covers = Covers::Log { first: LogIndex::new(first), last: LogIndex::new(last) };
        BackupName { lineage, covers, run: 1 }
    }

    #[test]
    fn the_latest_life_goes_first_and_its_newest_whole_snapshot() {
        let names = BTreeSet::from([
            snapshot(FIRST, 900, (0, 1)),
            snapshot(OTHER, 50, (0, 1)),
            snapshot(OWNER, 20, (0, 1)),
            snapshot(OWNER, 30, (1, 2)),
            snapshot(OWNER, 30, (0, 2)),
            snapshot(OWNER, 40, (1, 2)),
        ]);
        let order: Vec<_> = snapshots(&names, OWNER)
            .into_iter()
            .map(|one| (one.lineage, one.index.value(), one.parts.len()))
            .collect();
        assert_eq!(order, [(OWNER, 30, 2), (OWNER, 20, 1), (OTHER, 50, 1), (FIRST, 900, 1)]);
    }

    #[test]
    fn chunks_are_taken_so_that_they_reach_furthest_without_a_gap() {
        let names = BTreeSet::from([
            log(FIRST, 11, 15),
            log(FIRST, 9, 20),
            log(FIRST, 22, 30),
            log(OWNER, 11, 99),
            snapshot(FIRST, 40, (0, 1)),
        ]);
        let behind = |index| chunk_behind(&names, FIRST, LogIndex::new(index));
        assert_eq!(behind(10), Some(log(FIRST, 9, 20)));
        assert_eq!(behind(20), None, "21 is in none of them");
        assert_eq!(behind(21), Some(log(FIRST, 22, 30)));
        assert_eq!(furthest(&names, FIRST), Some(LogIndex::new(40)));
    }
}
