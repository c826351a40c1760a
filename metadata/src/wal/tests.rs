//! Laws of the log, on a disk in memory and on a real one.

use std::sync::mpsc as std_mpsc;

use futures::executor::block_on;

use super::{
    disk::{FsDisk, memory::MemoryDisk},
    *,
};

const LAST: &str = "wal-00000000000000000000.log";

fn config(drive: Drive) -> WalConfig {
    let mut config = WalConfig::new("orders", 1, 42);
    config.segment_bytes = 16 * 1024;
    config.cache_bytes_max = 0;
    config.drive = drive;
    config
}

fn open(disk: &MemoryDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), &config(Drive::Inline))
}

fn entry(index: u64, bytes: usize) -> WalEntry {
    let id = LogId { term: 3, node_id: 1, index };
    WalEntry { id, payload: Bytes::from(vec![0xC3; bytes]) }
}

fn ignore() -> Callback {
    Box::new(|_| {})
}

fn append(wal: &Wal, index: u64, bytes: usize) -> Result<(), WalError> {
    block_on(wal.append(&[entry(index, bytes)], ignore())).map_err(|refused| refused.error)
}

/// A log of three small entries, each synced on its own, and a vote.
fn small_log() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (wal, recovered) = open(&disk).unwrap();
    assert!(recovered.is_new);
    block_on(wal.save_vote_synced(Vote { term: 3, node_id: 1, committed: true })).unwrap();
    for index in 0..3 {
        append(&wal, index, 100).unwrap();
    }
    disk
}

#[test]
fn a_reopened_log_holds_what_was_written() {
    let disk = small_log();
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.vote, Some(Vote { term: 3, node_id: 1, committed: true }));
    assert_eq!((recovered.entries, recovered.torn), (0..3, None));
    assert_eq!(wal.read(1..9, usize::MAX).unwrap(), vec![entry(1, 100), entry(2, 100)]);
    assert_eq!(wal.read(0..9, 0).unwrap(), vec![entry(0, 100)], "at least one entry");
    assert_eq!(wal.state().last, Some(entry(2, 0).id));
}

#[test]
fn every_flipped_bit_of_written_bytes_is_found_or_changes_nothing() {
    let disk = small_log();
    let bytes = disk.content(LAST);
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("written") + 1;
    let (_, intact) = open(&disk.fork()).unwrap();
    for at in 0..used {
        for bit in 0..8 {
            let damaged = disk.fork();
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            damaged.overwrite(LAST, bytes);
            match open(&damaged) {
                Err(WalError::Corrupt { .. } | WalError::NewerFormat { .. }) => {}
                // Only the padding between frames means nothing.
                Ok((_, recovered)) => assert_eq!(recovered, intact, "byte {at} bit {bit}"),
                Err(error) => panic!("byte {at} bit {bit}: {error}"),
            }
        }
    }
}

#[test]
fn half_a_record_at_the_end_is_cut_and_reported() {
    let disk = small_log();
    let whole = disk.content(LAST);
    let used = whole.iter().rposition(|byte| *byte != 0).expect("written") + 1;
    for missing in 1..=149 {
        let torn = disk.fork();
        let mut bytes = whole.clone();
        bytes[used - missing..].fill(0);
        torn.overwrite(LAST, bytes);
        let (wal, recovered) = open(&torn).unwrap();
        assert_eq!(recovered.entries, 0..2, "{missing} bytes missing");
        append(&wal, 2, 50).unwrap();
        drop(wal);
        assert_eq!(open(&torn).unwrap().1.entries, 0..3);
    }
}

#[test]
fn a_zeroed_record_with_a_later_one_is_damage() {
    let disk = small_log();
    let mut bytes = disk.content(LAST);
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("written") + 1;
    bytes[used - 250..used - 200].fill(0);
    disk.overwrite(LAST, bytes);
    let error = open(&disk).err().expect("refused");
    assert!(matches!(error, WalError::Corrupt { damage: Damage::Durable, .. }), "{error}");
    assert!(error.to_string().contains(LAST), "{error}");
}

