//! Laws of topics, objects, sessions and nodes, one scenario each (RELIABILITY 3.3, B6, F8).

#![allow(clippy::disallowed_methods, reason = "tests may unwrap")]

use std::collections::BTreeMap;

use aquifer_metadata::codec::{decode_snapshot, encode_snapshot};
use aquifer_metadata::machine::{
    Genesis, MetadataState,
    command::{
        AlterConfigs, BatchOutcome, BatchRejected, Command, CommitPart, CommitReply,
        CreatePartitions, CreateTopic, Entry, HostPort, PartBatch, PartExtent, PartProducer,
        RegisterSession, Reply, Stamp, TopicRejected,
    },
    config::{ConfigChange, ConfigKey, ConfigKind, ConfigResource, Overrides},
    effect::Effect,
    group::{
        command::{GroupAction, GroupCommand, GroupReply},
        consumer::{AssignedTopic, MemberEpoch, command::ConsumerHeartbeat},
        types::MemberId,
    },
    invariants,
    topic::PARTITIONS_MAX,
};
use aquifer_storage::model::{
    CommitSeq, Lineage, LogIndex, NodeId, ObjectSeq, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, SessionId, Timestamp, TopicId, TopicPartition,
};

struct Node(MetadataState);

impl Node {
    fn new() -> Self {
        let lineage = Lineage { number: 0, nonce: 1 };
        Self(MetadataState::new(Genesis { cluster_id: "c".into(), lineage }))
    }

    fn run(&mut self, command: Command) -> (Reply, Vec<Effect>) {
        let index = self.0.applied_index().next();
        let stamp = Stamp { boot: 1, mono_ms: index.value() * 1000, wall_ms: 0 };
        let entry = Entry { stamp, min_level: 1, commands: vec![command] };
        let mut applied = self.0.apply(index, 1, &entry);
        assert_eq!(invariants::violations(&self.0), Vec::<&str>::new());
        (applied.replies.remove(0), applied.effects)
    }

    fn reply(&mut self, command: Command) -> Reply {
        self.run(command).0
    }

