//! Laws of what operators do and ask: more partitions, nodes that are forgotten, sizes, producers.

#![allow(clippy::disallowed_methods, reason = "tests may unwrap")]

use std::collections::BTreeMap;

use aquifer_metadata::{
    codec::{
        answer_from_proto, answer_to_proto, command_from_proto, command_to_proto, decode_snapshot,
        encode_snapshot, query_from_proto, query_to_proto, reply_from_proto, reply_to_proto,
    },
    machine::{
        Genesis, MetadataState, QUERY_LISTED_MAX,
        command::{
            Command, CommitPart, CommitReply, CreatePartitions, CreateTopic, Entry, HostPort,
            NodeRejected, PartBatch, PartExtent, PartProducer, RegisterSession, Reply, Stamp,
            TopicRejected,
        },
        effect::Effect,
        invariants,
        query::{ActiveProducer, Answer, Query},
        topic::PARTITIONS_MAX,
    },
};
use aquifer_storage::model::{
    CommitSeq, Lineage, NodeId, ObjectSeq, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    SessionId, Timestamp, TopicId, TopicPartition,
};

struct Node(MetadataState);

impl Node {
    fn new() -> Self {
        let lineage = Lineage { number: 0, nonce: 1 };
        Self(MetadataState::new(Genesis { cluster_id: "c".into(), lineage }))
    }

    /// Applies a command as it comes over the network, and answers as it goes back.
    fn run(&mut self, command: &Command) -> (Reply, Vec<Effect>) {
        let index = self.0.applied_index().next();
        let stamp = Stamp { boot: 1, mono_ms: index.value() * 1000, wall_ms: 0 };
        let command = command_from_proto(command_to_proto(command)).unwrap();
        let entry = Entry { stamp, min_level: command.level(), commands: vec![command] };
        let mut applied = self.0.apply(index, 1, &entry);
        assert_eq!(invariants::violations(&self.0), Vec::<&str>::new());
        let reply = applied.replies.remove(0);
        assert_eq!(reply_from_proto(reply_to_proto(&reply)).unwrap(), reply);
        (reply, applied.effects)
    }

    fn reply(&mut self, command: &Command) -> Reply {
        self.run(command).0
    }

    fn create(&mut self, id: u8, partitions: u32) -> Reply {
        self.reply(&create(id, partitions))
    }

    fn register(&mut self, request: u64, host: &str) -> (SessionId, NodeId) {
        let advertised = HostPort { host: host.into(), port: 9092 };
        let register = RegisterSession { request, advertised, zone: None };
        match self.reply(&Command::RegisterSession(register)) {
            Reply::Registered(registered) => (registered.session, registered.node_id),
            other => panic!("{other:?}"),
        }
    }