#[test]
fn a_shortened_file_and_a_lost_segment_are_damage() {
    let disk = small_log();
    let mut bytes = disk.content(LAST);
    bytes.pop();
    disk.overwrite(LAST, bytes);
    assert!(matches!(open(&disk), Err(WalError::Corrupt { damage: Damage::Size, .. })));

    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).unwrap();
    (0..30).for_each(|index| append(&wal, index, 2000).unwrap());
    drop(wal);
    let names = disk.names().into_iter().filter(|name| name.ends_with(".log")).collect::<Vec<_>>();
    assert!(3 < names.len());
    for name in &names[..names.len() - 1] {
        let damaged = disk.fork();
        damaged.lose(name);
        let error = open(&damaged).err().expect("refused");
        assert!(matches!(error, WalError::Corrupt { damage: Damage::Missing, .. }), "{error}");
    }
}

#[test]
fn a_log_of_another_node_or_cluster_or_of_a_newer_version_is_refused() {
    let disk = small_log();
    let mut other = config(Drive::Inline);
    other.node_id = 2;
    let opened = Wal::open(Arc::new(disk.fork()), &other);
    assert!(matches!(opened, Err(WalError::Foreign { .. })));
    other = config(Drive::Inline);
    other.cluster_id = "payments".to_owned();
    let opened = Wal::open(Arc::new(disk.fork()), &other);
    assert!(matches!(opened, Err(WalError::Foreign { .. })));
    let mut bytes = disk.content(LAST);
    bytes[8] = 2;
    disk.overwrite(LAST, bytes);
    assert!(matches!(open(&disk), Err(WalError::NewerFormat { found: 2, supported: 1, .. })));
}

#[test]
fn a_full_disk_refuses_entries_whole_keeps_room_for_votes_and_heals() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).unwrap();
    disk.limit_bytes(Some(disk.used_bytes()));
    let mut next = 0;
    let error = loop {
        match append(&wal, next, 1000) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::DiskFull), "{error}");
    assert_eq!(wal.health(), WalHealth::DiskFull);
    assert_eq!(wal.entries(), 0..next);
    for term in 4..20 {
        block_on(wal.save_vote_synced(Vote { term, node_id: 2, committed: false })).unwrap();
    }
    assert_eq!(block_on(wal.retry_space()), WalHealth::DiskFull);
    disk.limit_bytes(None);
    assert_eq!(block_on(wal.retry_space()), WalHealth::Running);
    append(&wal, next, 1000).unwrap();
    drop(wal);
    let recovered = open(&disk).unwrap().1;
    assert_eq!(recovered.entries, 0..next + 1);
    assert_eq!(recovered.vote.map(|vote| vote.term), Some(19));
}

#[test]
fn entries_that_room_was_made_for_are_taken_by_a_full_disk() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).unwrap();
    let sizes = [1000, 5000, 3000, 900, 7000, 40, 6000];
    let mut next = 0;
    loop {
        disk.limit_bytes(None);
        block_on(wal.make_room(&sizes)).unwrap();
        disk.limit_bytes(Some(disk.used_bytes()));
        for bytes in sizes {
            append(&wal, next, bytes).unwrap();
            next += 1;
        }
        if 20 * sizes.len() as u64 <= next {
            break;
        }
    }
    while block_on(wal.make_room(&sizes)).is_ok() {
        append(&wal, next, 1000).unwrap();
        next += 1;
    }
    assert_eq!(wal.health(), WalHealth::DiskFull);
    assert_eq!(wal.entries(), 0..next);
}

fn committed(disk: &MemoryDisk) -> Option<u64> {
    open(&disk.fork()).unwrap().1.committed.map(|id| id.index)
}

