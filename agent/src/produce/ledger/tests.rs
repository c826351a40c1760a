//! The ledger against a model of metadata, under random PUT order, drops, reconnects and fencing.

use std::{collections::VecDeque, time::Duration};

use aquifer_storage::{
    format::{
        record_batch::{ValidatedBatch, validate_produced},
        test_batch::TestBatch,
    },
    model::{PartitionIndex, TopicId, TopicPartition},
};
use proptest::prelude::*;

use super::*;
use crate::produce::{
    Permit,
    buffer::{Buffer, Incoming},
    testing::ModelMachine,
};

#[derive(Clone, Debug)]
enum Step {
    /// A batch of one of a few chains arrives.
    Append(u8),
    Flush,
    /// A random PUT in flight ends.
    PutEnds {
        pick: u8,
        fails: bool,
    },
    /// A part goes out on the newest stream or an older one.
    Transmit(u8),
    /// Metadata applies what is on the wire and answers it.
    Answer(u8),
    /// Metadata applies what is on the wire; the answer is lost with the connection.
    LoseAnswer(u8),
    Disconnect(u8),
    Fence,
    Pass(u16),
    /// Answers reach the clients, which until then go on sending.
    Deliver,
    /// The clients' connection breaks; they send everything unanswered again on a new one.
    Reconnect,
    /// Nobody asks for what ended sessions sent any more.
    Abandon,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4u8).prop_map(Step::Append),
        4 => Just(Step::Flush),
        5 => (any::<u8>(), prop::bool::weighted(0.15))
            .prop_map(|(pick, fails)| Step::PutEnds { pick, fails }),
        6 => any::<u8>().prop_map(Step::Transmit),
        6 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::LoseAnswer),
        1 => any::<u8>().prop_map(Step::Disconnect),
        1 => Just(Step::Fence),
        1 => (1..2000u16).prop_map(Step::Pass),
        3 => Just(Step::Deliver),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Abandon),
    ];
    prop::collection::vec(step, 1..200)
}

/// A client that retries its oldest retriable failure first, as an idempotent producer does.
#[derive(Default)]
struct Client {
    /// Sequences to send next, in order.
    unsent: VecDeque<i32>,
    next: i32,
    acked: Vec<(i32, i64)>,
}

struct World {
    ledger: Ledger,
    buffer: Buffer,
    machine: ModelMachine,
    now: MonoTime,
    session: u64,
    connection: u64,
    puts: Vec<(SessionId, ObjectSeq)>,
    wire: BTreeMap<SessionId, VecDeque<CommitPart>>,
    clients: [Client; 4],
    waiting: BTreeMap<BatchId, (usize, i32)>,
    /// Outcomes whose answers wait for those of earlier requests.
    decided: BTreeMap<BatchId, AppendOutcome>,
    /// Batches that ended as definitely not happened, by what identifies them in a log.
    dead: Vec<BatchId>,
}

fn partition(chain: usize) -> TopicPartition {
    TopicPartition {
        topic: TopicId::from_bytes([1; 16]),
        partition: PartitionIndex::new(chain as i32 % 2),
    }
}

