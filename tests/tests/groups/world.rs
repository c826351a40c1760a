//! A group of client programs, and what was produced for them.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_tests::client::Client;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(80);

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
    fn start(client: Client, world: &World) -> anyhow::Result<Self> {
        let stop = tempfile::Builder::new().tempfile_in(world.folder.path())?.path().to_owned();
        let (bootstrap, stop_path) = (world.bootstrap.to_string(), stop.to_string_lossy());
        let mut arguments =
            vec!["group", &bootstrap, &world.subscription, &world.group, &stop_path];
        if world.is_new_protocol {
            arguments.push("consumer");
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

    fn lines(&self, kind: &str) -> Vec<String> {
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
    /// Whether members speak the protocol of KIP-848.
    pub is_new_protocol: bool,
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
            is_new_protocol: false,
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
        let member = Member::start(client, self)?;
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

    /// Waits until `live` share all partitions, and returns how long that took.
    ///
    /// # Errors
    /// They do not, for too long.
    pub fn settled(&self, live: &[usize]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let shares: Vec<Vec<usize>> =
                live.iter().map(|index| self.members[*index].assigned()).collect();
            let mut all = shares.concat();
            all.sort_unstable();
            if all.into_iter().eq(0..self.partitions)
                && shares.iter().all(|share| !share.is_empty())
            {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "{live:?} hold {shares:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
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
}
