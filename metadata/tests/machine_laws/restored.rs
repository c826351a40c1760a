//! The next life of a cluster, begun from a copy that lacks the end of its history (RELIABILITY G8,
//! B6, A2, A9).

use aquifer_metadata::machine::{
    group::{
        command::{CommitOffsets, CommittedOffset, GroupAction, GroupCommand, Join, RequestId},
        query::{GroupAnswer, GroupAsk, GroupQuery},
        types::MemberId,
    },
    query::PartitionRuns,
    restore::{Hole, IDS_JUMPED, NextLife, RestoreRefused},
};

use super::*;

/// More offsets than any history here binds in a partition.
const JUMP: u32 = 10_000;

fn life(number: u32, holes: u32) -> NextLife {
    let hole = Hole { offsets: JUMP, object_bytes: 500, batch_bytes: 61 };
    NextLife { lineage: Lineage { number, nonce: 77 }, hole, holes }
}

fn restored(node: &Node, life: &NextLife) -> Node {
    let state = node.state.restored(life).unwrap();
    assert_eq!(invariants::violations(&state), Vec::<&str>::new());
    let read = decode_snapshot(&encode_snapshot(&state)).unwrap();
    assert_eq!(read.state_hash(), state.state_hash(), "its snapshot holds everything");
    Node { state: read, index: node.index }
}

fn runs(node: &Node, partition: TopicPartition) -> Option<PartitionRuns> {
    let whole = Query::Runs { partition, offset: Offset::ZERO, limit: u32::MAX };
    match node.state.query(&whole) {
        Answer::Runs(found) => found,
        other => panic!("{other:?}"),
    }
}

