//! Laws of the whole state that need a rich history: a snapshot carries everything, the leader
//! epoch is the lineage's, and a flood of producers passes (RELIABILITY A7, B7, E7, G7).

#![allow(clippy::disallowed_methods, reason = "tests may unwrap")]

use std::{collections::BTreeMap, fs};

use aquifer_metadata::{
    codec::{decode_snapshot, encode_snapshot},
    machine::{
        Applied, Genesis, MetadataState,
        command::{
            BatchOutcome, Command, CommitPart, CommitReply, CreateTopic, Entry, HostPort,
            PartBatch, PartExtent, PartProducer, RegisterSession, Reply, Stamp,
        },
        effect::Effect,
        group::{
            command::{CommitOffsets, CommittedOffset, GroupAction, GroupCommand, Join, RequestId},
            types::MemberId,
        },
        invariants,
    },
};
use aquifer_storage::model::{
    CommitSeq, LeaderEpoch, Lineage, ObjectSeq, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, SessionId, Timestamp, TopicId, TopicPartition,
};

const DAY_SECONDS: u64 = 24 * 60 * 60;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A state, and the clocks of the leader that writes its entries.
#[derive(Clone)]
struct Node {
    state: MetadataState,
    term: u64,
    wall_ms: i64,
    mono_ms: u64,
}

impl Node {
    fn new(lineage_number: u32) -> Self {
        let lineage = Lineage { number: lineage_number, nonce: 9 };
        let genesis = Genesis { cluster_id: "promises".into(), lineage };
        Self { state: MetadataState::new(genesis), term: 1, wall_ms: 0, mono_ms: 0 }
    }

    /// Applies an entry without a look at the invariants, which read the whole state.
    fn apply_fast(&mut self, command: Command) -> Applied {
        let index = self.state.applied_index().next();
        self.mono_ms += 100;
        let (mono_ms, wall_ms) = (self.mono_ms, self.wall_ms);
        let stamp = Stamp { boot: self.term, mono_ms, wall_ms };
        let entry = Entry { stamp, min_level: 1, commands: vec![command] };
        self.state.apply(index, self.term, &entry)
    }

    /// Lets time pass: an entry takes it a second further at most.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.mono_ms += 900;
            self.apply_fast(Command::Tick);
        }
    }

    fn apply(&mut self, command: Command) -> Applied {
        let applied = self.apply_fast(command);
        assert_eq!(invariants::violations(&self.state), Vec::<&str>::new());
        applied
    }

    /// The node after a restart from its snapshot.
    fn restarted(&self) -> Self {
        let state = decode_snapshot(&encode_snapshot(&self.state)).expect("it reads back");
        Self { state, ..self.clone() }
    }
}

fn topic(id: u8) -> TopicId {
    TopicId::from_bytes([id; 16])
}

fn partition(id: u8) -> TopicPartition {
    TopicPartition { topic: topic(id), partition: PartitionIndex::new(0) }
}

fn create(id: u8) -> Command {
    Command::CreateTopic(CreateTopic {
        topic: topic(id),
        name: format!("topic-{id}"),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
    })
}

fn register(request: u64) -> Command {
    let advertised = HostPort { host: format!("agent-{request}"), port: 9092 };
    Command::RegisterSession(RegisterSession { request, advertised, zone: Some("a".into()) })
}

/// A part of one session with one batch for each producer, all of one partition.
fn part(session: u64, seq: u64, to: u8, producers: &[(i64, i32)]) -> CommitPart {
    let batch = |(place, (_, first)): (usize, &(i64, i32))| PartBatch {
        position: place as u32 * 100,
        length: 100,
        record_count: 2,
        max_timestamp: Timestamp::from_millis(seq as i64),
        producer: Some((place as u32, Sequence::new(*first).unwrap())),
    };
    let producer = |(id, _): &(i64, i32)| PartProducer {
        id: ProducerId::new(*id),
        epoch: ProducerEpoch::default(),
    };
    CommitPart {
        session: SessionId::new(session),
        commit_seq: CommitSeq::new(seq),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(seq),
        object_bytes: 1 << 20,
        producers: producers.iter().map(producer).collect(),
        extents: vec![PartExtent {
            partition: partition(to),
            batches: producers.iter().enumerate().map(batch).collect(),
        }],
    }
}

