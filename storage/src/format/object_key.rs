//! Object names to keys and back: the only place that spells a key of the data path.
//!
//! `wal/<2 hex>/<lineage>/<session>/<seq>` and `merged/<2 hex>/<lineage>/<session>/<seq>`, relative
//! to the store's prefix. The two hex digits are a hash of what follows them, so that writes spread
//! over the store's key ranges from the first second. A key is computed, never listed.
//!
//! `probe/<begun, ms>-<nonce>/<name>` is what a test of the store writes, and deletes at its end.

use crate::{
    format::checksum::Crc32c,
    model::{Lineage, ObjectName, ObjectSeq, SessionId, Timestamp},
};

/// Everything that flushes write lies under this.
pub const WAL_PREFIX: &str = "wal";

/// Everything that merges write lies under this.
pub const MERGED_PREFIX: &str = "merged";

/// Everything that a test of the store writes lies under this, while the test runs.
pub const PROBE_PREFIX: &str = "probe";

/// The folder of the test of the store that began at `begun`; `nonce` is its own, so that no two
/// tests meet.
pub fn probe_folder(begun: Timestamp, nonce: u64) -> String {
    format!("{PROBE_PREFIX}/{}-{nonce:016x}", begun.millis().max(0))
}

/// When the test began that wrote `key`; `None` for other keys.
pub fn probe_begun(key: &str) -> Option<Timestamp> {
    let (begun, rest) = key.strip_prefix(PROBE_PREFIX)?.strip_prefix('/')?.split_once('-')?;
    let (nonce, _name) = rest.split_once('/')?;
    let begun = Timestamp::from_millis(begun.parse().ok()?);
    let nonce = u64::from_str_radix(nonce, 16).ok()?;
    key.starts_with(&format!("{}/", probe_folder(begun, nonce))).then_some(begun)
}

/// The key of an object, relative to the store's prefix.
pub fn object_key(name: &ObjectName) -> String {
    let kind = if name.merged { MERGED_PREFIX } else { WAL_PREFIX };
    let rest = format!("{}/{}/{}", name.lineage, name.session, name.seq);
    format!("{kind}/{:02x}/{rest}", spread(&rest))
}

/// The name behind a key; `None` when [`object_key`] never makes that key.
pub fn parse_object_key(key: &str) -> Option<ObjectName> {
    let mut segments = key.split('/');
    let merged = match segments.next()? {
        WAL_PREFIX => false,
        MERGED_PREFIX => true,
        _ => return None,
    };
    let _spread = segments.next()?; // Checked with the whole, below.
    let lineage = parse_lineage(segments.next()?)?;
    let session = SessionId::new(segments.next()?.parse().ok()?);
    let seq = ObjectSeq::new(segments.next()?.parse().ok()?);
    let name = ObjectName { lineage, session, seq, merged };
    (object_key(&name) == key).then_some(name)
}

/// Parses a lineage as its `Display` writes it.
pub fn parse_lineage(text: &str) -> Option<Lineage> {
    let (number, nonce) = text.split_once('-')?;
    let lineage =
        Lineage { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? };
    (lineage.to_string() == text).then_some(lineage)
}

/// Frozen: another hash would lose every object written before it.
fn spread(rest: &str) -> u8 {
    // Any eight bits of the CRC would do; these are the ones in use.
    (Crc32c::of(rest.as_bytes()).value() >> 12) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(seq: u64) -> ObjectName {
        ObjectName {
            lineage: Lineage { number: 1, nonce: 0xfeed },
            session: SessionId::new(12),
            seq: ObjectSeq::new(seq),
            merged: false,
        }
    }

    #[test]
    fn keys_are_frozen() {
        assert_eq!(object_key(&name(345)), "wal/1f/1-000000000000feed/12/345");
        let merged = ObjectName { merged: true, ..name(345) };
        assert_eq!(object_key(&merged), "merged/1f/1-000000000000feed/12/345");
    }

    #[test]
    fn keys_of_a_test_say_when_it_began_and_are_no_objects() {
        let begun = Timestamp::from_millis(1_700_000_000_123);
        let key = format!("{}/body", probe_folder(begun, 0xbee));
        assert_eq!(key, "probe/1700000000123-0000000000000bee/body");
        assert_eq!(probe_begun(&key), Some(begun));
        assert_eq!(parse_object_key(&key), None);
        for other in ["probe/1-0/x", "probe/x", "wal/1f/1-000000000000feed/12/345", "probe/-1-2/x"]
        {
            assert_eq!(probe_begun(other), None, "{other}");
        }
        assert_eq!(probe_begun(&object_key(&name(345))), None);
    }

    #[test]
    fn consecutive_keys_spread() {
        let spread: BTreeSet<String> =
            (0..1000).map(|seq| object_key(&name(seq))[4..6].to_owned()).collect();
        assert!(200 < spread.len(), "only {} of 256", spread.len());
    }

    #[test]
    fn only_keys_that_we_make_parse() {
        let key = object_key(&name(3));
        assert_eq!(parse_object_key(&key), Some(name(3)));
        for other in [
            "",
            "wal",
            "cluster.json",
            "wal/zz/1-000000000000feed/12/3",
            &key.replace("wal", "merged2"),
            &format!("{key}/4"),
            &format!("{key}0"),
            &key.replace("/12/", "/+12/"),
            &key.replace("/12/", "/012/"),
            &key.to_uppercase(),
        ] {
            assert_eq!(parse_object_key(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_a_round_trip(
            number: u32, nonce: u64, session: u64, seq: u64, merged: bool,
        ) {
            let lineage = Lineage { number, nonce };
            let (session, seq) = (SessionId::new(session), ObjectSeq::new(seq));
            let name = ObjectName { lineage, session, seq, merged };
            prop_assert_eq!(parse_object_key(&object_key(&name)), Some(name));
        }

        #[test]
        fn hostile_keys_never_panic(key in ".{0,80}") {
            let _ = parse_object_key(&key);
        }
    }
}
