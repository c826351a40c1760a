//! Laws of the state machine, on random histories against a naive model (RELIABILITY A2, A4, A7,
//! A9, B1, B2, B6, F8, G4, G7).

#![allow(clippy::disallowed_methods, reason = "tests may unwrap")]

use std::collections::BTreeMap;

use aquifer_metadata::{
    codec::{decode_entry, decode_snapshot, encode_entry, encode_snapshot},
    machine::{
        Applied, Genesis, MetadataState,
        command::{
            AlterConfigs, BatchOutcome, BatchRejected, Command, CommitPart, CommitReply,
            CreatePartitions, CreateTopic, DeleteRecords, DeleteRecordsRejected, Entry, HostPort,
            PartBatch, PartExtent, PartProducer, RegisterSession, Reply, Stamp,
        },
        config::{
            ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigOp, ConfigOrder,
            ConfigResource, ListChange,
        },
        effect::Effect,
        invariants,
        query::{Answer, Query, TimeSpec},
    },
};
use aquifer_storage::model::{
    CommitSeq, Lineage, LogIndex, NodeId, ObjectSeq, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, SessionId, Timestamp, TopicId, TopicPartition,
};
use proptest::prelude::*;

#[path = "machine_laws/restored.rs"]
mod restored;

const SESSIONS: u64 = 2;
const TOPICS: u8 = 2;

fn genesis() -> Genesis {
    Genesis { cluster_id: "laws".into(), lineage: Lineage { number: 3, nonce: 9 } }
}

fn topic(n: u8) -> TopicId {
    TopicId::from_bytes([n + 1; 16])
}

/// One step of a history, before the sessions' counters are put in.
#[derive(Clone, Debug)]
enum Step {
    Commit { session: u64, batches: Vec<Batch>, new_object: bool, acks: bool },
    Fence { session: u64 },
    DeleteTopic { topic: u8 },
    CreateTopic { topic: u8 },
    CreatePartitions { topic: u8, count: u32 },
    UnregisterNode { node: i32 },
    DeleteRecords { topic: u8, partition: i32, before: Option<i64> },
    AllocateIds { session: u64 },
    AlterConfigs(AlterConfigs),
    Tick,
}

#[derive(Clone, Debug)]
struct Batch {
    topic: u8,
    partition: i32,
    producer: Option<(i64, i16, i32)>,
    record_count: u32,
    hole: bool,
}

fn batch() -> impl Strategy<Value = Batch> {
    let producer = proptest::option::weighted(0.8, (0..2_i64, 0..2_i16, 0..6_i32));
    (0..TOPICS, -1..3_i32, producer, 1..3_u32, proptest::bool::weighted(0.2)).prop_map(
        |(topic, partition, producer, record_count, hole)| {
            let partition = partition.max(0);
            Batch { topic, partition, producer, record_count, hole }
        },
    )
}

