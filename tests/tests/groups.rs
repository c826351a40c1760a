//! Consumer groups of real clients: every record is consumed once while members join, leave and
//! are killed, and a group goes on where it was when the broker is killed.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

// What only consumer groups need of it is not used here.
#[allow(dead_code)]
#[path = "groups/world.rs"]
mod world;

use std::time::Duration;

use anyhow::ensure;
use aquifer_tests::{client::Client, process::Place};
use world::World;

const PARTITIONS: usize = 6;
/// As the client programs set it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

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
    let mut world = World::new(place.kafka, folder, PARTITIONS);
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
