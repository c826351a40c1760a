//! Entries this node proposed, beside their bytes: whoever encoded an entry need not decode it.
//!
//! # Invariants
//! - What is taken for bytes is what [`codec::decode_entry`] reads from them: the bytes are
//!   compared, and only entries that encoding keeps as they are get in. Replicas that decode apply
//!   the same.
//! - At most [`ENTRIES_KEPT_MAX`] are kept. An entry that is not here is decoded.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{codec, machine::command::Entry};

/// As many as the proposer has under way: those of a leader that lost its place are pushed out by
/// the next ones.
pub const ENTRIES_KEPT_MAX: usize = 4;

/// Entries on their way through the log, in order. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct OwnEntries(Arc<Mutex<VecDeque<(Bytes, Entry)>>>);

impl OwnEntries {
    /// Keeps `entry`, which was encoded as `bytes`, until it is taken.
    pub fn keep(&self, bytes: &Bytes, entry: Entry) {
        if !codec::is_kept_by_encoding(&entry) {
            return;
        }
        let mut entries = self.lock();
        if entries.len() == ENTRIES_KEPT_MAX {
            entries.pop_front();
        }
        entries.push_back((bytes.clone(), entry));
    }

    /// Takes the entry of these bytes, and lets go of those before it: entries are applied in the
    /// order of the log.
    pub fn take(&self, bytes: &[u8]) -> Option<Entry> {
        let mut entries = self.lock();
        let at = entries.iter().position(|(known, _)| known == bytes)?;
        entries.drain(..=at).next_back().map(|(_, entry)| entry)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Bytes, Entry)>> {
        self.0.lock().expect("nobody panics while it holds the entries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::command::{Command, HostPort, RegisterSession, Stamp};

    fn entry(mono_ms: u64) -> (Bytes, Entry) {
        let stamp = Stamp { boot: 1, mono_ms, wall_ms: 0 };
        let entry = Entry { stamp, min_level: 1, commands: vec![Command::Tick] };
        (codec::encode_entry(&entry), entry)
    }

    #[test]
    fn an_entry_is_taken_once_by_its_bytes_and_those_before_it_are_let_go() {
        let own = OwnEntries::default();
        for mono_ms in 0..3 {
            let (bytes, entry) = entry(mono_ms);
            own.keep(&bytes, entry);
        }
        let (bytes, kept) = entry(1);
        assert_eq!(own.take(&entry(9).0), None);
        assert_eq!(own.take(&bytes), Some(kept));
        assert_eq!(own.take(&bytes), None);
        assert_eq!(own.take(&entry(0).0), None);
        assert_eq!(own.take(&entry(2).0), Some(entry(2).1));
    }

    #[test]
    fn few_are_kept_and_none_that_encoding_may_change() {
        let own = OwnEntries::default();
        for mono_ms in 0..=ENTRIES_KEPT_MAX as u64 {
            let (bytes, entry) = entry(mono_ms);
            own.keep(&bytes, entry);
        }
        assert_eq!(own.take(&entry(0).0), None);
        let advertised = HostPort { host: "a".repeat(1000), port: 1 };
        let register = RegisterSession { request: 1, advertised, zone: None };
        let unsure =
            Entry { commands: vec![Command::RegisterSession(register)], ..entry(7).1.clone() };
        let bytes = codec::encode_entry(&unsure);
        own.keep(&bytes, unsure);
        assert_eq!(own.take(&bytes), None);
    }
}
