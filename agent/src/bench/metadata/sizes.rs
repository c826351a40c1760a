//! Bytes of log that a run and a batch cost, from encoded entries: exact, and without a clock.

use aquifer_metadata::{
    codec,
    machine::{
        LEVEL,
        command::{Command, CommitPart, Entry, Stamp},
    },
};
use aquifer_storage::model::{CommitSeq, SessionId};
use serde::Serialize;

use super::load::{AgentLoad, LoadShape};

/// Commits of the entry that is looked at, as many as wait under load.
const COMMITS: u32 = 64;
/// The commit that is looked at is not the first: small numbers are short.
const WARM_COMMITS: u64 = 200;

/// Bytes of encoded entries. What frames an entry in the log is not in them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogBytes {
    /// A run apart from its batches, with its share of what a commit and an entry cost.
    pub per_run: f64,
    /// One more batch of a run.
    pub per_batch: f64,
    /// A commit of `runs` runs with one batch each.
    pub per_commit_of_single_batches: f64,
}

impl LogBytes {
    /// The bytes of commits of `shape`, whose number of batches does not count.
    pub fn of(shape: LoadShape) -> Self {
        let runs = f64::from(COMMITS * shape.runs);
        let bytes = |batches| entry_bytes(LoadShape { batches, ..shape }) as f64 / runs;
        let (one, five) = (bytes(1), bytes(5));
        let per_batch = (five - one) / 4.0;
        Self {
            per_run: one - per_batch,
            per_batch,
            per_commit_of_single_batches: one * f64::from(shape.runs),
        }
    }
}

fn entry_bytes(shape: LoadShape) -> usize {
    let commands = (1..=u64::from(COMMITS))
        .map(|session| Command::Commit(warm_part(AgentLoad::new(shape, SessionId::new(session)))));
    let entry = Entry {
        stamp: Stamp { boot: u64::MAX, mono_ms: 1 << 30, wall_ms: 1_790_000_000_000 },
        min_level: LEVEL,
        commands: commands.collect(),
    };
    codec::encode_entry(&entry).len()
}

fn warm_part(mut load: AgentLoad) -> CommitPart {
    for seq in 0..WARM_COMMITS {
        load.next_part(CommitSeq::new(seq));
    }
    load.next_part(CommitSeq::new(WARM_COMMITS))
}
