//! What a metadata node does with commits.

use aquifer_agent::bench::metadata::load::{AgentLoad, LoadShape};
use aquifer_metadata::{
    codec,
    machine::{
        Genesis, LEVEL, MetadataState,
        command::{Command, CreateTopic, Entry, HostPort, RegisterSession, Stamp},
    },
};
use aquifer_storage::model::{CommitSeq, Lineage, LogIndex, SessionId};

use crate::{ROUNDS, WARM_ROUNDS, common::SESSION, rounds};

/// Partitions there are in the paths that go on with logs that hold something.
const PARTITIONS: u32 = 256;
/// Commits before a path is counted: every log holds a page of rows.
const FILL_COMMITS: usize = 600;

fn entry(index: u64, commands: Vec<Command>) -> Entry {
    let wall_ms = 1_790_000_000_000_i64.saturating_add_unsigned(index);
    Entry { stamp: Stamp { boot: 1, mono_ms: index, wall_ms }, min_level: LEVEL, commands }
}

/// A state with topics and one session.
fn state(shape: LoadShape) -> (MetadataState, LogIndex) {
    let lineage = Lineage { number: 0, nonce: 1 };
    let mut state = MetadataState::new(Genesis { cluster_id: "hot".to_owned(), lineage });
    let mut index = LogIndex::default();
    let register = RegisterSession {
        request: 1,
        advertised: HostPort { host: "agent".to_owned(), port: 9092 },
        zone: None,
    };
    let topics = (0..shape.topics).map(|number| {
        Command::CreateTopic(CreateTopic {
            topic: LoadShape::topic(number),
            name: format!("topic-{number}"),
            partitions: shape.partitions,
            replication_factor: 1,
            configs: std::collections::BTreeMap::new(),
        })
    });
    for command in topics.chain([Command::RegisterSession(register)]) {
        index = index.next();
        state.apply(index, 1, &entry(index.value(), vec![command]));
    }
    (state, index)
}

/// Commits of a session, every earlier answer read.
struct Commits {
    load: AgentLoad,
    index: LogIndex,
    read: CommitSeq,
}

impl Commits {
    fn next(&mut self) -> (LogIndex, Entry) {
        let part = self.load.next_part(self.read);
        self.index = self.index.next();
        self.read = self.read.next();
        (self.index, entry(self.index.value(), vec![Command::Commit(part)]))
    }
}

/// Applies commits to logs that hold rows.
pub fn apply(runs: u32, idempotent: bool) {
    let shape = LoadShape { topics: 4, partitions: PARTITIONS / 4, runs, batches: 1, idempotent };
    let (mut state, index) = state(shape);
    let mut commits =
        Commits { load: AgentLoad::new(shape, SESSION), index, read: CommitSeq::default() };
    for _ in 0..FILL_COMMITS {
        let (index, entry) = commits.next();
        state.apply(index, 1, &entry);
    }
    rounds(|_| commits.next(), |(index, entry)| state.apply(index, 1, &entry));
}

/// Applies first commits to partitions that never held a record.
pub fn apply_fresh(runs: u32) {
    let shape =
        LoadShape { topics: 4, partitions: PARTITIONS / 4, runs, batches: 1, idempotent: true };
    let (state, index) = state(shape);
    let commits =
        Commits { load: AgentLoad::new(shape, SESSION), index, read: CommitSeq::default() };
    let input = |_| {
        let mut commits = Commits { load: commits.load.clone(), ..commits };
        // A copy shares everything with the original, and only the original is dropped later.
        (state.clone(), commits.next())
    };
    rounds(input, |(mut state, (index, entry))| {
        let applied = state.apply(index, 1, &entry);
        (state, applied)
    });
}

/// Decodes an entry of `sessions` commits.
pub fn decode(sessions: u64, runs: u32) {
    let shape =
        LoadShape { topics: 4, partitions: PARTITIONS / 4, runs, batches: 2, idempotent: true };
    let part = |session| {
        let mut load = AgentLoad::new(shape, SessionId::new(session));
        for seq in 0..100 {
            load.next_part(CommitSeq::new(seq));
        }
        Command::Commit(load.next_part(CommitSeq::new(100)))
    };
    let bytes = codec::encode_entry(&entry(1 << 20, (1..=sessions).map(part).collect()));
    rounds(|_| (), |()| codec::decode_entry(&bytes).expect("it is sound"));
}

/// Encodes a state of a few thousand rows.
pub fn encode_snapshot() {
    let shape =
        LoadShape { topics: 4, partitions: PARTITIONS / 4, runs: 8, batches: 1, idempotent: true };
    let (mut state, index) = state(shape);
    let mut commits =
        Commits { load: AgentLoad::new(shape, SESSION), index, read: CommitSeq::default() };
    for _ in 0..(WARM_ROUNDS + ROUNDS) {
        let (index, entry) = commits.next();
        state.apply(index, 1, &entry);
    }
    rounds(|_| (), |()| codec::encode_snapshot(&state));
}
