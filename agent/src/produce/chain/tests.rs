//! Laws of chain.

use aquifer_storage::model::{PartitionIndex, TopicId};

use super::*;

fn key(connection: u64, producer: Option<i64>) -> ChainKey {
    ChainKey {
        connection: ConnectionId::new(connection),
        producer: producer.map(ProducerId::new),
        partition: TopicPartition {
            topic: TopicId::from_bytes([1; 16]),
            partition: PartitionIndex::new(0),
        },
    }
}

fn at(epoch: i16, sequence: i32) -> Option<ChainPlace> {
    let epoch = ProducerEpoch::new(epoch).unwrap();
    Some(ChainPlace { epoch, sequence: Sequence::new(sequence).unwrap() })
}

#[test]
fn a_batch_is_next_only_behind_assigned_predecessors() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    assert_eq!(chains.admit(key, at(0, 1), BatchId(1)), Some(chain));
    assert!(!chains.assign(chain, BatchId(1)));
    assert!(chains.assign(chain, BatchId(0)));
    assert!(!chains.assign(chain, BatchId(0)));
    chains.sent(chain, BatchId(0));
    assert!(chains.assign(chain, BatchId(1)));
}

#[test]
fn a_batch_that_fails_leaves_its_predecessors_assigned() {
    let mut chains = Chains::default();
    let key = key(1, None);
    let chain = chains.admit(key, None, BatchId(0)).unwrap();
    for id in 1..4 {
        chains.admit(key, None, BatchId(id));
    }
    assert!(chains.assign(chain, BatchId(0)) && chains.assign(chain, BatchId(1)));
    chains.fail(chain, BatchId(2), None);
    chains.fail(chain, BatchId(0), None);
    assert!(!chains.assign(chain, BatchId(1)));
    assert!(chains.assign(chain, BatchId(3)));
}

#[test]
fn a_broken_chain_stays_broken_until_the_failed_sequence_arrives() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    for sequence in 1..3 {
        assert!(chains.admit(key, at(0, sequence), BatchId(sequence as u64)).is_some());
    }
    assert_eq!(chains.fail(chain, BatchId(0), at(0, 0)), [BatchId(1), BatchId(2)]);
    assert!(chains.admit(key, at(0, 3), BatchId(3)).is_none());
    assert!(chains.admit(key, at(0, 1), BatchId(4)).is_none());
    assert!(chains.admit(key, at(0, 0), BatchId(5)).is_some());
    assert!(chains.admit(key, at(0, 1), BatchId(6)).is_some());
}

#[test]
fn a_reopened_chain_lets_in_what_it_refused_before_anything_new() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    chains.fail(chain, BatchId(0), at(0, 0));
    assert!(chains.admit(key, at(0, 10), BatchId(1)).is_none());
    assert!(chains.admit(key, at(0, 0), BatchId(2)).is_some());
    assert!(chains.admit(key, at(0, 20), BatchId(3)).is_none());
    assert!(chains.admit(key, at(0, 10), BatchId(4)).is_some());
    assert!(chains.admit(key, at(0, 20), BatchId(5)).is_some());
    assert!(chains.admit(key, at(0, 30), BatchId(6)).is_some());
}

#[test]
fn what_was_committed_between_refused_batches_is_not_waited_for() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    // 3 ended as unknown, 4 and 5 are in the log; the retry of 3 fails.
    let chain = chains.admit(key, at(0, 3), BatchId(3)).unwrap();
    chains.fail(chain, BatchId(3), at(0, 3));
    assert!(chains.admit(key, at(0, 6), BatchId(4)).is_none());
    assert!(chains.admit(key, at(0, 3), BatchId(5)).is_some());
    assert!(chains.admit(key, at(0, 6), BatchId(6)).is_some());
}

#[test]
fn a_flood_of_refused_batches_is_not_remembered() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    chains.fail(chain, BatchId(0), at(0, 0));
    for sequence in 1..1000 {
        assert!(chains.admit(key, at(0, sequence), BatchId(sequence as u64)).is_none());
    }
    let broken = chains.get_mut(chain).broken.as_ref().unwrap();
    assert_eq!(broken.refused.len(), REFUSED_MAX);
}

