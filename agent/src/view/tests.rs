//! Laws of view.

use aquifer_metadata::{
    machine::effect::{Pointers, Run},
    watch::{WINDOW_RUNS_MAX, WatchEvent},
};
use aquifer_storage::{
    model::{
        LeaderEpoch, Lineage, ObjectName, ObjectSeq, Offset, OffsetRange, PartitionIndex,
        SessionId, Timestamp,
    },
    seam::system,
};
use futures::FutureExt;
use tokio::sync::mpsc;

use super::{
    window::{Advance, Merge, merge_advance, merge_state},
    *,
};
use crate::produce::testing::{ModelMetadata, WatchEnd};

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex::new(0) }
}

fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

/// A row over `[base, next)`.
fn run(base: i64, next: i64) -> Run {
    let lineage = Lineage { number: 1, nonce: 1 };
    let (session, seq) = (SessionId::new(1), ObjectSeq::new(0));
    Run {
        offsets: OffsetRange { base: offset(base), next: offset(next) },
        object: ObjectName { lineage, session, seq, merged: false },
        object_bytes: 100,
        position: 0,
        length: 10,
        max_timestamp: Timestamp::NONE,
        offsets_final: false,
    }
}

fn pointers(log_start: i64, high_watermark: i64) -> Pointers {
    Pointers {
        log_start: offset(log_start),
        last_stable: offset(high_watermark),
        high_watermark: offset(high_watermark),
        leader_epoch: LeaderEpoch::new(1),
    }
}

fn state(index: u64, runs: Vec<Run>, high_watermark: i64) -> PartitionState {
    let index = LogIndex::new(index);
    PartitionState { partition: partition(), index, runs, pointers: pointers(0, high_watermark) }
}

fn known(state: PartitionState) -> PartitionSnapshot {
    PartitionSnapshot::Known(Arc::new(state))
}

fn advance(from_index: u64, index: u64, runs: Vec<Run>) -> Advance {
    let from = runs[0].offsets.base;
    let high_watermark = runs[runs.len() - 1].offsets.next.value();
    Advance {
        from_index: LogIndex::new(from_index),
        index: LogIndex::new(index),
        from,
        runs,
        pointers: pointers(0, high_watermark),
    }
}

#[test]
fn an_advance_that_begins_behind_the_end_of_the_log_shows_that_another_was_missed() {
    let held = known(state(5, vec![run(0, 5)], 5));
    assert_eq!(merge_advance(&held, advance(5, 6, vec![run(6, 8)])), Merge::Resync);
}

#[test]
fn an_advance_replaces_the_rows_from_its_base_on() {
    let held = known(state(5, vec![run(0, 3), run(3, 5)], 5));
    let merged = merge_advance(&held, advance(5, 6, vec![run(3, 8), run(8, 9)]));
    let expected = state(6, vec![run(0, 3), run(3, 8), run(8, 9)], 9);
    assert_eq!(merged, Merge::Replace(known(expected)));
}

#[test]
fn rows_wholly_below_a_raised_log_start_are_shown_no_more() {
    let held = known(state(5, vec![run(0, 3), run(3, 5), run(5, 9)], 9));
    let raised = |log_start, from, runs| Advance {
        from: offset(from),
        pointers: pointers(log_start, 9),
        runs,
        ..advance(5, 6, vec![run(0, 9)])
    };
    let shown = |log_start, runs| {
        let state = PartitionState { pointers: pointers(log_start, 9), ..state(6, runs, 9) };
        Merge::Replace(known(state))
    };
    let cut = vec![run(3, 5), run(5, 9)];
    assert_eq!(merge_advance(&held, raised(4, 9, Vec::new())), shown(4, cut));
    assert_eq!(merge_advance(&held, raised(9, 9, Vec::new())), shown(9, Vec::new()));
    // Deleted by the entry that brought them.
    let brought = vec![run(3, 5), run(5, 9)];
    assert_eq!(merge_advance(&held, raised(5, 3, brought)), shown(5, vec![run(5, 9)]));
}

#[test]
fn a_gap_is_answered_by_watching_again() {
    let held = known(state(5, vec![run(0, 3)], 3));
    assert_eq!(merge_advance(&held, advance(6, 7, vec![run(3, 4)])), Merge::Resync);
}

#[test]
fn old_news_changes_nothing() {
    let held = known(state(5, vec![run(0, 3)], 3));
    assert_eq!(merge_advance(&held, advance(3, 5, vec![run(0, 3)])), Merge::Keep);
    assert_eq!(merge_state(&held, state(4, vec![run(0, 2)], 2)), Merge::Keep);
    assert_eq!(merge_state(&held, state(6, vec![run(0, 2)], 2)), Merge::Keep);
}