fn batch(chain: usize, sequence: i32) -> ValidatedBatch {
    let producer = (chain as i64, 0, sequence);
    let bytes = TestBatch { producer, ..TestBatch::default() }.bytes();
    validate_produced(bytes, 1 << 20).unwrap()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            ledger: Ledger::default(),
            buffer: Buffer::new(400),
            machine: ModelMachine::default(),
            now: MonoTime::from_zero(Duration::ZERO),
            session: 0,
            connection: 1,
            puts: Vec::new(),
            wire: BTreeMap::new(),
            clients: Default::default(),
            waiting: BTreeMap::new(),
            decided: BTreeMap::new(),
            dead: Vec::new(),
        };
        world.begin_session();
        world
    }

    fn begin_session(&mut self) {
        self.session += 1;
        let session = SessionId::new(self.session);
        self.machine.sessions.insert(session, Default::default());
        self.ledger.begin_session(session);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(chain) => self.append(usize::from(chain)),
            Step::Flush => self.flush(),
            Step::PutEnds { pick, fails } => self.put_ends(usize::from(pick), fails),
            Step::Transmit(pick) => self.transmit(pick),
            Step::Answer(pick) => self.answer(pick, true),
            Step::LoseAnswer(pick) => self.answer(pick, false),
            Step::Disconnect(pick) => {
                if let Some(session) = self.pick(pick) {
                    self.wire.remove(&session);
                    self.ledger.disconnected(session);
                }
            }
            Step::Fence => {
                let live = SessionId::new(self.session);
                self.machine.sessions.get_mut(&live).unwrap().fenced = true;
                self.ledger.end_session();
                self.begin_session();
            }
            Step::Pass(millis) => {
                self.now = self.now + Duration::from_millis(u64::from(millis));
                self.ledger.expire(self.now);
            }
            Step::Deliver => self.deliver(),
            Step::Reconnect => self.reconnect(),
            Step::Abandon => {
                for (session, live) in self.ledger.sessions() {
                    if !live {
                        self.wire.remove(&session);
                        self.ledger.abandon_session(session);
                    }
                }
            }
        }
    }

    fn reconnect(&mut self) {
        self.deliver();
        self.ledger.close(ConnectionId::new(self.connection));
        self.connection += 1;
        self.decided.clear();
        for (chain, sequence) in std::mem::take(&mut self.waiting).into_values() {
            self.retry(chain, sequence);
        }
    }

    fn append(&mut self, chain: usize) {
        let client = &mut self.clients[chain];
        let sequence = client.unsent.pop_front().unwrap_or_else(|| {
            client.next += 1;
            client.next - 1
        });
        let batch = batch(chain, sequence);
        let deadline = self.now + Duration::from_secs(5);
        let connection = ConnectionId::new(self.connection);
        let partition = partition(chain);
        let arrival = Arrival::of(connection, partition, &batch, deadline);
        let (id, admitted) = self.ledger.admit(arrival);
        self.waiting.insert(id, (chain, sequence));
        if let Some(chain) = admitted {
            let incoming = Incoming { id, chain, partition, batch, deadline };
            self.buffer.push(self.now, incoming, &Permit::none());
        } else {
            self.decided.insert(id, AppendOutcome::BrokenChain);
        }
    }

    fn retry(&mut self, chain: usize, sequence: i32) {
        let unsent = &mut self.clients[chain].unsent;
        if !unsent.contains(&sequence) {
            unsent.push_back(sequence);
            unsent.make_contiguous().sort_unstable();
        }
    }

    fn flush(&mut self) {
        let Some(session) = self.ledger.open_session() else { return };
        if let Some(object) = self.buffer.close_oldest(|id| self.ledger.is_live(id)) {
            let object_bytes = object.built.object_bytes;
            let seq = self.ledger.open_object(session, object.batches, object_bytes);
            self.puts.push((session, seq));
        }
    }

    fn put_ends(&mut self, pick: usize, fails: bool) {
        if self.puts.is_empty() {
            return;
        }
        let (session, seq) = self.puts.swap_remove(pick % self.puts.len());
        if fails {
            self.ledger.put_failed(session, seq, AppendOutcome::Unavailable);
        } else {
            self.ledger.put_succeeded(session, seq);
        }
    }

    fn pick(&self, pick: u8) -> Option<SessionId> {
        let sessions = self.ledger.sessions();
        sessions.get(usize::from(pick) % sessions.len().max(1)).map(|(session, _)| *session)
    }

    fn transmit(&mut self, pick: u8) {
        let Some(session) = self.pick(pick) else { return };
        if let Some(part) = self.ledger.next_part(session) {
            self.wire.entry(session).or_default().push_back(part);
        }
    }

    fn answer(&mut self, pick: u8, arrives: bool) {
        let Some(session) = self.pick(pick) else { return };
        let Some(part) = self.wire.get_mut(&session).and_then(VecDeque::pop_front) else { return };
        let reply = self.machine.commit(&part);
        if arrives {
            self.ledger.replied(session, part.commit_seq, reply);
        } else {
            self.wire.remove(&session);
            self.ledger.disconnected(session);
        }
    }

    /// Clients learn their outcomes.
    fn deliver(&mut self) {
        for (id, outcome) in self.ledger.take_decided() {
            if self.waiting.contains_key(&id) {
                let known = self.decided.insert(id, outcome);
                assert!(known.is_none(), "a batch is decided once");
            }
        }
        // A connection's answers leave in request order: one that is missing holds up the rest.
        while let Some((&id, &(chain, sequence))) = self.waiting.first_key_value() {
            let Some(outcome) = self.decided.remove(&id) else { break };
            self.waiting.remove(&id);
            match outcome {
                AppendOutcome::Appended { base, .. } | AppendOutcome::Duplicate { base, .. } => {
                    self.clients[chain].acked.push((sequence, base.value()));
                }
                AppendOutcome::Unavailable | AppendOutcome::BrokenChain => {
                    self.dead.push(id);
                    self.retry(chain, sequence);
                }
                AppendOutcome::Unknown => self.retry(chain, sequence),
                AppendOutcome::Rejected(rejected) => {
                    panic!("chain {chain} sequence {sequence}: {rejected:?}");
                }
            }
        }
    }

    /// Everything works again: all clients get everything through.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            for chain in 0..self.clients.len() {
                if !self.clients[chain].unsent.is_empty() {
                    self.append(chain);
                }
            }
            self.flush();
            self.put_ends(0, false);
            for pick in 0..=u8::try_from(self.ledger.sessions().len()).unwrap() {
                self.transmit(pick);
                self.answer(pick, true);
            }
            self.deliver();
            let quiet = self.clients.iter().all(|client| client.unsent.is_empty());
            if quiet && self.waiting.is_empty() && self.ledger.groups.is_empty() {
                return;
            }
        }
        panic!("the write path does not heal: {:?}", self.ledger);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn chains_keep_their_order_and_nothing_is_lost_or_doubled(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.heal();
        for (chain, client) in world.clients.iter().enumerate() {
            let log = world.machine.logs.get(&partition(chain));
            let sequences: Vec<i32> = log.map_or_else(Vec::new, |log| log.sequences_of(chain as i64));
            // Exactly once, in order, for everything the client ever began.
            let expected: Vec<i32> = (0..client.next).collect();
            prop_assert_eq!(sequences, expected);
        }
        world.ledger.close(ConnectionId::new(world.connection));
        prop_assert_eq!(world.ledger.chains.len(), 0);
        prop_assert!(world.ledger.connections.is_empty());
        prop_assert!(world.ledger.deadlines.is_empty());
    }
}