#[test]
fn a_higher_epoch_or_a_new_connection_heals() {
    let mut chains = Chains::default();
    let old = key(1, Some(7));
    let chain = chains.admit(old, at(0, 5), BatchId(0)).unwrap();
    chains.fail(chain, BatchId(0), at(0, 5));
    assert!(chains.admit(key(2, Some(7)), at(0, 6), BatchId(1)).is_some());
    assert!(chains.admit(old, at(0, 6), BatchId(2)).is_none());
    assert!(chains.admit(old, at(1, 0), BatchId(3)).is_some());
    assert!(chains.admit(old, at(1, 1), BatchId(4)).is_some());
}

#[test]
fn an_earlier_failure_moves_the_break_back() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    chains.assign(chain, BatchId(0));
    chains.sent(chain, BatchId(0));
    chains.admit(key, at(0, 1), BatchId(1));
    chains.fail(chain, BatchId(1), at(0, 1));
    chains.fail(chain, BatchId(0), at(0, 0));
    assert!(chains.admit(key, at(0, 1), BatchId(2)).is_none());
    assert!(chains.admit(key, at(0, 0), BatchId(3)).is_some());
}

#[test]
fn sequences_wrap_behind_a_break() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, i32::MAX), BatchId(0)).unwrap();
    chains.fail(chain, BatchId(0), at(0, i32::MAX));
    assert!(chains.admit(key, at(0, 0), BatchId(1)).is_none());
    assert!(chains.admit(key, at(0, i32::MAX), BatchId(2)).is_some());
}

#[test]
fn without_a_producer_id_a_failure_breaks_nothing() {
    let mut chains = Chains::default();
    let key = key(1, None);
    let chain = chains.admit(key, None, BatchId(0)).unwrap();
    chains.admit(key, None, BatchId(1));
    assert_eq!(chains.fail(chain, BatchId(0), None), []);
    assert!(chains.assign(chain, BatchId(1)));
}

#[test]
fn a_chain_waits_for_what_an_earlier_session_left_undecided() {
    let mut chains = Chains::default();
    let key = key(1, Some(7));
    let chain = chains.admit(key, at(0, 0), BatchId(0)).unwrap();
    chains.assign(chain, BatchId(0));
    chains.sent(chain, BatchId(0));
    chains.hold(chain);
    chains.admit(key, at(0, 1), BatchId(1));
    assert!(!chains.assign(chain, BatchId(1)));
    chains.release(chain);
    assert!(chains.assign(chain, BatchId(1)));
}

#[test]
fn a_closed_connection_leaves_nothing_behind() {
    let mut chains = Chains::default();
    for (connection, sequence) in [(1, 0), (2, 0)] {
        let key = key(connection, Some(7));
        let chain = chains.admit(key, at(0, sequence), BatchId(connection)).unwrap();
        chains.fail(chain, BatchId(connection), at(0, sequence));
        chains.forget(chain);
    }
    chains.close(ConnectionId::new(1));
    assert_eq!(chains.len(), 1);
    chains.close(ConnectionId::new(2));
    assert_eq!(chains.len(), 0);
}

#[test]
fn a_place_is_given_again_only_when_its_last_batch_is_forgotten() {
    let mut chains = Chains::default();
    let first = chains.admit(key(1, None), None, BatchId(0)).unwrap();
    chains.assign(first, BatchId(0));
    chains.sent(first, BatchId(0));
    let second = chains.admit(key(2, None), None, BatchId(1)).unwrap();
    assert_ne!(first, second);
    chains.forget(first);
    assert_eq!(chains.admit(key(3, None), None, BatchId(2)), Some(first));
    assert_eq!(chains.admit(key(2, None), None, BatchId(3)), Some(second));
    assert_eq!(chains.len(), 2);
}