fn commit_offsets(offset: i64) -> Command {
    let offset = Offset::new(offset).unwrap();
    let leader_epoch = Some(LeaderEpoch::new(3));
    let committed = CommittedOffset { offset, leader_epoch, metadata: "note".into() };
    let commit = CommitOffsets {
        member: MemberId::default(),
        instance: None,
        generation: None,
        knows_epochs: true,
        offsets: vec![(partition(1), committed)],
    };
    let action = GroupAction::CommitOffsets(commit);
    Command::Group(GroupCommand { group: "readers".into(), action })
}

fn join(number: u64) -> Command {
    let join = Join {
        request: RequestId { session: SessionId::new(1), number },
        member: MemberId::default(),
        proposed_member: MemberId::new(format!("member-{number}")),
        require_known_member: false,
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), bytes::Bytes::from_static(b"topics"))],
        limits: None,
    };
    let action = GroupAction::Join(join);
    Command::Group(GroupCommand { group: "joiners".into(), action })
}

/// A history with something of everything: live and fenced sessions with unread results,
/// producers with a full window, garbage, deleted topics, groups with offsets and members.
fn rich() -> (Node, Vec<Command>) {
    let mut node = Node::new(3);
    let mut commands = vec![register(1), register(2), create(1), create(2), create(3)];
    for seq in 0..40 {
        let first = seq as i32 * 2;
        commands.push(Command::Commit(part(1, seq, 1, &[(4, first), (5, first)])));
    }
    commands.push(Command::Commit(part(2, 0, 2, &[(6, 0)])));
    commands.push(Command::Commit(part(2, 1, 3, &[(7, 0)])));
    commands.extend([
        Command::AllocateProducerIds { session: SessionId::new(1) },
        Command::DeleteTopic { topic: topic(2) },
        Command::FenceSession { session: SessionId::new(2) },
        commit_offsets(15),
        join(1),
        join(2),
        Command::Tick,
    ]);
    for command in &commands {
        node.apply(command.clone());
    }
    (node, commands)
}

