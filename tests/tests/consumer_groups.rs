//! Consumer groups of real clients in the protocol of KIP-848: every record is consumed once while
//! members join, leave and are killed, over one process and over agents behind a balancer, by name
//! and by expression. With `TEST_BOOTSTRAP` they run against that cluster: Apache Kafka passes.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

#[path = "consumer_groups/asked.rs"]
mod asked;
#[path = "groups/paused.rs"]
mod paused;
// What only classic groups need of it is not used here.
#[allow(dead_code)]
#[path = "groups/world.rs"]
mod world;

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::ensure;
use aquifer_tests::{
    client::{Client, Protocol},
    cluster::Cluster,
    process::{Place, Process, tool},
};
use world::World;

const PARTITIONS: usize = 6;
/// `group.consumer.session.timeout.ms`, which is also the least a group may be given.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);

/// A group on the cluster at `bootstrap`, whose topic there is already.
fn group(bootstrap: SocketAddr, name: &str) -> anyhow::Result<World> {
    let mut world = World::new(bootstrap, tempfile::tempdir()?, PARTITIONS);
    // A cluster that is not of this test may have groups of an earlier run.
    world.topic = format!("{name}-{}", std::process::id());
    world.subscription.clone_from(&world.topic);
    world.group = format!("{}-group", world.topic);
    world.protocol = Protocol::Consumer;
    create(bootstrap, &world.topic)?;
    Ok(world)
}

fn create(bootstrap: SocketAddr, topic: &str) -> anyhow::Result<()> {
    let mut command = Command::new(tool("TEST_BIN")?);
    command.args(["topic", "create", topic, "--partitions", &PARTITIONS.to_string()]);
    let status = command.args(["--bootstrap", &bootstrap.to_string()]).status()?;
    ensure!(status.success(), "create {topic}: {status}");
    Ok(())
}

/// A process of the test's own, unless there is a cluster already.
fn process(folder: &tempfile::TempDir) -> anyhow::Result<(SocketAddr, Option<(Place, Process)>)> {
    match std::env::var("TEST_BOOTSTRAP") {
        Ok(address) => Ok((address.parse()?, None)),
        Err(_) => {
            let place = Place::new(folder.path().join("data"))?;
            let process = place.up()?;
            Ok((place.kafka, Some((place, process))))
        }
    }
}

#[test]
fn a_group_of_java_and_librdkafka_consumes_each_record_once_whoever_goes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (bootstrap, mut process) = process(&folder)?;
    let mut world = group(bootstrap, "whoever")?;
    world.produce("first")?;
    let (java, librdkafka) = (world.start(Client::Java)?, world.start(Client::Librdkafka)?);
    let took = world.settled(&[java, librdkafka])?;
    eprintln!("two joined within {took:?}");
    world.consumed_once()?;

    let newcomer = world.start(Client::Librdkafka)?;
    let took = world.settled(&[java, librdkafka, newcomer])?;
    eprintln!("another joined within {took:?}");
    world.produce("another")?;
    world.consumed_once()?;

    world.members[librdkafka].leave()?;
    let took = world.settled(&[java, newcomer])?;
    eprintln!("one left, the others went on after {took:?}");
    ensure!(took < SESSION_TIMEOUT / 2, "a member that leaves is not waited for, but {took:?}");
    world.produce("left")?;
    world.consumed_once()?;

    if let Some((place, process)) = &mut process {
        let before = world.rebalances(&[java, newcomer]);
        process.kill()?;
        *process = place.up()?;
        world.produce("restarted")?;
        world.consumed_once()?;
        let after = world.rebalances(&[java, newcomer]);
        ensure!(before == after, "the broker's restart rebalanced: {before:?}, then {after:?}");
    }
    world.members[java].leave()?;
    world.settled(&[newcomer])?;
    world.members[newcomer].leave()
}

#[test]
fn who_is_killed_is_missed_and_who_stood_still_is_fenced_once_their_sessions_are_over()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (bootstrap, _process) = process(&folder)?;
    let mut world = group(bootstrap, "killed")?;
    let (stays, killed) = (world.start(Client::Librdkafka)?, world.start(Client::Librdkafka)?);
    let paused = [Client::Java, Client::FranzGo, Client::Librdkafka]
        .map(|client| world.start(client))
        .into_iter()
        .collect::<anyhow::Result<Vec<usize>>>()?;
    world.settled(&[&[stays, killed], &paused[..]].concat())?;
    world.produce("all")?;
    world.consumed_once()?;
    world.members[killed].kill()?;
    let took = paused::late_commits_are_refused(&mut world, stays, &paused)?;
    eprintln!("one was killed, three stood still, the other went on after {took:?}");
    // Their last heartbeats were at most 5 s before.
    ensure!(SESSION_TIMEOUT - Duration::from_secs(7) < took, "expired already after {took:?}");
    world.is(Protocol::Consumer, "Stable", 4)
}

#[test]
fn an_expression_finds_topics_that_come_later() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (bootstrap, _process) = process(&folder)?;
    let mut world = group(bootstrap, "expressed")?;
    // The coordinator resolves it, for both clients.
    world.subscription = format!("^{}.*", world.topic);
    world.produce("before")?;
    let members = [world.start(Client::Java)?, world.start(Client::Librdkafka)?];
    world.settled(&members)?;
    world.consumed_once()?;
    let later = format!("{}-later", world.topic);
    create(bootstrap, &later)?;
    world.turn_to(&later);
    world.produce("after")?;
    world.consumed_once()?;
    for index in members {
        world.members[index].leave()?;
    }
    Ok(())
}

#[test]
fn any_agent_behind_a_balancer_takes_any_members_heartbeat() -> anyhow::Result<()> {
    if std::env::var("TEST_BOOTSTRAP").is_ok() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path())?;
    let mut world = group(cluster.balancer, "balanced")?;
    let members = [world.start(Client::Java)?, world.start(Client::Librdkafka)?];
    world.settled(&members)?;
    for index in 0..3 {
        cluster.restart_agent(index)?;
        world.produce(&format!("agent-{index}"))?;
        world.consumed_once()?;
    }
    for index in members {
        world.members[index].leave()?;
    }
    Ok(())
}
