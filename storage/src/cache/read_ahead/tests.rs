//! Laws of reading ahead, over a store that counts.

use std::sync::Mutex;

use futures::future::join_all;

use super::*;
use crate::{
    cache::{
        memory::LruCache,
        testing::{CountingStore, MERGED_BYTES, merged_object, name},
    },
    format::object_key::object_key,
    store::Store,
};

/// A bucket of merged objects, whose bytes need no footer, of one block each.
async fn world(objects: u64, history_blocks: u64) -> (Arc<CountingStore>, ObjectReader) {
    let store = Arc::new(CountingStore::default());
    for seq in 0..objects {
        store.put(&object_key(&name(seq, true)), merged_object(seq)).await.unwrap();
    }
    let tail = Arc::new(LruCache::new(4 * MERGED_BYTES as usize));
    let history = History::new(history_blocks * MERGED_BYTES);
    (store.clone(), ObjectReader::new(store, tail, history))
}

fn wanted(seqs: Range<u64>, part: Range<u64>, is_due: bool) -> Vec<WantedRange> {
    let of = |seq| {
        let (object, object_bytes, range) = (name(seq, true), MERGED_BYTES, part.clone());
        WantedRange { object, object_bytes, range, is_due }
    };
    seqs.map(of).collect()
}

async fn first_byte(reader: &ObjectReader, seq: u64) -> u8 {
    let read = reader.read_catch_up(name(seq, true), MERGED_BYTES, 7..8).await;
    read.unwrap()[0].bytes[0]
}

async fn hold_and_fetch(scan: &SequentialReader, wanted: &[WantedRange]) {
    join_all(scan.hold(wanted).await).await;
}

#[tokio::test]
async fn eight_partitions_in_step_cost_one_get_per_object_and_hold_each_once() {
    let (store, reader) = world(40, 20).await;
    let partitions: Vec<_> = (0..8).map(|_| reader.sequential()).collect();
    for seq in 0..40 {
        for (n, partition) in partitions.iter().enumerate() {
            let part = n as u64 * 100..n as u64 * 100 + 100;
            let ahead = wanted(seq..(seq + 5).min(40), part, false);
            hold_and_fetch(partition, &ahead).await;
            assert_eq!(first_byte(&reader, seq).await, seq as u8);
            assert!(reader.snapshot().history_bytes <= 20 * MERGED_BYTES);
        }
    }
    assert_eq!(store.gets(), 40);
    assert_eq!(reader.snapshot().misses, 0, "each was there before it was asked");
}

#[tokio::test]
async fn a_reader_of_history_leaves_the_tail_as_it_is() {
    let (store, reader) = world(60, 4).await;
    for seq in 50..53 {
        reader.read(name(seq, true), MERGED_BYTES, 0..1).await.unwrap();
    }
    let scan = reader.sequential();
    for seq in 0..50 {
        hold_and_fetch(&scan, &wanted(seq..(seq + 8).min(50), 0..1, true)).await;
        first_byte(&reader, seq).await;
    }
    let before = store.gets();
    for seq in 50..53 {
        reader.read(name(seq, true), MERGED_BYTES, 0..1).await.unwrap();
    }
    assert_eq!(store.gets(), before, "the tail is in memory");
    assert!(scan.hold(&wanted(50..53, 0..1, false)).await.is_empty(), "nor is it fetched again");
}

#[tokio::test]
async fn a_fetch_ahead_that_fails_is_not_repeated_and_does_not_fail_the_reader() {
    let (store, reader) = world(3, 20).await;
    let key = object_key(&name(1, true));
    store.delete_many(vec![key.clone()]).await.unwrap();
    let scan = reader.sequential();
    hold_and_fetch(&scan, &wanted(0..3, 0..10, false)).await;
    assert_eq!(store.gets(), 3);
    for _ in 0..100 {
        assert!(scan.hold(&wanted(0..3, 0..10, false)).await.is_empty());
    }
    store.put(&key, merged_object(1)).await.unwrap();
    assert_eq!(first_byte(&reader, 1).await, 1);
    assert_eq!(store.gets(), 4);
    first_byte(&reader, 1).await;
    assert_eq!(store.gets(), 4, "it is held now");
}

