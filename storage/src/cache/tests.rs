//! Laws of cache.

use futures::future::join_all;

use super::{
    memory::{LruCache, MokaCache},
    plan::BLOCK_BYTES,
    testing::{CountingStore, name},
    *,
};
use crate::{
    format::{object::ObjectBuilder, record_batch::validate_produced, test_batch::TestBatch},
    model::{PartitionIndex, TopicId, TopicPartition},
};

fn object() -> Vec<Bytes> {
    let topic = TopicId::from_bytes([1; 16]);
    let partition = TopicPartition { topic, partition: PartitionIndex::new(0) };
    let mut builder = ObjectBuilder::new();
    for _ in 0..3 {
        builder.add(partition, validate_produced(TestBatch::default().bytes(), 1000).unwrap());
    }
    builder.finish().body
}

fn reader(store: &Arc<CountingStore>) -> ObjectReader {
    let (tail, history) = MokaCache::pair(1 << 30);
    ObjectReader::new(store.clone(), Arc::new(tail), history)
}

fn concat(slices: &[CachedSlice]) -> Vec<u8> {
    slices.iter().map(|slice| &slice.bytes[..]).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn many_readers_of_one_object_cost_one_get() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let whole = Bytes::from(body.concat());
    store.put(&object_key(&name(1, false)), body).await.unwrap();
    let reader = reader(&store);
    let object_bytes = whole.len() as u64;
    let reads = (0..20_u64).map(|n| reader.read(name(1, false), object_bytes, n..n + 50));
    for (n, read) in join_all(reads).await.into_iter().enumerate() {
        assert_eq!(concat(&read.unwrap()), whole[n..n + 50]);
    }
    assert_eq!(store.gets(), 1);
    assert_eq!(reader.shared.flights.under_way(), 0);
    reader.read_catch_up(name(1, false), object_bytes, 0..1).await.unwrap();
    assert_eq!(store.gets(), 1);
}

#[tokio::test]
async fn a_written_object_is_read_without_a_get() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let whole = Bytes::from(body.concat());
    let reader = reader(&store);
    reader.insert_written(name(1, false), &body).await;
    let object_bytes = whole.len() as u64;
    let read = reader.read(name(1, false), object_bytes, 10..object_bytes).await.unwrap();
    assert_eq!(concat(&read), whole[10..]);
    assert_eq!(store.gets(), 0);
    assert_eq!(reader.snapshot().tail_hits, 1);
}

#[tokio::test]
async fn a_large_written_batch_is_read_as_the_memory_it_was_written_from() {
    let topic = TopicId::from_bytes([1; 16]);
    let mut builder = ObjectBuilder::new();
    for (partition, records) in [(0, 3), (1, 2000), (1, 2000), (2, 3)] {
        let partition = TopicPartition { topic, partition: PartitionIndex::new(partition) };
        let batch = TestBatch { records, value: vec![b'x'; 32], ..TestBatch::default() };
        builder.add(partition, validate_produced(batch.bytes(), 1 << 20).unwrap());
    }
    let object = builder.finish();
    let store = Arc::new(CountingStore::default());
    let reader = reader(&store);
    let insert = reader.insert_written(name(1, false), &object.body);
    let mut at = 0;
    for early in [true, false] {
        let place = object.positions[if early { 1 } else { 2 }].range;
        let range = place.start..place.end;
        // The first comes before the insert has run and does its work.
        let read = reader.read(name(1, false), object.object_bytes, range.clone()).await.unwrap();
        assert_eq!((read.len(), read[0].piece_bytes), (1, (range.end - range.start) as usize));
        let is_same = |piece: &&Bytes| piece.as_ptr() == read[0].bytes.as_ptr();
        let piece = object.body.iter().find(is_same).expect("no copy was made");
        assert!(64 << 10 <= piece.len());
        at += piece.len();
    }
    assert!(at as u64 <= reader.snapshot().tail_bytes);
    insert.await;
    assert_eq!(store.gets(), 0);
}

#[tokio::test]
async fn a_written_object_is_there_before_its_insert_has_run() {
    for catch_up in [false, true] {
        let store = Arc::new(CountingStore::default());
        let body = object();
        let whole = Bytes::from(body.concat());
        let reader = reader(&store);
        let insert = reader.insert_written(name(1, false), &body);
        let object_bytes = whole.len() as u64;
        let read = match catch_up {
            false => reader.read(name(1, false), object_bytes, 10..20).await,
            true => reader.read_catch_up(name(1, false), object_bytes, 10..20).await,
        };
        assert_eq!(concat(&read.unwrap()), whole[10..20]);
        insert.await;
        assert_eq!((store.gets(), reader.shared.flights.under_way()), (0, 0));
        assert_eq!(reader.snapshot().tail_bytes, reader.shared.tail.held_bytes());
        assert!(object_bytes <= reader.snapshot().tail_bytes);
    }
}

#[tokio::test]
async fn a_dropped_insert_leaves_the_object_to_the_store() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    store.put(&object_key(&name(1, false)), body.clone()).await.unwrap();
    let reader = reader(&store);
    drop(reader.insert_written(name(1, false), &body));
    let object_bytes = body.iter().map(Bytes::len).sum::<usize>() as u64;
    reader.read(name(1, false), object_bytes, 0..10).await.unwrap();
    assert_eq!(store.gets(), 1);
}

