//! Laws of reading: what is sent is what was written, at the offsets it was given, or an error.

use std::sync::{Arc, atomic::Ordering};

use aquifer_metadata::machine::effect::Run;
use aquifer_storage::{
    cache::{block::KEPT_PIECE_BYTES_MIN, plan::BLOCK_BYTES},
    format::{object_key::object_key, record_batch::split_batches},
    store::Store,
};
use proptest::prelude::*;

use super::*;
use crate::fetch::{
    plan::{PartitionInput, plan_partition, share_bytes},
    testing::{
        CountingStore, ModelLog, Shape, joined, object_name, object_reader, offset, pointers,
    },
};

async fn log(store: &CountingStore, objects: &[(u32, Vec<Shape>)], merged: bool) -> ModelLog {
    let mut log = ModelLog::default();
    for (seq, (padding, shapes)) in objects.iter().enumerate() {
        log.append(store, object_name(seq as u64, merged), (*padding, shapes)).await;
    }
    log
}

fn plan(log: &ModelLog, from: i64, bytes_max: usize) -> PartitionPlan {
    let (offset, bound) = (offset(from), offset(log.end()));
    let runs = &log.runs;
    plan_partition(&PartitionInput { offset, bytes_max, runs, rows_follow: false, bound })
}

async fn read_all(reader: &ObjectReader, log: &ModelLog, from: i64) -> Result<Cutting, ReadFailed> {
    read(reader, &plan(log, from, usize::MAX), &pointers(0, log.end()), true, None).await
}

fn sent(cutting: &Cutting) -> Vec<u8> {
    cutting.chunks.concat()
}

#[tokio::test]
async fn batches_get_their_offsets_and_epoch_over_several_objects() {
    for merged in [false, true] {
        let store = Arc::new(CountingStore::default());
        let shapes = |count| vec![(3, 5), (1, 0), (count, 32)];
        let log = log(&store, &[(1, shapes(2)), (0, shapes(7)), (4, shapes(1))], merged).await;
        let reader = object_reader(store);
        for from in 0..log.end() {
            let cutting = read_all(&reader, &log, from).await.unwrap();
            let expected = log.from(from, log.end());
            assert_eq!(sent(&cutting), joined(&expected), "from {from}");
            assert_eq!(cutting.bytes, joined(&expected).len());
            assert!(expected[0].base <= from && from < expected[0].next);
        }
    }
}

#[tokio::test]
async fn a_row_whose_batches_do_not_end_where_it_ends_is_damage_and_no_hole() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(0, vec![(3, 5), (2, 5)]), (0, vec![(4, 5)])], false).await;
    let reader = object_reader(store);
    let corrupt = ReadFailed::Refused(FetchRefused::Corrupt);
    // Either metadata's row takes one offset more or one less than its batches.
    for next in [4, 6] {
        let mut wrong = log.clone();
        wrong.runs[0].offsets.next = offset(next);
        assert_eq!(read_all(&reader, &wrong, 0).await.unwrap_err(), corrupt, "{next}");
    }
    // The row's bytes begin inside a batch, or end there, or lie outside the object.
    for (position, length) in [(1, 0), (0, -1), (0, 1), (1 << 20, 0)] {
        let mut wrong = log.clone();
        let run = &mut wrong.runs[0];
        run.position += position;
        run.length = (i64::from(run.length) + length) as u32;
        assert_eq!(read_all(&reader, &wrong, 0).await.unwrap_err(), corrupt);
    }
    assert!(read_all(&reader, &log, 0).await.is_ok());
}

#[tokio::test]
async fn final_offsets_that_overlap_or_leave_their_row_are_damage() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(0, vec![(3, 5), (2, 5)])], true).await;
    let reader = object_reader(store);
    let corrupt = ReadFailed::Refused(FetchRefused::Corrupt);
    for (base, next) in [(1, 5), (0, 4)] {
        let mut wrong = log.clone();
        wrong.runs[0].offsets =
            aquifer_storage::model::OffsetRange { base: offset(base), next: offset(next) };
        let read = read_all(&reader, &wrong, base).await;
        assert_eq!(read.unwrap_err(), corrupt, "{base}..{next}");
    }
    // After a compaction fewer offsets are there than the row covers: that is a hole.
    let mut compacted = log.clone();
    compacted.runs[0].offsets.next = offset(9);
    assert_eq!(sent(&read_all(&reader, &compacted, 0).await.unwrap()), joined(&log.batches));
}

