//! Unmodified Kafka clients with default settings: every producer with every consumer, each record
//! compared by key, value, headers, timestamp and offset.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{net::SocketAddr, process::Command};

use aquifer_tests::{
    client::{ALL, Client, succeeded},
    process::{Place, Process, free_address, metadata_node, minio, s3_environment, wait_ready},
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
    let (_minio, s3) = minio(&folder.path().join("minio"))?;
    let balancer = free_address()?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.store = Some("s3://aquifer/test".to_owned());
    place.environment = s3_environment(s3);
    let metadata = free_address()?;
    let _metadata = metadata_node(&place, metadata)?;
    let mut agents = Vec::new();
    let mut addresses = Vec::new();
    for zone in ["a", "b", "c"] {
        let mut agent = place.clone();
        (agent.kafka, agent.http) = (free_address()?, free_address()?);
        agent.arguments =
            ["--advertise", &balancer.to_string(), "--zone", zone].map(str::to_owned).to_vec();
        agents.push(agent.agent(metadata)?);
        addresses.push((agent.kafka, agent.http));
    }
    let _haproxy = haproxy(folder.path(), balancer, &addresses)?;
    every_pair(balancer, "balanced")
}

/// HAProxy in TCP mode over `agents` (Kafka and HTTP addresses), checked at `/readyz`.
fn haproxy(
    folder: &std::path::Path,
    listen: SocketAddr,
    agents: &[(SocketAddr, SocketAddr)],
) -> anyhow::Result<Process> {
    let status = free_address()?;
    let mut text = format!(
        "defaults\n  mode tcp\n  timeout client 10m\n  timeout server 10m\n  timeout connect 2s\n\
         frontend status\n  bind {status}\n  mode http\n  monitor-uri /up\n\
         listen kafka\n  bind {listen}\n  balance roundrobin\n  option httpchk GET /readyz\n"
    );
    for (index, (kafka, http)) in agents.iter().enumerate() {
        let line = format!("  server agent{index} {kafka} check port {} inter 500\n", http.port());
        text.push_str(&line);
    }
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, text)?;
    let mut process =
        Process::start("haproxy", Command::new("haproxy").arg("-db").arg("-f").arg(path))?;
    wait_ready(&mut process, status, "/up")?;
    Ok(process)
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
