//! Laws of session.

use super::*;

fn register(sessions: &mut Sessions, request: u64) -> SessionId {
    let advertised = HostPort { host: "agent".into(), port: 9092 };
    let register = RegisterSession { request, advertised, zone: None };
    sessions.register(&register, NodeId::new(1)).0
}

fn part(session: SessionId, commit_seq: u64, object_seq: u64) -> CommitPart {
    CommitPart {
        session,
        commit_seq: CommitSeq::new(commit_seq),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(object_seq),
        object_bytes: 0,
        producers: Vec::new(),
        extents: Vec::new(),
    }
}

fn complete(sessions: &mut Sessions, part: &CommitPart) {
    assert_eq!(sessions.admit(part), Ok(()));
    sessions.complete(part, &[]);
}

fn minutes(minutes: u64) -> Elapsed {
    Elapsed::from_millis(minutes * 60_000)
}

#[test]
fn a_retried_registration_finds_its_session_until_that_is_fenced() {
    let mut sessions = Sessions::default();
    let first = register(&mut sessions, 9);
    assert_eq!(register(&mut sessions, 9), first);
    sessions.fence(first, minutes(0));
    assert_eq!(register(&mut sessions, 9), first.next());
}

#[test]
fn session_ids_are_not_reused_after_everything_is_forgotten() {
    let mut sessions = Sessions::default();
    let first = register(&mut sessions, 1);
    sessions.fence(first, minutes(0));
    sessions.sweep(minutes(24 * 60));
    assert!(sessions.get(first).is_none());
    assert_eq!(register(&mut sessions, 2), first.next());
}

#[test]
fn an_early_part_is_told_the_gap_and_a_late_one_its_result() {
    let mut sessions = Sessions::default();
    let id = register(&mut sessions, 1);
    assert_eq!(sessions.admit(&part(id, 1, 0)), Err(CommitReply::Gap { next: CommitSeq::new(0) }));
    complete(&mut sessions, &part(id, 0, 0));
    assert_eq!(sessions.admit(&part(id, 0, 0)), Err(CommitReply::Applied(vec![])));
}

#[test]
fn read_results_are_forgotten() {
    let mut sessions = Sessions::default();
    let id = register(&mut sessions, 1);
    complete(&mut sessions, &part(id, 0, 0));
    complete(&mut sessions, &CommitPart { acked_seq: CommitSeq::new(1), ..part(id, 1, 1) });
    assert_eq!(sessions.admit(&part(id, 0, 0)), Err(CommitReply::Forgotten));
    assert_eq!(sessions.admit(&part(id, 1, 1)), Err(CommitReply::Applied(vec![])));
}

#[test]
fn a_promise_does_not_fall_and_bounds_the_objects_that_can_be_named() {
    let mut sessions = Sessions::default();
    let id = register(&mut sessions, 1);
    let raised = CommitPart { low_seq: ObjectSeq::new(10), ..part(id, 0, 10) };
    complete(&mut sessions, &raised);
    let below = Err(CommitReply::SeqBelowLow);
    let next = |object_seq, low_seq| CommitPart {
        low_seq: ObjectSeq::new(low_seq),
        ..part(id, 1, object_seq)
    };
    assert_eq!(sessions.admit(&next(9, 10)), below, "an object below the promise");
    assert_eq!(sessions.admit(&next(10, 9)), below, "a promise that falls");
    assert_eq!(sessions.admit(&next(10 + OPEN_OBJECTS_MAX, 10)), below, "too far ahead");
    assert_eq!(sessions.admit(&next(10, 11 + OPEN_OBJECTS_MAX)), below, "a promise too far");
    assert_eq!(sessions.admit(&next(9 + OPEN_OBJECTS_MAX, 10)), Ok(()));
}

#[test]
fn a_fenced_session_accepts_nothing_but_still_tells_what_happened() {
    let mut sessions = Sessions::default();
    let id = register(&mut sessions, 1);
    complete(&mut sessions, &part(id, 0, 0));
    assert!(sessions.fence(id, minutes(0)).is_some());
    assert!(sessions.fence(id, minutes(1)).is_none(), "fencing twice changes nothing");
    assert_eq!(sessions.admit(&part(id, 1, 0)), Err(CommitReply::Fenced));
    assert_eq!(sessions.admit(&part(id, 2, 0)), Err(CommitReply::Fenced));
    sessions.sweep(minutes(9));
    assert_eq!(sessions.admit(&part(id, 0, 0)), Err(CommitReply::Applied(vec![])));
    sessions.sweep(minutes(10));
    assert_eq!(sessions.admit(&part(id, 0, 0)), Err(CommitReply::Forgotten));
    sessions.sweep(minutes(24 * 60));
    assert_eq!(sessions.admit(&part(id, 0, 0)), Err(CommitReply::Fenced));
}

#[test]
fn an_agent_that_never_reads_does_not_fill_the_memory() {
    let mut sessions = Sessions::default();
    let id = register(&mut sessions, 1);
    for seq in 0..RESULTS_MAX as u64 + 10 {
        complete(&mut sessions, &part(id, seq, 0));
    }
    assert_eq!(sessions.get(id).unwrap().results.size(), RESULTS_MAX);
}