#[tokio::test]
async fn damage_in_transit_is_fetched_again_and_damage_in_the_bucket_is_not_kept() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(1, vec![(3, 5), (2, 5)])], true).await;
    let run: &Run = &log.runs[0];
    store.damage_at.store(u64::from(run.position) + 70, Ordering::SeqCst);
    let reader = object_reader(store.clone());
    store.damage.store(1, Ordering::SeqCst);
    let cutting = read_all(&reader, &log, 0).await.unwrap();
    assert_eq!(sent(&cutting), joined(&log.batches));
    assert_eq!(store.gets.load(Ordering::SeqCst), 2);
    let reader = object_reader(store.clone());
    store.damage.store(2, Ordering::SeqCst);
    let corrupt = ReadFailed::Refused(FetchRefused::Corrupt);
    assert_eq!(read_all(&reader, &log, 0).await.unwrap_err(), corrupt);
    assert_eq!(sent(&read_all(&reader, &log, 0).await.unwrap()), joined(&log.batches));
}

#[tokio::test]
async fn a_missing_object_is_named_and_what_was_read_before_it_is_sent() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(0, vec![(3, 5)]), (0, vec![(4, 5)])], false).await;
    store.delete_many(vec![object_key(&object_name(1, false))]).await.unwrap();
    let reader = object_reader(store);
    let cutting = read_all(&reader, &log, 0).await.unwrap();
    assert_eq!((sent(&cutting), cutting.rows), (joined(&log.batches[..1]), 1));
    let missing = ReadFailed::Missing(object_name(1, false));
    assert_eq!(read_all(&reader, &log, 3).await.unwrap_err(), missing);
}

#[tokio::test]
async fn a_small_part_of_a_block_is_copied_and_a_large_one_counts_as_the_block() {
    let store = Arc::new(CountingStore::default());
    let large: Shape = (200, 32);
    let log = log(&store, &[(100, vec![large; 2]), (0, vec![large; 2])], false).await;
    let reader = object_reader(store);
    for (row, is_copied) in [(0, true), (1, false)] {
        let run = log.runs[row];
        let plan = plan(&log, run.offsets.base.value(), run.length as usize);
        let cutting = read(&reader, &plan, &pointers(0, log.end()), true, None).await.unwrap();
        let whole = reader.read(run.object, run.object_bytes, 0..run.object_bytes).await.unwrap();
        let block = &whole[0].bytes;
        let block = block.as_ptr() as usize..block.as_ptr() as usize + block.len();
        let kept = cutting.chunks.iter().any(|chunk| block.contains(&(chunk.as_ptr() as usize)));
        assert_eq!(kept, !is_copied);
        let held = if is_copied { u64::from(run.length) } else { run.object_bytes };
        assert_eq!(cutting.held_bytes, held);
        assert!(cutting.held_bytes <= plan.held_bytes_max());
    }
}

/// The pieces of a written object: its batches and its footer.
async fn body_of(store: &CountingStore, object: ObjectName) -> Vec<Bytes> {
    let whole = store.get(&object_key(&object)).await.unwrap();
    let mut body: Vec<Bytes> =
        split_batches(whole.clone()).map_while(Result::ok).map(|batch| batch.bytes).collect();
    let batches: usize = body.iter().map(Bytes::len).sum();
    body.push(whole.slice(batches..));
    body
}

fn is_inside(chunk: &Bytes, of: &Bytes) -> bool {
    let start = of.as_ptr() as usize;
    (start..start + of.len()).contains(&(chunk.as_ptr() as usize))
}

