//! Laws of partition log.

use super::*;

fn batch(object: u32, position: u32, record_count: u32) -> NewBatch {
    NewBatch {
        object: ObjectId(object),
        position,
        length: 100,
        record_count,
        max_timestamp: Timestamp::from_millis(i64::from(position)),
    }
}

fn at(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

/// A log of `count` rows of three records each, no two joined.
fn scattered(count: u32) -> PartitionLog {
    let mut log = PartitionLog::default();
    for object in 0..count {
        assert!(log.append(&batch(object, 0, 3)).unwrap().is_new_row);
    }
    log
}

#[test]
fn contiguous_batches_of_one_object_become_one_run() {
    let mut log = PartitionLog::default();
    let first = log.append(&batch(1, 0, 3)).unwrap();
    let second = log.append(&batch(1, 100, 4)).unwrap();
    assert_eq!((first.is_new_row, second.is_new_row), (true, false));
    assert_eq!((second.base, second.row), (at(3), at(0)));
    let rows: Vec<_> = log.rows().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].record_count, rows[0].length), (7, 200));
    assert_eq!(rows[0].max_timestamp, Timestamp::from_millis(100));
}

#[test]
fn a_hole_in_the_bytes_or_another_object_splits_the_run() {
    let mut log = PartitionLog::default();
    log.append(&batch(1, 0, 3)).unwrap();
    assert!(log.append(&batch(1, 200, 3)).unwrap().is_new_row);
    assert!(log.append(&batch(2, 300, 3)).unwrap().is_new_row);
    assert_eq!(log.rows().count(), 3);
    assert_eq!(log.high_watermark(), at(9));
}

#[test]
fn a_lookup_finds_the_row_that_holds_the_offset_across_tail_and_pages() {
    let log = scattered(2000);
    assert_eq!(log.pages().count(), 4);
    for offset in [0, 1, 2, 3, 1535, 1536, 4607, 5900, 5999] {
        let found = log.rows_from(at(offset)).next().unwrap();
        assert!(found.offsets().contains(at(offset)), "offset {offset}");
        let rest = log.rows_from(at(offset)).count() as i64;
        assert_eq!(rest, 2000 - offset / 3, "offset {offset}");
    }
    assert_eq!(log.rows_from(at(6000)).count(), 0);
}

#[test]
fn a_clone_does_not_see_later_appends() {
    let mut log = scattered(1000);
    let snapshot = log.clone();
    for object in 1000..3000 {
        log.append(&batch(object, 0, 3)).unwrap();
    }
    assert_eq!(snapshot, scattered(1000));
}

#[test]
fn the_window_is_the_last_rows_in_order() {
    let log = scattered(700);
    let window = log.last_rows(64);
    assert_eq!(window, log.rows().skip(700 - 64).collect::<Vec<_>>());
    assert_eq!(scattered(3).last_rows(64).len(), 3);
}

#[test]
fn exhausted_offsets_refuse_a_batch_and_change_nothing() {
    let mut log = PartitionLog::restored(at(i64::MAX - 2), at(i64::MAX - 2));
    assert!(log.append(&batch(1, 0, 3)).is_none());
    assert!(log.append(&batch(1, 0, 2)).is_some());
    assert_eq!(log.high_watermark(), at(i64::MAX));
}

/// The bases of all rows.
fn bases(log: &PartitionLog) -> Vec<i64> {
    log.rows().map(|row| row.base.value()).collect()
}

#[test]
fn rows_wholly_below_the_log_start_are_forgotten_and_a_cut_one_stays_whole() {
    for start in [0, 1, 3, 4, 47, 48, 49, 1536, 1538, 3071, 5900, 5952, 5999, 6000] {
        let mut log = scattered(2000);
        log.raise_log_start(at(start));
        let mut forgotten = Vec::new();
        while log.has_surplus() {
            let rows = log.forget_surplus();
            assert!((1..=PAGE_ROWS_MAX).contains(&rows.len()), "start {start}");
            forgotten.extend(rows);
        }
        assert_eq!(log.forget_surplus(), [], "start {start}");
        let kept: Vec<i64> = (0..2000).map(|n| n * 3).filter(|base| start < base + 3).collect();
        assert_eq!(bases(&log), kept, "start {start}");
        assert_eq!(forgotten.len() + kept.len(), 2000);
        assert_eq!(log.append(&batch(9999, 0, 3)).unwrap().base, at(6000));
        assert_eq!(log.rows_from(at(start)).count(), kept.len() + 1, "start {start}");
    }
}

#[test]
fn the_log_start_neither_falls_nor_passes_the_high_watermark() {
    let mut log = scattered(3);
    for (to, expected) in [(4, 4), (2, 4), (100, 9), (0, 9)] {
        log.raise_log_start(at(to));
        assert_eq!(log.log_start(), at(expected));
    }
}

#[test]
fn a_lookup_by_time_is_what_a_walk_over_all_rows_finds() {
    let time = |n: i64| (n * 7919) % 1009;
    let mut log = PartitionLog::default();
    for n in 0..1500_u32 {
        let max_timestamp = Timestamp::from_millis(time(n.into()));
        log.append(&NewBatch { max_timestamp, ..batch(n, 0, 3) }).unwrap();
    }
    for from in [0, 1, 3, 700, 1536, 4400, 4499, 4500] {
        let rows: Vec<_> = log.rows().filter(|row| at(from) < row.next()).collect();
        let newest = rows.iter().map(|row| row.max_timestamp).max();
        assert_eq!(log.newest_since(at(from)), newest, "from {from}");
        for oldest in [-1, 0, 500, 1007, 1008, 1009] {
            let oldest = Timestamp::from_millis(oldest);
            let expected = rows.iter().find(|row| oldest <= row.max_timestamp).copied();
            assert_eq!(log.first_since(at(from), oldest), expected, "{oldest} from {from}");
        }
    }
}
