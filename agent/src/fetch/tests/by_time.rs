//! Laws of looking a record up by its time, over the store and what metadata says of rows.

use aquifer_metadata::machine::query::TimeSpec;
use aquifer_storage::model::Timestamp;

use super::*;

const RECORD_MS: i64 = 1_000; // Of every record of a `ModelLog`.

const fn since(millis: i64) -> TimeSpec {
    TimeSpec::Since(Timestamp::from_millis(millis))
}

/// Three objects of one batch of three records; metadata says of each row how new it is.
async fn world_of(newest: [i64; 3]) -> World {
    let world = world().await;
    let mut log = ModelLog::default();
    for seq in 0..3 {
        log.append(&*world.store, object_name(seq, false), (1, &[(3, 5)])).await;
    }
    for (run, newest) in log.runs.iter_mut().zip(newest) {
        run.max_timestamp = Timestamp::from_millis(newest);
    }
    *world.metadata.log.lock().unwrap() = log;
    world
}

async fn found(world: &World, time: TimeSpec) -> Result<Option<(i64, i64)>, FetchRefused> {
    let (sender, mut receiver) = oneshot::channel();
    let fetcher = world.fetcher.clone();
    world.seams.spawn("find", async move {
        let found = fetcher.find_by_time(partition(1), time, Isolation::ReadUncommitted).await;
        let _ = sender.send(found);
    });
    settle().await;
    for _ in 0..10 {
        if let Ok(found) = receiver.try_recv() {
            return found.map(|found| found.map(|(at, time)| (at.value(), time.millis())));
        }
        world.clock.advance(Duration::from_millis(100)).await;
    }
    panic!("no answer");
}

#[tokio::test]
async fn a_row_that_exaggerates_is_passed_over_and_one_that_is_too_old_is_not_read() {
    let world = world_of([RECORD_MS - 1, 5_000, RECORD_MS]).await;
    assert_eq!(found(&world, since(RECORD_MS)).await, Ok(Some((3, RECORD_MS))));
    assert_eq!(world.store.gets.load(Ordering::SeqCst), 1);
    // The second row says that it has one; the third does not say so.
    assert_eq!(found(&world, since(RECORD_MS + 1)).await, Ok(None));
    assert_eq!(found(&world, since(5_001)).await, Ok(None));
}

#[tokio::test]
async fn the_newest_record_is_the_first_of_those_that_are_there() {
    let world = world_of([RECORD_MS, RECORD_MS, RECORD_MS]).await;
    assert_eq!(found(&world, TimeSpec::Newest).await, Ok(Some((0, RECORD_MS))));
    let world = world_of([RECORD_MS, 5_000, RECORD_MS]).await;
    assert_eq!(found(&world, TimeSpec::Newest).await, Ok(Some((3, RECORD_MS))));
}

#[tokio::test]
async fn an_object_that_is_not_there_is_looked_for_and_then_said_to_be_unavailable() {
    let world = world_of([RECORD_MS; 3]).await;
    let lost = object_key(&object_name(0, false));
    world.store.delete_many(vec![lost.clone()]).await.unwrap();
    assert_eq!(found(&world, since(0)).await, Err(FetchRefused::Unavailable));
    assert!(1 < world.store.asked(&lost));
}

#[tokio::test]
async fn a_partition_that_is_gone_is_unknown() {
    let world = world().await;
    assert_eq!(found(&world, TimeSpec::Newest).await, Err(FetchRefused::Unknown));
}