#[tokio::test]
async fn a_large_batch_is_sent_from_the_memory_it_was_produced_in_and_counts_as_itself() {
    let store = Arc::new(CountingStore::default());
    let (large, small): (Shape, Shape) = ((2000, 32), (3, 5));
    // Behind other partitions' batches, so that the row is less than a quarter of its object.
    let log = log(&store, &[(1200, vec![large, small, large, small])], false).await;
    let body = body_of(&store, log.runs[0].object).await;
    assert!(u64::from(log.runs[0].length) * 4 < log.runs[0].object_bytes);
    let reader = object_reader(store.clone());
    reader.insert_written(log.runs[0].object, &body).await;
    let plan = plan(&log, 0, usize::MAX);
    let cutting = read(&reader, &plan, &pointers(0, log.end()), true, None).await.unwrap();
    assert_eq!(sent(&cutting), joined(&log.batches));
    for piece in &body {
        let shared = cutting.chunks.iter().filter(|chunk| is_inside(chunk, piece)).count();
        assert_eq!(shared, usize::from(KEPT_PIECE_BYTES_MIN <= piece.len()));
    }
    assert_eq!(cutting.held_bytes, u64::from(log.runs[0].length));
    assert_eq!(cutting.held_bytes, plan.held_bytes_max());
    assert_eq!(store.gets.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_a_row_over_two_blocks_only_the_batch_at_their_border_is_copied() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(0, vec![(20_000, 32); 14])], true).await;
    let run = log.runs[0];
    assert!(BLOCK_BYTES < u64::from(run.length));
    let reader = object_reader(store.clone());
    let plan = plan(&log, 0, usize::MAX);
    let cutting = read(&reader, &plan, &pointers(0, log.end()), true, None).await.unwrap();
    assert!(sent(&cutting) == joined(&log.batches));
    let blocks = reader.read(run.object, run.object_bytes, 0..run.object_bytes).await.unwrap();
    assert_eq!((blocks.len(), store.gets.load(Ordering::SeqCst)), (2, 2));
    // Of each batch the header is patched, the rest is a slice.
    let bodies = cutting.chunks.iter().filter(|chunk| 61 < chunk.len());
    let (shared, copied): (Vec<&Bytes>, Vec<&Bytes>) =
        bodies.partition(|chunk| blocks.iter().any(|block| is_inside(chunk, &block.bytes)));
    assert_eq!((shared.len(), copied.len()), (13, 1));
    let joined_bytes = copied[0].len() as u64 + 61;
    assert_eq!(cutting.held_bytes, run.object_bytes + joined_bytes);
    assert!(cutting.held_bytes <= plan.held_bytes_max());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn written_objects_give_what_was_written_within_the_memory_of_the_plan(
        objects in prop::collection::vec(
            (0_u32..300, prop::collection::vec(prop_oneof![
                (1_u32..6, 0_usize..32), (20_u32..100, Just(32)), (300_u32..900, Just(32)),
            ], 1..20)),
            1..3,
        ),
        from in any::<prop::sample::Index>(),
        bytes_max in prop_oneof![Just(usize::MAX), 0_usize..200_000],
        merged: bool,
    ) {
        futures::executor::block_on(async {
            let store = Arc::new(CountingStore::default());
            let log = log(&store, &objects, merged).await;
            let reader = object_reader(store.clone());
            let mut small = Vec::new();
            for run in &log.runs {
                let body = body_of(&store, run.object).await;
                reader.insert_written(run.object, &body).await;
                small.extend(body.into_iter().filter(|piece| piece.len() < KEPT_PIECE_BYTES_MIN));
            }
            let from = from.index(log.end() as usize) as i64;
            let plan = plan(&log, from, bytes_max);
            let cutting = read(&reader, &plan, &pointers(0, log.end()), true, None).await.unwrap();
            let all = log.from(from, log.end());
            let sent = sent(&cutting);
            let count = (1..=all.len()).find(|count| joined(&all[..*count]) == sent);
            let count = count.expect("whole batches from the offset on");
            prop_assert!(bytes_max < usize::MAX || count == all.len());
            prop_assert!(count == 1 || sent.len() <= bytes_max);
            prop_assert_eq!(cutting.bytes, sent.len());
            prop_assert!(sent.len() as u64 <= cutting.held_bytes);
            prop_assert!(cutting.held_bytes <= plan.held_bytes_max());
            let pinned = |chunk: &Bytes| small.iter().any(|piece| is_inside(chunk, piece));
            prop_assert!(!cutting.chunks.iter().any(pinned), "no small batch keeps its frame");
            prop_assert_eq!(store.gets.load(Ordering::SeqCst), 0);
            Ok(())
        })?;
    }
}

/// A partition of the property below: its objects, where the reader is, and its limit.
type Asked = (Vec<(u32, Vec<Shape>)>, prop::sample::Index, usize);

fn asked() -> impl Strategy<Value = Asked> {
    let shape = (1_u32..6, 0_usize..32);
    let object = (0_u32..3, prop::collection::vec(shape, 1..5));
    (prop::collection::vec(object, 1..5), any::<prop::sample::Index>(), 0_usize..2000)
}