#[tokio::test]
async fn a_reader_that_joined_a_fetch_ahead_which_fails_asks_for_itself() {
    let (store, reader) = world(1, 20).await;
    let scan = reader.sequential();
    let mut ahead = join_all(scan.hold(&wanted(0..1, 0..10, false)).await);
    assert!((&mut ahead).now_or_never().is_none());
    store.refuse(1);
    let (_, byte) = futures::join!(ahead, first_byte(&reader, 0));
    assert_eq!((byte, store.gets()), (0, 2));
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_its_fetches_and_leaves_nothing() {
    let (store, reader) = world(9, 20).await;
    let scan = reader.sequential();
    let mut fetches = join_all(scan.hold(&wanted(0..4, 0..10, false)).await);
    assert!((&mut fetches).now_or_never().is_none());
    assert_eq!(store.gets(), 4, "they are under way");
    assert!(4 * MERGED_BYTES <= reader.snapshot().history_bytes, "and counted");
    drop(scan);
    assert_eq!(reader.snapshot().history_bytes, 0);
    fetches.await;
    while reader.sweep_history() {}
    assert_eq!((reader.snapshot().history_bytes, reader.has_history()), (0, false));
    assert_eq!(reader.shared.flights.under_way(), 0);
}

#[tokio::test]
async fn a_reader_that_stops_leaves_no_bytes_after_two_sweeps() {
    let (_store, reader) = world(9, 20).await;
    let scan = reader.sequential();
    hold_and_fetch(&scan, &wanted(0..4, 0..10, false)).await;
    first_byte(&reader, 8).await;
    assert!(5 * MERGED_BYTES <= reader.snapshot().history_bytes);
    let sweeps = (1..10).find(|_| !reader.sweep_history());
    assert_eq!((reader.snapshot().history_bytes, sweeps), (0, Some(2)));
    assert_eq!(scan.hold(&wanted(0..4, 0..10, false)).await.len(), 4, "it may come back");
}

#[tokio::test]
async fn fetches_ahead_are_bounded_and_neither_an_answer_nor_a_reader_queues_behind_them() {
    let (store, reader) = world(60, 200).await;
    let (one, other) = (reader.sequential(), reader.sequential());
    let order = Mutex::new(Vec::new());
    let mut ahead = join_all(one.hold(&wanted(0..40, 0..10, false)).await);
    assert!((&mut ahead).now_or_never().is_none());
    assert_eq!(store.gets(), AHEAD_FETCHES_MAX as u64);
    let mut due = join_all(other.hold(&wanted(50..51, 0..10, true)).await);
    assert!((&mut due).now_or_never().is_none());
    assert_eq!(store.gets(), AHEAD_FETCHES_MAX as u64 + 1);
    let note = |what| order.lock().unwrap().push(what);
    let read = first_byte(&reader, 39);
    futures::join!(
        async {
            read.await;
            note("read")
        },
        async {
            ahead.await;
            note("ahead")
        }
    );
    assert_eq!(*order.lock().unwrap(), ["read", "ahead"]);
    due.await;
    assert_eq!(store.gets(), 41, "each once");
}

#[tokio::test]
async fn few_blocks_are_named_and_none_that_lies_outside_its_object() {
    let (_store, reader) = world(1, 1 << 18).await;
    let scan = reader.sequential();
    #[expect(clippy::reversed_empty_ranges, reason = "that is what may be named")]
    for range in [0..0, 5..4, 0..MERGED_BYTES + 1, u64::MAX - 1..u64::MAX] {
        assert!(scan.hold(&wanted(0..1, range, true)).await.is_empty());
    }
    let (object, object_bytes) = (name(0, true), 1 << 30);
    let huge = WantedRange { object, object_bytes, range: 0..object_bytes, is_due: true };
    assert_eq!(scan.hold(&[huge]).await.len(), BLOCKS_MAX);
}