/// Registers, takes producer ids, and writes one record to `partition`: what it got.
fn write(node: &mut Node, partition: TopicPartition) -> (SessionId, ProducerId, BatchOutcome) {
    let advertised = HostPort { host: "new".into(), port: 9092 };
    let register = RegisterSession { request: 991, advertised, zone: None };
    let Reply::Registered(registered) = node.reply(&Command::RegisterSession(register)) else {
        panic!("registered");
    };
    let session = registered.session;
    let Reply::ProducerIds(Ok(block)) = node.reply(&Command::AllocateProducerIds { session })
    else {
        panic!("producer ids");
    };
    let batch = PartBatch {
        position: 0,
        length: 100,
        record_count: 1,
        max_timestamp: Timestamp::from_millis(5),
        producer: None,
    };
    let part = CommitPart {
        session,
        commit_seq: CommitSeq::new(0),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(0),
        object_bytes: 100,
        producers: Vec::new(),
        extents: vec![PartExtent { partition, batches: vec![batch] }],
    };
    match node.reply(&Command::Commit(part)) {
        Reply::Commit(CommitReply::Applied(outcomes)) => (session, block.first, outcomes[0]),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn nothing_that_a_life_before_gave_out_is_given_again(
        history in history(), cut: prop::sample::Index, holes in 1_u32..4,
    ) {
        let mut whole = Node::new();
        let mut copy = Node::new();
        let kept = opening().len() + cut.index(history.len() + 1 - opening().len());
        for (place, command) in history.iter().enumerate() {
            whole.apply(command);
            if place < kept {
                copy.apply(command);
            }
        }
        let before: Vec<_> = partitions().map(|partition| runs(&copy, partition)).collect();
        let mut next = restored(&copy, &life(4, holes));
        prop_assert!(next.state.live_sessions().is_empty());
        prop_assert_eq!(next.state.lineage(), Lineage { number: 4, nonce: 77 });
        let raised = i64::from(JUMP) * i64::from(holes);
        for (partition, before) in partitions().zip(before) {
            let Some(before) = before else { continue };
            let after = runs(&next, partition).unwrap();
            prop_assert_eq!(after.pointers.log_start, before.pointers.log_start);
            let high_watermark = before.pointers.high_watermark.value();
            prop_assert_eq!(after.pointers.high_watermark.value(), high_watermark + raised);
            prop_assert_eq!(after.pointers.leader_epoch.value(), 4);
            prop_assert_eq!(&after.runs[..before.runs.len()], &before.runs[..]);
            let hole = &after.runs[before.runs.len()..];
            prop_assert_eq!(hole.len(), holes as usize);
            prop_assert_eq!(hole[0].offsets.base.value(), high_watermark);
            for run in hole {
                prop_assert_eq!((run.position, run.length, run.object_bytes), (0, 61, 500));
            }
            let bound = runs(&whole, partition).map(|runs| runs.pointers.high_watermark);
            let (session, producer, outcome) = write(&mut next, partition);
            let BatchOutcome::Appended { base, .. } = outcome else { panic!("{outcome:?}") };
            prop_assert!(bound.is_none_or(|bound| bound <= base), "{base} was bound before");
            prop_assert!(whole.state.live_sessions().iter().all(|old| *old < session));
            prop_assert!(IDS_JUMPED * u64::from(holes) <= session.value());
            prop_assert!(i64::try_from(IDS_JUMPED).unwrap() <= producer.value());
            // One session at a time: each partition begins with its own.
            next = restored(&copy, &life(4, holes));
        }
    }

    #[test]
    fn sessions_of_a_life_before_write_nothing(history in history()) {
        let mut node = Node::new();
        history.iter().for_each(|command| { node.apply(command); });
        let sessions = node.state.live_sessions();
        let mut next = restored(&node, &life(9, 1));
        for session in sessions {
            let mut writer = Writer { commit_seq: 1 << 40, ..Writer::default() };
            let part = writer.part(session.value(), &[], (false, false));
            let reply = next.reply(&Command::Commit(part));
            prop_assert_eq!(reply, Reply::Commit(CommitReply::Fenced));
        }
    }
}

#[test]
fn a_life_comes_after_the_copys_and_jumps_by_something_that_a_batch_can_say() {
    let mut node = Node::new();
    opening().iter().for_each(|command| {
        node.apply(command);
    });
    for number in [0, genesis().lineage.number] {
        let refused = node.state.restored(&life(number, 1)).unwrap_err();
        assert!(matches!(refused, RestoreRefused::NotLater { .. }), "{refused}");
    }
    for offsets in [0, i32::MAX.unsigned_abs() + 1] {
        let hole = Hole { offsets, ..life(4, 1).hole };
        let asked = NextLife { hole, ..life(4, 1) };
        assert_eq!(node.state.restored(&asked).unwrap_err(), RestoreRefused::Jump);
    }
    assert_eq!(node.state.restored(&life(4, 0)).unwrap_err(), RestoreRefused::Jump);
    let too_often = node.state.restored(&life(4, u32::MAX)).unwrap_err();
    assert_eq!(too_often, RestoreRefused::Ids);
}

#[test]
fn groups_keep_their_offsets_and_lose_their_members() {
    let mut node = Node::new();
    opening().iter().for_each(|command| {
        node.apply(command);
    });
    let partition = partitions().next().unwrap();
    let committed = CommittedOffset {
        offset: Offset::new(7).unwrap(),
        leader_epoch: None,
        metadata: "m".into(),
    };
    let group = |action| Command::Group(GroupCommand { group: "readers".into(), action });
    let commit = |offsets| CommitOffsets {
        member: MemberId::default(),
        instance: None,
        generation: None,
        knows_epochs: true,
        offsets,
    };
    node.apply(&group(GroupAction::CommitOffsets(commit(vec![(partition, committed.clone())]))));
    node.apply(&group(GroupAction::Join(join("reader"))));
    node.apply(&group(GroupAction::Join(join("other"))));
    assert!(node.state.pending_deadline().is_some(), "they wait for the group to form");
    let next = restored(&node, &life(4, 1));
    assert_eq!(next.state.group_members_for_liveness().len(), 0);
    let ask = GroupAsk::Offsets { partitions: None, reader: None };
    let query = Query::Group(GroupQuery { group: "readers".into(), ask });
    let Answer::Group(GroupAnswer::Offsets(Ok(offsets))) = next.state.query(&query) else {
        panic!()
    };
    assert_eq!(offsets, [(partition, committed)]);
    assert_eq!(next.state.pending_deadline(), None, "nobody is waited for");
}

fn join(member: &str) -> Join {
    Join {
        request: RequestId { session: SessionId::new(1), number: 1 },
        member: MemberId::default(),
        proposed_member: MemberId::new(member),
        require_known_member: false,
        instance: None,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), bytes::Bytes::new())],
        limits: None,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        client_id: member.into(),
        client_host: "h".into(),
    }
}