#[test]
fn a_window_keeps_the_last_rows_only() {
    let mut held = known(state(0, vec![], 0));
    for index in 1..200 {
        let base = index as i64 - 1;
        match merge_advance(&held, advance(index - 1, index, vec![run(base, base + 1)])) {
            Merge::Replace(snapshot) => held = snapshot,
            other => panic!("{other:?}"),
        }
    }
    let PartitionSnapshot::Known(state) = held else { panic!("it was known before") };
    assert_eq!(state.runs.len(), WINDOW_RUNS_MAX);
    assert_eq!(state.runs.last(), Some(&run(198, 199)));
}

fn view() -> (View, Arc<ModelMetadata>, mpsc::Receiver<WatchEnd>) {
    let seams = system::seams();
    let (metadata, opened) = ModelMetadata::new(seams.clone());
    let (view, service) = View::new(metadata.clone(), seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    (view, metadata, opened)
}

fn topic(byte: u8, name: &str) -> Arc<CatalogTopic> {
    Arc::new(CatalogTopic {
        id: TopicId::from_bytes([byte; 16]),
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::new(),
    })
}

#[tokio::test]
async fn the_catalog_is_complete_and_follows_its_deltas() {
    let (view, _, mut opened) = view();
    let end = opened.recv().await.unwrap();
    end.events.send(WatchEvent::Catalog(Arc::default())).await.unwrap();
    view.ready().await;
    assert_eq!(view.topic_by_name("a"), None);
    end.events.send(WatchEvent::Topic(topic(1, "a"))).await.unwrap();
    end.events.send(WatchEvent::Topic(topic(2, "b"))).await.unwrap();
    end.events.send(WatchEvent::TopicGone(TopicId::from_bytes([2; 16]))).await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(9))).await.unwrap();
    view.wait_applied(LogIndex::new(9)).await;
    assert_eq!(view.topic_by_name("a"), Some(topic(1, "a")));
    assert_eq!(view.topic_by_name("b"), None);
}

#[tokio::test]
async fn a_new_stream_is_asked_for_everything_watched_and_never_goes_back() {
    let (view, _, mut opened) = view();
    let mut end = opened.recv().await.unwrap();
    let mut watch = view.watch(partition());
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    let told = state(7, vec![run(0, 3)], 3);
    end.events.send(WatchEvent::PartitionState(told.clone())).await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(7))).await.unwrap();
    assert_eq!(watch.known().await.as_deref(), Some(&told));
    view.wait_applied(LogIndex::new(7)).await;
    drop(end);
    let mut end = opened.recv().await.unwrap();
    assert_eq!(end.seen, LogIndex::new(7));
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    let older = WatchEvent::PartitionState(state(6, vec![run(0, 2)], 2));
    end.events.send(older).await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(8))).await.unwrap();
    view.wait_applied(LogIndex::new(8)).await;
    assert_eq!(watch.current(), known(told));
}

#[tokio::test]
async fn after_a_reconnect_nothing_is_applied_before_every_partition_was_told_again() {
    let (view, _, mut opened) = view();
    let end = opened.recv().await.unwrap();
    let watch = view.watch(partition());
    let told = WatchEvent::PartitionState(state(7, vec![run(0, 3)], 3));
    end.events.send(told).await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(7))).await.unwrap();
    view.wait_applied(LogIndex::new(7)).await;
    drop(end);
    let mut end = opened.recv().await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(20))).await.unwrap();
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    testing::settle().await;
    assert_eq!(view.applied(), LogIndex::new(7), "the partition shows index 7");
    let told = state(19, vec![run(0, 3), run(3, 9)], 9);
    end.events.send(WatchEvent::PartitionState(told.clone())).await.unwrap();
    view.wait_applied(LogIndex::new(20)).await;
    assert_eq!(watch.current(), known(told));
}

#[tokio::test]
async fn a_gap_holds_the_applied_index_until_it_is_closed() {
    let (view, _, mut opened) = view();
    let mut end = opened.recv().await.unwrap();
    let _watch = view.watch(partition());
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    let told = WatchEvent::PartitionState(state(5, vec![run(0, 3)], 3));
    end.events.send(told).await.unwrap();
    let Advance { from_index, index, from, runs, pointers } = advance(6, 7, vec![run(3, 4)]);
    let gap = WatchEvent::PartitionAdvanced {
        partition: partition(),
        from_index,
        index,
        from,
        runs,
        pointers,
    };
    end.events.send(gap).await.unwrap();
    end.events.send(WatchEvent::Applied(LogIndex::new(7))).await.unwrap();
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    testing::settle().await;
    assert_eq!(view.applied(), LogIndex::default());
    let told = WatchEvent::PartitionState(state(8, vec![run(0, 3), run(3, 5)], 5));
    end.events.send(told).await.unwrap();
    view.wait_applied(LogIndex::new(7)).await;
}

