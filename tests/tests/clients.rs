//! Unmodified Kafka clients with default settings: every producer with every consumer, each record
//! compared by key, value, headers, timestamp and offset.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{net::SocketAddr, process::Command, time::Duration};

use aquifer_tests::{
    client::{ALL, Client, succeeded},
    cluster::Cluster,
    process::{Place, free_address, metadata_node, metadata_node_with},
    record::assorted,
};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Every pair of clients over one broker address; `prefix` keeps topics apart.
fn every_pair(bootstrap: SocketAddr, prefix: &str) -> anyhow::Result<()> {
    let records = assorted();
    for (place, producer) in ALL.into_iter().enumerate() {
        let topic = format!("{prefix}-{producer:?}");
        let codec = CODECS[place % CODECS.len()];
        let offsets = producer.produce(bootstrap, &topic, codec, &records)?;
        let expected: Vec<i64> = (0..records.len() as i64).collect();
        anyhow::ensure!(offsets == expected, "{producer:?}: offsets {offsets:?}");
        for consumer in ALL {
            let group = format!("{topic}-{consumer:?}");
            let consumed = consumer.consume(bootstrap, &topic, &group, records.len())?;
            for (index, (sent, got)) in records.iter().zip(&consumed).enumerate() {
                let same = sent == &got.record && got.offset == index as i64;
                let lossy = consumer == Client::KafkaGo || producer == Client::KafkaGo;
                anyhow::ensure!(
                    same || (lossy && nulls_as_empty(sent, got, index)),
                    "{producer:?} to {consumer:?}, record {index}: sent {sent:?}, got {got:?}"
                );
            }
        }
    }
    Ok(())
}

/// kafka-go does not tell null from empty, neither as producer nor as consumer.
fn nulls_as_empty(
    sent: &aquifer_tests::record::Record,
    got: &aquifer_tests::record::ConsumedRecord,
    index: usize,
) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let headers = |headers: &[(String, Option<String>)]| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    text(&sent.key) == text(&got.record.key)
        && text(&sent.value) == text(&got.record.value)
        && headers(&sent.headers) == headers(&got.record.headers)
        && sent.timestamp == got.record.timestamp
        && got.offset == index as i64
}

#[test]
fn every_client_reads_what_every_client_wrote_on_a_local_folder() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let process = place.up()?;
    every_pair(place.kafka, "folder")?;
    anyhow::ensure!(process.terminate()?, "SIGTERM drains and ends with success");
    Ok(())
}

#[test]
fn every_client_works_through_a_balancer_over_three_agents_and_s3() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path())?;
    every_pair(cluster.balancer, "balanced")
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
