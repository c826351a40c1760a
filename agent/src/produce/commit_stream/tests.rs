//! Laws of commit stream.

use aquifer_storage::model::{Offset, PartitionIndex, Timestamp, TopicId};

use super::{super::chain::ChainKey, *};
use crate::produce::{
    ConnectionId,
    testing::{ModelMachine, ModelSession},
};

fn batch(id: u64, partition: i32) -> PlacedBatch {
    let topic = TopicId::from_bytes([1; 16]);
    PlacedBatch {
        id: BatchId(id),
        key: ChainKey {
            connection: ConnectionId::new(1),
            producer: None,
            partition: TopicPartition { topic, partition: PartitionIndex::new(partition) },
        },
        position: id as u32,
        length: 1,
        record_count: 1,
        max_timestamp: Timestamp::NONE,
        producer: None,
    }
}

/// A stream whose objects hold one batch each of the given partitions.
fn stream_of(partitions: &[i32]) -> (CommitStream, Chains) {
    let mut stream = CommitStream::new(SessionId::new(1));
    let mut chains = Chains::default();
    for (id, partition) in (0..).zip(partitions) {
        let batch = batch(id, *partition);
        chains.admit(batch.key, None, batch.id);
        stream.open(vec![batch], 10);
    }
    (stream, chains)
}

fn appended(count: usize) -> CommitReply {
    let outcome = BatchOutcome::Appended { base: Offset::ZERO, log_start: Offset::ZERO };
    CommitReply::Applied(vec![outcome; count])
}

fn land(stream: &mut CommitStream, chains: &mut Chains, seq: u64) -> usize {
    assert!(stream.landed(ObjectSeq::new(seq)));
    stream.assign(chains).len()
}

#[test]
fn one_slow_put_delays_only_its_own_chain() {
    let (mut stream, mut chains) = stream_of(&[0, 1, 0]);
    assert_eq!(land(&mut stream, &mut chains, 1), 1);
    assert_eq!(land(&mut stream, &mut chains, 2), 0);
    assert_eq!(land(&mut stream, &mut chains, 0), 2);
    let objects: Vec<u64> = std::iter::from_fn(|| stream.next_part(&mut chains))
        .map(|(part, _)| part.object_seq.value())
        .collect();
    assert_eq!(objects, [1, 0, 2]);
}

#[test]
fn a_gap_sends_again_from_there_once() {
    let (mut stream, mut chains) = stream_of(&[0, 1, 2]);
    for seq in 0..3 {
        land(&mut stream, &mut chains, seq);
        stream.next_part(&mut chains).unwrap();
    }
    let gap = CommitReply::Gap { next: CommitSeq::new(1) };
    assert!(matches!(stream.replied(CommitSeq::new(0), appended(1)), Replied::Applied(_)));
    assert_eq!(stream.replied(CommitSeq::new(1), gap.clone()), Replied::Nothing);
    let (part, sent) = stream.next_part(&mut chains).unwrap();
    assert_eq!((part.commit_seq, sent), (CommitSeq::new(1), vec![]));
    // The gap of part 2's first transmission is older than the rewind.
    assert_eq!(stream.replied(CommitSeq::new(2), gap), Replied::Nothing);
    assert_eq!(stream.next_part(&mut chains).unwrap().0.commit_seq, CommitSeq::new(2));
}

#[test]
fn a_repeated_part_is_the_same_bytes() {
    let (mut stream, mut chains) = stream_of(&[0, 1, 2]);
    land(&mut stream, &mut chains, 0);
    land(&mut stream, &mut chains, 1);
    let first = stream.next_part(&mut chains).unwrap().0;
    let second = stream.next_part(&mut chains).unwrap().0;
    stream.replied(CommitSeq::new(0), appended(1));
    stream.disconnected();
    assert_eq!(first.low_seq, ObjectSeq::new(0));
    assert_eq!(stream.next_part(&mut chains).unwrap().0, second);
    assert!(!stream.has_next());
}

#[test]
fn a_fenced_session_keeps_only_what_was_sent() {
    let (mut stream, mut chains) = stream_of(&[0, 1, 2]);
    land(&mut stream, &mut chains, 0);
    stream.next_part(&mut chains).unwrap();
    land(&mut stream, &mut chains, 1);
    let fenced = stream.fence();
    assert_eq!(fenced.undecided, [BatchId(0)]);
    assert_eq!(fenced.unsent, [BatchId(2), BatchId(1)]);
    stream.disconnected();
    assert!(stream.has_next() && !stream.is_over());
    stream.next_part(&mut chains).unwrap();
    let replied = stream.replied(CommitSeq::new(0), CommitReply::Fenced);
    assert_eq!(replied, Replied::Fenced(vec![BatchId(0)]));
    assert!(stream.is_over());
}

#[test]
fn given_up_objects_use_up_the_window_until_an_empty_part_moves_it() {
    let (mut stream, mut chains) = stream_of(&[]);
    for id in 0..OBJECT_WINDOW {
        assert!(stream.can_open());
        let seq = stream.open(vec![batch(id, 0)], 1);
        stream.withdraw_from_object(seq, BatchId(id));
    }
    assert!(!stream.can_open());
    stream.move_window();
    let (part, _) = stream.next_part(&mut chains).unwrap();
    assert_eq!((part.low_seq.value(), part.extents.len()), (OBJECT_WINDOW - 1, 0));
    let mut machine = ModelMachine::default();
    machine.sessions.insert(part.session, ModelSession::default());
    let reply = machine.commit(&part);
    assert_eq!(reply, appended(0));
    stream.replied(part.commit_seq, reply);
    assert!(stream.can_open());
}

#[test]
fn metadata_that_lost_parts_is_not_believed() {
    let (mut stream, mut chains) = stream_of(&[0, 1]);
    for seq in 0..2 {
        land(&mut stream, &mut chains, seq);
        stream.next_part(&mut chains).unwrap();
    }
    stream.replied(CommitSeq::new(0), appended(1));
    let lost = CommitReply::Gap { next: CommitSeq::new(0) };
    assert_eq!(stream.replied(CommitSeq::new(1), lost), Replied::Unknowable(vec![BatchId(1)]));
}