#[tokio::test]
async fn a_partition_nobody_watches_any_more_holds_nothing_back() {
    let (clock, seams) = testing::manual_seams();
    let (metadata, mut opened) = ModelMetadata::new(seams.clone());
    let (view, service) = View::new(metadata, seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let end = opened.recv().await.unwrap();
    let watch = view.watch(partition());
    let told = WatchEvent::PartitionState(state(7, vec![run(0, 3)], 3));
    end.events.send(told).await.unwrap();
    testing::settle().await;
    drop((watch, end));
    testing::settle().await;
    clock.advance(Duration::from_secs(10)).await; // The pause before it reconnects.
    let end = opened.recv().await.unwrap();
    for second in 0..70 {
        clock.advance(Duration::from_secs(1)).await;
        end.events.send(WatchEvent::Applied(LogIndex::new(8 + second))).await.unwrap();
        testing::settle().await;
    }
    assert_eq!(view.applied(), LogIndex::new(77), "it was swept");
}

#[tokio::test]
async fn a_view_that_does_not_catch_up_says_so_in_time() {
    let (clock, seams) = testing::manual_seams();
    let (metadata, mut opened) = ModelMetadata::new(seams.clone());
    let (view, service) = View::new(metadata, seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let _end = opened.recv().await.unwrap();
    let fresh = async { view.fresh().await.is_err() };
    let advance = async {
        testing::settle().await;
        clock.advance(FRESH_MAX).await;
    };
    assert!(tokio::join!(fresh, advance).0);
}

#[test]
fn an_agent_on_a_slow_clock_notices_before_a_leader_on_a_fast_one_fences_it() {
    let noticed = SILENT_AFTER.as_secs_f64() / 0.9;
    let fenced = aquifer_metadata::client::FENCED_AFTER.as_secs_f64() / 1.1;
    assert!(noticed < fenced, "{noticed} s and {fenced} s");
}

#[tokio::test]
async fn metadata_is_silent_when_the_stream_said_nothing_for_twelve_seconds() {
    let (clock, seams) = testing::manual_seams();
    let (metadata, mut opened) = ModelMetadata::new(seams.clone());
    let (view, service) = View::new(metadata, seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let mut end = opened.recv().await.unwrap();
    let silent = view.silent().shared();
    for _ in 0..20 {
        end.events.send(WatchEvent::Applied(LogIndex::new(1))).await.unwrap();
        testing::settle().await;
        clock.advance(Duration::from_secs(2)).await;
        assert!(silent.clone().now_or_never().is_none());
    }
    for _ in 0..6 {
        clock.advance(Duration::from_secs(2)).await;
        if let Ok(another) = opened.try_recv() {
            end = another; // A silent stream is given up and opened again: that is no answer.
        }
    }
    drop(end);
    assert!(silent.now_or_never().is_some());
}

#[tokio::test]
async fn a_group_watch_wakes_when_the_version_passes() {
    let (view, _, mut opened) = view();
    let mut end = opened.recv().await.unwrap();
    let mut watch = view.watch_group("g");
    assert_eq!(end.requests.recv().await, Some(WatchRequest::WatchGroup("g".to_owned())));
    for version in [3, 4] {
        let event = WatchEvent::Group { group: "g".to_owned(), version };
        end.events.send(event).await.unwrap();
    }
    assert_eq!(watch.passed(3).await, 4);
}

#[tokio::test]
async fn a_fresh_view_has_applied_an_index_read_after_the_call() {
    let (view, _, mut opened) = view();
    let end = opened.recv().await.unwrap();
    let tell = async {
        end.events.send(WatchEvent::Applied(LogIndex::new(5))).await.unwrap();
        std::future::pending::<()>().await;
    };
    let both = async { tokio::join!(view.fresh(), view.fresh()) };
    tokio::select! {
        (first, second) = both => {
            assert_eq!(first, second, "one round serves everybody who waits");
            assert_eq!(view.applied(), LogIndex::new(5));
        }
        () = tell => {}
    }
}

#[tokio::test]
async fn a_fresh_view_waits_until_it_shows_the_index_that_was_read() {
    let (view, _, mut opened) = view();
    let end = opened.recv().await.unwrap();
    let mut fresh = Box::pin(view.fresh());
    for _ in 0..3 {
        assert!((&mut fresh).now_or_never().is_none(), "nothing was told yet");
        testing::settle().await;
    }
    end.events.send(WatchEvent::Applied(LogIndex::new(1))).await.unwrap();
    assert_eq!(fresh.await.unwrap(), LogIndex::new(1));
    assert_eq!(view.applied(), LogIndex::new(1));
}

#[test]
fn an_unused_watch_is_dropped_after_a_while() {
    let (metadata, _) = ModelMetadata::new(system::seams());
    let (view, _service) = View::new(metadata, system::seams());
    let watch = view.watch(partition());
    let later = view.shared.seams.clock.mono() + UNWATCH_AFTER * 2;
    let mut interest = lock(&view.shared.interest);
    follow::sweep(&mut interest, later);
    assert!(interest.partitions.contains_key(&partition()), "it is in use");
    drop(interest);
    drop(watch);
    let mut interest = lock(&view.shared.interest);
    follow::sweep(&mut interest, later);
    assert_eq!(take_requests(&mut interest.pending), [WatchRequest::Unwatch(partition())]);
}

fn numbered(index: i32) -> TopicPartition {
    TopicPartition { partition: PartitionIndex::new(index), ..partition() }
}

#[tokio::test]
async fn a_set_of_watches_rings_for_each_of_its_partitions_and_tells_which_were_pushed() {
    let (view, _, mut opened) = view();
    let end = opened.recv().await.unwrap();
    let mut watches = view.watches();
    watches.hold([numbered(0), numbered(1), numbered(0)]);
    assert!(watches.rung().now_or_never().is_none());
    for index in [0, 1] {
        let told = PartitionState { partition: numbered(index), ..state(5, vec![], 0) };
        end.events.send(WatchEvent::PartitionState(told.clone())).await.unwrap();
        testing::settle().await;
        assert_eq!(watches.look(numbered(index)), known(told));
        assert!(watches.rung().now_or_never().is_some());
        assert!(watches.rung().now_or_never().is_none());
        assert_eq!(watches.pushed(), [numbered(index)].into());
        assert_eq!(watches.pushed(), [].into());
    }
    let told = PartitionState { partition: numbered(1), ..state(6, vec![run(0, 2)], 2) };
    end.events.send(WatchEvent::PartitionState(told)).await.unwrap();
    testing::settle().await;
    assert_eq!(watches.pushed(), [numbered(1)].into());
    assert!(watches.rung().now_or_never().is_none());
}

#[tokio::test]
async fn a_set_of_watches_releases_what_it_no_longer_holds() {
    let (view, _, _opened) = view();
    let users = |index| {
        let interest = lock(&view.shared.interest);
        let watched = interest.partitions.get(&numbered(index));
        watched.map_or((0, 0), |watched| (watched.users, watched.bells.len()))
    };
    let (mut one, mut other) = (view.watches(), view.watches());
    one.hold([numbered(0), numbered(1)]);
    other.hold([numbered(1)]);
    assert_eq!((users(0), users(1)), ((1, 1), (2, 2)));
    one.hold([numbered(1), numbered(2)]);
    assert_eq!((users(0), users(1), users(2)), ((0, 0), (2, 2), (1, 1)));
    one.also_hold([numbered(0), numbered(1)]);
    assert_eq!((users(0), users(1), users(2)), ((1, 1), (2, 2), (1, 1)));
    one.let_go([numbered(0), numbered(3)]);
    assert_eq!((users(0), users(1), users(2)), ((0, 0), (2, 2), (1, 1)));
    drop(one);
    assert_eq!((users(1), users(2)), ((1, 1), (0, 0)));
    assert_eq!(other.look(numbered(0)), PartitionSnapshot::Pending);
}

#[tokio::test]
async fn a_partition_that_was_gone_is_asked_for_again_by_the_next_request() {
    let (view, _, mut opened) = view();
    let mut end = opened.recv().await.unwrap();
    let mut watches = view.watches();
    watches.hold([partition()]);
    assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    for index in 0..2 {
        let gone = WatchEvent::PartitionGone(partition(), LogIndex::new(3 + index));
        end.events.send(gone).await.unwrap();
        testing::settle().await;
        assert_eq!(watches.look(partition()), PartitionSnapshot::Gone);
        match index {
            0 => watches.hold([partition()]),
            _ => watches.also_hold([partition()]),
        }
        assert_eq!(watches.look(partition()), PartitionSnapshot::Pending);
        assert_eq!(end.requests.recv().await, Some(WatchRequest::Watch(partition())));
    }
}
