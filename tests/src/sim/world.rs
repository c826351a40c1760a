//! The whole system in one deterministic world, and the life of a run: begin, faults, heal, prove
//! that it works, read everything.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aquifer_agent::wire::{
    Str,
    messages::{CreateTopicsRequest, CreateTopicsRequestTopics, CreateTopicsResponse},
};
#[cfg(planted)]
use aquifer_storage::planted;
use aquifer_storage::planted::Bug;
use tokio::{
    runtime,
    time::{Instant, sleep, timeout},
};

use super::{
    agent::AgentMachine,
    aim::Aim,
    client::{
        Client, Partition, Shared, consumer, lister, member,
        producer::{self, ProducerKind},
        reader,
    },
    groups::{self, Group, Plan},
    nemesis,
    net::{Host, Network},
    node::{self, NodeMachine},
    process::{Machine, Universe},
    rng::SimRng,
    store::Bucket,
    temperament::{Fault, Temperament},
    trace::Trace,
};
use crate::history::{self, History, Key, Violation};

/// After the heal everything must work within this time.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Clients finish within this time of being told to stop: producers give up after 120 s.
const FINISH_WITHIN: Duration = Duration::from_secs(150);
/// A log is read whole within this time: with a small cache every batch is a GET.
const READ_WITHIN: Duration = Duration::from_secs(300);
/// The system must begin within this time.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Voters of the metadata group.
    pub voters: u64,
    /// How long things go wrong.
    pub faults_for: Duration,
    /// Whether to keep the trace's lines.
    pub keep_trace: bool,
    /// Whether there are groups with members, and what they are like is drawn from the seed.
    pub groups: bool,
    /// A mistake to be made, in a build with `--cfg planted`; any other makes none.
    pub plant: Option<Bug>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The hash of its trace.
    pub hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Records in the logs at the end.
    pub records: usize,
    /// How long it was in the simulated world.
    pub simulated: Duration,
    /// The laws it broke.
    pub violations: Vec<Violation>,
    /// How often the place of the planted mistake was reached.
    pub planted: u64,
    /// The trace, if kept.
    pub trace: Vec<String>,
    /// What clients saw.
    pub history: History,
}

/// Machines, links and bucket.
pub struct World {
    /// What all share.
    pub universe: Universe,
    /// The metadata nodes.
    pub nodes: Vec<NodeMachine>,
    /// The agents.
    pub agents: Vec<AgentMachine>,
    /// The bucket.
    pub bucket: Bucket,
    /// Where clients run.
    pub client_hosts: Vec<Host>,
    /// What kind of world it is.
    pub temperament: Temperament,
    /// What groups there are.
    plan: Option<Plan>,
    lives: Vec<Arc<AtomicU32>>,
}

