//! Clients over a deployment, and the verdict on what they saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use aquifer_storage::seam::system;
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};

use super::{
    lab::{Lab, PATIENCE, Server, logs_in},
    steady,
};
use crate::{
    history::{self, Action, History, Key, Nanos, Operation, Value},
    raw,
    sim::{
        aim::Aim,
        client::{
            Client, Partition, Shared,
            batch::{self, Stamp},
            consumer, lister,
            producer::{self, ProducerKind},
            reader,
        },
        net::Network,
        process::{Machine, Universe},
        rng::SimRng,
        trace::Trace,
    },
};

const TOPIC: &str = "chaos";
/// A few records that every agent has read: what it serves whatever it is cut from.
const KNOWN: &str = "known";
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Producers give a batch up after two minutes.
const FINISH_WITHIN: Duration = Duration::from_secs(150);
/// Batches are small, and each is an object: reading everything takes a GET for each.
const READ_WITHIN: Duration = Duration::from_secs(300);
/// Tries of a read at the end, which nothing disturbs any more.
const READS_MAX: u32 = 20;

/// What clients there are.
#[derive(Clone, Copy, Debug)]
pub struct LoadShape {
    /// Everything random is drawn from it.
    pub seed: u64,
    /// Partitions of the one topic.
    pub partitions: i32,
    /// Producers that move between agents, most of them idempotent.
    pub producers: u32,
    /// Steady producers, each at home at another agent.
    pub steady: u32,
    /// The rest of a steady producer after each ack.
    pub rest: Duration,
}

impl Default for LoadShape {
    fn default() -> Self {
        let rest = Duration::from_millis(2);
        Self { seed: 1, partitions: 3, producers: 3, steady: 1, rest }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Requests that were answered or given up, each partition counted.
    pub operations: usize,
    /// Batches that were acknowledged.
    pub acks: usize,
    /// Records that the logs hold.
    pub records: usize,
}

/// Clients at work.
pub struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    clients: Vec<(u32, JoinHandle<()>)>,
    seed: u64,
    operations: Vec<Operation>,
    /// Of the deployment: its logs tell why something does not work.
    folder: PathBuf,
}

