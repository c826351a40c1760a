//! Laws of fetch sessions.

use super::*;

const ASKED: Asked = Asked { offset: 0, bytes_max: 1000, leader_epoch: -1 };

fn key(index: i32) -> PartitionKey {
    (TopicRef::Name("topic".into()), index)
}

fn request(id: i32, epoch: i32) -> SessionRequest {
    SessionRequest { id, epoch, by_id: false, committed: false }
}

fn told(high_watermark: i64) -> Told {
    Told {
        has_records: false,
        error: ErrorCode::None,
        high_watermark,
        log_start: 0,
        is_at_end: false,
    }
}

/// A connection with session 7 over partitions 0 to 2, all told.
fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    let asked = (0..3).map(|index| (key(index), ASKED)).collect();
    let (context, wanted) =
        sessions.begin(request(0, 0), || 7, asked, std::iter::empty()).expect("opens");
    assert_eq!((context, wanted.len()), (Context::Opened(7), 3));
    for index in 0..3 {
        assert!(sessions.tell(context, &key(index), told(0)));
    }
    sessions
}

fn resume(sessions: &mut Sessions, epoch: i32) -> Result<Begun, ErrorCode> {
    sessions.begin(request(7, epoch), || 8, Vec::new(), std::iter::empty())
}

#[test]
fn an_incremental_answer_lists_only_what_changed() {
    let mut sessions = opened();
    let (context, wanted) = resume(&mut sessions, 1).expect("resumes");
    assert_eq!((context, wanted.len()), (Context::Incremental(7), 3));
    assert!(!sessions.tell(context, &key(0), told(0)));
    assert!(sessions.tell(context, &key(1), told(5)));
    assert!(sessions.tell(context, &key(2), Told { log_start: 1, ..told(0) }));
}

#[test]
fn an_error_is_told_each_time_and_so_is_its_end() {
    let mut sessions = opened();
    let failed = Told { error: ErrorCode::KafkaStorageError, ..told(0) };
    let (context, _) = resume(&mut sessions, 1).expect("resumes");
    assert!(sessions.tell(context, &key(0), failed));
    let (context, _) = resume(&mut sessions, 2).expect("resumes");
    assert!(sessions.tell(context, &key(0), told(0)));
    let (context, _) = resume(&mut sessions, 3).expect("resumes");
    assert!(!sessions.tell(context, &key(0), told(0)));
}