#[test]
fn what_is_committed_is_written_beside_the_next_entry_and_costs_no_write() {
    let disk = small_log();
    let (wal, _) = open(&disk).unwrap();
    let before = disk.content(LAST);
    wal.save_committed(entry(1, 0).id).unwrap();
    wal.save_committed(entry(0, 0).id).unwrap(); // Known better already.
    wal.save_committed(entry(9, 0).id).unwrap(); // Not here.
    assert_eq!(wal.state().committed, Some(entry(1, 0).id));
    assert!(disk.content(LAST) == before, "a hint alone writes nothing");
    append(&wal, 3, 10).unwrap();
    assert_eq!(committed(&disk), Some(1));
    append(&wal, 4, 10).unwrap();
    let twice = disk.content(LAST);
    wal.save_committed(entry(1, 0).id).unwrap();
    append(&wal, 5, 10).unwrap();
    let [second, third] = [twice, disk.content(LAST)]
        .map(|bytes| bytes.iter().rposition(|byte| *byte != 0).expect("written"));
    let alone = frame::entry_frame_bytes(10);
    assert_eq!((third - second) as u64, alone, "a hint is written once");
}

#[test]
fn a_hint_that_no_entry_followed_is_written_by_a_flush_a_new_segment_and_a_clean_end() {
    let disk = small_log();
    let (wal, _) = open(&disk).unwrap();
    wal.save_committed(entry(0, 0).id).unwrap();
    assert_eq!(committed(&disk), None);
    block_on(wal.flush_hint()).unwrap();
    assert_eq!(committed(&disk), Some(0));

    let most = usize::try_from(wal.payload_bytes_max()).unwrap();
    wal.save_committed(entry(1, 0).id).unwrap();
    append(&wal, 3, most).unwrap(); // Fills a segment of its own, whose base says it.
    assert_eq!(committed(&disk), Some(1));

    let disk = small_log();
    let (wal, _) = Wal::open(Arc::new(disk.clone()), &config(Drive::Thread)).unwrap();
    wal.save_committed(entry(2, 0).id).unwrap();
    drop(wal);
    assert_eq!(committed(&disk), Some(2));
}

#[test]
fn a_hint_takes_no_room_of_the_entries_that_a_full_disk_still_has_room_for() {
    let is_taken = |bytes, hint| {
        let disk = MemoryDisk::default();
        let (wal, _) = open(&disk).unwrap();
        disk.limit_bytes(Some(disk.used_bytes()));
        append(&wal, 0, bytes).unwrap();
        if hint {
            wal.save_committed(entry(0, 0).id).unwrap();
        }
        // Both fill the segment but for some 140 bytes; a hint takes 56.
        block_on(wal.append(&[entry(1, 6720), entry(2, 6720)], ignore())).is_ok()
    };
    let taken = (0..200).filter(|bytes| is_taken(*bytes, true)).count();
    assert_eq!(taken, (0..200).filter(|bytes| is_taken(*bytes, false)).count());
    assert!(0 < taken && taken < 200, "{taken}");
}

#[test]
fn room_for_entries_is_made_with_room_for_the_hints_beside_them() {
    for bytes in 0..200 {
        let disk = MemoryDisk::default();
        let (wal, _) = open(&disk).unwrap();
        append(&wal, 0, bytes).unwrap();
        block_on(wal.make_room(&[6720, 6720])).unwrap();
        disk.limit_bytes(Some(disk.used_bytes()));
        wal.save_committed(entry(0, 0).id).unwrap();
        append(&wal, 1, 6720).unwrap();
        append(&wal, 2, 6720).unwrap_or_else(|error| panic!("behind {bytes} bytes: {error}"));
    }
}

#[test]
fn after_a_failed_fsync_everything_is_refused() {
    let disk = small_log();
    let (wal, _) = open(&disk).unwrap();
    disk.fail_after(Some(1)); // The write passes, its fsync fails.
    let vote = Vote { term: 9, node_id: 1, committed: false };
    let first = block_on(wal.save_vote_synced(vote));
    assert!(matches!(first, Err(WalError::Stopped { .. })));
    disk.fail_after(None);
    assert!(matches!(append(&wal, 3, 10), Err(WalError::Stopped { .. })));
    assert!(matches!(block_on(wal.barrier()), Err(WalError::Stopped { .. })));
    assert!(matches!(wal.read(0..3, 1), Err(WalError::Stopped { .. })));
    assert!(matches!(wal.health(), WalHealth::Stopped { .. }));
}