    fn register(&mut self, request: u64, host: &str) -> (SessionId, NodeId) {
        let advertised = HostPort { host: host.into(), port: 9092 };
        let register = RegisterSession { request, advertised, zone: None };
        match self.reply(Command::RegisterSession(register)) {
            Reply::Registered(registered) => (registered.session, registered.node_id),
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, id: u8, name: &str, partitions: u32) -> Result<TopicId, TopicRejected> {
        let create = CreateTopic {
            topic: topic(id),
            name: name.into(),
            partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        match self.reply(Command::CreateTopic(create)) {
            Reply::TopicCreated(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, id: u8) -> Result<(), TopicRejected> {
        match self.reply(Command::DeleteTopic { topic: topic(id) }) {
            Reply::TopicDeleted(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, part: CommitPart) -> Vec<BatchOutcome> {
        match self.reply(Command::Commit(part)) {
            Reply::Commit(CommitReply::Applied(outcomes)) => outcomes,
            other => panic!("{other:?}"),
        }
    }
}

fn topic(id: u8) -> TopicId {
    TopicId::from_bytes([id; 16])
}

fn partition(id: u8) -> TopicPartition {
    TopicPartition { topic: topic(id), partition: PartitionIndex::new(0) }
}

/// A part with one batch of three records for each topic.
fn part(session: SessionId, commit_seq: u64, topics: &[u8]) -> CommitPart {
    let extent = |(n, id): (usize, &u8)| PartExtent {
        partition: partition(*id),
        batches: vec![PartBatch {
            position: n as u32 * 100,
            length: 100,
            record_count: 3,
            max_timestamp: Timestamp::from_millis(5),
            producer: None,
        }],
    };
    CommitPart {
        session,
        commit_seq: CommitSeq::new(commit_seq),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(commit_seq),
        object_bytes: 10_000,
        producers: Vec::new(),
        extents: topics.iter().enumerate().map(extent).collect(),
    }
}

#[test]
fn a_retried_create_answers_its_id_and_another_spec_is_refused() {
    let mut node = Node::new();
    assert_eq!(node.create(1, "a", 2), Ok(topic(1)));
    assert_eq!(node.create(1, "a", 2), Ok(topic(1)));
    assert_eq!(node.create(1, "a", 3), Err(TopicRejected::IdReused));
    assert_eq!(node.create(2, "a", 2), Err(TopicRejected::AlreadyExists { topic: topic(1) }));
}

#[test]
fn names_that_differ_in_dots_and_underscores_collide_until_the_first_is_deleted() {
    let mut node = Node::new();
    node.create(1, "a.b_c", 1).unwrap();
    let collides = Err(TopicRejected::Collides { with: "a.b_c".into() });
    assert_eq!(node.create(2, "a_b.c", 1), collides);
    node.delete(1).unwrap();
    assert_eq!(node.create(2, "a_b.c", 1), Ok(topic(2)));
}

#[test]
fn a_late_retry_of_a_create_does_not_bring_a_deleted_topic_back() {
    let mut node = Node::new();
    node.create(1, "a", 1).unwrap();
    assert_eq!(node.delete(1), Ok(()));
    assert_eq!(node.delete(1), Ok(()), "a retry");
    assert_eq!(node.create(1, "a", 1), Err(TopicRejected::IdReused));
    assert_eq!(node.delete(9), Err(TopicRejected::Unknown));
}

#[test]
fn the_partition_limit_counts_all_topics_and_deletion_gives_back() {
    let mut node = Node::new();
    node.create(1, "a", PARTITIONS_MAX as u32).unwrap();
    assert_eq!(node.create(2, "b", 1), Err(TopicRejected::TooManyPartitions));
    node.delete(1).unwrap();
    assert_eq!(node.create(2, "b", u32::MAX), Err(TopicRejected::TooManyPartitions));
    assert_eq!(node.create(2, "b", 1), Ok(topic(2)));
}

#[test]
fn a_recreated_topic_never_shows_old_records() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "agent");
    node.create(1, "a", 1).unwrap();
    node.commit(part(session, 0, &[1]));
    node.delete(1).unwrap();
    node.create(2, "a", 1).unwrap();
    assert!(node.0.partition_state(partition(1)).is_none());
    let fresh = node.0.partition_state(partition(2)).unwrap();
    assert_eq!((fresh.runs.len(), fresh.pointers.high_watermark.value()), (0, 0));
    let late = node.commit(part(session, 1, &[1, 2]));
    assert_eq!(late[0], BatchOutcome::Rejected(BatchRejected::UnknownPartition));
    assert!(matches!(late[1], BatchOutcome::Appended { base, .. } if base.value() == 0));
}

#[test]
fn an_object_without_a_live_run_is_kept_until_nobody_can_name_it() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "agent");
    node.create(1, "a", 1).unwrap();
    node.commit(part(session, 0, &[1]));
    node.delete(1).unwrap();
    node.create(2, "b", 1).unwrap();
    // The same object again, as a later part of it.
    node.commit(CommitPart { object_seq: ObjectSeq::new(0), ..part(session, 1, &[2]) });
    let run = node.0.partition_state(partition(2)).unwrap().runs[0];
    assert_eq!(run.object.seq, ObjectSeq::new(0));
    node.delete(2).unwrap();
    // `invariants` checks that fencing condemns it now, and not before.
    node.reply(Command::FenceSession { session });
}

#[test]
fn fencing_tells_the_world_once_and_stops_commits_and_producer_ids() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "agent");
    let (_, effects) = node.run(Command::FenceSession { session });
    assert_eq!(effects, [Effect::SessionFenced(session), Effect::NodesChanged]);
    assert_eq!(node.run(Command::FenceSession { session }), (Reply::Done, vec![]));
    let refused = node.reply(Command::Commit(part(session, 0, &[1])));
    assert_eq!(refused, Reply::Commit(CommitReply::Fenced));
    let ids = node.reply(Command::AllocateProducerIds { session });
    assert!(matches!(ids, Reply::ProducerIds(Err(_))));
    assert!(node.0.nodes().is_empty() && node.0.live_sessions().is_empty());
}