impl Load {
    /// Creates the topic and starts the clients.
    pub fn start(lab: &mut Lab, shape: &LoadShape) -> anyhow::Result<Self> {
        create(lab, TOPIC, shape.partitions)?;
        create(lab, KNOWN, 1)?;
        lab.agents().try_for_each(|agent| {
            lab.until("an agent takes a record", |lab| tell(lab, agent).is_ok())
        })?;
        lab.agents().try_for_each(|agent| {
            lab.until("an agent read what it shall know", |lab| {
                serves_what_it_knows(lab, agent).is_ok()
            })
        })?;
        let trace = Trace::new(std::env::var_os("CHAOS_TRACE").is_some());
        // Of the simulated world, only the clock and the trace are used.
        let universe = Universe {
            seed: shape.seed,
            network: Network::new(SimRng::new(0), trace.clone(), Aim::default()),
            trace,
            zero: tokio::time::Instant::now(),
            panics: Arc::new(Mutex::default()),
            disks: Arc::default(),
            aim: Aim::default(),
            replicas: Arc::default(),
        };
        let partitions = (0..shape.partitions).map(|index| {
            let key = Key(u32::try_from(index).expect("not negative"));
            Partition { key, topic: TOPIC.to_owned(), index }
        });
        let agents = lab.agents().map(|place| {
            let life = lab.lives.entry(place).or_default().clone();
            (lab.address(Server::Agent(place)), life)
        });
        let agents = agents.collect::<Vec<_>>();
        let shared = Arc::new(Shared::new(&universe, agents, partitions.collect()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (clients, operations) = (Vec::new(), Vec::new());
        let (seed, folder) = (shape.seed, lab.path(""));
        let mut load = Self { runtime, shared, clients, seed, operations, folder };
        load.start_clients(shape);
        load.progress()?;
        Ok(load)
    }

    fn client(&self, number: u32) -> Client {
        let name = format!("client{number}");
        let machine = Machine::new(&self.shared.universe, &name, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut process = machine.start(0);
        process.seams = system::seams();
        let rng = SimRng::stream(self.seed, &name);
        Client { number, shared: self.shared.clone(), rng, process }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        number: u32,
        run: impl FnOnce(Client) -> F,
    ) {
        let task = self.runtime.spawn(run(self.client(number)));
        self.clients.push((number, task));
    }

    fn start_clients(&mut self, shape: &LoadShape) {
        let rng = SimRng::stream(shape.seed, "load");
        for number in 1..=shape.producers {
            let kind = ProducerKind {
                idempotent: number != 2,
                in_flight_max: *rng.pick(&[1, 5, 5]),
                pause_max: shape.rest * 20,
                timeout: Duration::from_secs(*rng.pick(&[3, 10])),
            };
            self.spawn(number, |client| producer::run(client, kind));
        }
        let first = shape.producers + 1;
        self.spawn(first, |client| consumer::run(client, true, consumer::GOES_BACK_ONE_IN));
        self.spawn(first + 1, |client| consumer::run(client, true, consumer::GOES_BACK_ONE_IN));
        self.spawn(first + 2, lister::run);
        let keys: Vec<Key> = self.shared.partitions.iter().map(|partition| partition.key).collect();
        for number in 0..shape.steady {
            let (key, rest) = (keys[number as usize % keys.len()], shape.rest);
            let number = steady::FIRST_NUMBER + number;
            self.spawn(number, |client| steady::run(client, key, rest));
        }
    }

    /// The time in the history.
    pub fn now(&self) -> Nanos {
        self.shared.now()
    }

    fn take(&mut self) {
        self.operations.extend(self.shared.take_operations());
    }

    /// When batches were acknowledged, those that `counts` tells of.
    fn acks(&mut self, counts: impl Fn(&Operation) -> bool) -> Vec<(Nanos, Nanos)> {
        self.take();
        let acks = self.operations.iter().filter(|operation| match &operation.action {
            Action::Send(send) => send.answer.done().is_some() && counts(operation),
            _ => false,
        });
        acks.map(|operation| (operation.began, operation.ended)).collect()
    }

    /// The longest time that a steady producer was without an ack, of pauses that were not over at
    /// `from`.
    pub fn longest_pause(&mut self, from: Nanos) -> Duration {
        let now = self.now();
        let mut longest = 0;
        let steady: BTreeSet<u32> = self
            .clients
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| steady::FIRST_NUMBER <= *number)
            .collect();
        for number in steady {
            let acks = self.acks(|operation| operation.process == number);
            let mut ends: Vec<Nanos> = acks.into_iter().map(|(_, ended)| ended).collect();
            ends.push(now);
            ends.sort_unstable();
            let pauses = ends.windows(2).filter(|pair| from < pair[1]);
            longest = pauses.map(|pair| pair[1] - pair[0]).fold(longest, Nanos::max);
        }
        Duration::from_nanos(longest)
    }

    /// Batches that were sent after `from` and acknowledged.
    pub fn acks_since(&mut self, from: Nanos) -> usize {
        self.acks(|operation| from <= operation.began).len()
    }

    /// Polls that were answered after `from` with records.
    pub fn reads_since(&mut self, from: Nanos) -> usize {
        self.take();
        let answered = self.operations.iter().filter(|operation| match &operation.action {
            Action::Poll(poll) => {
                from <= operation.began
                    && poll.answer.done().is_some_and(|polled| !polled.records.is_empty())
            }
            _ => false,
        });
        answered.count()
    }

    /// Waits until every partition took a new record and served it; how long that took.
    pub fn progress(&mut self) -> anyhow::Result<Duration> {
        let (began, from) = (Instant::now(), self.now());
        loop {
            let missing = self.without_progress(from);
            if missing.is_empty() {
                return Ok(began.elapsed());
            }
            if PATIENCE < began.elapsed() {
                for line in self.shared.universe.trace.take_lines() {
                    println!("{line}");
                }
                let logs = logs_in(&self.folder);
                bail!("partitions {missing:?} do not work after {PATIENCE:?}\n{logs}");
            }
            sleep(LOOK_INTERVAL);
        }
    }

    fn without_progress(&mut self, from: Nanos) -> Vec<Key> {
        self.take();
        // What is older than `from` is of no interest: operations are noted when they end.
        let new = self.operations.iter().rev().take_while(|operation| from <= operation.ended);
        let (mut sent, mut read) = (BTreeMap::new(), BTreeSet::new());
        for operation in new.filter(|operation| from <= operation.began) {
            match &operation.action {
                Action::Send(send) if send.answer.done().is_some() => {
                    sent.entry(operation.key).or_insert_with(BTreeSet::new).extend(&send.values);
                }
                Action::Poll(poll) => {
                    let records = poll.answer.done().into_iter().flat_map(|polled| &polled.records);
                    read.extend(records.map(|record| (operation.key, record.value)));
                }
                _ => {}
            }
        }
        let works = |key: &Key| {
            sent.get(key).is_some_and(|values| values.iter().any(|v| read.contains(&(*key, *v))))
        };
        let keys = self.shared.partitions.iter().map(|partition| partition.key);
        keys.filter(|key| !works(key)).collect()
    }

    /// Heals all links, waits until everything works, reads everything through every agent and
    /// judges the whole run. Nodes at `places` must agree.
    pub fn finish(mut self, lab: &mut Lab, places: &[u64]) -> anyhow::Result<Verdict> {
        let judged = self.judge(lab, places);
        if judged.is_err() {
            println!("{}", lab.logs());
            for line in self.shared.universe.trace.take_lines() {
                println!("{line}");
            }
        }
        judged
    }

    fn judge(&mut self, lab: &mut Lab, places: &[u64]) -> anyhow::Result<Verdict> {
        lab.network.heal()?;
        let within = u64::try_from(PATIENCE.as_nanos()).expect("seconds");
        let mut history = History { healed: Some((self.now(), within)), ..History::default() };
        history.keys = self.shared.partitions.iter().map(|partition| partition.key).collect();
        let works = self.progress();
        self.shared.stop.store(true, Ordering::Relaxed);
        let finished = self.join();
        let read = self.read_everything(lab, &mut history);
        self.take();
        history.operations = std::mem::take(&mut self.operations);
        let violations = history::check(&history);
        let told = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for error in [works.as_ref().err(), finished.as_ref().err(), read.as_ref().err()] {
            error.into_iter().for_each(|error| println!("{error}"));
        }
        ensure!(violations.is_empty(), "laws were broken (seed {}):\n{told}", self.seed);
        works?;
        finished?;
        read?;
        lab.all_running()?;
        lab.agree(places)?;
        let acked = |operation: &&Operation| match &operation.action {
            Action::Send(send) => send.answer.done().is_some(),
            _ => false,
        };
        let verdict = Verdict {
            operations: history.operations.len(),
            acks: history.operations.iter().filter(acked).count(),
            records: history.final_reads.iter().map(|(_, polled)| polled.records.len()).sum(),
        };
        ensure!(0 < verdict.acks && verdict.acks <= verdict.records, "too little: {verdict:?}");
        Ok(verdict)
    }

    fn join(&mut self) -> anyhow::Result<()> {
        for (number, client) in self.clients.drain(..) {
            let ended = self.runtime.block_on(async { timeout(FINISH_WITHIN, client).await });
            ended.with_context(|| format!("client {number} does not finish"))??;
        }
        Ok(())
    }

    fn read_everything(&self, lab: &Lab, history: &mut History) -> anyhow::Result<()> {
        let admin = self.client(0);
        for key in history.keys.clone() {
            for agent in lab.agents() {
                let mut tries = 0;
                let polled = loop {
                    let reading =
                        async { timeout(READ_WITHIN, reader::read_all(&admin, agent, key)).await };
                    match self.runtime.block_on(reading) {
                        Ok(Ok(polled)) => break polled,
                        Ok(Err(refused)) if READS_MAX <= tries => {
                            bail!("agent {agent} at the end: {}", refused.0)
                        }
                        Err(_) => bail!("agent {agent} answers nothing at the end"),
                        Ok(Err(_)) => sleep(Duration::from_millis(250)),
                    }
                    tries += 1;
                };
                history.final_reads.push((key, polled));
            }
        }
        // The laws ask for one; the others are reads like any.
        history.final_reads.dedup_by_key(|(key, _)| *key);
        Ok(())
    }
}

/// Writes a record of [`KNOWN`] through one agent.
fn tell(lab: &Lab, agent: usize) -> anyhow::Result<()> {
    let stamp = Stamp { producer_id: -1, epoch: -1, sequence: -1, timestamp_ms: 0 };
    let records = batch::build(Key(0), &[Value(agent as u64)], &stamp);
    let mut connection = raw::Connection::open(lab.address(Server::Agent(agent)))?;
    let request = raw::produce(-1, 10_000, &[(KNOWN, 0, Some(&records))]);
    let produced = raw::produced(&connection.call(&request)?)?;
    ensure!(produced.iter().all(|one| one.code == 0), "produce: {produced:?}");
    Ok(())
}

/// Fails unless an agent serves all that it has read before.
pub fn serves_what_it_knows(lab: &Lab, agent: usize) -> anyhow::Result<()> {
    let mut connection = raw::Connection::open(lab.address(Server::Agent(agent)))?;
    let fetched = raw::fetched(&connection.call(&raw::fetch(KNOWN, 0, 0, 100))?)?;
    // What was not told to have been written may be there all the same.
    let whole = fetched.code == 0 && lab.agents().len() <= fetched.batches.len();
    ensure!(whole, "agent {agent}: {fetched:?}");
    Ok(())
}

/// `TOPIC_ALREADY_EXISTS`: an earlier try, whose answer was not heard.
const EXISTS: i16 = 36;

/// Creates a topic through the first agent.
pub fn create(lab: &mut Lab, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let request = raw::create_topics(&[(topic, partitions)]);
    lab.until(&format!("{topic} is created"), |lab| {
        let created = || {
            let mut connection = raw::Connection::open(lab.address(Server::Agent(0)))?;
            raw::created_topics(&connection.call(&request)?)
        };
        created().is_ok_and(|topics| topics.iter().all(|(_, code)| [0, EXISTS].contains(code)))
    })
}
