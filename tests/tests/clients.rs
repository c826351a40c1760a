//! Unmodified Kafka clients with default settings: every producer with every consumer, each record
//! compared by key, value, headers, timestamp and offset.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use aquifer_tests::{
    client::{Client, succeeded},
    cluster::Cluster,
    matrix::{Table, each_client_once, every_pair, tables},
    process::{Place, Process, free_address, metadata_node, metadata_node_with},
};

/// What a test needs of a deployment: it lives as long as this does.
enum Deployment {
    /// `aquifer up`.
    OneProcess(Box<(Place, Process)>),
    /// Three agents and an S3 server.
    Cluster(Box<Cluster>),
    /// Named by `TEST_BOOTSTRAP`: Apache Kafka, when the question is whether a test is right.
    Other(SocketAddr),
}

impl Deployment {
    fn start(folder: &Path, topology: &str) -> anyhow::Result<Self> {
        if let Ok(address) = std::env::var("TEST_BOOTSTRAP") {
            return Ok(Self::Other(address.parse()?));
        }
        Ok(match topology {
            "one process" => {
                let place = Place::new(folder.join("data"))?;
                let process = place.up()?;
                Self::OneProcess(Box::new((place, process)))
            }
            "three agents" => Self::Cluster(Box::new(Cluster::start_without_balancer(folder)?)),
            _ => Self::Cluster(Box::new(Cluster::start(folder)?)),
        })
    }

    fn bootstrap(&self) -> SocketAddr {
        match self {
            Self::OneProcess(own) => own.0.kafka,
            Self::Cluster(cluster) => cluster.balancer,
            Self::Other(address) => *address,
        }
    }
}

/// Each client as producer and as consumer; with `TEST_FULL` every pair with every codec.
fn clients_work_over(topology: &str, shift: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let deployment = Deployment::start(folder.path(), topology)?;
    let table = Table::new(topology);
    let prefix = format!("{}-{}", topology.replace(' ', "-"), std::process::id());
    each_client_once(deployment.bootstrap(), &prefix, shift, &table);
    if std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty()) {
        every_pair(deployment.bootstrap(), &prefix, &table);
    }
    table.finish()?;
    if let Deployment::OneProcess(own) = deployment {
        let (_, process) = *own;
        anyhow::ensure!(process.terminate()?, "SIGTERM drains and ends with success");
    }
    Ok(())
}

#[test]
fn every_client_writes_and_reads_over_one_process() -> anyhow::Result<()> {
    clients_work_over("one process", 0)
}

#[test]
fn every_client_writes_and_reads_over_three_agents_and_s3() -> anyhow::Result<()> {
    clients_work_over("three agents", 1)
}

#[test]
fn every_client_writes_and_reads_through_a_balancer_over_three_agents() -> anyhow::Result<()> {
    clients_work_over("behind a balancer", 4)
}

#[test]
fn the_program_of_kafka_gos_own_readme_runs_unmodified() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let _process = place.up()?;
    let bootstrap = place.kafka.to_string();
    let printed = Client::KafkaGo.run(&["program", &bootstrap, "my-topic", "my-group"])?;
    assert_eq!(printed, "0: one!\n1: two!\n2: three!\n");
    Ok(())
}

#[test]
fn kcat_produces_consumes_and_lists() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let _process = place.up()?;
    let bootstrap = place.kafka.to_string();
    let input = folder.path().join("input");
    std::fs::write(&input, "k1:v1\nk2:v2\nk3:v3\n")?;
    let kcat = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("kcat").args(["-b", &bootstrap]).args(arguments).output()?;
        succeeded("kcat", output)
    };
    kcat(&["-P", "-t", "kcat", "-K:", "-H", "a=b", "-l", &input.to_string_lossy()])?;
    let read = kcat(&["-C", "-t", "kcat", "-o", "beginning", "-e", "-q", "-f", "%o %k %s %h\n"])?;
    assert_eq!(read, "0 k1 v1 a=b\n1 k2 v2 a=b\n2 k3 v3 a=b\n");
    let listed = kcat(&["-L"])?;
    assert!(listed.contains("topic \"kcat\" with 1 partitions"), "{listed}");
    let row = "## kcat\n\nproduces keys and headers, consumes, lists: ok\n";
    std::fs::write(tables()?.join("clients-kcat.md"), row)?;
    Ok(())
}

/// The members that `quorum` printed: role, id, directory.
fn members(printed: &str) -> Vec<[String; 3]> {
    let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let members = printed.lines().skip(1).map(fields);
    members.map(|line| [line[0].clone(), line[1].clone(), line[2].clone()]).collect()
}

#[test]
fn kafkas_quorum_apis_show_and_change_the_metadata_group() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("first"))?;
    place.store = Some(format!("file:{}", folder.path().join("bucket").display()));
    let (first, second) = (free_address()?, free_address()?);
    let _first = metadata_node(&place, first)?;
    let _agent = place.agent(first)?;
    let bootstrap = place.kafka.to_string();
    let quorum = |change: &[&str]| Client::Java.run(&[&["quorum", &bootstrap], change].concat());
    let alone = members(&quorum(&[])?);
    let [[role, id, _]] = &alone[..] else { panic!("{alone:?}") };
    assert_eq!((role.as_str(), id.as_str()), ("voter", "1"));

    place.data = folder.path().join("second");
    let _second = metadata_node_with(&place, second, &["--join", &first.to_string()])?;
    // It listens before it is admitted.
    let mut joined = Vec::new();
    for _ in 0..50 {
        joined = members(&quorum(&[])?);
        if joined.len() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let [_, [role, id, directory]] = &joined[..] else { panic!("{joined:?}") };
    assert_eq!(role, "observer");
    let stranger = joined[0][2].as_str();
    let refused = quorum(&["add", id, stranger]).expect_err("a folder of another node");
    assert!(refused.to_string().contains("InvalidRequestException"), "{refused}");
    let both = members(&quorum(&["add", id, directory])?);
    assert!(both.iter().all(|member| member[0] == "voter") && both.len() == 2, "{both:?}");
    let twice = quorum(&["add", id, directory]).expect_err("it is a voter");
    assert!(twice.to_string().contains("DuplicateVoterException"), "{twice}");
    let left = members(&quorum(&["remove", id, directory])?);
    assert_eq!(left, alone);
    let gone = quorum(&["remove", id, directory]).expect_err("its id is used up");
    assert!(gone.to_string().contains("VoterNotFoundException"), "{gone}");
    Ok(())
}
