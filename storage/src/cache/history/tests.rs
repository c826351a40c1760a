//! Laws of history.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::{Lineage, ObjectName, ObjectSeq, SessionId};

const BLOCK: u64 = 8 << 20;

fn key(seq: u64) -> BlockKey {
    let lineage = Lineage { number: 0, nonce: 7 };
    let (session, seq) = (SessionId::new(1), ObjectSeq::new(seq));
    BlockKey { object: ObjectName { lineage, session, seq, merged: false }, block: 0 }
}

fn blocks(seqs: impl IntoIterator<Item = u64>) -> Vec<(BlockKey, u64)> {
    seqs.into_iter().map(|seq| (key(seq), BLOCK)).collect()
}

fn filled() -> CachedBlock {
    CachedBlock::from(Bytes::from_static(&[0; BLOCK as usize]))
}

fn keys(reserved: &[Reserved]) -> Vec<BlockKey> {
    reserved.iter().map(|reserved| reserved.key).collect()
}

fn is_released(reserved: &mut Reserved) -> bool {
    reserved.released.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

impl History {
    /// The counts are what the entries say.
    fn check(&self) {
        let sum = |held: bool| {
            let entries = self.entries.values().filter(|entry| !held || 0 < entry.holders);
            entries.map(|entry| entry.bytes).sum::<u64>()
        };
        assert_eq!((self.used_bytes, self.held_bytes), (sum(false), sum(true)));
        let wanting = self.readers.values().filter(|holding| holding.wants).count();
        assert_eq!(self.wanting, wanting as u64);
        for (key, entry) in &self.entries {
            let named = self.readers.values().filter(|holding| holding.blocks.contains(key));
            assert_eq!(entry.holders, named.count() as u64);
            let is_loose = self.loose.get(&entry.last_use) == Some(key);
            assert_eq!(is_loose, entry.holders == 0);
            assert!(0 < entry.holders || matches!(entry.content, Content::Filled(_)));
        }
        assert_eq!(
            self.loose.len(),
            self.entries.values().filter(|entry| entry.holders == 0).count()
        );
    }
}

#[test]
fn partitions_of_the_same_objects_hold_them_together_and_each_is_fetched_once() {
    let mut history = History::new(20 * BLOCK);
    let readers: Vec<u64> = (0..8).map(|_| history.reader()).collect();
    let mut fetched = Vec::new();
    for first in 0..100 {
        for &reader in &readers {
            for reserved in history.hold(reader, &blocks(first..first + 4)) {
                fetched.push(reserved.key);
                history.insert(reserved.key, filled());
            }
            history.check();
        }
        assert!(history.get(&key(first)).is_some());
        assert!(history.held_bytes() <= 6 * BLOCK);
    }
    assert_eq!(fetched, (0..103).map(key).collect::<Vec<_>>());
}

#[test]
fn readers_of_different_objects_share_evenly_and_nobody_is_left_without() {
    let mut history = History::new(32 * BLOCK);
    let readers: Vec<u64> = (0..4).map(|_| history.reader()).collect();
    let held = |history: &History, reader| history.readers[&reader].blocks.len();
    // The first takes what it finds and gives back as it goes on.
    for round in 0..40 {
        for (n, &reader) in readers.iter().enumerate() {
            let first = n as u64 * 1000 + round;
            history.hold(reader, &blocks(first..first + 30));
            history.check();
        }
    }
    let each: Vec<usize> = readers.iter().map(|&reader| held(&history, reader)).collect();
    assert_eq!(each, [5; 4], "24 blocks less what is reserved besides them");
}

#[test]
fn a_fetch_is_told_when_nobody_wants_its_block_any_more() {
    let mut history = History::new(20 * BLOCK);
    let (one, other) = (history.reader(), history.reader());
    let mut reserved = history.hold(one, &blocks(0..3));
    assert!(history.hold(other, &blocks(1..2)).is_empty(), "it is on its way");
    history.hold(one, &blocks(2..3)); // A seek.
    assert!(is_released(&mut reserved[0]));
    assert!(!is_released(&mut reserved[1]), "the other one wants it");
    assert!(!is_released(&mut reserved[2]));
    history.release(other);
    assert!(is_released(&mut reserved[1]));
    history.release(one);
    assert!(is_released(&mut reserved[2]));
    assert!(history.is_empty());
    assert_eq!((history.used_bytes(), history.held_bytes()), (0, 0));
}

#[test]
fn a_block_that_could_not_be_fetched_is_not_asked_again_while_it_is_wanted() {
    let mut history = History::new(20 * BLOCK);
    let reader = history.reader();
    assert_eq!(keys(&history.hold(reader, &blocks(0..2))), [key(0), key(1)]);
    history.fetched(&key(0));
    history.insert(key(1), filled());
    history.fetched(&key(1));
    assert!(history.get(&key(1)).is_some(), "that one came");
    for _ in 0..100 {
        assert!(history.hold(reader, &blocks(0..2)).is_empty());
    }
    history.check();
    // Damage is like a failure, and what the reader fetches for itself is kept.
    history.remove(&key(1));
    assert!(history.get(&key(1)).is_none());
    assert!(history.hold(reader, &blocks(0..2)).is_empty());
    history.insert(key(0), filled());
    assert!(history.get(&key(0)).is_some());
    history.check();
}

#[test]
fn what_nobody_uses_is_forgotten_after_two_rounds() {
    let mut history = History::new(20 * BLOCK);
    let reader = history.reader();
    for reserved in history.hold(reader, &blocks(0..3)) {
        history.insert(reserved.key, filled());
    }
    history.insert(key(9), filled());
    assert!(history.sweep());
    // One that goes on keeps what it holds.
    assert!(history.hold(reader, &blocks(1..3)).is_empty());
    assert!(history.sweep());
    assert!(history.get(&key(9)).is_none());
    assert!(history.get(&key(1)).is_some());
    assert!(history.sweep());
    assert!(!history.sweep());
    assert!(history.is_empty());
    assert_eq!((history.used_bytes(), history.held_bytes()), (0, 0));
    assert_eq!(history.hold(reader, &blocks(2..3)).len(), 1, "it may come back");
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u64, u64, u64),
    Release(u64),
    Insert(u64, usize),
    Get(u64),
    Fetched(u64),
    Remove(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let seq = 0_u64..30;
    prop_oneof![
        4 => (0_u64..5, seq.clone(), 0_u64..12).prop_map(|(r, s, n)| Step::Hold(r, s, n)),
        1 => (0_u64..5).prop_map(Step::Release),
        4 => (seq.clone(), 1_usize..3000).prop_map(|(s, bytes)| Step::Insert(s, bytes)),
        2 => seq.clone().prop_map(Step::Get),
        1 => seq.clone().prop_map(Step::Fetched),
        1 => seq.prop_map(Step::Remove),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_memory_is_bounded_and_every_reservation_has_a_holder(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        const CAPACITY: u64 = 30_000;
        let mut history = History::new(CAPACITY);
        let mut under_way: Vec<Reserved> = Vec::new();
        for step in steps {
            match step {
                Step::Hold(reader, first, count) => {
                    let wanted: Vec<_> =
                        (first..first + count).map(|seq| (key(seq), 100 * seq)).collect();
                    under_way.extend(history.hold(reader, &wanted));
                    let held = &history.readers[&reader].blocks;
                    let first: BTreeSet<_> =
                        wanted[..held.len()].iter().map(|(key, _)| *key).collect();
                    prop_assert_eq!(held, &first, "the first ones, without a gap");
                }
                Step::Release(reader) => history.release(reader),
                Step::Insert(seq, bytes) => {
                    history.insert(key(seq), CachedBlock::from(Bytes::from(vec![0; bytes])));
                }
                Step::Get(seq) => {
                    history.get(&key(seq));
                }
                Step::Fetched(seq) => history.fetched(&key(seq)),
                Step::Remove(seq) => history.remove(&key(seq)),
                Step::Sweep => {
                    history.sweep();
                }
            }
            history.check();
            // What is held may come longer than it was said to be, here by 2999 B each.
            let slack = 3600 * history.entries.len() as u64;
            prop_assert!(history.held_bytes() <= CAPACITY / 100 * HELD_PERCENT + slack);
            prop_assert!(history.loose.is_empty() || history.used_bytes() <= CAPACITY);
            under_way.retain_mut(|reserved| !is_released(reserved));
            let awaited = |key| {
                let entry = history.entries.get(key);
                entry.is_some_and(|entry| matches!(entry.content, Content::Awaited(_)))
            };
            prop_assert!(under_way.iter().all(|reserved| awaited(&reserved.key)));
            let all = history.entries.keys().filter(|key| awaited(key)).count();
            prop_assert_eq!(all, under_way.len(), "each has one fetch");
        }
        for reader in 0..5 {
            history.release(reader);
        }
        history.sweep();
        history.sweep();
        prop_assert!(history.is_empty());
        prop_assert_eq!((history.used_bytes(), history.held_bytes()), (0, 0));
    }
}