#[test]
fn who_gave_data_goes_to_the_end_of_the_line() {
    let mut sessions = opened();
    let (context, _) = resume(&mut sessions, 1).expect("resumes");
    sessions.tell(context, &key(0), Told { has_records: true, ..told(1) });
    let (_, wanted) = resume(&mut sessions, 2).expect("resumes");
    let order: Vec<i32> = wanted.iter().map(|due| due.key.1).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn foreign_ids_wrong_epochs_and_other_naming_are_refused() {
    let mut sessions = opened();
    assert_eq!(resume(&mut sessions, 2), Err(ErrorCode::InvalidFetchSessionEpoch));
    let by_id = SessionRequest { by_id: true, ..request(7, 1) };
    let refused = sessions.begin(by_id, || 8, Vec::new(), std::iter::empty());
    assert_eq!(refused, Err(ErrorCode::FetchSessionTopicIdError));
    let foreign = sessions.begin(request(9, 1), || 8, Vec::new(), std::iter::empty());
    assert_eq!(foreign, Err(ErrorCode::FetchSessionIdNotFound));
}

#[test]
fn closing_and_reopening_drop_the_named_session() {
    for epoch in [-1, 0] {
        let mut sessions = opened();
        let asked = vec![(key(0), ASKED)];
        sessions.begin(request(7, epoch), || 8, asked, std::iter::empty()).expect("answers");
        assert_eq!(resume(&mut sessions, 1), Err(ErrorCode::FetchSessionIdNotFound));
    }
}

#[test]
fn a_session_that_forgets_everything_is_gone() {
    let mut sessions = opened();
    let all = (0..3).map(key);
    let (context, wanted) = sessions.begin(request(7, 1), || 8, Vec::new(), all).expect("answers");
    assert_eq!((context, wanted.len()), (Context::Full, 0));
    assert_eq!(resume(&mut sessions, 2), Err(ErrorCode::FetchSessionIdNotFound));
}

#[test]
fn sessions_of_a_connection_are_bounded() {
    let mut sessions = Sessions::default();
    let opened = (1..100).filter(|id| {
        let asked = vec![(key(0), ASKED)];
        let begun = sessions.begin(request(0, 0), || *id, asked, std::iter::empty());
        matches!(begun, Ok((Context::Opened(_), _)))
    });
    assert_eq!(opened.count(), SESSIONS_MAX);
}

#[test]
fn sessions_of_all_connections_share_their_room_and_give_it_back() {
    let room = SessionRoom::new(5);
    let open = |count| {
        let mut sessions = Sessions::new(room.clone());
        let asked = (0..count).map(|index| (key(index), ASKED)).collect();
        let begun = sessions.begin(request(0, 0), || 7, asked, std::iter::empty());
        (sessions, begun.expect("is served").0)
    };
    let (mut first, context) = open(3);
    assert_eq!(context, Context::Opened(7));
    assert_eq!(open(3).1, Context::Full, "there is no room, so it is served without");
    let grown = (3..6).map(|index| (key(index), ASKED)).collect();
    let refused = first.begin(request(7, 1), || 8, grown, std::iter::empty());
    assert_eq!(refused, Err(ErrorCode::FetchSessionIdNotFound));
    let (mut second, context) = open(5);
    assert_eq!(context, Context::Opened(7), "the room of the first is free again");
    let forgotten = (0..2).map(key);
    assert!(second.begin(request(7, 1), || 8, Vec::new(), forgotten).is_ok());
    let (third, context) = open(2);
    assert_eq!(context, Context::Opened(7));
    drop((second, third));
    assert_eq!(room.held.load(Ordering::Relaxed), 0);
}

fn partition(index: i32) -> TopicPartition {
    crate::fetch::testing::partition(index as u32)
}

fn at_end(high_watermark: i64) -> Told {
    Told { is_at_end: true, ..told(high_watermark) }
}

fn due(begun: &Begun) -> Vec<i32> {
    begun.1.iter().map(|due| due.key.1).collect()
}

/// A connection with session 7 over partitions 0 to 2, all asleep.
fn asleep() -> Sessions {
    let mut sessions = Sessions::default();
    let asked = (0..3).map(|index| (key(index), ASKED)).collect();
    let begun = sessions.begin(request(0, 0), || 7, asked, std::iter::empty()).expect("opens");
    for (due, index) in begun.1.iter().zip(0..) {
        sessions.bind(7, due, Some(partition(index)));
        assert!(sessions.tell(begun.0, &due.key, at_end(5)));
    }
    sessions
}

#[test]
fn who_was_told_at_its_end_sleeps_until_it_is_pushed_or_named() {
    let mut sessions = asleep();
    assert_eq!(due(&resume(&mut sessions, 1).expect("resumes")), [] as [i32; 0]);
    sessions.wake(7, &[partition(2), partition(9)].into());
    let begun = resume(&mut sessions, 2).expect("resumes");
    assert_eq!(due(&begun), [2]);
    assert!(!sessions.tell(begun.0, &key(2), told(5)), "nothing is new");
    let named = vec![(key(1), ASKED)];
    let begun = sessions.begin(request(7, 3), || 8, named, std::iter::empty()).expect("resumes");
    assert_eq!(due(&begun), [1, 2], "the other was not at its end when it was told last");
}

#[test]
fn a_push_while_the_fetch_is_parked_brings_the_partition_into_line() {
    let mut sessions = asleep();
    sessions.wake(7, &[partition(1)].into());
    let begun = resume(&mut sessions, 1).expect("resumes");
    let mut line = sessions.line(7).expect("it is open");
    let turns: Vec<_> = line.begin(&[].into()).iter().map(|(_, one)| one.partition).collect();
    assert_eq!(turns, [partition(1)]);
    let turns = line.pushed(&[partition(0), partition(9)].into());
    assert_eq!(turns, [(0, ASKED.of(partition(0)))]);
    assert_eq!(sessions.key(7, 0), Some(&key(0)));
    assert!(sessions.tell(begun.0, &key(0), at_end(6)));
    assert_eq!(due(&resume(&mut sessions, 2).expect("resumes")), [1]);
}

#[test]
fn who_gave_data_or_failed_or_names_nothing_does_not_sleep() {
    let mut sessions = asleep();
    let every: BTreeSet<_> = (0..3).map(partition).collect();
    sessions.wake(7, &every);
    let begun = resume(&mut sessions, 1).expect("resumes");
    sessions.bind(7, &begun.1[2], None);
    assert_eq!(sessions.left(7), [partition(2)]);
    sessions.tell(begun.0, &key(0), Told { has_records: true, ..at_end(6) });
    sessions.tell(begun.0, &key(1), Told { error: ErrorCode::KafkaStorageError, ..at_end(5) });
    sessions.tell(begun.0, &key(2), at_end(5));
    assert_eq!(due(&resume(&mut sessions, 2).expect("resumes")), [2, 0, 1]);
}

#[test]
fn another_isolation_level_wakes_all_and_they_keep_their_turns() {
    let mut sessions = asleep();
    let committed = SessionRequest { committed: true, ..request(7, 1) };
    let begun = sessions.begin(committed, || 8, Vec::new(), std::iter::empty());
    assert_eq!(due(&begun.expect("resumes")), [0, 1, 2]);
}

#[test]
fn who_is_forgotten_is_not_woken_and_let_go_unless_it_is_named_again() {
    let mut sessions = asleep();
    let named = vec![(key(1), ASKED)];
    let begun = sessions.begin(request(7, 1), || 8, named, (0..2).map(key)).expect("resumes");
    assert_eq!(due(&begun), [1]);
    sessions.bind(7, &begun.1[0], Some(partition(1)));
    assert_eq!(sessions.left(7), [partition(0)]);
    sessions.wake(7, &[partition(0)].into());
    assert_eq!(due(&resume(&mut sessions, 2).expect("resumes")), [1]);
}

#[test]
fn the_line_of_a_session_shows_all_of_it_when_asked_to() {
    let mut sessions = asleep();
    let begun = resume(&mut sessions, 1).expect("resumes");
    let mut line = sessions.line(7).expect("it is open");
    assert!(!line.is_empty());
    assert!(line.begin(&[].into()).is_empty());
    assert_eq!(line.all().len(), 3);
    assert!(sessions.tell(
        begun.0,
        &key(0),
        Told { error: ErrorCode::NotLeaderOrFollower, ..told(-1) }
    ));
}