#[tokio::test]
async fn fetches_under_way_keep_to_their_bound_and_a_scan_does_not_delay_the_tail() {
    let store = Arc::new(CountingStore::default());
    let block_bytes = BLOCK_BYTES as usize;
    for seq in 1..=2 {
        let body = vec![Bytes::from(vec![seq as u8; block_bytes])];
        store.put(&object_key(&name(seq, true)), body).await.unwrap();
    }
    // Below one block: a single one is fetched all the same.
    let reader = reader(&store).with_flight_bytes(BLOCK_BYTES / 2);
    let mut first = Box::pin(reader.read_catch_up(name(1, true), BLOCK_BYTES, 0..1));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(reader.read_catch_up(name(2, true), BLOCK_BYTES, 0..1));
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(store.gets(), 1, "the second waits for the first");
    drop(second); // A read of the same block joins its flight, whatever it is for.
    reader.read(name(2, true), BLOCK_BYTES, 0..1).await.unwrap();
    assert_eq!(store.gets(), 2, "the tail has a bound of its own");
    assert_eq!(first.await.unwrap()[0].bytes[0], 1);
    assert_eq!(reader.shared.catch_up_flights.in_use(), 0);
}

#[tokio::test]
async fn a_read_across_blocks_is_whole_and_each_block_costs_one_get() {
    let store = Arc::new(CountingStore::default());
    let whole: Vec<u8> = (0..BLOCK_BYTES * 2 + 100).map(|at| (at % 251) as u8).collect();
    let whole = Bytes::from(whole);
    store.put(&object_key(&name(1, true)), vec![whole.clone()]).await.unwrap();
    let reader = reader(&store);
    let object_bytes = whole.len() as u64;
    for _ in 0..2 {
        let range = BLOCK_BYTES - 5..object_bytes;
        let read = reader.read(name(1, true), object_bytes, range).await.unwrap();
        assert_eq!(concat(&read), whole[BLOCK_BYTES as usize - 5..]);
        let lengths: Vec<usize> = read.iter().map(|slice| slice.bytes.len()).collect();
        assert_eq!(lengths, [5, BLOCK_BYTES as usize, 100], "no block is copied");
    }
    assert_eq!(store.gets(), 3);
}

#[tokio::test]
async fn damage_in_transit_is_healed_and_damage_in_the_store_is_told() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let object_bytes = body.iter().map(Bytes::len).sum::<usize>() as u64;
    store.put(&object_key(&name(1, false)), body).await.unwrap();
    store.damage(1);
    reader(&store).read(name(1, false), object_bytes, 0..10).await.unwrap();
    assert_eq!(store.gets(), 2);
    store.damage(2);
    let error = reader(&store).read(name(1, false), object_bytes, 0..10).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Corrupt);
}

#[tokio::test]
async fn a_forgotten_block_is_fetched_again() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let object_bytes = body.iter().map(Bytes::len).sum::<usize>() as u64;
    store.put(&object_key(&name(1, false)), body).await.unwrap();
    let (tail, history) = (LruCache::new(1 << 20), History::new(1 << 20));
    let reader = ObjectReader::new(store.clone(), Arc::new(tail), history);
    reader.read(name(1, false), object_bytes, 0..10).await.unwrap();
    reader.forget(name(1, false), object_bytes, 0..10).await;
    reader.read_catch_up(name(1, false), object_bytes, 0..10).await.unwrap();
    assert_eq!(store.gets(), 2);
    reader.forget(name(1, false), object_bytes, 0..10).await;
    reader.read_catch_up(name(1, false), object_bytes, 0..10).await.unwrap();
    assert_eq!(store.gets(), 3);
}

#[tokio::test]
async fn a_missing_object_is_told_as_such_and_not_remembered() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let object_bytes = body.iter().map(Bytes::len).sum::<usize>() as u64;
    let reader = reader(&store);
    let error = reader.read(name(1, false), object_bytes, 0..10).await.unwrap_err();
    assert!(error.is_not_found());
    store.put(&object_key(&name(1, false)), body).await.unwrap();
    reader.read(name(1, false), object_bytes, 0..10).await.unwrap();
}

#[tokio::test]
async fn a_range_outside_the_object_is_rejected() {
    let reader = reader(&Arc::new(CountingStore::default()));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what must be refused")]
    for range in [0..0, 5..4, 0..101, u64::MAX - 1..u64::MAX] {
        let error = reader.read(name(1, false), 100, range).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Rejected);
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_stop_the_others() {
    let store = Arc::new(CountingStore::default());
    let body = object();
    let object_bytes = body.iter().map(Bytes::len).sum::<usize>() as u64;
    store.put(&object_key(&name(1, false)), body).await.unwrap();
    let reader = reader(&store);
    let mut first = Box::pin(reader.read(name(1, false), object_bytes, 0..10));
    assert!((&mut first).now_or_never().is_none());
    let second = reader.read(name(1, false), object_bytes, 0..10);
    let (second, ()) = futures::join!(second, async { drop(first) });
    second.unwrap();
    assert_eq!(store.gets(), 1);
}

#[tokio::test]
async fn caches_keep_to_their_capacity_and_the_tail_keeps_the_newest() {
    let block = CachedBlock::from(Bytes::from(vec![0; 1 << 20]));
    let key = |seq| BlockKey { object: name(seq, false), block: 0 };
    let caches: [Box<dyn BlockCache>; 2] =
        [Box::new(MokaCache::tail(8 << 20)), Box::new(LruCache::new(8 << 20))];
    for cache in &caches {
        for seq in 0..100 {
            cache.insert(key(seq), block.clone()).await;
            assert!(cache.held_bytes() <= 8 << 20);
        }
        assert!(cache.get(&key(99)).await.is_some());
        assert!(cache.get(&key(0)).await.is_none());
    }
}