#[test]
fn a_sent_batch_is_unknown_at_its_deadline_and_an_unsent_one_failed() {
    let mut world = World::new();
    world.append(0);
    world.flush();
    world.put_ends(0, false);
    world.transmit(0);
    world.append(1);
    world.ledger.expire(world.now + Duration::from_secs(5));
    let outcomes: Vec<AppendOutcome> =
        world.ledger.take_decided().into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [AppendOutcome::Unknown, AppendOutcome::Unavailable]);
    assert!(world.ledger.is_settled());
}

#[test]
fn a_store_that_hangs_ends_as_unknown_and_is_never_committed() {
    let mut world = World::new();
    world.append(0);
    world.flush();
    world.ledger.expire(world.now + Duration::from_secs(5));
    assert_eq!(world.ledger.take_decided(), [(BatchId(0), AppendOutcome::Unknown)]);
    world.put_ends(0, false);
    assert_eq!(world.ledger.next_part(SessionId::new(1)), None);
}

#[test]
fn an_ended_session_never_begins_again() {
    let mut ledger = Ledger::default();
    ledger.begin_session(SessionId::new(4));
    ledger.end_session();
    ledger.begin_session(SessionId::new(4));
    assert_eq!(ledger.open_session(), None);
    ledger.begin_session(SessionId::new(5));
    assert_eq!(ledger.open_session(), Some(SessionId::new(5)));
}
