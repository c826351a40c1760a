//! Groups of both protocols whose members join, leave and die at random, in processes that are
//! killed too, while the metadata leader is killed again and again: no group loses a record, no
//! offset goes back, no partition has two owners, and everything settles once it is calm.
//!
//! `TEST_FULL=1` makes it 50 groups of up to 20 members, for `CHAOS_MINUTES` (5); `CHAOS_SEED`
//! changes what is drawn, `CHAOS_KEEP=FOLDER` keeps logs and journals.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

#[path = "group_churn/judge.rs"]
mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_tests::{
    chaos::lab::{Lab, Server, Shape},
    client::{Client, Protocol, succeeded},
    process::{Process, tool},
    sim::rng::SimRng,
};
use judge::Course;

const TOPIC: &str = "churned";
/// For the last sessions of members that died, and for whoever is slow on a busy machine.
const CALM_WITHIN: Duration = Duration::from_secs(240);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How much there is of everything.
struct Size {
    /// Groups of a process, all of one protocol.
    groups: usize,
    /// Processes of each protocol.
    processes: usize,
    /// Members of a group, at most.
    members: usize,
    partitions: i32,
    /// Records a second.
    rate: usize,
    length: Duration,
    /// Between two kills of the metadata leader.
    leader_every: Duration,
    /// Whether members of KIP-848's protocol die too: their session is 45 s at least.
    all_die: bool,
}

fn size() -> Size {
    let full = std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty());
    let minutes = std::env::var("CHAOS_MINUTES").ok().and_then(|text| text.parse::<f64>().ok());
    if full {
        return Size {
            groups: 5,
            processes: 5,
            members: 20,
            partitions: 24,
            rate: 50,
            length: Duration::from_secs_f64(60.0 * minutes.unwrap_or(5.0)),
            leader_every: Duration::from_secs(30),
            all_die: true,
        };
    }
    Size {
        groups: 2,
        processes: 1,
        members: 4,
        partitions: 6,
        rate: 50,
        length: Duration::from_secs(24),
        leader_every: Duration::from_secs(8),
        all_die: false,
    }
}

/// A process of the client program that is a crowd of members, of some groups.
struct Crowd {
    arguments: Vec<String>,
    journal: PathBuf,
    protocol: Protocol,
    groups: Vec<String>,
    process: Process,
}

impl Crowd {
    fn start(arguments: &[String]) -> anyhow::Result<Process> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Process::start("churn", &mut Client::FranzGo.command(&arguments)?)
    }
}

/// Everything at work.
struct Churn {
    lab: Lab,
    size: Size,
    crowds: Vec<Crowd>,
    stop: PathBuf,
    bootstrap: String,
}

impl Churn {
    fn start(size: Size, seed: u64) -> anyhow::Result<Self> {
        let lab = Lab::start(Shape::default())?;
        let agents = lab.agents().map(|place| lab.address(Server::Agent(place)).to_string());
        let bootstrap = agents.collect::<Vec<_>>().join(",");
        let mut command = Command::new(tool("TEST_BIN")?);
        command.args(["topic", "create", TOPIC, "--partitions", &size.partitions.to_string()]);
        succeeded("topic create", command.args(["--bootstrap", &bootstrap]).output()?)?;
        let stop = lab.path("stop");
        let mut churn = Self { lab, size, crowds: Vec::new(), stop, bootstrap };
        for protocol in [Protocol::Cooperative, Protocol::Consumer] {
            for place in 0..churn.size.processes {
                churn.add(protocol, place, seed)?;
            }
        }
        Ok(churn)
    }

