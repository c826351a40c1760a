//! When whoever leads ships what [pure].
//!
//! It begins with a snapshot, so that it need not know what others shipped before; then come chunks
//! of the log, and a snapshot again when there are as many bytes of log as a snapshot has, when an
//! hour's worth of chunks lies behind the last, or when the log went on without the shipper.

use std::time::Duration;

use aquifer_storage::{model::LogIndex, seam::MonoTime};

use super::file::Logged;

/// How often what is shipped: bounds both what a loss of the group costs, and the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Entries wait for this long at most until they are shipped, while the store answers.
    pub interval: Duration,
    /// What newer backups make unnecessary stays for so long; and the longest between snapshots.
    pub keep: Duration,
    /// Entries are shipped at once when they have so many bytes.
    pub chunk_bytes: u64,
    /// A snapshot follows when so many bytes of entries were shipped since the last.
    pub log_bytes: u64,
    /// Snapshots that nobody asked for are at least so far apart.
    pub pause: Duration,
}

impl Default for Pace {
    /// Four requests a minute at most while the cluster is written to, none while it is not.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            keep: Duration::from_secs(60 * 60),
            chunk_bytes: 8 << 20,
            log_bytes: 64 << 20,
            pause: Duration::from_secs(60),
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ship the state.
    Snapshot,
    /// Ship the entries that were gathered.
    Log,
    /// Gather more.
    Wait,
}

/// Entries that wait to be shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Those with commands, ascending.
    pub entries: Vec<Logged>,
    /// The last one's term, be it one with commands or not.
    pub term: u64,
    bytes: u64,
    /// When the first one was gathered; `None` without any.
    since: Option<MonoTime>,
}

/// How far one process came.
#[derive(Clone, Debug)]
pub struct Plan {
    pace: Pace,
    snapshot: Option<LastSnapshot>,
    /// The chain of chunks reaches up to here.
    shipped: LogIndex,
    /// The last snapshot or the chain does.
    covered: LogIndex,
    /// Everything up to here is there or was gathered.
    gathered_to: LogIndex,
    gathered: Gathered,
    /// Entries were missing behind `gathered_to`.
    is_broken: bool,
    /// The number of the last request for a snapshot, and of the last that was fulfilled.
    asked: u64,
    answered: u64,
}

#[derive(Clone, Copy, Debug)]
struct LastSnapshot {
    at: MonoTime,
    bytes: u64,
    log_bytes_since: u64,
}

