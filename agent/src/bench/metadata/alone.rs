//! The pure machine without Raft, a log or a network: what entries cost apply.

use std::time::{Duration, Instant};

use aquifer_metadata::machine::{
    Genesis, LEVEL, MetadataState,
    command::{Command, Entry, Reply, Stamp},
};
use aquifer_storage::model::{Lineage, LogIndex};

/// Milliseconds since 1970 when it begins.
const FIRST_WALL_MS: i64 = 1_790_000_000_000;

/// A machine, and the time that its entries are stamped with.
pub struct Alone {
    /// The state.
    pub state: MetadataState,
    index: LogIndex,
    now_ms: u64,
}

impl Default for Alone {
    fn default() -> Self {
        let lineage = Lineage { number: 0, nonce: 1 };
        let state = MetadataState::new(Genesis { cluster_id: "bench".to_owned(), lineage });
        Self { state, index: LogIndex::default(), now_ms: 0 }
    }
}

impl Alone {
    /// Lets time pass before the next entry.
    pub fn pass(&mut self, millis: u64) {
        self.now_ms += millis;
    }

    /// Applies an entry, a millisecond after the one before.
    pub fn apply(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        self.apply_timed(commands).0
    }

    /// Applies an entry and tells how long that took.
    pub fn apply_timed(&mut self, commands: Vec<Command>) -> (Vec<Reply>, Duration) {
        self.index = self.index.next();
        self.pass(1);
        let wall_ms = FIRST_WALL_MS.saturating_add_unsigned(self.now_ms);
        let stamp = Stamp { boot: 1, mono_ms: self.now_ms, wall_ms };
        let entry = Entry { stamp, min_level: LEVEL, commands };
        let from = Instant::now();
        let applied = self.state.apply(self.index, 1, &entry);
        drop(applied.effects); // The node drops them under the machine's lock, too.
        (applied.replies, from.elapsed())
    }
}