/// Runs a seed to its end. Nothing outside decides anything in it.
pub fn run(config: &RunConfig) -> Report {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(runtime::RngSeed::from_bytes(&config.seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime without I/O");
    #[cfg(planted)]
    planted::plant(config.plant);
    let report = runtime.block_on(live(config));
    #[cfg(planted)]
    let report = Report { planted: planted::reached(), ..report };
    #[cfg(planted)]
    planted::plant(None);
    report
}

async fn live(config: &RunConfig) -> Report {
    let trace = Trace::new(config.keep_trace);
    let seed = config.seed;
    let network = SimRng::stream(seed, "network");
    let aim = Aim::default();
    let universe = Universe {
        seed,
        network: Network::new(network, trace.clone(), aim.clone()),
        trace: trace.clone(),
        zero: Instant::now(),
        panics: Arc::default(),
        disks: Arc::default(),
        aim,
        replicas: Arc::default(),
    };
    let rng = SimRng::stream(seed, "world");
    let mut world = World::new(universe.clone(), &rng, config);
    let mut history = History::default();
    let mut violations = Vec::new();
    if let Err(what) = world.play(config, &rng, &mut history).await {
        violations.push(Violation { law: "H1 liveness", what });
    }
    let panics = std::mem::take(&mut *universe.panics.lock().expect("no holder panics"));
    violations.extend(panics.into_iter().map(|what| Violation { law: "H0 panic", what }));
    violations.extend(history::check(&history));
    let seen = std::mem::take(&mut *universe.replicas.lock().expect("no holder panics"));
    violations.extend(history::replicas::check(&seen));
    let (hash, events) = trace.fingerprint();
    Report {
        seed,
        hash,
        events,
        operations: history.operations.len(),
        records: history.final_reads.iter().map(|(_, polled)| polled.records.len()).sum(),
        simulated: Duration::from_nanos(trace.now()),
        violations,
        planted: 0,
        trace: trace.take_lines(),
        history,
    }
}

fn host(kind: u8, number: usize) -> Host {
    IpAddr::V4(Ipv4Addr::new(10, 0, kind, u8::try_from(number + 1).expect("few hosts")))
}

impl World {
    fn new(universe: Universe, rng: &SimRng, config: &RunConfig) -> Self {
        let voters = config.voters;
        let plan = config.groups.then(|| Plan::of(config.seed));
        let bucket = Bucket::new(universe.trace.clone());
        let temperament = Temperament::of(universe.seed);
        universe.trace.note(|| format!("{temperament:?}"));
        let addresses: Vec<_> = (0..voters)
            .map(|number| SocketAddr::new(host(1, number as usize), node::PORT).to_string())
            .collect();
        let founders: BTreeMap<u64, String> = (1..).zip(addresses.iter().cloned()).collect();
        // Clocks that are 10 % off, in every other world.
        let clocks_differ = rng.one_in(2);
        let rate = || match clocks_differ {
            true => 900 + u32::try_from(rng.below(201)).expect("small"),
            false => 1000,
        };
        let node = |number: u64| {
            let address = host(1, number as usize);
            let machine = Machine::new(&universe, format!("node{number}"), address);
            let machine = machine.with_rate(rate());
            let founders = (number + 1, founders.clone());
            let node = NodeMachine::new(&universe, &temperament, machine, founders);
            plan.iter().fold(node, |node, plan| node.with_expiry(plan.expiry()))
        };
        let nodes: Vec<_> = (0..voters).map(node).collect();
        let agent = |number: usize| {
            let machine = Machine::new(&universe, format!("agent{number}"), host(2, number));
            let machine = machine.with_rate(rate());
            let nodes = addresses.clone();
            AgentMachine::new(&universe, machine, &bucket, nodes, temperament.cache_bytes)
        };
        let agent_count = usize::try_from(2 + rng.below(2)).expect("few");
        let agents: Vec<_> = (0..agent_count).map(agent).collect();
        let client_hosts = (0..4).map(|number| host(3, number)).collect();
        let lives = agents.iter().map(|_| Arc::default()).collect();
        Self { universe, nodes, agents, bucket, client_hosts, temperament, plan, lives }
    }

    /// The servers' machines.
    pub fn machines(&self) -> Vec<Machine> {
        let nodes = self.nodes.iter().map(NodeMachine::machine);
        nodes.chain(self.agents.iter().map(AgentMachine::machine)).cloned().collect()
    }

    /// The metadata node that led of late, where any did.
    pub fn leader(&self) -> Option<usize> {
        let replicas = self.universe.replicas.lock().expect("no holder of this lock panics");
        let late = replicas.looks.iter().rev().take(2 * self.nodes.len());
        let leader = late.into_iter().find(|look| look.leads.is_some())?;
        usize::try_from(leader.node - 1).ok()
    }

    /// Starts an agent's process.
    pub fn start_agent(&mut self, agent: usize) {
        self.lives[agent].fetch_add(1, Ordering::Relaxed);
        self.agents[agent].start();
    }

    async fn play(
        &mut self,
        config: &RunConfig,
        rng: &SimRng,
        history: &mut History,
    ) -> Result<(), String> {
        self.nodes.iter_mut().for_each(NodeMachine::start);
        (0..self.agents.len()).for_each(|agent| self.start_agent(agent));
        let partitions = some_partitions(rng);
        history.keys = partitions.iter().map(|partition| partition.key).collect();
        let agents = self.agents.iter().map(AgentMachine::address).zip(self.lives.clone());
        let shared = Arc::new(Shared::new(&self.universe, agents.collect(), partitions));
        let admin = self.client(&shared, 0);
        let created = timeout(BEGIN_WITHIN, create_topics(&admin)).await;
        created.map_err(|_| "no topic could be created at the beginning".to_owned())?;
        let groups = timeout(BEGIN_WITHIN, self.prepare_groups(&admin)).await;
        let groups = groups.map_err(|_| "no group could be configured".to_owned())?;
        let clients = self.start_clients(&shared, rng, &groups);
        let faults = SimRng::stream(config.seed, "nemesis");
        nemesis::rage(self, &faults, Instant::now() + config.faults_for).await;
        let healed = shared.now();
        self.universe.trace.note(|| "healed".to_owned());
        let within = u64::try_from(HEALED_WITHIN.as_nanos()).expect("seconds");
        history.healed = Some((healed, within));
        shared.calm.store(true, Ordering::Relaxed);
        sleep(HEALED_WITHIN).await;
        let described = groups::describe(&admin, &groups).await;
        let settled = shared.now();
        shared.stop.store(true, Ordering::Relaxed);
        let finished = timeout(FINISH_WITHIN, clients.finished()).await;
        let reads = self.read_everything(&admin, history).await;
        self.nodes.iter().for_each(NodeMachine::note_log);
        history.operations = shared.take_operations();
        history.groups = shared.take_groups();
        history.groups.expires = self.may_expire();
        history.groups.settled = Some((settled, described?));
        finished.map_err(|_| format!("clients {:?} do not finish", clients.unfinished()))?;
        reads
    }

    async fn prepare_groups(&self, admin: &Client) -> Vec<Arc<Group>> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        groups::prepare(admin, plan, &nodes).await
    }

    /// Whether offsets of groups that nobody is in may expire before the end.
    fn may_expire(&self) -> bool {
        let keeps = self.plan.as_ref().is_none_or(Plan::keeps_offsets);
        !keeps || self.temperament.knows(Fault::WallClock)
    }

    fn client(&self, shared: &Arc<Shared>, number: u32) -> Client {
        let place = number as usize % self.client_hosts.len();
        let name = format!("client{number}");
        let machine = Machine::new(&self.universe, &name, self.client_hosts[place]);
        let rng = SimRng::stream(self.universe.seed, &name);
        Client { number, shared: shared.clone(), rng, process: machine.start(0) }
    }

    fn start_clients(&self, shared: &Arc<Shared>, rng: &SimRng, groups: &[Arc<Group>]) -> Clients {
        let clients = Clients::default();
        let mut number = 0;
        let mut next = || {
            number += 1;
            self.client(shared, number)
        };
        let Temperament { plain_percent, timeouts, .. } = self.temperament;
        for producer in 0..2 + rng.below(3) {
            let kind = ProducerKind {
                idempotent: producer == 0 || plain_percent <= rng.below(100),
                in_flight_max: *rng.pick(&[1, 5, 5]),
                pause_max: Duration::from_millis(*rng.pick(&[100, 300, 800])),
                timeout: Duration::from_secs(*rng.pick(timeouts)),
            };
            let client = next();
            self.universe.trace.note(|| format!("client {} is {kind:?}", client.number));
            clients.start(client, |client| producer::run(client, kind));
        }
        let goes_back = self.temperament.goes_back_one_in;
        for consumer in 0..self.temperament.consumers {
            clients.start(next(), |client| consumer::run(client, consumer == 0, goes_back));
        }
        for _ in 0..2 {
            clients.start(next(), lister::run);
        }
        let seats = self.plan.iter().flat_map(|plan| groups::seats(plan, groups));
        for (seat, is_classic) in seats {
            if is_classic {
                clients.start(next(), |client| member::classic::run(client, seat));
            } else {
                clients.start(next(), |client| member::consumer::run(client, seat));
            }
        }
        for group in groups {
            clients.start(next(), |client| member::watch(client, group.clone()));
        }
        clients
    }

    /// Reads every log through every agent; the first that can tells what it holds.
    async fn read_everything(&self, admin: &Client, history: &mut History) -> Result<(), String> {
        for partition in &admin.shared.partitions {
            for agent in 0..self.agents.len() {
                let mut tries = 0;
                let polled = loop {
                    match timeout(READ_WITHIN, reader::read_all(admin, agent, partition.key)).await
                    {
                        Ok(Ok(polled)) => break polled,
                        Ok(Err(refused)) if 20 <= tries => {
                            return Err(format!("agent {agent} at the end: {}", refused.0));
                        }
                        Err(_) => return Err(format!("agent {agent} answers nothing at the end")),
                        Ok(Err(_)) => sleep(Duration::from_millis(500)).await,
                    }
                    tries += 1;
                };
                history.final_reads.push((partition.key, polled));
            }
        }
        // The laws ask for one; the others are reads like any.
        history.final_reads.dedup_by_key(|(key, _)| *key);
        Ok(())
    }
}

/// The clients that run, and those that ended.
#[derive(Default)]
struct Clients {
    all: Mutex<Vec<(u32, Arc<AtomicU32>)>>,
}

impl Clients {
    fn start<F: Future<Output = ()> + Send + 'static>(
        &self,
        client: Client,
        run: impl FnOnce(Client) -> F,
    ) {
        let done = Arc::new(AtomicU32::new(0));
        self.all.lock().expect("no holder panics").push((client.number, done.clone()));
        let spawn = client.process.seams.spawn.clone();
        let task = run(client);
        spawn.spawn(
            "client",
            Box::pin(async move {
                task.await;
                done.store(1, Ordering::Relaxed);
            }),
        );
    }

    fn unfinished(&self) -> Vec<u32> {
        let all = self.all.lock().expect("no holder panics");
        let running = all.iter().filter(|(_, done)| done.load(Ordering::Relaxed) == 0);
        running.map(|(number, _)| *number).collect()
    }

    async fn finished(&self) {
        while !self.unfinished().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn some_partitions(rng: &SimRng) -> Vec<Partition> {
    let mut partitions = Vec::new();
    for topic in 0..1 + rng.below(2) {
        for index in 0..1 + rng.below(3) {
            let key = Key(u32::try_from(partitions.len()).expect("few"));
            let index = i32::try_from(index).expect("few");
            partitions.push(Partition { key, topic: format!("topic{topic}"), index });
        }
    }
    partitions
}

/// Creates all topics, however long it takes.
async fn create_topics(admin: &Client) {
    let mut counts = BTreeMap::<&str, i32>::new();
    for partition in &admin.shared.partitions {
        *counts.entry(&partition.topic).or_default() += 1;
    }
    for (topic, partitions) in counts {
        while let Err(reason) = create_topic(admin, topic, partitions).await {
            admin.shared.universe.trace.note(|| format!("create {topic}: {reason}"));
            sleep(Duration::from_millis(250)).await;
        }
    }
}

async fn create_topic(admin: &Client, name: &str, partitions: i32) -> Result<(), String> {
    let topic = CreateTopicsRequestTopics {
        name: Str::from(name),
        num_partitions: partitions,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, validate_only: false };
    let mut connection = reader::connect(admin, 0).await?;
    let patience = Duration::from_secs(15);
    let answer: CreateTopicsResponse =
        connection.call(7, &request, patience).await.map_err(|refused| refused.0)?;
    match answer.topics.first().map(|topic| topic.error_code) {
        Some(0 | 36) => Ok(()), // There already: an earlier try.
        code => Err(format!("{code:?}")),
    }
}
