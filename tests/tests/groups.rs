//! Consumer groups of real clients: every record is consumed once while members join, leave and
//! are killed, and a group goes on where it was when the broker is killed.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_tests::{client::Client, process::Place};

const TOPIC: &str = "shared";
const GROUP: &str = "workers";
const PARTITIONS: usize = 6;
/// As the client programs set it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running client that is a member of the group.
struct Member {
    client: Client,
    child: Child,
    stop: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
}

/// A record as a member reported it, after its commit.
type Seen = (usize, i64, String);

impl Member {
    fn start(client: Client, bootstrap: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let stop = tempfile::Builder::new().tempfile_in(folder)?.path().to_owned();
        let arguments = ["group", &bootstrap.to_string(), TOPIC, GROUP, &stop.to_string_lossy()];
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
    fn leave(&mut self) -> anyhow::Result<()> {
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
    fn kill(&mut self) -> anyhow::Result<()> {
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
struct World {
    bootstrap: SocketAddr,
    folder: tempfile::TempDir,
    members: Vec<Member>,
    produced: BTreeSet<Seen>,
    next_offset: i64,
}

impl World {
    fn start(&mut self, client: Client) -> anyhow::Result<usize> {
        self.members.push(Member::start(client, self.bootstrap, self.folder.path())?);
        Ok(self.members.len() - 1)
    }

    /// Sends ten records to each partition.
    fn produce(&mut self, batch: &str) -> anyhow::Result<()> {
        for partition in 0..PARTITIONS {
            let mut command = Command::new("kcat");
            command.args(["-b", &self.bootstrap.to_string(), "-P", "-t", TOPIC]);
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
    fn settled(&self, live: &[usize]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let shares: Vec<Vec<usize>> =
                live.iter().map(|index| self.members[*index].assigned()).collect();
            let mut all = shares.concat();
            all.sort_unstable();
            if all.into_iter().eq(0..PARTITIONS) && shares.iter().all(|share| !share.is_empty()) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "{live:?} hold {shares:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until as many records are consumed as were produced; each must be seen once.
    fn consumed_once(&self) -> anyhow::Result<()> {
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

    fn rebalances(&self, live: &[usize]) -> Vec<usize> {
        live.iter().map(|index| self.members[*index].rebalances()).collect()
    }
}

/// Who takes which part in the experiment.
struct Cast {
    stays: Client,
    leaves: Client,
    killed: Client,
    newcomer: Client,
    /// Takes over when everyone has left.
    last: Client,
    /// Whether the client keeps its membership when its coordinator goes and comes back.
    keeps_membership: bool,
}

/// A group through everything that may happen to it.
fn experiment(cast: &Cast) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.arguments = ["--num-partitions", &PARTITIONS.to_string()].map(str::to_owned).to_vec();
    let mut broker = place.up()?;
    let mut world = World {
        bootstrap: place.kafka,
        folder,
        members: Vec::new(),
        produced: BTreeSet::new(),
        next_offset: 0,
    };
    world.produce("joined")?;
    let stays = world.start(cast.stays)?;
    let leaves = world.start(cast.leaves)?;
    let killed = world.start(cast.killed)?;
    let took = world.settled(&[stays, leaves, killed])?;
    eprintln!("{:?}: three joined within {took:?}", cast.stays);
    world.consumed_once()?;

    world.members[leaves].leave()?;
    let took = world.settled(&[stays, killed])?;
    eprintln!("{:?}: one left, the others went on after {took:?}", cast.stays);
    ensure!(took < SESSION_TIMEOUT, "a member that leaves is not waited for, but {took:?}");
    world.produce("left")?;
    world.consumed_once()?;

    world.members[killed].kill()?;
    let took = world.settled(&[stays])?;
    eprintln!("{:?}: one was killed, the other went on after {took:?}", cast.stays);
    // Its last heartbeat was at most 500 ms before it was killed.
    ensure!(SESSION_TIMEOUT - Duration::from_secs(1) < took, "expired already after {took:?}");
    ensure!(took < 3 * SESSION_TIMEOUT, "expired only after {took:?}");
    world.produce("killed")?;
    world.consumed_once()?;

    let newcomer = world.start(cast.newcomer)?;
    let took = world.settled(&[stays, newcomer])?;
    eprintln!("{:?}: another joined within {took:?}", cast.stays);
    world.produce("another")?;
    world.consumed_once()?;

    let before = world.rebalances(&[stays, newcomer]);
    broker.kill()?;
    let _broker = place.up()?;
    if cast.keeps_membership {
        world.produce("restarted")?;
        world.consumed_once()?;
        // Longer than a session: members the broker lost would have been told by now.
        std::thread::sleep(SESSION_TIMEOUT + Duration::from_secs(1));
        let after = world.rebalances(&[stays, newcomer]);
        ensure!(before == after, "the broker's restart rebalanced: {before:?}, then {after:?}");
    }

    world.members[stays].leave()?;
    world.members[newcomer].leave()?;
    let last = world.start(cast.last)?;
    let took = world.settled(&[last])?;
    eprintln!("{:?}: the last one joined within {took:?}", cast.stays);
    world.produce("last")?;
    world.consumed_once()?;
    world.members[last].leave()
}

#[test]
fn a_group_of_java_and_librdkafka_consumes_each_record_once_whoever_goes() -> anyhow::Result<()> {
    experiment(&Cast {
        stays: Client::Java,
        leaves: Client::Librdkafka,
        killed: Client::Java,
        newcomer: Client::Librdkafka,
        last: Client::KafkaGo,
        keeps_membership: true,
    })
}

/// Among themselves: with another family in the group, kafka-go's leader cannot read the others'
/// subscriptions, nor theirs its own (segmentio/kafka-go issue 1156), whatever the broker.
#[test]
fn a_group_of_kafka_go_consumes_each_record_once_whoever_goes() -> anyhow::Result<()> {
    experiment(&Cast {
        stays: Client::KafkaGo,
        leaves: Client::KafkaGo,
        killed: Client::KafkaGo,
        newcomer: Client::KafkaGo,
        last: Client::Java,
        keeps_membership: false,
    })
}