/// Changes of a few configs of a few resources, so that they meet.
fn alter() -> impl Strategy<Value = AlterConfigs> {
    let name = || (0..4_u8).prop_map(|n| format!("c{n}"));
    let list = (0..8_u8, any::<bool>()).prop_map(|(n, default)| ListChange {
        items: format!("{},x", n % 3),
        default: if default { "x".into() } else { String::new() },
    });
    let action = prop_oneof![
        3 => (0..9_u8).prop_map(|n| ConfigAction::Set(n.to_string())),
        1 => Just(ConfigAction::Delete),
        1 => list.clone().prop_map(ConfigAction::Append),
        1 => list.prop_map(ConfigAction::Subtract),
    ];
    let op = (name(), action).prop_map(|(name, action)| ConfigOp { name, action });
    let change = prop_oneof![
        4 => proptest::collection::vec(op, 0..4).prop_map(ConfigChange::Incremental),
        1 => proptest::collection::btree_map(name(), "[0-9]", 0..4).prop_map(ConfigChange::Replace),
    ];
    let key = (0..4_u8, 0..2_u8).prop_map(|(kind, n)| match kind {
        0 => ConfigKey { kind: ConfigKind::Broker, name: n.to_string() },
        1 => ConfigKey { kind: ConfigKind::Group, name: n.to_string() },
        2 => ConfigKey { kind: ConfigKind::ClientMetrics, name: n.to_string() },
        _ => ConfigKey::group_defaults(),
    });
    let resource = prop_oneof![
        (0..TOPICS + 1).prop_map(|n| ConfigResource::Topic(topic(n))),
        key.prop_map(ConfigResource::Other),
    ];
    (resource, change, any::<bool>()).prop_map(|(resource, change, ordered)| {
        let order = ConfigOrder { lesser: ("c0".into(), 0), greater: ("c1".into(), 5) };
        AlterConfigs { resource, change, orders: if ordered { vec![order] } else { Vec::new() } }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let session = 1..=SESSIONS;
    prop_oneof![
        20 => (session.clone(), proptest::collection::vec(batch(), 0..8), any::<bool>(), any::<bool>())
            .prop_map(|(session, batches, new_object, acks)| {
                Step::Commit { session, batches, new_object, acks }
            }),
        1 => session.clone().prop_map(|session| Step::Fence { session }),
        1 => (0..TOPICS).prop_map(|topic| Step::DeleteTopic { topic }),
        1 => (0..TOPICS).prop_map(|topic| Step::CreateTopic { topic }),
        2 => (0..TOPICS, 1..4_u32)
            .prop_map(|(topic, count)| Step::CreatePartitions { topic, count }),
        1 => (0..4_i32).prop_map(|node| Step::UnregisterNode { node }),
        3 => (0..TOPICS, 0..3_i32, proptest::option::weighted(0.7, 0..40_i64)).prop_map(
            |(topic, partition, before)| Step::DeleteRecords { topic, partition, before },
        ),
        2 => session.prop_map(|session| Step::AllocateIds { session }),
        4 => alter().prop_map(Step::AlterConfigs),
        2 => Just(Step::Tick),
    ]
}

fn history() -> impl Strategy<Value = Vec<Command>> {
    proptest::collection::vec(step(), 1..60).prop_map(|steps| {
        let mut commands = opening();
        let mut writers: BTreeMap<u64, Writer> = BTreeMap::new();
        let mut recreated = TOPICS;
        for step in steps {
            commands.push(match step {
                Step::Commit { session, batches, new_object, acks } => {
                    let writer = writers.entry(session).or_default();
                    Command::Commit(writer.part(session, &batches, (new_object, acks)))
                }
                Step::Fence { session } => {
                    Command::FenceSession { session: SessionId::new(session) }
                }
                Step::DeleteTopic { topic: n } => Command::DeleteTopic { topic: topic(n) },
                Step::CreateTopic { topic: n } => {
                    recreated += 1; // The old name under a new id.
                    create(topic(recreated), n)
                }
                Step::CreatePartitions { topic: n, count: partitions } => {
                    let topic = topic(n);
                    Command::CreatePartitions(CreatePartitions { topic, partitions })
                }
                Step::UnregisterNode { node } => {
                    Command::UnregisterNode { node: NodeId::new(node) }
                }
                Step::DeleteRecords { topic: n, partition, before } => {
                    let partition = PartitionIndex::new(partition);
                    Command::DeleteRecords(DeleteRecords {
                        partition: TopicPartition { topic: topic(n), partition },
                        before: before.map(|before| Offset::new(before).unwrap()),
                    })
                }
                Step::AllocateIds { session } => {
                    Command::AllocateProducerIds { session: SessionId::new(session) }
                }
                Step::AlterConfigs(alter) => Command::AlterConfigs(alter),
                Step::Tick => Command::Tick,
            });
        }
        commands
    })
}

/// Sessions and topics that histories begin with.
fn opening() -> Vec<Command> {
    let register = |request| {
        let advertised = HostPort { host: format!("agent-{request}"), port: 9092 };
        Command::RegisterSession(RegisterSession { request, advertised, zone: None })
    };
    let topics = (0..TOPICS).map(|n| create(topic(n), n));
    (1..=SESSIONS).map(register).chain(topics).collect()
}

fn create(id: TopicId, name: u8) -> Command {
    Command::CreateTopic(CreateTopic {
        topic: id,
        name: format!("topic-{name}"),
        partitions: 2,
        replication_factor: 3,
        configs: BTreeMap::new(),
    })
}

/// An agent's counters.
#[derive(Default)]
struct Writer {
    commit_seq: u64,
    object_seq: u64,
    position: u32,
}

impl Writer {
    fn part(
        &mut self,
        session: u64,
        batches: &[Batch],
        (new_object, acks): (bool, bool),
    ) -> CommitPart {
        if new_object {
            self.object_seq += 1;
            self.position = 0;
        }
        let mut producers = Vec::new();
        let mut extents: Vec<PartExtent> = Vec::new();
        for batch in batches {
            let partition = TopicPartition {
                topic: topic(batch.topic),
                partition: PartitionIndex::new(batch.partition),
            };
            self.position += if batch.hole { 10 } else { 0 };
            let batch = self.batch(batch, &mut producers);
            match extents.last_mut().filter(|extent| extent.partition == partition) {
                Some(extent) => extent.batches.push(batch),
                None => extents.push(PartExtent { partition, batches: vec![batch] }),
            }
        }
        self.commit_seq += 1;
        let commit_seq = self.commit_seq - 1;
        CommitPart {
            session: SessionId::new(session),
            commit_seq: CommitSeq::new(commit_seq),
            acked_seq: CommitSeq::new(if acks { commit_seq } else { 0 }),
            low_seq: ObjectSeq::new(self.object_seq),
            object_seq: ObjectSeq::new(self.object_seq),
            object_bytes: 1 << 20,
            producers,
            extents,
        }
    }

    fn batch(&mut self, batch: &Batch, producers: &mut Vec<PartProducer>) -> PartBatch {
        let position = self.position;
        self.position += 100;
        let producer = batch.producer.map(|(id, epoch, sequence)| {
            let epoch = ProducerEpoch::new(epoch).unwrap();
            producers.push(PartProducer { id: ProducerId::new(id), epoch });
            (producers.len() as u32 - 1, Sequence::new(sequence).unwrap())
        });
        PartBatch {
            position,
            length: 100,
            record_count: batch.record_count,
            max_timestamp: Timestamp::from_millis(i64::from(position)),
            producer,
        }
    }
}

/// A state and how many entries it applied.
struct Node {
    state: MetadataState,
    index: u64,
}

impl Node {
    fn new() -> Self {
        Self { state: MetadataState::new(genesis()), index: 0 }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        let stamp = Stamp { boot: 1, mono_ms: self.index * 300, wall_ms: self.index as i64 };
        let entry = Entry { stamp, min_level: 1, commands: vec![command.clone()] };
        // As it comes from the log.
        let entry = decode_entry(&encode_entry(&entry)).expect("an entry reads back");
        let applied = self.state.apply(LogIndex::new(self.index), 1, &entry);
        assert_eq!(invariants::violations(&self.state), Vec::<&str>::new());
        applied
    }

    fn reply(&mut self, command: &Command) -> Reply {
        self.apply(command).replies.remove(0)
    }

    fn hash(&self) -> u64 {
        self.state.state_hash()
    }
}

/// Batches of one producer on one partition, all of its epoch.
#[derive(Default)]
struct ModelProducer {
    epoch: i16,
    batches: Vec<(i32, i32, i64)>,
}

/// What a log should be, written as simply as possible: no pages, runs or sharing.
#[derive(Default)]
struct Model {
    next: BTreeMap<TopicPartition, i64>,
    start: BTreeMap<TopicPartition, i64>,
    producers: BTreeMap<(TopicPartition, ProducerId), ModelProducer>,
}

impl Model {
    fn expect(&mut self, partition: TopicPartition, part: &CommitPart, batch: &PartBatch) -> Seen {
        let next = self.next.entry(partition).or_default();
        let count = batch.record_count as i32;
        if let Some((place, sequence)) = batch.producer {
            let PartProducer { id, epoch } = part.producers[place as usize];
            let (first, epoch) = (sequence.value(), epoch.value());
            let known = self.producers.get(&(partition, id));
            match known {
                None if *next == 0 && first != 0 => return Seen::OutOfOrder,
                Some(known) if epoch < known.epoch => return Seen::OldEpoch,
                Some(known) if epoch > known.epoch && first != 0 => return Seen::OutOfOrder,
                Some(known) if epoch == known.epoch => {
                    let last = first + count - 1;
                    let kept = known.batches.iter().rev().take(5);
                    let mut same = kept.filter(|known| (known.0, known.1) == (first, last));
                    if let Some(original) = same.next() {
                        return Seen::Duplicate(original.2);
                    }
                    if known.batches.last().is_some_and(|known| known.1 + 1 != first) {
                        return Seen::OutOfOrder;
                    }
                }
                _ => {}
            }
            let known = self.producers.entry((partition, id)).or_default();
            if known.epoch != epoch {
                *known = ModelProducer { epoch, batches: Vec::new() };
            }
            known.batches.push((first, first + count - 1, *next));
        }
        *next += i64::from(count);
        Seen::Appended(*next - i64::from(count))
    }

    fn delete_records(&mut self, delete: &DeleteRecords) -> Result<Offset, DeleteRecordsRejected> {
        let next = self.next.get(&delete.partition).copied().unwrap_or(0);
        let start = self.start.entry(delete.partition).or_default();
        let to = delete.before.map_or(next, Offset::value);
        if next < to {
            let high_watermark = Offset::new(next).unwrap();
            return Err(DeleteRecordsRejected::AboveHighWatermark { high_watermark });
        }
        *start = to.max(*start);
        Ok(Offset::new(*start).unwrap())
    }

    fn delete(&mut self, topic: TopicId) {
        self.next.retain(|partition, _| partition.topic != topic);
        self.start.retain(|partition, _| partition.topic != topic);
        self.producers.retain(|(partition, _), _| partition.topic != topic);
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Appended(i64),
    Duplicate(i64),
    OutOfOrder,
    OldEpoch,
    UnknownPartition,
}

fn seen(outcome: &BatchOutcome) -> Seen {
    match outcome {
        BatchOutcome::Appended { base, .. } => Seen::Appended(base.value()),
        BatchOutcome::Duplicate { base, .. } => Seen::Duplicate(base.value()),
        BatchOutcome::Rejected(BatchRejected::OutOfOrderSequence) => Seen::OutOfOrder,
        BatchOutcome::Rejected(BatchRejected::InvalidProducerEpoch) => Seen::OldEpoch,
        BatchOutcome::Rejected(BatchRejected::UnknownPartition) => Seen::UnknownPartition,
        BatchOutcome::Rejected(BatchRejected::OffsetsExhausted) => panic!("offsets are not scarce"),
    }
}

/// A batch that was appended: its base, its records, and where its 100 bytes are.
type Written = (i64, u32, (u64, u64, u32));

/// Whether the runs tile exactly the bytes of the batches, in order: no offset of another batch,
/// no byte of a refused one. Of what was deleted only a row that holds more is left.
fn covers(node: &Node, partition: TopicPartition, batches: &[Written]) -> bool {
    let whole = Query::Runs { partition, offset: Offset::ZERO, limit: u32::MAX };
    let Answer::Runs(Some(found)) = node.state.query(&whole) else { return false };
    let (start, end) = (found.pointers.log_start, found.pointers.high_watermark);
    let kept = found.runs.first().map_or(end.value(), |first| first.offsets.base.value());
    let batches: Vec<_> = batches.iter().filter(|(base, ..)| kept <= *base).copied().collect();
    if found.runs.first().is_some_and(|first| first.offsets.next <= start) {
        return false;
    }
    let mut read = Vec::new();
    for run in &found.runs {
        let (mut base, mut position) = (run.offsets.base.value(), run.position);
        while let Some((_, count, _)) = batches.get(read.len())
            && base < run.offsets.next.value()
        {
            let object = (run.object.session.value(), run.object.seq.value(), position);
            read.push((base, *count, object));
            base += i64::from(*count);
            position += 100;
        }
        if base != run.offsets.next.value() || position != run.position + run.length {
            return false;
        }
    }
    read == batches
}

/// Whether a lookup by time finds the row that a walk over all rows finds.
fn by_time(node: &Node, partition: TopicPartition) -> Result<(), (i64, TimeSpec)> {
    let runs = |query: Query| match node.state.query(&query) {
        Answer::Runs(Some(found)) => found.runs,
        other => panic!("{other:?}"),
    };
    let all = runs(Query::Runs { partition, offset: Offset::ZERO, limit: u32::MAX });
    let since = |millis| TimeSpec::Since(Timestamp::from_millis(millis));
    for from in [0, 5] {
        let offset = Offset::new(from).unwrap();
        let rest = || all.iter().filter(|run| offset < run.offsets.next);
        let latest = rest().map(|run| run.max_timestamp).max();
        for time in [since(0), since(150), since(900), since(99_999), TimeSpec::Newest] {
            let oldest = match time {
                TimeSpec::Since(oldest) => Some(oldest),
                TimeSpec::Newest => latest,
            };
            let expected = rest().find(|run| oldest <= Some(run.max_timestamp));
            let found = runs(Query::RunByTime { partition, offset, time });
            if found.first() != expected || 1 < found.len() {
                return Err((from, time));
            }
        }
    }
    Ok(())
}

fn partitions() -> impl Iterator<Item = TopicPartition> {
    (0..TOPICS).flat_map(|n| {
        [0, 1, 2]
            .map(|index| TopicPartition { topic: topic(n), partition: PartitionIndex::new(index) })
    })
}

fn logs(state: &MetadataState) -> Vec<Answer> {
    let whole = |partition| Query::Runs { partition, offset: Offset::ZERO, limit: u32::MAX };
    partitions().map(|partition| state.query(&whole(partition))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What agents hold of configs is folded from what they are told.
    #[test]
    fn every_change_of_configs_is_told_and_nothing_else(history in history()) {
        let mut node = Node::new();
        for command in &history {
            let before = node.state.catalog();
            let applied = node.apply(command);
            let after = node.state.catalog();
            if let Command::AlterConfigs(alter) = command {
                let told = match &alter.resource {
                    ConfigResource::Topic(topic) => Effect::TopicChanged(*topic),
                    ConfigResource::Other(key) => Effect::ConfigsChanged(key.clone()),
                };
                let expected = if before == after { Vec::new() } else { vec![told] };
                prop_assert_eq!(applied.effects, expected);
                let again = node.apply(command);
                prop_assert_eq!(again.replies, applied.replies);
                prop_assert_eq!(again.effects, Vec::new());
            } else {
                prop_assert_eq!(before.configs, after.configs);
            }
        }
    }

    #[test]
    fn offsets_are_dense_and_producers_deduplicated_as_a_naive_model_says(history in history()) {
        let (mut node, mut model) = (Node::new(), Model::default());
        let mut written: BTreeMap<TopicPartition, Vec<Written>> = BTreeMap::new();
        for command in &history {
            let reply = node.reply(command);
            match (command, reply) {
                (Command::DeleteTopic { topic }, Reply::TopicDeleted(Ok(()))) => {
                    model.delete(*topic);
                }
                (Command::DeleteRecords(delete), Reply::RecordsDeleted(reply)) => {
                    let exists = node.state.partition_state(delete.partition).is_some();
                    let expected = match exists {
                        true => model.delete_records(delete),
                        false => Err(DeleteRecordsRejected::UnknownPartition),
                    };
                    prop_assert_eq!(reply, expected);
                }
                (Command::Commit(part), Reply::Commit(CommitReply::Applied(outcomes))) => {
                    let batches = part.extents.iter().flat_map(|extent| {
                        extent.batches.iter().map(|batch| (extent.partition, batch))
                    });
                    prop_assert_eq!(batches.clone().count(), outcomes.len());
                    for ((partition, batch), outcome) in batches.zip(&outcomes) {
                        let exists = node.state.partition_state(partition).is_some();
                        let expected = match exists {
                            true => model.expect(partition, part, batch),
                            false => Seen::UnknownPartition,
                        };
                        if let Seen::Appended(base) = expected {
                            let object = (part.session.value(), part.object_seq.value());
                            let place = (object.0, object.1, batch.position);
                            let batch = (base, batch.record_count, place);
                            written.entry(partition).or_default().push(batch);
                        }
                        prop_assert_eq!(seen(outcome), expected);
                    }
                }
                _ => {}
            }
        }
        for partition in partitions() {
            let Some(state) = node.state.partition_state(partition) else { continue };
            let next = model.next.get(&partition).copied().unwrap_or(0);
            prop_assert_eq!(state.pointers.high_watermark.value(), next);
            let start = model.start.get(&partition).copied().unwrap_or(0);
            prop_assert_eq!(state.pointers.log_start.value(), start);
            prop_assert_eq!(by_time(&node, partition), Ok(()));
            let batches = written.remove(&partition).unwrap_or_default();
            prop_assert!(covers(&node, partition, &batches), "{:?}: {:?}", partition, batches);
            let (from, to, limit) = (partition, partition, 1);
            let bytes: u64 = match node.state.query(&Query::Sizes { from, to, limit }) {
                Answer::Sizes(sizes) => sizes.iter().map(|(_, bytes)| bytes).sum(),
                other => panic!("{other:?}"),
            };
            // What stands below the log start counts until it is forgotten.
            let kept = batches.iter().filter(|batch| start <= batch.0).count() as u64;
            let all = batches.len() as u64;
            prop_assert!((100 * kept..=100 * all).contains(&bytes), "{} of {}", bytes, all);
            prop_assert!(0 < start || bytes == 100 * all, "{} of {}", bytes, all);
        }
    }

    #[test]
    fn any_prefix_applied_twice_is_applied_once(history in history(), cut in 0..60_usize) {
        let (mut once, mut twice) = (Node::new(), Node::new());
        let prefix = &history[..cut.min(history.len())];
        let replies: Vec<Reply> = prefix.iter().map(|command| once.reply(command)).collect();
        for command in prefix {
            twice.apply(command);
        }
        for (command, first) in prefix.iter().zip(&replies) {
            let Command::Commit(_) = command else { continue };
            let again = twice.reply(command);
            let forgotten = Reply::Commit(CommitReply::Forgotten);
            let same_or_read = again == *first || again == forgotten;
            // A part refused while it was early or fenced is still refused.
            let refused = !matches!(first, Reply::Commit(CommitReply::Applied(_)));
            prop_assert!(same_or_read || refused, "{:?} then {:?}", first, again);
        }
        prop_assert_eq!(logs(&once.state), logs(&twice.state));
    }

    #[test]
    fn a_snapshot_in_the_middle_changes_nothing_that_follows(
        history in history(),
        cut in 0..60_usize,
    ) {
        let mut straight = Node::new();
        let (before, after) = history.split_at(cut.min(history.len()));
        for command in before {
            straight.apply(command);
        }
        let bytes = encode_snapshot(&straight.state);
        let state = decode_snapshot(&bytes).expect("a snapshot reads back");
        let mut restored = Node { state, index: straight.index };
        prop_assert_eq!(&encode_snapshot(&restored.state), &bytes);
        for command in after {
            prop_assert_eq!(restored.apply(command), straight.apply(command));
            prop_assert_eq!(restored.hash(), straight.hash());
        }
    }

    #[test]
    fn a_clone_is_a_snapshot_that_later_entries_do_not_touch(history in history()) {
        let mut node = Node::new();
        let mut kept = Vec::new();
        for command in &history {
            node.apply(command);
            kept.push((node.state.clone(), node.hash()));
        }
        for (state, hash) in kept {
            prop_assert_eq!(state.state_hash(), hash);
        }
    }

    #[test]
    fn effects_alone_rebuild_every_log(history in history()) {
        let mut node = Node::new();
        let mut rebuilt: BTreeMap<TopicPartition, Vec<_>> = BTreeMap::new();
        for command in &history {
            for effect in node.apply(command).effects {
                let Effect::PartitionAdvanced { partition, from, runs, pointers } = effect else {
                    continue;
                };
                let rows = rebuilt.entry(partition).or_default();
                rows.retain(|row: &aquifer_metadata::machine::effect::Run| row.offsets.base < from);
                rows.extend(runs);
                rows.retain(|row| pointers.log_start < row.offsets.next);
                if let Some(last) = rows.last() {
                    prop_assert_eq!(last.offsets.next, pointers.high_watermark);
                }
            }
        }
        for (partition, answer) in partitions().zip(logs(&node.state)) {
            let Answer::Runs(Some(found)) = answer else { continue };
            prop_assert_eq!(&found.runs, &rebuilt.remove(&partition).unwrap_or_default());
        }
    }

    #[test]
    fn a_damaged_snapshot_never_panics(
        history in history(),
        place in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut node = Node::new();
        for command in &history {
            node.apply(command);
        }
        let mut bytes = encode_snapshot(&node.state);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        let _ = decode_snapshot(&bytes); // Refused or another sound state: checksums are the file's.
        let _ = decode_snapshot(&bytes[..place]);
    }
}
