//! A group of client programs, and what was produced for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_tests::{
    client::{Client, Protocol},
    process::tool,
};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(80);

/// A running client that is a member of the group.
pub struct Member {
    client: Client,
    child: Child,
    stop: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
}

/// A record as a member reported it, after its commit.
type Seen = (usize, i64, String);

impl Member {
    fn start(client: Client, protocol: Protocol, world: &World) -> anyhow::Result<Self> {
        let stop = tempfile::Builder::new().tempfile_in(world.folder.path())?.path().to_owned();
        let (bootstrap, stop_path) = (world.bootstrap.to_string(), stop.to_string_lossy());
        let mut arguments =
            vec!["group", &bootstrap, &world.subscription, &world.group, &stop_path];
        if protocol != Protocol::Eager {
            arguments.push(protocol.argument());
        }
        let mut child = client.command(&arguments)?.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output is piped")?;
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard.lock().expect("no panic while held").push(line);
            }
        });
        Ok(Self { client, child, stop, said })
    }

    /// What it said of one kind.
    pub fn lines(&self, kind: &str) -> Vec<String> {
        let said = self.said.lock().expect("no panic while held");
        said.iter().filter_map(|line| line.strip_prefix(kind)).map(str::to_owned).collect()
    }

    /// The partitions of its last assignment.
    fn assigned(&self) -> Vec<usize> {
        let last = self.lines("assigned ").pop().unwrap_or_default();
        last.split(',').filter_map(|partition| partition.parse().ok()).collect()
    }

    fn rebalances(&self) -> usize {
        self.lines("assigned ").len()
    }

    fn records(&self) -> anyhow::Result<Vec<Seen>> {
        let parse = |line: &String| {
            let mut words = line.split(' ');
            let partition = words.next()?.parse().ok()?;
            Some((partition, words.next()?.parse().ok()?, words.next()?.to_owned()))
        };
        self.lines("record ").iter().map(|line| parse(line).context("a record line")).collect()
    }

    /// Makes it keep what it reads, uncommitted, until it is to go on.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn hold(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.holding(), "")?)
    }

    /// Lets it commit again.
    ///
    /// # Errors
    /// It was not to hold anything.
    pub fn go_on(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.holding())?)
    }

    fn holding(&self) -> PathBuf {
        let mut path = self.stop.clone().into_os_string();
        path.push(".hold");
        path.into()
    }

    /// Who it is, and the last that was refused.
    pub fn told_of_refusal(&self) -> String {
        format!("{:?}: refused {:?}", self.client, self.lines("refused ").last())
    }

    /// Waits until it said something of that kind.
    ///
    /// # Errors
    /// It does not, for too long.
    pub fn says(&self, kind: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.lines(kind).is_empty() {
            ensure!(Instant::now() < deadline, "{:?} never says {kind:?}", self.client);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends it a signal by its name, such as STOP.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        ensure!(status.success(), "signal {name} to {:?}", self.client);
        Ok(())
    }

    /// Ends it politely.
    ///
    /// # Errors
    /// It fails, or does not end.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        std::fs::write(&self.stop, "")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{:?}: {status}", self.client);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("{:?} does not end", self.client)
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.kill();
    }
}

/// The members, also those that are gone, and what was produced for them.
pub struct World {
    bootstrap: SocketAddr,
    folder: tempfile::TempDir,
    /// Where records are produced to.
    pub topic: String,
    /// What members subscribe to: the topic, or an expression.
    pub subscription: String,
    /// The group.
    pub group: String,
    /// What members speak that are started from now on.
    pub protocol: Protocol,
    partitions: usize,
    /// In the order they were started.
    pub members: Vec<Member>,
    produced: BTreeSet<Seen>,
    next_offset: i64,
}

impl World {
    /// A group without members.
    pub fn new(bootstrap: SocketAddr, folder: tempfile::TempDir, partitions: usize) -> Self {
        Self {
            bootstrap,
            folder,
            topic: "shared".to_owned(),
            subscription: "shared".to_owned(),
            group: "workers".to_owned(),
            protocol: Protocol::Eager,
            partitions,
            members: Vec::new(),
            produced: BTreeSet::new(),
            next_offset: 0,
        }
    }