#[test]
fn an_entry_that_rotted_on_disk_is_not_returned_and_stops_the_log() {
    let disk = small_log();
    let (wal, _) = open(&disk).unwrap();
    let mut bytes = disk.content(LAST);
    let at = bytes.iter().rposition(|byte| *byte == 0xC3).expect("an entry");
    bytes[at] ^= 1;
    disk.overwrite(LAST, bytes);
    assert!(matches!(wal.read(0..3, usize::MAX), Err(WalError::Corrupt { .. })));
    assert!(matches!(wal.health(), WalHealth::Stopped { .. }));
}

#[test]
fn a_request_that_does_not_fit_the_log_is_rejected_without_effect() {
    let (wal, _) = open(&MemoryDisk::default()).unwrap();
    let rejected = |result| matches!(result, Err(WalError::Rejected(_)));
    assert!(rejected(append(&wal, 1, 1)), "a hole");
    (0..5).for_each(|index| append(&wal, index, 1).unwrap());
    assert!(rejected(append(&wal, 4, 1)), "an overwrite");
    assert!(rejected(append(&wal, u64::MAX, 1)), "the end of numbers");
    let most = usize::try_from(wal.payload_bytes_max()).unwrap();
    assert!(rejected(append(&wal, 5, most + 16)), "too large");
    append(&wal, 5, most).unwrap();
    wal.save_committed(entry(3, 0).id).unwrap();
    let cut = block_on(wal.truncate_after(Some(2), ignore())).map_err(|refused| refused.error);
    assert!(rejected(cut), "a committed entry");
    assert_eq!(wal.entries(), 0..6);
}

#[test]
fn purging_removes_segments_and_keeps_the_vote() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).unwrap();
    let vote = Vote { term: 3, node_id: 1, committed: true };
    block_on(wal.save_vote_synced(vote)).unwrap();
    (0..40).for_each(|index| append(&wal, index, 2000).unwrap());
    let before = disk.names().len();
    block_on(wal.purge(entry(35, 0).id, ignore())).unwrap();
    assert!(disk.names().len() + 3 < before, "{:?}", disk.names());
    drop(wal);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.entries, recovered.vote), (36..40, Some(vote)));
    assert_eq!(recovered.purged, Some(entry(35, 0).id));
}

#[test]
fn waiting_requests_share_one_fsync_and_their_callbacks_run_in_order() {
    let disk = MemoryDisk::default();
    let (wal, _) = Wal::open(Arc::new(disk.clone()), &config(Drive::Manual)).unwrap();
    let before = disk.sync_count();
    let (sender, order) = std_mpsc::channel();
    for index in 0..50 {
        let sender = sender.clone();
        let done: Callback = Box::new(move |result| sender.send((index, result.is_ok())).unwrap());
        block_on(wal.append(&[entry(index, 10)], done)).unwrap();
    }
    wal.run_waiting();
    assert_eq!(disk.sync_count(), before + 1);
    let ran = order.try_iter().collect::<Vec<_>>();
    assert_eq!(ran, (0..50).map(|index| (index, true)).collect::<Vec<_>>());
}

#[test]
fn the_writer_thread_serves_a_real_directory() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FsDisk::new(dir.path().join("raft"));
    let (wal, _) = Wal::open(Arc::new(disk.clone()), &config(Drive::Thread)).unwrap();
    for index in 0..200 {
        append(&wal, index, 500).unwrap();
    }
    block_on(wal.barrier()).unwrap();
    block_on(wal.purge(entry(99, 0).id, ignore())).unwrap();
    drop(wal);
    let (wal, recovered) = Wal::open(Arc::new(disk), &config(Drive::Thread)).unwrap();
    assert_eq!(recovered.entries, 100..200);
    assert_eq!(wal.read(100..200, usize::MAX).unwrap().len(), 100);
}
