//! Consumer groups of real clients: every record is consumed once while members join, leave and
//! are killed, and a group goes on where it was when the broker is killed. A member that stood
//! still for too long commits nothing, and a group changes its protocol while its members work.
//! `TEST_FULL` adds clients and protocols that are much like those of the ordinary run.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

#[path = "groups/experiment.rs"]
mod experiment;
#[path = "groups/migration.rs"]
mod migration;
#[path = "groups/paused.rs"]
mod paused;
// What only consumer groups need of it is not used here.
#[allow(dead_code)]
#[path = "groups/world.rs"]
mod world;

use std::time::Duration;

use anyhow::ensure;
use aquifer_tests::{
    client::{
        Client::{
            self, AioKafka, FranzGo, Java, KafkaGo, KafkaJs, KafkaPython, Librdkafka, Sarama,
        },
        Protocol::{self, Consumer, Cooperative, Eager},
    },
    matrix::{groups::Groups, side_by_side},
    process::Place,
};
use experiment::Cast;
use world::World;

const PARTITIONS: usize = 6;
/// As the client programs set it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

fn full() -> bool {
    std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty())
}

fn casts() -> Vec<Cast> {
    let mut casts = vec![
        Cast::mixed([Java, Librdkafka, Java, Librdkafka], Eager, KafkaGo),
        Cast::mixed([FranzGo, KafkaPython, Sarama, AioKafka], Eager, Librdkafka).that_rejoins(),
        Cast::alone(Java, Cooperative, KafkaPython),
        // By the classic protocol, a heartbeat that finds nobody ends its session.
        Cast::alone(FranzGo, Cooperative, Java).that_rejoins(),
        Cast::alone(FranzGo, Consumer, Java),
        Cast::alone(KafkaPython, Eager, FranzGo),
        // Among themselves: its assignor is its own.
        Cast::alone(KafkaJs, Eager, Sarama).that_rejoins(),
        // Likewise: with another family in the group, kafka-go's leader cannot read the others'
        // subscriptions, nor theirs its own (segmentio/kafka-go issue 1156), whatever the broker.
        Cast::alone(KafkaGo, Eager, Java).that_rejoins().whose_commits_are_lost(),
    ];
    if full() {
        casts.extend([
            Cast::mixed([Java, FranzGo, Librdkafka, KafkaPython], Cooperative, Librdkafka),
            Cast::mixed([Java, FranzGo, Librdkafka, FranzGo], Consumer, Librdkafka),
            Cast::alone(FranzGo, Eager, Java).that_rejoins(),
            Cast::alone(Sarama, Eager, Java).that_rejoins(),
        ]);
        let alone: [(Client, Protocol); 7] = [
            (Java, Eager),
            (Librdkafka, Eager),
            (AioKafka, Eager),
            (Librdkafka, Cooperative),
            (KafkaPython, Cooperative),
            (Java, Consumer),
            (Librdkafka, Consumer),
        ];
        casts.extend(alone.map(|(client, protocol)| Cast::alone(client, protocol, Java)));
    }
    casts
}

#[test]
fn groups_of_every_client_consume_each_record_once_whoever_goes() -> anyhow::Result<()> {
    let groups = Groups::default();
    side_by_side(&casts(), |cast| {
        let ((protocol, clients), outcome) = (cast.parts(), cast.play());
        groups.note(protocol, &clients, &outcome);
    });
    groups.finish()
}

#[test]
fn members_that_stood_still_past_their_session_commit_nothing_and_join_again() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.arguments = ["--num-partitions", &PARTITIONS.to_string()].map(str::to_owned).to_vec();
    let _broker = place.up()?;
    let mut world = World::new(place.kafka, folder, PARTITIONS);
    world.produce("first")?;
    let stays = world.start(Java)?;
    let paused = [world.start(Java)?, world.start(FranzGo)?, world.start(Librdkafka)?];
    world.settled(&[&[stays], &paused[..]].concat())?;
    world.consumed_once()?;
    let took = paused::late_commits_are_refused(&mut world, stays, &paused)?;
    eprintln!("three stood still, the other went on after {took:?}");
    ensure!(SESSION_TIMEOUT - Duration::from_secs(2) < took, "expired already after {took:?}");
    world.is(Eager, "Stable", 4)
}