proptest! {
    #[test]
    fn an_answer_is_what_a_walk_over_all_batches_gives(
        partitions in prop::collection::vec(asked(), 1..4),
        bytes_max in 0_usize..4000,
        merged: bool,
    ) {
        futures::executor::block_on(async {
            let (mut logs, mut plans) = (Vec::new(), Vec::new());
            for (objects, from, partition_bytes_max) in &partitions {
                let store = Arc::new(CountingStore::default());
                let log = log(&store, objects, merged).await;
                let from = from.index(log.end() as usize + 1) as i64;
                plans.push(plan(&log, from, *partition_bytes_max));
                logs.push((object_reader(store), log, from));
            }
            let first = share_bytes(&mut plans, bytes_max);
            let (mut total, mut first_batch) = (0, 0);
            for (place, (plan, (reader, log, from))) in plans.iter().zip(&logs).enumerate() {
                let is_first = first == Some(place);
                let pointers = pointers(0, log.end());
                let cutting = read(reader, plan, &pointers, is_first, None).await.unwrap();
                prop_assert!(cutting.held_bytes <= plan.held_bytes_max());
                let all = log.from(*from, log.end());
                let partition_bytes_max = partitions[place].2;
                // The batches that fit, from the one that holds the offset on; the first
                // partition with data gives one whatever the limits.
                let mut sum = 0;
                let fits = all.iter().take_while(|batch| {
                    sum += batch.bytes.len();
                    sum <= partition_bytes_max.min(bytes_max)
                });
                let (fits, least) = (fits.count(), usize::from(is_first && !all.is_empty()));
                let count = (0..=all.len()).find(|count| joined(&all[..*count]) == sent(&cutting));
                let count = count.expect("whole batches from the offset on");
                prop_assert!(count <= fits.max(least), "{} of {}", count, fits);
                prop_assert!(least <= count);
                if is_first && log.runs.iter().any(|run| run.offsets.base.value() == *from) {
                    prop_assert_eq!(count, fits.max(least), "from a row's base nothing is left out");
                }
                if is_first {
                    first_batch = all.first().map_or(0, |batch| batch.bytes.len());
                    prop_assert!(!all.is_empty());
                } else if first.is_none_or(|first| place < first) {
                    prop_assert!(all.is_empty(), "the first with data gives something");
                }
                total += cutting.bytes;
            }
            prop_assert!(total <= first_batch + bytes_max);
            if first_batch <= bytes_max.min(first.map_or(0, |first| partitions[first].2)) {
                prop_assert!(total <= bytes_max);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_answer_that_goes_on_within_a_row_is_what_a_walk_from_its_start_gives() {
    for merged in [false, true] {
        let store = Arc::new(CountingStore::default());
        let shapes: Vec<Shape> = (0..30).map(|n| (1 + n % 4, 1 + n as usize)).collect();
        let log = log(&store, &[(2, shapes.clone()), (0, shapes)], merged).await;
        let reader = object_reader(store);
        read_all(&reader, &log, 0).await.unwrap();
        let pointers = pointers(0, log.end());
        let (mut from, mut place, mut inside) = (0, None, 0);
        while from < log.end() {
            let mut plan = plan(&log, from, 300);
            plan.place = place;
            let cutting = read_cached(&reader, &plan, &pointers, true).expect("it is in memory");
            plan.place = None;
            let walked = read(&reader, &plan, &pointers, true, None).await.unwrap();
            assert_eq!(sent(&cutting), sent(&walked));
            assert_eq!((cutting.next, cutting.place), (walked.next, walked.place));
            inside += u32::from(place.is_some());
            (from, place) = (cutting.next.unwrap().value(), cutting.place);
        }
        assert!(10 < inside, "most answers begin inside a row");
    }
}

#[tokio::test]
async fn what_a_place_leaves_out_is_not_looked_at() {
    let store = Arc::new(CountingStore::default());
    let log = log(&store, &[(0, vec![(1, 30); 20])], false).await;
    let reader = object_reader(store.clone());
    let mut first = plan(&log, 0, 600);
    let pointers = pointers(0, log.end());
    let cutting = read(&reader, &first, &pointers, true, None).await.unwrap();
    let next = cutting.next.unwrap().value();
    // Another reader's cache has damage in front of the place; a whole object is checked once.
    let run = log.runs[0];
    let mut body = store.get(&object_key(&run.object)).await.unwrap().to_vec();
    body[run.position as usize + 16] ^= 1; // The magic of the first batch.
    let damaged = object_reader(store);
    damaged.insert_written(run.object, &[Bytes::from(body)]).await;
    assert!(read_cached(&damaged, &first, &pointers, true).is_none());
    first = plan(&log, next, 600);
    assert!(read_cached(&damaged, &first, &pointers, true).is_none());
    first.place = cutting.place;
    let cutting = read_cached(&damaged, &first, &pointers, true).expect("it begins behind it");
    assert!(joined(&log.from(next, log.end())).starts_with(&sent(&cutting)));
}