/// Every value of every field, also of those that no encoding knows. Sorted, and without the shape
/// of the trees, which depends on what was inserted first.
fn fields(state: &MetadataState) -> Vec<String> {
    let is_shape = |line: &str| {
        let shapes = ["color: ", "left: ", "right: ", "root: ", "Some(", "Node {"];
        shapes.iter().any(|shape| line.starts_with(shape)) || line.ends_with(['}', ')', ']'])
    };
    let text = format!("{state:#?}");
    let lines = text.lines().map(|line| line.trim().trim_end_matches(','));
    let mut lines: Vec<String> = lines.filter(|line| !is_shape(line)).map(String::from).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_restored_state_is_the_one_that_was_written() {
    let (node, _) = rich();
    let restored = node.restarted();
    assert_eq!(fields(&restored.state), fields(&node.state));
    assert_eq!(restored.state.state_hash(), node.state.state_hash());
}

#[test]
fn a_restored_state_answers_retries_as_the_one_that_wrote_it() {
    let (mut node, commands) = rich();
    let mut restored = node.restarted();
    let mut results = 0;
    for command in commands {
        let answered = node.apply(command.clone());
        assert_eq!(restored.apply(command.clone()), answered, "{command:?}");
        let is_result = matches!(
            (&command, &answered.replies[0]),
            (Command::Commit(_), Reply::Commit(CommitReply::Applied(outcomes)))
                if outcomes.iter().all(|one| matches!(one, BatchOutcome::Appended { .. }))
        );
        results += usize::from(is_result);
    }
    assert_eq!(results, 42, "each part has its first answer");
    assert_eq!(fields(&restored.state), fields(&node.state));
}

#[test]
fn the_leader_epoch_is_the_lineage_whatever_is_applied_in_whatever_term() {
    let (mut node, commands) = rich();
    let lineage_epoch = LeaderEpoch::new(3);
    for (term, command) in (2..).zip(commands) {
        node.term = term;
        if term % 8 == 0 {
            node = node.restarted();
        }
        for effect in node.apply(command).effects {
            if let Effect::PartitionAdvanced { pointers, .. } = effect {
                assert_eq!(pointers.leader_epoch, lineage_epoch);
            }
        }
        let told = node.state.partition_state(partition(1)).expect("it exists");
        assert_eq!(told.pointers.leader_epoch, lineage_epoch, "term {term}");
    }
    let (next_life, mut after) = (4, Node::new(4));
    after.apply(create(1));
    let told = after.state.partition_state(partition(1)).expect("it exists");
    assert_eq!(told.pointers.leader_epoch, LeaderEpoch::new(next_life));
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

/// What one producer on one partition may take, allocator and tree included.
const PRODUCER_BYTES_MAX: u64 = 1024;

#[test]
fn a_flood_of_producers_is_bounded_in_memory_and_forgotten_a_little_per_entry() {
    // A million takes a minute without optimisation: what is measured is per producer.
    let count = if std::env::var_os("TEST_FULL").is_some_and(|on| !on.is_empty()) {
        1_000_000
    } else {
        100_000
    };
    let mut node = Node::new(0);
    node.apply(register(1));
    node.apply(create(1));
    let steady: Vec<(i64, i32)> = (0..100).map(|id| (id, 0)).collect();
    node.apply(Command::Commit(part(1, 0, 1, &steady)));
    let (before, mut seq) = (resident_bytes(), 1);
    let flood: Vec<(i64, i32)> = (0..count).map(|id| (1_000 + id, 0)).collect();
    for some in flood.chunks(4096) {
        let mut part = part(1, seq, 1, some);
        part.acked_seq = CommitSeq::new(seq);
        node.apply_fast(Command::Commit(part));
        seq += 1;
    }
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < count as u64 * PRODUCER_BYTES_MAX, "{taken} bytes for {count} producers");
    let known = |node: &Node| encode_snapshot(&node.state).len();
    let (flooded, mut entries) = (known(&node), 0);
    // A wall clock that is ten years off makes nobody older.
    node.wall_ms = 3_650 * DAY_MS;
    node.pass(DAY_SECONDS / 2);
    assert_eq!(known(&node) / 100, flooded / 100);
    // Those who go on writing are not forgotten, and do not keep the others in.
    let again: Vec<(i64, i32)> = steady.iter().map(|(id, _)| (*id, 2)).collect();
    let mut part = part(1, seq, 1, &again);
    part.acked_seq = CommitSeq::new(seq);
    node.apply_fast(Command::Commit(part));
    node.pass(DAY_SECONDS / 2);
    while flooded / 100 < known(&node) {
        for _ in 0..count / 64 / 4 {
            node.apply_fast(Command::Tick);
            entries += 1;
        }
        assert!(entries <= 2 * count / 64, "{} of {flooded} bytes are left", known(&node));
    }
    assert!(count / 64 / 2 <= entries, "no entry has to forget more than its share");
    let mut part = self::part(1, seq + 1, 1, &again);
    part.acked_seq = CommitSeq::new(seq + 1);
    let reply = node.apply(Command::Commit(part)).replies.remove(0);
    let Reply::Commit(CommitReply::Applied(outcomes)) = reply else { panic!("{reply:?}") };
    let all_known = outcomes.iter().all(|one| matches!(one, BatchOutcome::Duplicate { .. }));
    assert!(all_known, "who wrote within the day is remembered");
}
