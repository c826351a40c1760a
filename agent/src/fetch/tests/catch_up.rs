//! Laws of readers behind the tail.

use super::{super::testing::Shape, *};

/// One batch in each object, of this many records.
const SHAPE: Shape = (500, 32);
/// Its length, about.
const ROW_BYTES: usize = 20_000;

/// The world with a log of `rows` objects, of which the last are pushed.
async fn backlog(rows: u64) -> (World, ModelLog) {
    let world = world().await;
    let mut log = ModelLog::default();
    for seq in 0..rows {
        log.append(&*world.store, object_name(seq, false), (0, &[SHAPE])).await;
    }
    *world.metadata.log.lock().unwrap() = log.clone();
    let _watch = world.fetcher.view.watch(partition(1));
    settle().await;
    world.push(5, &log, log.runs[log.runs.len().saturating_sub(WINDOW_RUNS_MAX)..].to_vec()).await;
    (world, log)
}

impl World {
    fn gets(&self) -> u64 {
        self.store.gets.load(Ordering::SeqCst)
    }

    fn queries(&self) -> u64 {
        self.metadata.queries.load(Ordering::SeqCst)
    }

    /// Nothing happens, but metadata is not silent.
    async fn idle(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1)).await;
            self.applied(5).await;
        }
    }

    /// Reads one batch, which must come without any timer, and lets the background do its work.
    async fn read_on(
        &self,
        positions: &mut Positions,
        row: usize,
    ) -> Result<Vec<u8>, FetchRefused> {
        let wanted = Wanted { bytes_max: 1, ..at(row as i64 * i64::from(SHAPE.0)) };
        let answer = self.fetcher.fetch(positions, &[wanted], params()).await;
        settle().await;
        records(&answer)
    }
}

fn batch(log: &ModelLog, row: usize) -> Result<Vec<u8>, FetchRefused> {
    Ok(log.batches[row].bytes.clone())
}

#[tokio::test]
async fn a_backlog_costs_one_get_per_object_and_no_memory_once_it_is_read() {
    let (world, log) = backlog(200).await;
    let mut positions = world.fetcher.positions();
    for row in 0..log.batches.len() {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert_eq!(world.gets(), 200);
    assert_eq!(world.fetcher.reader.snapshot().tail_bytes, 0, "the tail is left to others");
    world.idle(30).await;
    assert_eq!(world.fetcher.reader.snapshot().history_bytes, 0);
    assert!(!world.fetcher.catch_up.is_swept(), "its task has ended");
}

#[tokio::test]
async fn a_reader_that_goes_on_finds_what_is_next_in_memory_and_a_single_look_costs_one_get() {
    let (world, _) = backlog(150).await;
    let mut positions = world.fetcher.positions();
    world.read_on(&mut positions, 0).await.unwrap();
    assert_eq!(world.gets(), 1);
    world.read_on(&mut positions, 1).await.unwrap();
    let window = (read_ahead::WINDOW_BYTES_MIN as usize).div_ceil(ROW_BYTES) as u64;
    assert!((1 + window..=2 + window).contains(&world.gets()), "{}", world.gets());
    let before = world.gets();
    for row in 90..93 {
        let mut elsewhere = world.fetcher.positions();
        world.read_on(&mut elsewhere, row).await.unwrap();
    }
    assert_eq!(world.gets(), before + 3, "nobody goes on");
}

#[tokio::test]
async fn a_seek_gives_back_what_was_held() {
    let (world, _) = backlog(150).await;
    let mut positions = world.fetcher.positions();
    for row in 0..4 {
        world.read_on(&mut positions, row).await.unwrap();
    }
    let held = || world.fetcher.reader.snapshot().held_bytes;
    assert!(20 * ROW_BYTES as u64 <= held());
    world.read_on(&mut positions, 60).await.unwrap();
    assert_eq!(held(), 0);
    drop(positions);
    assert_eq!(held(), 0);
}

#[tokio::test]
async fn a_connection_that_ends_or_stops_holds_nothing() {
    let (world, _) = backlog(150).await;
    let held = || world.fetcher.reader.snapshot().held_bytes;
    for ends in [true, false] {
        let mut positions = world.fetcher.positions();
        for row in 0..3 {
            world.read_on(&mut positions, row).await.unwrap();
        }
        assert!(0 < held());
        if ends {
            drop(positions);
            assert_eq!(held(), 0, "at once");
        } else {
            world.idle(30).await;
            assert_eq!(held(), 0);
            assert_eq!(world.fetcher.reader.snapshot().history_bytes, 0);
            world.read_on(&mut positions, 3).await.unwrap();
            assert!(0 < held(), "it goes on");
        }
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_what_only_the_next_one_needs() {
    let (world, log) = backlog(150).await;
    *world.store.stalled.lock().unwrap() = Some(object_key(&log.runs[5].object));
    let mut positions = world.fetcher.positions();
    for row in 0..5 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert!(10 < world.gets(), "nor does what lies behind it wait");
}

#[tokio::test]
async fn what_cannot_be_read_ahead_is_neither_told_nor_tried_again_before_it_is_needed() {
    let (world, log) = backlog(150).await;
    let key = object_key(&log.runs[9].object);
    let body = world.store.get(&key).await.unwrap();
    world.store.delete_many(vec![key.clone()]).await.unwrap();
    let mut positions = world.fetcher.positions();
    for row in 0..9 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert!(world.store.asked(&key) <= 1);
    world.store.put(&key, vec![body]).await.unwrap();
    for row in 9..20 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert_eq!(world.store.asked(&key), 2);
}

#[tokio::test]
async fn the_rows_of_one_answer_are_read_together() {
    for rows in [12, 150] {
        let (world, log) = backlog(rows).await;
        let wanted = Wanted { bytes_max: 10 * ROW_BYTES, ..at(0) };
        *world.store.stalled.lock().unwrap() = Some(object_key(&log.runs[0].object));
        let answer = world.start(wanted, params()).await;
        assert!(4 <= world.gets(), "the first stalls, and others are under way");
        drop(answer);
    }
}

#[tokio::test]
async fn older_rows_are_asked_for_before_they_are_needed() {
    let (world, log) = backlog(250).await;
    let mut positions = world.fetcher.positions();
    for row in 0..8 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert_eq!(world.queries(), 3, "0 to 64, 128 and 192: the last 64 are pushed");
    *world.metadata.log.lock().unwrap() = ModelLog::default();
    for row in 8..250 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row));
    }
    assert_eq!(world.queries(), 3);
}

#[tokio::test]
async fn rows_that_name_a_replaced_object_are_asked_for_again() {
    let (world, log) = backlog(150).await;
    let mut positions = world.fetcher.positions();
    world.read_on(&mut positions, 0).await.unwrap();
    let (runs, batches) = (log.runs[..30].to_vec(), log.batches[..30].to_vec());
    let mut merged = ModelLog { runs, batches };
    merged.append(&*world.store, object_name(900, true), (0, &[SHAPE; 8])).await;
    merged.runs.extend_from_slice(&log.runs[38..]);
    merged.batches = log.batches.clone();
    *world.metadata.log.lock().unwrap() = merged;
    let old: Vec<String> = log.runs[30..38].iter().map(|run| object_key(&run.object)).collect();
    world.store.delete_many(old).await.unwrap();
    for row in 1..70 {
        assert_eq!(world.read_on(&mut positions, row).await, batch(&log, row), "{row}");
    }
    assert!(world.queries() <= 4);
}