impl Plan {
    /// Nothing was shipped yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            snapshot: None,
            shipped: LogIndex::default(),
            covered: LogIndex::default(),
            gathered_to: LogIndex::default(),
            gathered: Gathered::default(),
            is_broken: false,
            asked: 0,
            answered: 0,
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: MonoTime) -> Next {
        let Some(last) = self.snapshot else { return Next::Snapshot };
        let paused = now.since(last.at) < self.pace.pause;
        let log_bytes_max = self.pace.log_bytes.max(last.bytes);
        let is_old = self.pace.keep <= now.since(last.at) && 0 < last.log_bytes_since;
        let due = self.is_broken || is_old || log_bytes_max <= last.log_bytes_since;
        if self.answered < self.asked || due && !paused {
            return Next::Snapshot;
        }
        let waits = self.gathered.since.is_some_and(|since| self.pace.interval <= now.since(since));
        if waits || self.is_full() { Next::Log } else { Next::Wait }
    }

    /// Entries from here on are to be gathered; `None` while there is no room or no use for them.
    pub fn wanted_from(&self) -> Option<LogIndex> {
        let wanted = self.snapshot.is_some() && !self.is_broken && !self.is_full();
        wanted.then(|| self.gathered_to.next())
    }

    fn is_full(&self) -> bool {
        self.pace.chunk_bytes <= self.gathered.bytes
    }

    /// Takes in the entries behind those gathered, up to `to`, whose term is `term`.
    pub fn gather(&mut self, entries: Vec<Logged>, (to, term): (LogIndex, u64), now: MonoTime) {
        self.gathered.bytes += entries.iter().map(|entry| entry.entry.len() as u64).sum::<u64>();
        self.gathered.entries.extend(entries);
        self.gathered.term = term;
        self.gathered.since.get_or_insert(now);
        self.gathered_to = to;
    }

    /// Entries behind those gathered are in no log any more: only a snapshot has them.
    pub fn missed(&mut self) {
        self.is_broken = true;
    }

    /// What was gathered, with the indexes it covers; it is out of the plan's hands now.
    pub fn take(&mut self) -> Option<(Gathered, LogIndex, LogIndex)> {
        self.gathered.since?;
        let first = self.shipped.next();
        Some((std::mem::take(&mut self.gathered), first, self.gathered_to))
    }

    /// The entries up to `last`, of so many bytes, are in the bucket.
    pub fn log_shipped(&mut self, last: LogIndex, bytes: u64) {
        self.shipped = self.shipped.max(last);
        self.covered = self.covered.max(last);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.log_bytes_since += bytes;
        }
    }

    /// The state as of `index`, of so many bytes, is in the bucket. `asked` is the last request
    /// that was made before its state was taken.
    pub fn snapshot_shipped(&mut self, index: LogIndex, bytes: u64, (asked, now): (u64, MonoTime)) {
        let begins = self.snapshot.is_none() || self.is_broken;
        self.snapshot = Some(LastSnapshot { at: now, bytes, log_bytes_since: 0 });
        self.answered = self.answered.max(asked);
        self.covered = self.covered.max(index);
        if begins {
            // The log goes on behind it. What was gathered before a gap is in it.
            self.gathered = Gathered::default();
            (self.shipped, self.gathered_to, self.is_broken) = (index, index, false);
        }
    }

    /// A snapshot is asked for: so many were until now.
    pub fn ask(&mut self, asked: u64) {
        self.asked = self.asked.max(asked);
    }

    /// Everything up to here can be restored; `None` before the first snapshot.
    pub fn covered(&self) -> Option<LogIndex> {
        self.snapshot.map(|_| self.covered)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_secs(15),
        keep: Duration::from_secs(3600),
        chunk_bytes: 100,
        log_bytes: 1000,
        pause: Duration::from_secs(60),
    };

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_zero(Duration::from_secs(seconds))
    }

    fn entry(index: u64, bytes: usize) -> Logged {
        Logged { index, term: 1, entry: Bytes::from(vec![0; bytes]) }
    }

    fn index(value: u64) -> LogIndex {
        LogIndex::new(value)
    }

    /// A plan that began with a snapshot at 10.
    fn begun() -> Plan {
        let mut plan = Plan::new(PACE);
        assert_eq!((plan.next(at(0)), plan.wanted_from()), (Next::Snapshot, None));
        plan.snapshot_shipped(index(10), 500, (0, at(0)));
        assert_eq!((plan.next(at(0)), plan.wanted_from()), (Next::Wait, Some(index(11))));
        plan
    }

    #[test]
    fn a_cluster_that_nobody_writes_to_ships_nothing() {
        assert_eq!(begun().next(at(1_000_000)), Next::Wait);
    }

    #[test]
    fn entries_wait_for_the_interval_or_until_they_are_many() {
        let mut plan = begun();
        plan.gather(vec![entry(11, 10)], (index(12), 1), at(100));
        assert_eq!(plan.next(at(114)), Next::Wait);
        assert_eq!(plan.next(at(115)), Next::Log);
        plan.gather(vec![entry(13, 90)], (index(13), 1), at(101));
        assert_eq!((plan.next(at(102)), plan.wanted_from()), (Next::Log, None));
        let (gathered, first, last) = plan.take().unwrap();
        assert_eq!((gathered.entries.len(), first, last), (2, index(11), index(13)));
        plan.log_shipped(last, 100);
        assert_eq!((plan.covered(), plan.take()), (Some(index(13)), None));
        assert_eq!((plan.next(at(103)), plan.wanted_from()), (Next::Wait, Some(index(14))));
    }

    #[test]
    fn a_gap_in_the_log_is_closed_by_a_snapshot_but_not_by_one_after_the_other() {
        let mut plan = begun();
        plan.gather(vec![entry(11, 10)], (index(11), 1), at(1));
        plan.missed();
        assert_eq!((plan.next(at(15)), plan.wanted_from()), (Next::Wait, None));
        assert_eq!(plan.next(at(60)), Next::Snapshot);
        plan.snapshot_shipped(index(90), 500, (0, at(60)));
        assert_eq!((plan.covered(), plan.wanted_from()), (Some(index(90)), Some(index(91))));
        assert_eq!(plan.take(), None, "what was gathered before the gap is in the snapshot");
    }

    #[test]
    fn a_snapshot_between_chunks_leaves_their_chain_whole() {
        let mut plan = begun();
        plan.gather(vec![entry(11, 10)], (index(11), 1), at(1));
        plan.ask(1);
        assert_eq!(plan.next(at(1)), Next::Snapshot, "at once: it was asked for");
        plan.snapshot_shipped(index(40), 500, (1, at(1)));
        assert_eq!((plan.next(at(1)), plan.covered()), (Next::Wait, Some(index(40))));
        let (_, first, last) = plan.take().unwrap();
        assert_eq!((first, last), (index(11), index(11)));
    }

    #[test]
    fn a_snapshot_follows_its_own_size_of_log_or_an_hour_of_it() {
        let mut plan = begun();
        plan.log_shipped(index(20), 999);
        assert_eq!(plan.next(at(3599)), Next::Wait);
        assert_eq!(plan.next(at(3600)), Next::Snapshot);
        plan.log_shipped(index(21), 1);
        assert_eq!(plan.next(at(59)), Next::Wait, "not one after the other");
        assert_eq!(plan.next(at(60)), Next::Snapshot);
        plan.snapshot_shipped(index(22), 5_000, (0, at(60)));
        plan.log_shipped(index(23), 4_999);
        assert_eq!(plan.next(at(600)), Next::Wait, "a large state is not shipped for little");
    }
}