    fn unregister(&mut self, node: i32) -> Result<(), NodeRejected> {
        match self.reply(&Command::UnregisterNode { node: NodeId::new(node) }) {
            Reply::NodeUnregistered(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Asks as over the network.
    fn ask(&self, query: &Query) -> Answer {
        let query = query_from_proto(query_to_proto(query)).unwrap();
        let answer = self.0.query(&query);
        assert_eq!(answer_from_proto(answer_to_proto(&answer)).unwrap(), answer);
        answer
    }

    fn sizes(&self, from: TopicPartition, to: TopicPartition, limit: u32) -> Vec<(u8, i32, u64)> {
        match self.ask(&Query::Sizes { from, to, limit }) {
            Answer::Sizes(sizes) => sizes
                .iter()
                .map(|(at, bytes)| (at.topic.as_bytes()[0], at.partition.value(), *bytes))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn producers(&self, after: Option<i64>, limit: u32) -> Vec<ActiveProducer> {
        let after = after.map(ProducerId::new);
        match self.ask(&Query::Producers { partition: partition(1, 0), after, limit }) {
            Answer::Producers(Some(producers)) => producers,
            other => panic!("{other:?}"),
        }
    }

    fn restarted(&self) -> Self {
        Self(decode_snapshot(&encode_snapshot(&self.0)).expect("it reads back"))
    }
}

fn topic(id: u8) -> TopicId {
    TopicId::from_bytes([id; 16])
}

fn partition(id: u8, index: i32) -> TopicPartition {
    TopicPartition { topic: topic(id), partition: PartitionIndex::new(index) }
}

fn create(id: u8, partitions: u32) -> Command {
    Command::CreateTopic(CreateTopic {
        topic: topic(id),
        name: format!("topic-{id}"),
        partitions,
        replication_factor: 1,
        configs: BTreeMap::new(),
    })
}

fn grow(id: u8, partitions: u32) -> Command {
    Command::CreatePartitions(CreatePartitions { topic: topic(id), partitions })
}

fn grown() -> Reply {
    Reply::PartitionsCreated(Ok(()))
}

fn refused(why: TopicRejected) -> Reply {
    Reply::PartitionsCreated(Err(why))
}

/// A part of batches of `length` bytes to the partition, one of each producer.
fn part(seq: u64, to: TopicPartition, length: u32, producers: &[i64]) -> CommitPart {
    let batch = |place: usize| PartBatch {
        position: place as u32 * length,
        length,
        record_count: 2,
        max_timestamp: Timestamp::from_millis(seq as i64 * 10),
        producer: Some((place as u32, Sequence::new(seq as i32 * 2).unwrap())),
    };
    let epoch = ProducerEpoch::new(4).unwrap();
    CommitPart {
        session: SessionId::new(1),
        commit_seq: CommitSeq::new(seq),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(seq),
        object_seq: ObjectSeq::new(seq),
        object_bytes: 1 << 20,
        producers: producers
            .iter()
            .map(|id| PartProducer { id: ProducerId::new(*id), epoch })
            .collect(),
        extents: vec![PartExtent {
            partition: to,
            batches: (0..producers.len()).map(batch).collect(),
        }],
    }
}

#[test]
fn a_topic_grows_once_and_a_retry_is_told_the_same() {
    let mut node = Node::new();
    node.create(1, 2);
    let (reply, effects) = node.run(&grow(1, 5));
    assert_eq!((reply, effects), (grown(), vec![Effect::TopicChanged(topic(1))]));
    let (retry, effects) = node.run(&grow(1, 5));
    assert_eq!((retry, effects), (grown(), vec![]));
    node.reply(&grow(1, 7));
    assert_eq!(node.reply(&grow(1, 5)), grown(), "a retry behind somebody else's growth");
    assert_eq!(node.0.catalog_topic(topic(1)).unwrap().partitions, 7);
    assert!(node.0.partition_state(partition(1, 6)).is_some());
    assert!(node.0.partition_state(partition(1, 7)).is_none());
    assert_eq!(node.restarted().0.state_hash(), node.0.state_hash());
}

#[test]
fn a_topic_that_is_not_there_does_not_grow() {
    let mut node = Node::new();
    assert_eq!(node.reply(&grow(1, 5)), refused(TopicRejected::Unknown));
    node.create(1, 2);
    node.reply(&Command::DeleteTopic { topic: topic(1) });
    assert_eq!(node.reply(&grow(1, 5)), refused(TopicRejected::Unknown));
}

#[test]
fn growth_counts_against_the_limit_of_all_partitions_and_deletion_gives_it_back() {
    let mut node = Node::new();
    node.create(1, 2);
    node.create(2, 3);
    let most = PARTITIONS_MAX as u32 - 3;
    assert_eq!(node.reply(&grow(1, most + 1)), refused(TopicRejected::TooManyPartitions));
    assert_eq!(node.0.partition_count(), 5, "nothing of it happened");
    assert_eq!(node.reply(&grow(1, most)), grown());
    assert_eq!(node.reply(&grow(2, 4)), refused(TopicRejected::TooManyPartitions));
    node.reply(&Command::DeleteTopic { topic: topic(1) });
    assert_eq!(node.reply(&grow(2, 4)), grown());
}

#[test]
fn a_late_retry_of_a_create_is_answered_its_id_also_after_the_topic_grew() {
    let mut node = Node::new();
    node.create(1, 2);
    node.reply(&grow(1, 5));
    assert_eq!(node.create(1, 2), Reply::TopicCreated(Ok(topic(1))));
    assert_eq!(node.create(1, 6), Reply::TopicCreated(Err(TopicRejected::IdReused)));
}

#[test]
fn a_node_is_forgotten_only_once_nobody_of_it_lives_and_its_id_is_never_given_again() {
    let mut node = Node::new();
    let (_, first) = node.register(1, "a");
    let (session, second) = node.register(2, "b");
    assert_eq!((first.value(), second.value()), (1, 2));
    assert_eq!(node.unregister(2), Err(NodeRejected::Live));
    assert_eq!(node.unregister(3), Err(NodeRejected::Unknown));
    node.reply(&Command::FenceSession { session });
    assert_eq!(node.unregister(2), Ok(()));
    assert_eq!(node.unregister(2), Err(NodeRejected::Unknown));
    let mut node = node.restarted();
    let (_, again) = node.register(3, "b");
    assert_eq!(again.value(), 3, "not the second's, also behind a snapshot");
    let (_, known) = node.register(4, "a");
    assert_eq!(known, first);
    assert_eq!(node.restarted().0.state_hash(), node.0.state_hash());
}

#[test]
fn a_state_that_a_build_of_level_1_would_misread_says_so() {
    let level_of = |node: &Node| {
        let bytes = encode_snapshot(&node.0);
        // The header's message: its first field is the level.
        assert_eq!(&bytes[..1], [0x0a]);
        bytes[2..4].to_vec()
    };
    let mut node = Node::new();
    let (session, _) = node.register(1, "a");
    node.register(2, "b");
    assert_eq!(level_of(&node), [0x08, 1]);
    node.reply(&Command::FenceSession { session });
    node.unregister(1).unwrap();
    assert_eq!(level_of(&node), [0x08, 2]);
}

#[test]
fn sizes_are_the_bytes_that_rows_cover_page_by_page() {
    let mut node = Node::new();
    node.register(1, "a");
    node.create(1, 3);
    node.create(2, 1);
    let mut seq = 0;
    let mut write = |node: &mut Node, to: TopicPartition, length: u32| {
        let reply = node.reply(&Command::Commit(part(seq, to, length, &[seq as i64])));
        // Each of a producer of its own, which a partition with records takes at any sequence.
        assert!(matches!(reply, Reply::Commit(CommitReply::Applied(_))), "{reply:?}");
        seq += 1;
    };
    write(&mut node, partition(1, 2), 1); // The first sequence is 0: the only fresh one taken.
    for length in 0..600 {
        write(&mut node, partition(1, 2), 100 + length);
    }
    let whole = 1 + (0..600).map(|length| 100 + length).sum::<u64>();
    let (first, last) = (partition(0, i32::MIN), partition(255, i32::MAX));
    assert_eq!(node.sizes(first, last, 10), [(1, 2, whole)], "empty partitions are left out");
    assert_eq!(node.restarted().sizes(first, last, 10), [(1, 2, whole)]);
    assert!(node.sizes(partition(1, 0), partition(1, 1), 10).is_empty());
    assert!(node.sizes(last, first, 10).is_empty(), "the wrong way round");
    assert!(node.sizes(first, last, 0).is_empty());
}

#[test]
fn producers_of_a_partition_are_told_with_their_last_batch_in_pages() {
    let mut node = Node::new();
    node.register(1, "a");
    node.create(1, 1);
    let at = partition(1, 0);
    node.reply(&Command::Commit(part(0, at, 100, &[7, 3, i64::MAX])));
    node.reply(&Command::Commit(part(1, at, 100, &[3])));
    let told: Vec<_> = node
        .producers(None, u32::MAX)
        .iter()
        .map(|p| (p.producer.value(), p.epoch.value(), p.last_sequence.value()))
        .collect();
    assert_eq!(told, [(3, 4, 3), (7, 4, 1), (i64::MAX, 4, 1)]);
    assert_eq!(node.producers(None, 1)[0].last_timestamp, Timestamp::from_millis(10));
    assert_eq!(node.producers(Some(3), 1)[0].producer.value(), 7);
    assert!(node.producers(Some(i64::MAX), 9).is_empty());
    let unknown = Query::Producers { partition: partition(9, 0), after: None, limit: 1 };
    assert_eq!(node.ask(&unknown), Answer::Producers(None));
}

#[test]
fn a_list_is_bounded_whatever_was_asked() {
    let mut node = Node::new();
    node.register(1, "a");
    node.create(1, 1);
    let ids: Vec<i64> = (0..i64::from(QUERY_LISTED_MAX) + 5).collect();
    for (seq, ids) in ids.chunks(5000).enumerate() {
        let mut part = part(seq as u64, partition(1, 0), 10, ids);
        for batch in &mut part.extents[0].batches {
            batch.producer = batch.producer.map(|(place, _)| (place, Sequence::ZERO));
        }
        node.reply(&Command::Commit(part));
    }
    let page = node.producers(None, u32::MAX);
    assert_eq!(page.len(), QUERY_LISTED_MAX as usize);
    let rest = node.producers(page.last().map(|last| last.producer.value()), u32::MAX);
    assert_eq!(rest.len(), 5);
}
