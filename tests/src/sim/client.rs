//! Seeded Kafka clients: real frames through the real codec, and a note of every answer.

pub mod batch;
pub mod connection;
pub mod consumer;
pub mod lister;
pub mod member;
pub mod producer;
pub mod reader;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use self::connection::{Connection, Refused};
use super::{
    process::{Process, Universe},
    rng::SimRng,
};
use crate::history::{
    Action, Answer, Key, Nanos, Operation, Poll, Polled, Send,
    groups::{Groups, MemberNumber},
};

/// A topic partition as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its key in histories.
    pub key: Key,
    /// The topic.
    pub topic: String,
    /// Its index.
    pub index: i32,
}

/// What all clients share.
pub struct Shared {
    /// The world.
    pub universe: Universe,
    /// The agents: where they listen, and which life each is in.
    pub agents: Vec<(SocketAddr, Arc<AtomicU32>)>,
    /// What there is to write and read.
    pub partitions: Vec<Partition>,
    /// Set when clients shall finish what they began.
    pub stop: AtomicBool,
    /// Set when members of groups shall behave.
    pub calm: AtomicBool,
    operations: Mutex<Vec<Operation>>,
    groups: Mutex<Groups>,
    next_value: AtomicU64,
    next_chain: AtomicU32,
    next_member: AtomicU32,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(
        universe: &Universe,
        agents: Vec<(SocketAddr, Arc<AtomicU32>)>,
        partitions: Vec<Partition>,
    ) -> Self {
        Self {
            universe: universe.clone(),
            agents,
            partitions,
            stop: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            operations: Mutex::default(),
            groups: Mutex::default(),
            next_value: AtomicU64::new(1),
            next_chain: AtomicU32::new(1),
            next_member: AtomicU32::new(1),
        }
    }

    /// Whether clients shall finish.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether members of groups shall do what they should, and nothing else.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// The topics there are, in order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let topics: BTreeSet<&str> =
            self.partitions.iter().map(|partition| partition.topic.as_str()).collect();
        topics.into_iter()
    }

    /// The time in histories.
    pub fn now(&self) -> Nanos {
        self.universe.trace.now()
    }

    /// Adds to the history.
    pub fn record(&self, operation: Operation) {
        self.universe.trace.note(|| {
            let Operation { process, server, key, began, action, .. } = &operation;
            let began = *began as f64 / 1e6;
            format!("client {process} server {server} {key:?} since {began}: {}", brief(action))
        });
        self.operations.lock().expect("no holder of this lock panics").push(operation);
    }

    /// Takes the history so far.
    pub fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.operations.lock().expect("no holder of this lock panics"))
    }

    /// Adds to what members of groups saw; `told` is its line in the trace.
    pub fn note_groups(&self, told: impl FnOnce() -> String, add: impl FnOnce(&mut Groups)) {
        self.universe.trace.note(told);
        add(&mut self.groups.lock().expect("no holder of this lock panics"));
    }

    /// Takes what members of groups saw so far.
    pub fn take_groups(&self) -> Groups {
        std::mem::take(&mut *self.groups.lock().expect("no holder of this lock panics"))
    }

    fn new_member(&self) -> MemberNumber {
        MemberNumber(self.next_member.fetch_add(1, Ordering::Relaxed))
    }

    fn new_chain(&self) -> u32 {
        self.next_chain.fetch_add(1, Ordering::Relaxed)
    }

    fn new_value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }
}

/// An action on one short line that tells two different ones apart.
fn brief(action: &Action) -> String {
    match action {
        Action::Send(send) => {
            let Send { chain, place, values, answer, refusals, .. } = send;
            let (first, count) = (values.first().map_or(0, |value| value.0), values.len());
            format!("send {chain}/{place} {count} from {first}: {answer:?} after {refusals:?}")
        }
        Action::Poll(Poll { from, answer: Answer::Done(polled) }) => {
            let Polled { records, high_watermark, log_start } = polled;
            let sum = records.iter().fold(0u64, |sum, record| sum.rotate_left(7) ^ record.value.0);
            let count = records.len();
            format!("poll {from}: {count} of {sum:x} in {log_start}..{high_watermark}")
        }
        Action::Poll(Poll { from, answer }) => format!("poll {from}: {answer:?}"),
        Action::ListOffsets { end, answer } => format!("list {end:?}: {answer:?}"),
    }
}

/// One client.
pub struct Client {
    /// Its number in histories.
    pub number: u32,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Its choices.
    pub rng: SimRng,
    /// Its process.
    pub process: Process,
}

impl Client {
    /// Adds a line to the trace.
    fn note(&self, what: &str) {
        let number = self.number;
        self.shared.universe.trace.note(|| format!("client {number}: {what}"));
    }

    /// Notes an answer that no client should ever get.
    fn unexpected(&self, what: &str) {
        let what = format!("client {} was answered {what}", self.number);
        self.shared.universe.trace.note(|| what.clone());
        self.shared.universe.panics.lock().expect("no holder of this lock panics").push(what);
    }

    fn partition(&self, key: Key) -> &Partition {
        let mut partitions = self.shared.partitions.iter();
        partitions.find(|one| one.key == key).expect("a partition that there is")
    }

    /// Connects to some agent.
    async fn connect(&self) -> Result<Connection, Refused> {
        let agent = usize::try_from(self.rng.below(self.shared.agents.len() as u64));
        self.connect_to(agent.expect("an index")).await
    }

    async fn connect_to(&self, agent: usize) -> Result<Connection, Refused> {
        let (address, life) = &self.shared.agents[agent];
        let stream = connection::open(&*self.process.seams.net, *address).await?;
        let life = life.load(Ordering::Relaxed);
        Ok(Connection::new(stream, u32::try_from(agent).expect("few agents") * 10_000 + life))
    }
}
