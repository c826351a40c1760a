//! kill -9 under load: what was acknowledged is there, once, at its offset.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{process::Command, thread::sleep, time::Duration};

use aquifer_tests::{
    client::succeeded,
    cluster::Cluster,
    process::{Place, free_address, metadata_node, s3_environment, tool},
    real::nothing_is_lost_while,
    stub::StoreStub,
};

/// Kills of each process per run; the full run makes it a hundred.
fn rounds() -> usize {
    let full = std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty());
    if full { 100 } else { 10 }
}

/// Slow PUTs hold up their producers only, so parts of several objects are committed together; a
/// reader at the end of the log must see every batch all the same.
#[test]
fn a_reader_at_the_end_of_the_log_misses_nothing_while_some_writes_are_slow() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let store = StoreStub::with(&["--preset", "s3-standard", "--tail", "0.05:5"])?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.store = Some("s3://aquifer/test".to_owned());
    place.environment = s3_environment(store.address);
    let _process = place.up()?;
    let mut load = Command::new(tool("TEST_BIN")?);
    load.args(["bench", "produce", "--bootstrap", &place.kafka.to_string(), "--tail"]);
    load.args(["--rate", "200", "--in-flight", "50", "--batch-bytes", "16384", "--idempotent"]);
    load.args(["--warmup", "0", "--duration", "8"]);
    // It ends with an error when offsets have holes or come twice.
    succeeded("bench produce --tail", load.output()?)?;
    Ok(())
}

#[test]
fn killing_the_whole_process_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let mut process = place.up()?;
    nothing_is_lost_while(place.kafka, folder.path(), || {
        for round in 0..rounds() {
            sleep(Duration::from_millis(300 + (round as u64 * 137) % 500));
            process.kill()?;
            process = place.up()?;
        }
        Ok(())
    })
}

#[test]
fn killing_agent_and_metadata_in_turn_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.store = Some(format!("file:{}", folder.path().join("bucket").display()));
    let listen = free_address()?;
    let mut metadata = metadata_node(&place, listen)?;
    let mut agent = place.agent(listen)?;
    nothing_is_lost_while(place.kafka, folder.path(), || {
        for round in 0..2 * rounds() {
            sleep(Duration::from_millis(300 + (round as u64 * 137) % 500));
            if round % 2 == 0 {
                agent.kill()?;
                agent = place.agent(listen)?;
            } else {
                metadata.kill()?;
                metadata = metadata_node(&place, listen)?;
            }
        }
        Ok(())
    })
}

#[test]
fn killing_agents_behind_a_balancer_over_a_failing_bucket_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    // One request in fifty is refused, applied without an answer, or cut; some are slow.
    const FAULTS: &str = r#"[
        {"method":"PUT","action":"status:503","fraction":0.02},
        {"method":"PUT","action":"drop-answer","fraction":0.02},
        {"method":"PUT","action":"reset","fraction":0.02},
        {"method":"GET","action":"status:500","fraction":0.02},
        {"method":"GET","action":"reset","fraction":0.02}]"#;
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path())?;
    let balancer = cluster.balancer;
    nothing_is_lost_while(balancer, folder.path(), || {
        cluster.store.fail(FAULTS)?;
        for round in 0..rounds() {
            sleep(Duration::from_millis(300 + (round as u64 * 137) % 500));
            if round % 4 == 3 {
                cluster.restart_metadata()?;
            } else {
                cluster.restart_agent(round)?;
            }
        }
        Ok(())
    })?;
    let counted = cluster.store.counters()?;
    anyhow::ensure!(0 < counted["faults"].as_u64().unwrap_or(0), "no fault happened: {counted}");
    Ok(())
}
