//! Names of backups to keys and back: the only place that spells a key under `meta/` [pure].

use aquifer_storage::{
    format::object_key::parse_lineage,
    model::{Lineage, LogIndex},
};

/// Everything lies under this, relative to the store's prefix.
pub const BACKUP_PREFIX: &str = "meta";

/// The markers of lives that restores began.
pub const MARKER_PREFIX: &str = "meta/lineage";

const SNAPSHOT: &str = "snapshot";
const LOG: &str = "log";

/// What an object covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Covers {
    /// A part of the state as of an entry.
    Snapshot {
        /// The entry.
        index: LogIndex,
        /// Which part, from 0.
        part: u32,
        /// How many there are.
        parts: u32,
    },
    /// Committed entries, `first` to `last` (inclusive).
    Log {
        /// The first entry.
        first: LogIndex,
        /// The last entry.
        last: LogIndex,
    },
}

/// The name of one object of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName {
    /// The life of the group.
    pub lineage: Lineage,
    /// What it covers.
    pub covers: Covers,
    /// Who wrote it: random, drawn anew by each process that ships.
    pub run: u64,
}

impl BackupName {
    /// Its key, relative to the store's prefix. Keys of one kind sort by index.
    pub fn key(&self) -> String {
        let Self { lineage, covers, run } = self;
        match covers {
            Covers::Snapshot { index, part, parts } => {
                let index = index.value();
                format!(
                    "{BACKUP_PREFIX}/{lineage}/{SNAPSHOT}-{index:020}-{run:016x}-{part}-{parts}"
                )
            }
            Covers::Log { first, last } => {
                let (first, last) = (first.value(), last.value());
                format!("{BACKUP_PREFIX}/{lineage}/{LOG}-{first:020}-{last:020}-{run:016x}")
            }
        }
    }

    /// The name behind a key; `None` when [`Self::key`] never makes that key.
    pub fn parse(key: &str) -> Option<Self> {
        let rest = key.strip_prefix(BACKUP_PREFIX)?.strip_prefix('/')?;
        let (lineage, rest) = rest.split_once('/')?;
        let lineage = parse_lineage(lineage)?;
        let mut fields = rest.split('-');
        let kind = fields.next()?;
        let mut number = || fields.next()?.parse::<u64>().ok().map(LogIndex::new);
        let name = match kind {
            SNAPSHOT => {
                let index = number()?;
                let run = u64::from_str_radix(fields.next()?, 16).ok()?;
                let (part, parts) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                Self { lineage, covers: Covers::Snapshot { index, part, parts }, run }
            }
            LOG => {
                let (first, last) = (number()?, number()?);
                let run = u64::from_str_radix(fields.next()?, 16).ok()?;
                Self { lineage, covers: Covers::Log { first, last }, run }
            }
            _ => return None,
        };
        (name.key() == key).then_some(name)
    }
}

/// The key of the marker of life `number`.
pub fn marker_key(number: u32) -> String {
    format!("{MARKER_PREFIX}/{number:010}")
}

/// The number of a marker's key.
pub fn parse_marker(key: &str) -> Option<u32> {
    let number = key.strip_prefix(MARKER_PREFIX)?.strip_prefix('/')?.parse().ok()?;
    (marker_key(number) == key).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_frozen() {
        let lineage = Lineage { number: 1, nonce: 0xfeed };
        let index = LogIndex::new(77);
        let snapshot = BackupName {
            lineage,
            covers: Covers::Snapshot { index, part: 0, parts: 2 },
            run: 0xab,
        };
        assert_eq!(
            snapshot.key(),
            "meta/1-000000000000feed/snapshot-00000000000000000077-00000000000000ab-0-2"
        );
        let log = Covers::Log { first: index, last: LogIndex::new(80) };
        assert_eq!(
            BackupName { lineage, covers: log, run: 0xab }.key(),
            "meta/1-000000000000feed/log-00000000000000000077-00000000000000000080-00000000000000ab"
        );
        assert_eq!(marker_key(3), "meta/lineage/0000000003");
    }

    #[test]
    fn only_keys_that_we_make_parse() {
        let covers = Covers::Log { first: LogIndex::new(1), last: LogIndex::new(2) };
        let name = BackupName { lineage: Lineage { number: 0, nonce: 1 }, covers, run: 3 };
        let key = name.key();
        assert_eq!(BackupName::parse(&key), Some(name));
        for other in [
            "",
            "meta",
            "meta/lineage/0000000003",
            &key[1..],
            &format!("{key}-1"),
            &key.replace("log", "Log"),
            &key.replace("-00000000000000000002-", "-2-"),
            &key.replace("0-0000", "00-0000"),
        ] {
            assert_eq!(BackupName::parse(other), None, "{other}");
        }
        assert_eq!(parse_marker("meta/lineage/0000000003"), Some(3));
        for other in ["meta/lineage/3", "meta/lineage/", "meta/lineage/-000000003", &key] {
            assert_eq!(parse_marker(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_a_round_trip(
            number: u32, nonce: u64, run: u64, first: u64, last: u64,
            parts in proptest::option::of((any::<u32>(), any::<u32>())),
        ) {
            let (first, last) = (LogIndex::new(first), LogIndex::new(last));
            let covers = match parts {
                Some((part, parts)) => Covers::Snapshot { index: first, part, parts },
                None => Covers::Log { first, last },
            };
            let name = BackupName { lineage: Lineage { number, nonce }, covers, run };
            prop_assert_eq!(BackupName::parse(&name.key()), Some(name));
        }

        #[test]
        fn hostile_keys_never_panic(key in ".{0,80}") {
            let _ = BackupName::parse(&key);
            let _ = parse_marker(&key);
        }
    }
}