#[test]
fn a_node_id_belongs_to_an_address_for_ever_and_agents_of_one_address_are_one_node() {
    let mut node = Node::new();
    let (first, id) = node.register(1, "a");
    let (_, other) = node.register(2, "b");
    assert_eq!((id, other), (NodeId::new(1), NodeId::new(2)));
    node.reply(Command::FenceSession { session: first });
    let (second, again) = node.register(3, "a");
    let (third, shared) = node.register(4, "a");
    assert_eq!((again, shared), (id, id));
    assert!(second < third);
    let nodes = node.0.nodes();
    assert_eq!(nodes.iter().map(|n| n.node_id.value()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(nodes[0].session, third);
}

#[test]
fn producer_ids_are_unique_across_sessions() {
    let mut node = Node::new();
    let (a, _) = node.register(1, "a");
    let (b, _) = node.register(2, "b");
    let firsts: Vec<i64> = [a, b, a]
        .map(|session| match node.reply(Command::AllocateProducerIds { session }) {
            Reply::ProducerIds(Ok(block)) => block.first.value(),
            other => panic!("{other:?}"),
        })
        .into();
    assert_eq!(firsts, [0, 1000, 2000]);
}

#[test]
fn a_snapshot_carries_which_producers_are_forgotten_next() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "a");
    node.create(1, "a", 1).unwrap();
    let mut many = part(session, 0, &[1]);
    let batch = many.extents[0].batches[0];
    many.extents[0].batches =
        (0..200).map(|n| PartBatch { producer: Some((n, Sequence::default())), ..batch }).collect();
    many.producers = (0..200)
        .map(|n| PartProducer { id: ProducerId::new(n), epoch: ProducerEpoch::default() })
        .collect();
    node.commit(many.clone());
    let mut seconds = 1_000;
    let mut next_stamp = || {
        seconds += 1;
        Stamp { boot: 1, mono_ms: seconds * 1000, wall_ms: 0 }
    };
    let mut pass = |state: &mut MetadataState, entries| {
        for _ in 0..entries {
            let tick = Entry { stamp: next_stamp(), min_level: 1, commands: vec![Command::Tick] };
            state.apply(state.applied_index().next(), 1, &tick);
        }
        next_stamp()
    };
    // Some write on, half a day later, and stay where they were queued.
    let later = pass(&mut node.0, 43_200);
    many.commit_seq = many.commit_seq.next();
    let next = Sequence::default().advance(many.extents[0].batches[0].record_count);
    many.extents[0].batches =
        (0..70).map(|n| PartBatch { producer: Some((n * 2, next)), ..batch }).collect();
    let index = node.0.applied_index().next();
    let entry = Entry { stamp: later, min_level: 1, commands: vec![Command::Commit(many)] };
    node.0.apply(index, 1, &entry);
    let restored = |state: &MetadataState| decode_snapshot(&encode_snapshot(state)).unwrap();
    pass(&mut node.0, 43_195);
    for _ in 0..12 {
        let entry =
            Entry { stamp: pass(&mut node.0, 0), min_level: 1, commands: vec![Command::Tick] };
        let mut copy = restored(&node.0);
        assert_eq!(copy.state_hash(), node.0.state_hash());
        let index = node.0.applied_index().next();
        assert_eq!(copy.apply(index, 1, &entry), node.0.apply(index, 1, &entry));
        assert_eq!(copy.state_hash(), node.0.state_hash());
    }
}

#[test]
fn an_idle_cluster_has_no_deadline_and_so_writes_nothing() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "a");
    node.create(1, "a", 1).unwrap();
    node.commit(part(session, 0, &[1]));
    node.reply(Command::FenceSession { session });
    node.delete(1).unwrap();
    assert_eq!(node.0.pending_deadline(), None);
    assert_eq!(node.0.applied_index(), LogIndex::new(5));
}

