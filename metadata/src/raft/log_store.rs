//! Raft's log over the write-ahead log, which keeps votes, entries, truncations and purges in one
//! order. A full disk makes an append wait for space; any other failure stops the node.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    time::Duration,
};

use aquifer_storage::seam::Seams;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use super::{LogId, RaftEntry, TypeConfig, Vote, record};
use crate::wal::{self, Callback, Wal, WalEntry, WalError};

/// How often a full disk is tried again.
const RETRY_SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// Entries are read in pieces of this size.
const READ_BYTES_MAX: usize = 4 << 20;

/// Raft's log. Cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    wal: Wal,
    seams: Seams,
}

impl LogStore {
    /// Wraps an open log.
    pub fn new(wal: Wal, seams: Seams) -> Self {
        Self { wal, seams }
    }
}

fn to_io(error: WalError) -> io::Error {
    io::Error::other(error)
}

fn to_wal_id(id: &LogId) -> wal::LogId {
    wal::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

/// Stands for "nothing is missing before": a purge of it lets a log without entries begin behind
/// `index`. Less than every log id of a leader and never one itself.
fn beginning(index: u64) -> wal::LogId {
    wal::LogId { term: 0, node_id: u64::MAX, index }
}

fn is_real(id: &wal::LogId) -> bool {
    *id != beginning(id.index)
}

fn from_wal_id(id: wal::LogId) -> LogId {
    record::log_id(id.term, id.node_id, id.index)
}

fn from_wal_entry(entry: WalEntry) -> io::Result<RaftEntry> {
    let payload = record::decode_payload(entry.payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(RaftEntry { log_id: from_wal_id(entry.id), payload })
}

fn from_wal_vote(vote: wal::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    }
}

impl LogStore {
    /// The part of `asked` that the log holds.
    fn held(&self, asked: &impl RangeBounds<u64>) -> Range<u64> {
        let held = self.wal.entries();
        let first = match asked.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let next = match asked.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(next) => *next,
            Bound::Unbounded => u64::MAX,
        };
        first.max(held.start)..next.min(held.end)
    }
}

impl LogStore {
    /// Lets a log that was never used begin at `first`, as Raft's contract allows.
    async fn begin_at(&self, first: u64) -> io::Result<()> {
        let state = self.wal.state();
        match first.checked_sub(1) {
            Some(before) if state.last.is_none_or(|last| !is_real(&last)) => {
                let purged = self.wal.purge(beginning(before), Box::new(|_| {})).await;
                purged.map_err(|refused| to_io(refused.error))
            }
            _ => Ok(()),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<Indexes>(&mut self, range: Indexes) -> io::Result<Vec<RaftEntry>>
    where
        Indexes: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut range = self.held(&range);
        let mut entries = Vec::new();
        while range.start < range.end {
            let read = self.wal.read(range.clone(), READ_BYTES_MAX).map_err(to_io)?;
            if read.is_empty() {
                return Err(io::Error::other(format!("the log has a hole at {}", range.start)));
            }
            range.start += read.len() as u64;
            for entry in read {
                entries.push(from_wal_entry(entry)?);
            }
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let range = self.held(&(start..end));
        let read = self.wal.read(range, READ_BYTES_MAX).map_err(to_io)?;
        read.into_iter().map(from_wal_entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.state().vote.map(from_wal_vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.wal.state();
        Ok(LogState {
            last_purged_log_id: state.purged.filter(is_real).map(from_wal_id),
            last_log_id: state.last.filter(is_real).map(from_wal_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let leader = vote.leader_id();
        let vote = wal::Vote {
            term: leader.term,
            node_id: leader.node_id,
            committed: vote.is_committed(),
        };
        self.wal.save_vote_synced(vote).await.map_err(to_io)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.wal.save_committed(to_wal_id(&id)).map_err(to_io),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.state().committed.map(from_wal_id))
    }

    async fn append<Entries>(
        &mut self,
        entries: Entries,
        flushed: IOFlushed<TypeConfig>,
    ) -> io::Result<()>
    where
        Entries: IntoIterator<Item = RaftEntry> + OptionalSend,
        Entries::IntoIter: OptionalSend,
    {
        let entries: Vec<WalEntry> = entries
            .into_iter()
            .map(|entry| WalEntry {
                id: to_wal_id(&entry.log_id),
                payload: record::encode_payload(&entry.payload),
            })
            .collect();
        if let Some(first) = entries.first() {
            self.begin_at(first.id.index).await?;
        }
        let mut done: Callback =
            Box::new(move |result| flushed.io_completed(result.map_err(to_io)));
        loop {
            match self.wal.append(&entries, done).await {
                Ok(()) => return Ok(()),
                Err(refused) if matches!(refused.error, WalError::DiskFull) => {
                    // Nothing of it is in the log. To fail here would stop the node for good.
                    tracing::error!("the metadata disk is full; waiting for space");
                    done = refused.done;
                    self.seams.sleep(RETRY_SPACE_INTERVAL).await;
                    let _ = self.wal.retry_space().await; // The next append says whether it helped.
                }
                Err(refused) => return Err(to_io(refused.error)),
            }
        }
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map(|id| id.index);
        if last.is_some_and(|last| self.wal.entries().end <= last) {
            return Ok(()); // Nothing is behind it.
        }
        let truncated = self.wal.truncate_after(last, Box::new(|_| {})).await;
        truncated.map_err(|refused| to_io(refused.error))
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        let purged = self.wal.purge(to_wal_id(&id), Box::new(|_| {})).await;
        purged.map_err(|refused| to_io(refused.error))
    }
}
