//! Laws of commit stream.

use aquifer_storage::model::{Offset, PartitionIndex, Timestamp, TopicId, TopicPartition};

use super::{
    super::chain::{ChainId, ChainKey},
    *,
};
use crate::produce::{
    ConnectionId,
    testing::{ModelMachine, ModelSession},
};

fn placed(id: u64, partition: i32, chain: ChainId) -> PlacedBatch {
    PlacedBatch {
        id: BatchId(id),
        chain,
        partition: partition_of(partition),
        position: id as u32,
        length: 1,
        record_count: 1,
        max_timestamp: Timestamp::NONE,
        producer: None,
    }
}

fn partition_of(partition: i32) -> TopicPartition {
    let topic = TopicId::from_bytes([1; 16]);
    TopicPartition { topic, partition: PartitionIndex::new(partition) }
}

/// A batch that its chain let in.
fn batch(chains: &mut Chains, id: u64, partition: i32) -> PlacedBatch {
    let connection = ConnectionId::new(1);
    let key = ChainKey { connection, producer: None, partition: partition_of(partition) };
    placed(id, partition, chains.admit(key, None, BatchId(id)).unwrap())
}

/// A stream whose objects hold one batch each of the given partitions.
fn stream_of(partitions: &[i32]) -> (CommitStream, Chains) {
    let mut stream = CommitStream::new(SessionId::new(1));
    let mut chains = Chains::default();
    for (id, partition) in (0..).zip(partitions) {
        stream.open(vec![batch(&mut chains, id, *partition)], 10);
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
        .map(|part| part.object_seq.value())
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
    assert_eq!(stream.next_part(&mut chains).unwrap().commit_seq, CommitSeq::new(1));
    // The gap of part 2's first transmission is older than the rewind.
    assert_eq!(stream.replied(CommitSeq::new(2), gap), Replied::Nothing);
    assert_eq!(stream.next_part(&mut chains).unwrap().commit_seq, CommitSeq::new(2));
}

#[test]
fn a_repeated_part_is_the_same_bytes() {
    let (mut stream, mut chains) = stream_of(&[0, 1, 2]);
    land(&mut stream, &mut chains, 0);
    land(&mut stream, &mut chains, 1);
    let first = stream.next_part(&mut chains).unwrap();
    let second = stream.next_part(&mut chains).unwrap();
    stream.replied(CommitSeq::new(0), appended(1));
    stream.disconnected();
    assert_eq!(first.low_seq, ObjectSeq::new(0));
    assert_eq!(stream.next_part(&mut chains).unwrap(), second);
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
        let batch = batch(&mut chains, id, 0);
        let seq = stream.open(vec![batch], 1);
        chains.fail(batch.chain, batch.id, None);
        stream.withdraw_from_object(seq);
    }
    assert!(!stream.can_open());
    stream.move_window();
    let part = stream.next_part(&mut chains).unwrap();
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

#[test]
fn a_withdrawn_batch_is_in_no_part_and_its_object_waits_for_the_rest() {
    let mut stream = CommitStream::new(SessionId::new(1));
    let mut chains = Chains::default();
    let batches: Vec<_> = (0..3).map(|id| batch(&mut chains, id, id as i32)).collect();
    let seq = stream.open(batches.clone(), 10);
    chains.fail(batches[1].chain, batches[1].id, None);
    stream.withdraw_from_object(seq);
    assert_eq!(land(&mut stream, &mut chains, 0), 2);
    let part = stream.next_part(&mut chains).unwrap();
    let positions = part.extents.iter().flat_map(|extent| &extent.batches);
    assert_eq!(positions.map(|batch| batch.position).collect::<Vec<_>>(), [0, 2]);
    assert!(!stream.landed(seq), "nothing of it is wanted any more");
}

#[test]
fn a_large_object_leaves_in_parts_of_a_bounded_size() {
    let mut stream = CommitStream::new(SessionId::new(1));
    let mut chains = Chains::default();
    let count = 2 * PART_BATCHES_MAX + 1;
    let batches = (0..count).map(|id| batch(&mut chains, id as u64, id as i32)).collect();
    stream.open(batches, 10);
    assert_eq!(land(&mut stream, &mut chains, 0), count);
    let sizes: Vec<usize> = std::iter::from_fn(|| stream.next_part(&mut chains))
        .map(|part| part.extents.len())
        .collect();
    assert_eq!(sizes, [PART_BATCHES_MAX, PART_BATCHES_MAX, 1]);
}