    /// Starts a member, and returns its place among them.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, client: Client) -> anyhow::Result<usize> {
        let member = Member::start(client, self.protocol, self)?;
        self.members.push(member);
        Ok(self.members.len() - 1)
    }

    /// Goes on with another topic, of as many partitions, that has no records yet.
    pub fn turn_to(&mut self, topic: &str) {
        (self.topic, self.next_offset) = (topic.to_owned(), 0);
    }

    /// Sends ten records to each partition.
    ///
    /// # Errors
    /// They are not taken.
    pub fn produce(&mut self, batch: &str) -> anyhow::Result<()> {
        for partition in 0..self.partitions {
            let mut command = Command::new("kcat");
            command.args(["-b", &self.bootstrap.to_string(), "-P", "-t", &self.topic]);
            command.args(["-p", &partition.to_string()]);
            let mut kcat = command.stdin(Stdio::piped()).spawn()?;
            let mut input = kcat.stdin.take().context("its input is piped")?;
            for number in 0..10_i64 {
                let value = format!("{batch}-{partition}-{number}");
                writeln!(input, "{value}")?;
                self.produced.insert((partition, self.next_offset + number, value));
            }
            drop(input);
            ensure!(kcat.wait()?.success(), "kcat produces to partition {partition}");
        }
        self.next_offset += 10;
        Ok(())
    }

    /// What each of `live` holds.
    fn shares(&self, live: &[usize]) -> Vec<Vec<usize>> {
        live.iter().map(|index| self.members[*index].assigned()).collect()
    }

    /// Whether `live` share all partitions.
    pub fn is_settled(&self, live: &[usize]) -> bool {
        let shares = self.shares(live);
        let mut all = shares.concat();
        all.sort_unstable();
        all.into_iter().eq(0..self.partitions) && shares.iter().all(|share| !share.is_empty())
    }

    /// Waits until `live` share all partitions, and returns how long that took.
    ///
    /// # Errors
    /// They do not, for too long.
    pub fn settled(&self, live: &[usize]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !self.is_settled(live) {
            let shares = self.shares(live);
            ensure!(began.elapsed() < PATIENCE, "{live:?} hold {shares:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }

    /// Waits until as many records are consumed as were produced; each must be seen once.
    ///
    /// # Errors
    /// One is seen twice, or not for too long.
    pub fn consumed_once(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for member in &self.members {
                seen.extend(member.records()?);
            }
            let distinct: BTreeSet<Seen> = seen.iter().cloned().collect();
            let twice = seen.len() - distinct.len();
            ensure!(twice == 0, "{twice} records were consumed more than once");
            if distinct == self.produced {
                return Ok(());
            }
            let missing = self.produced.difference(&distinct).count();
            ensure!(distinct.is_subset(&self.produced), "a record nobody produced");
            ensure!(Instant::now() < deadline, "{missing} records are not consumed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How often each of `live` was told an assignment.
    pub fn rebalances(&self, live: &[usize]) -> Vec<usize> {
        live.iter().map(|index| self.members[*index].rebalances()).collect()
    }

    /// The group as `aquifer group describe` tells it.
    ///
    /// # Errors
    /// It is not told.
    pub fn described(&self) -> anyhow::Result<Described> {
        let mut command = Command::new(tool("TEST_BIN")?);
        command.args(["group", "describe", &self.group, "-o", "json"]);
        let output = command.args(["--bootstrap", &self.bootstrap.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "describe {}: {said}", self.group);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let told = &told["groups"][0];
        let offsets = told["offsets"].as_array().context("offsets")?.iter();
        let committed = offsets.filter(|one| one["topic"] == *self.topic).filter_map(|one| {
            let partition = usize::try_from(one["partition"].as_u64()?).ok()?;
            Some((partition, one["committed"].as_i64()?))
        });
        Ok(Described {
            group_type: told["type"].as_str().context("type")?.to_owned(),
            state: told["state"].as_str().context("state")?.to_owned(),
            members: told["members"].as_array().context("members")?.len(),
            committed: committed.collect(),
        })
    }

    /// Waits until the group is of that protocol, in that state, and of so many members.
    ///
    /// # Errors
    /// It is not, for too long.
    pub fn is(&self, protocol: Protocol, state: &str, members: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.described()?;
            let seen = (told.group_type.as_str(), told.state.as_str(), told.members);
            if seen == (protocol.group_type(), state, members) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{protocol:?} {state} {members} expected: {told:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all that was produced to the topic is committed.
    ///
    /// # Errors
    /// It is not for too long, or something else is.
    pub fn all_committed(&self) -> anyhow::Result<BTreeMap<usize, i64>> {
        let all = (0..self.partitions).map(|partition| (partition, self.next_offset)).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let committed = self.described()?.committed;
            if committed == all {
                return Ok(all);
            }
            ensure!(Instant::now() < deadline, "{committed:?} is committed of {all:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What an operator is told of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// `classic` or `consumer`.
    pub group_type: String,
    /// Kafka's name of it.
    pub state: String,
    /// How many there are.
    pub members: usize,
    /// The next offset of each partition of the topic.
    pub committed: BTreeMap<usize, i64>,
}