    fn add(&mut self, protocol: Protocol, place: usize, seed: u64) -> anyhow::Result<()> {
        let name = format!("{}-{place}", protocol.argument());
        let groups: Vec<String> =
            (0..self.size.groups).map(|number| format!("{name}-{number}")).collect();
        let journal = self.lab.path(&format!("{name}.journal"));
        let die = protocol == Protocol::Cooperative || self.size.all_die;
        let mut arguments = vec!["churn".to_owned(), self.bootstrap.clone(), TOPIC.to_owned()];
        arguments.extend([&journal, &self.stop].map(|path| path.to_string_lossy().into_owned()));
        arguments.extend([seed.to_string(), self.size.members.to_string()]);
        arguments.push(if die { "deaths" } else { "farewells" }.to_owned());
        arguments.push(protocol.argument().to_owned());
        arguments.extend(groups.iter().cloned());
        let process = Crowd::start(&arguments)?;
        self.crowds.push(Crowd { arguments, journal, protocol, groups, process });
        Ok(())
    }

    /// Kills leaders and crowds, one after the other.
    fn disturb(&mut self, draw: &SimRng) -> anyhow::Result<()> {
        let end = Instant::now() + self.size.length;
        let mut round = 0;
        while Instant::now() < end {
            sleep(self.size.leader_every.min(end.saturating_duration_since(Instant::now())));
            let leader = self.lab.leader()?;
            self.lab.kill(Server::Node(leader))?;
            self.lab.leader_but(Some(leader))?;
            self.lab.launch(Server::Node(leader))?;
            self.lab.agree_roughly(&[1, 2, 3])?;
            if round % 2 == 1 {
                self.kill_a_crowd(draw)?;
            }
            self.crowds.iter_mut().try_for_each(|crowd| crowd.process.expect_alive())?;
            round += 1;
        }
        println!("the leader was killed {round} times");
        Ok(())
    }

    fn kill_a_crowd(&mut self, draw: &SimRng) -> anyhow::Result<()> {
        let mortal: Vec<usize> = (0..self.crowds.len())
            .filter(|at| self.size.all_die || self.crowds[*at].protocol != Protocol::Consumer)
            .collect();
        let crowd = &mut self.crowds[*draw.pick(&mortal)];
        crowd.process.kill()?;
        // What was being written may have stayed half a line.
        let journal = fs::read(&crowd.journal)?;
        let whole = journal.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        fs::write(&crowd.journal, &journal[..whole])?;
        crowd.process = Crowd::start(&crowd.arguments)?;
        Ok(())
    }

    fn courses(&self) -> anyhow::Result<BTreeMap<String, Course>> {
        let mut courses = BTreeMap::new();
        for crowd in &self.crowds {
            let judged = judge::judge(&fs::read_to_string(&crowd.journal)?);
            courses.extend(judged.with_context(|| crowd.journal.display().to_string())?);
        }
        Ok(courses)
    }

    /// What an operator is told of all groups, by their names.
    fn described(&self) -> anyhow::Result<BTreeMap<String, serde_json::Value>> {
        let mut command = Command::new(tool("TEST_BIN")?);
        command.args(["group", "describe", "-o", "json", "--bootstrap", &self.bootstrap]);
        command.args(self.crowds.iter().flat_map(|crowd| &crowd.groups));
        let told = succeeded("group describe", command.output()?)?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        let groups = told["groups"].as_array().context("groups")?.iter();
        groups
            .map(|group| {
                let name = group["group"].as_str().context("its name")?;
                Ok((name.to_owned(), group.clone()))
            })
            .collect()
    }