#[test]
fn malformed_parts_that_slipped_through_are_refused_and_not_a_panic() {
    let mut node = Node::new();
    let (session, _) = node.register(1, "a");
    node.create(1, "a", 1).unwrap();
    let mut bad = part(session, 0, &[1, 1, 1]);
    bad.extents[0].batches[0].record_count = 0;
    bad.extents[1].batches[0].producer = Some((7, Default::default()));
    bad.extents[2].batches[0].position = u32::MAX;
    bad.extents[2].partition.partition = PartitionIndex::new(-1);
    let outcomes = node.commit(bad);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, BatchOutcome::Rejected(_))));
}

/// A consumer of "a.*": its epoch, how many partitions it is told of, and when it is to come again.
fn consumer(node: &mut Node, epoch: i32, owned: Option<u8>) -> (i32, Option<usize>, u32) {
    let joins = epoch == 0;
    let held = owned.map(|number| {
        let partitions = vec![PartitionIndex::new(0)];
        vec![AssignedTopic { topic: topic(number), partitions }]
    });
    let heartbeat = ConsumerHeartbeat {
        member: MemberId::new("m"),
        epoch: MemberEpoch::new(epoch),
        instance: None,
        rack: None,
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: joins.then_some(60_000),
        subscribed: None,
        regex: joins.then(|| "a.*".into()),
        assignor: None,
        owned: if joins { Some(Vec::new()) } else { held },
    };
    let action = GroupAction::ConsumerHeartbeat(Box::new(heartbeat));
    let command = GroupCommand { group: "readers".into(), action };
    match node.reply(Command::Group(command)) {
        Reply::Group(GroupReply::ConsumerHeartbeat(Ok(answer))) => {
            let told = answer
                .assignment
                .map(|topics| topics.iter().map(|topic| topic.partitions.len()).sum::<usize>());
            (answer.epoch.value(), told, answer.heartbeat_interval_ms)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_consumer_hears_at_its_next_heartbeat_of_topics_that_come_grow_and_go() {
    let mut node = Node::new();
    node.create(1, "a1", 1).unwrap();
    assert_eq!(consumer(&mut node, 0, None), (2, Some(1), 500));
    node.create(2, "a2", 1).unwrap();
    assert_eq!(consumer(&mut node, 2, None), (3, Some(2), 500));
    let grow = CreatePartitions { topic: topic(1), partitions: 2 };
    node.reply(Command::CreatePartitions(grow));
    assert_eq!(consumer(&mut node, 3, None), (4, Some(3), 500));
    let mut node = Node(decode_snapshot(&encode_snapshot(&node.0)).unwrap());
    node.delete(1).unwrap();
    // Told to give up what is gone, it says what it still has.
    assert_eq!(consumer(&mut node, 4, None), (4, Some(1), 200));
    assert_eq!(consumer(&mut node, 4, Some(2)), (5, None, 500));
}

#[test]
fn a_groups_own_config_goes_before_the_clusters() {
    let mut node = Node::new();
    node.create(1, "a1", 1).unwrap();
    let set = |node: &mut Node, kind, name: &str, config: &str, value: &str| {
        let key = ConfigKey { kind, name: name.into() };
        let change = ConfigChange::Replace(Overrides::from([(config.into(), value.into())]));
        let resource = ConfigResource::Other(key);
        let alter = AlterConfigs { resource, change, orders: Vec::new() };
        assert_eq!(node.reply(Command::AlterConfigs(alter)), Reply::ConfigsAltered(Ok(())));
    };
    let name = "group.consumer.heartbeat.interval.ms";
    set(&mut node, ConfigKind::Broker, "", name, "7000");
    assert_eq!(consumer(&mut node, 0, None), (2, Some(1), 7_000));
    let name = "consumer.heartbeat.interval.ms";
    set(&mut node, ConfigKind::Group, "readers", name, "6000");
    assert_eq!(consumer(&mut node, 2, None), (2, None, 6_000));
    let name = "consumer.session.timeout.ms";
    set(&mut node, ConfigKind::Group, "readers", name, "50000");
    let watched = node.0.group_members_for_liveness();
    assert_eq!(watched[0].session_timeout_ms, 50_000);
}
