//! Which backups are still needed [pure].
//!
//! # Invariants
//! - The newest two snapshots and all entries behind the older of them are never dropped: one may
//!   turn out to be damaged.
//! - What they make unnecessary stays for `backup.keep`: whoever restores meanwhile has it, and so
//!   has the collector of objects, which deletes nothing that a kept backup names.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aquifer_storage::{model::LogIndex, seam::MonoTime};

use super::key::{BackupName, Covers};

/// The backups of one life, as far as they are known, and since when each is not needed any more.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    known: BTreeMap<BackupName, Option<MonoTime>>,
}

impl Kept {
    /// These are in the bucket.
    pub fn note(&mut self, names: impl IntoIterator<Item = BackupName>) {
        for name in names {
            self.known.entry(name).or_default();
        }
    }

    /// These are not any more.
    pub fn forget(&mut self, names: &[BackupName]) {
        for name in names {
            self.known.remove(name);
        }
    }

    /// The entry that the oldest of the two snapshots reaches that are always kept.
    pub fn oldest_needed(&self) -> Option<LogIndex> {
        let mut newest = whole_snapshots(self.known.keys().copied()).into_iter().rev();
        newest.next().map(|one| newest.next().unwrap_or(one))
    }

    /// What was not needed for `keep` at `now`. Notes what is not needed from now on.
    pub fn obsolete(&mut self, now: MonoTime, keep: Duration) -> Vec<BackupName> {
        let snapshots = whole_snapshots(self.known.keys().copied());
        let Some(oldest) = snapshots.into_iter().rev().nth(1) else { return Vec::new() };
        let mut due = Vec::new();
        for (name, since) in &mut self.known {
            let superseded = match name.covers {
                Covers::Snapshot { index, .. } => index < oldest,
                Covers::Log { last, .. } => last <= oldest,
            };
            if superseded && keep <= now.since(*since.get_or_insert(now)) {
                due.push(*name);
            }
        }
        due
    }
}

/// The indexes of the snapshots of which all parts are there.
pub fn whole_snapshots(names: impl IntoIterator<Item = BackupName>) -> BTreeSet<LogIndex> {
    let mut parts_of: BTreeMap<(LogIndex, u64, u32), u32> = BTreeMap::new();
    for name in names {
        if let Covers::Snapshot { index, part, parts } = name.covers
            && part < parts
        {
            *parts_of.entry((index, name.run, parts)).or_default() += 1;
        }
    }
    let whole = parts_of.into_iter().filter(|((_, _, parts), found)| parts == found);
    whole.map(|((index, ..), _)| index).collect()
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::Lineage;

    use super::*;

    const LINEAGE: Lineage = Lineage { number: 0, nonce: 1 };
    const KEEP: Duration = Duration::from_secs(60);

    fn snapshot(index: u64, part: u32, parts: u32) -> BackupName {
        let covers = Covers::Snapshot { index: LogIndex::new(index), part, parts };
        BackupName { lineage: LINEAGE, covers, run: 1 }
    }

    fn log(first: u64, last: u64) -> BackupName {
        let covers = Covers::Log { first: LogIndex::new(first), last: LogIndex::new(last) };
        BackupName { lineage: LINEAGE, covers, run: 1 }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_zero(Duration::from_secs(seconds))
    }

    #[test]
    fn two_snapshots_and_the_log_behind_them_stay_for_ever() {
        let mut kept = Kept::default();
        kept.note([snapshot(10, 0, 1), log(11, 20), snapshot(20, 0, 1), log(21, 30)]);
        assert_eq!(kept.obsolete(at(0), KEEP), []);
        assert_eq!(kept.obsolete(at(1_000_000), KEEP), []);
        assert_eq!(kept.oldest_needed(), Some(LogIndex::new(10)));
    }

    #[test]
    fn what_two_newer_snapshots_make_unnecessary_goes_after_a_while() {
        let mut kept = Kept::default();
        kept.note([snapshot(10, 0, 1), log(5, 20), log(15, 25), snapshot(20, 0, 1)]);
        kept.note([snapshot(30, 0, 1)]);
        assert_eq!(kept.obsolete(at(100), KEEP), [], "it was needed a moment ago");
        assert_eq!(kept.obsolete(at(159), KEEP), []);
        let due = kept.obsolete(at(160), KEEP);
        assert_eq!(due, [snapshot(10, 0, 1), log(5, 20)], "and entries that go on stay");
        kept.forget(&due);
        assert_eq!(kept.obsolete(at(1_000), KEEP), []);
    }

    #[test]
    fn a_snapshot_with_a_part_missing_makes_nothing_unnecessary() {
        let mut kept = Kept::default();
        kept.note([snapshot(10, 0, 1), snapshot(20, 0, 1), snapshot(30, 0, 2)]);
        assert_eq!(kept.obsolete(at(0), Duration::ZERO), []);
        kept.note([snapshot(30, 1, 2)]);
        assert_eq!(kept.obsolete(at(0), Duration::ZERO), [snapshot(10, 0, 1)]);
    }
}