    /// Waits until `is_so` of every group and what is told of it; what it says of one that is not.
    fn until_all(
        &self,
        is_so: impl Fn(&Course, &serde_json::Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let nothing = Course::default();
        loop {
            let courses = self.courses()?;
            let late = match self.described() {
                Ok(told) => self.crowds.iter().flat_map(|crowd| &crowd.groups).find_map(|group| {
                    let course = courses.get(group).unwrap_or(&nothing);
                    let told = told.get(group).unwrap_or(&serde_json::Value::Null);
                    is_so(course, told).err().map(|why| format!("{group}: {why:#}"))
                }),
                // The last leader may be gone for a moment only.
                Err(why) => Some(format!("{why:#}")),
            };
            let Some(why) = late else { return Ok(()) };
            ensure!(begun.elapsed() < CALM_WITHIN, "{why}\n{}", self.lab.logs());
            sleep(LOOK_INTERVAL);
        }
    }
}

/// Fails unless the group has `members` members that share all partitions, and read `ends`.
fn settled(
    course: &Course,
    told: &serde_json::Value,
    ends: &BTreeMap<i32, i64>,
) -> anyhow::Result<()> {
    let members = course.calm.context("its process goes on")?;
    let listed = told["members"].as_array().context("members")?;
    ensure!(told["state"] == "Stable" && listed.len() == members, "{members} expected: {told}");
    let mut owned = Vec::new();
    for topic in listed.iter().flat_map(|member| member["partitions"].as_array()).flatten() {
        owned.extend(topic["partitions"].as_array().into_iter().flatten().cloned());
    }
    let numbers = owned.iter().filter_map(|one| i32::try_from(one.as_i64()?).ok());
    let distinct: BTreeSet<i32> = numbers.collect();
    ensure!(distinct.iter().eq(ends.keys()) && owned.len() == ends.len(), "owned: {owned:?}");
    ensure!(course.read == *ends, "read: {:?} of {ends:?}", course.read);
    for one in told["offsets"].as_array().context("offsets")? {
        ensure!(one["committed"] == one["latest"], "not committed to the end: {one}");
    }
    Ok(())
}

/// The offset behind the last acknowledged record of each partition.
fn acknowledged(output: Output) -> anyhow::Result<BTreeMap<i32, i64>> {
    let printed = succeeded("feed", output)?;
    let ends = printed.lines().map(|line| {
        let (partition, next) = line.split_once(' ').context("partition and offset")?;
        Ok((partition.parse()?, next.parse()?))
    });
    ends.collect()
}

#[test]
fn groups_lose_nothing_while_members_processes_and_leaders_die() -> anyhow::Result<()> {
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("CHAOS_SEED={seed}");
    let mut churn = Churn::start(size(), seed)?;
    let full_stop = churn.lab.path("enough");
    let (partitions, rate) = (churn.size.partitions.to_string(), churn.size.rate.to_string());
    let path = full_stop.to_string_lossy().into_owned();
    let feed =
        Client::FranzGo.start(&["feed", &churn.bootstrap, TOPIC, &partitions, &rate, &path])?;
    let disturbed = churn.disturb(&SimRng::stream(seed, "churn"));
    fs::write(&full_stop, "")?;
    let ends = acknowledged(feed.wait_with_output()?)?;
    disturbed?;
    ensure!(ends.values().all(|end| 0 < *end), "nothing was acknowledged: {ends:?}");

    fs::write(&churn.stop, "")?;
    let calm = Instant::now();
    churn.until_all(|course, told| settled(course, told, &ends))?;
    println!("all groups were stable and had read everything {:?} later", calm.elapsed());
    fs::write(churn.lab.path("stop.end"), "")?;
    churn.until_all(|_, told| {
        let members = told["members"].as_array().context("members")?.len();
        ensure!(told["state"] == "Empty" && members == 0, "{told}");
        Ok(())
    })?;
    let courses = churn.courses()?;
    courses.values().try_for_each(Course::over)?;
    let sum = |count: fn(&Course) -> usize| courses.values().map(count).sum::<usize>();
    println!(
        "{} groups, {} records each, {} members joined, {} partitions moved, {} sessions ended \
         before their members knew",
        courses.len(),
        ends.values().sum::<i64>(),
        sum(|course| course.joins),
        sum(|course| course.moves),
        sum(|course| course.expired)
    );
    // Each partition had an owner, and some had another.
    let still = courses.iter().find(|(_, course)| course.moves <= ends.len());
    ensure!(still.is_none(), "hardly anything moved: {still:?}");
    Ok(())
}
