//! A classic group becomes one of KIP-848's protocol member by member, and a classic one again.

use anyhow::ensure;
use aquifer_tests::{
    client::{Client, Protocol},
    process::Place,
};

use super::{PARTITIONS, full, world::World};

const MEMBERS: usize = 3;

/// Restarts one member after the other, each with the other protocol, while records come.
fn rolled(
    world: &mut World,
    (client, to): (Client, Protocol),
    members: &mut [usize; MEMBERS],
) -> anyhow::Result<()> {
    let from = world.protocol;
    world.protocol = to;
    for place in 0..MEMBERS {
        world.members[members[place]].leave()?;
        members[place] = world.start(client)?;
        world.produce(&format!("{}-{place}", to.argument()))?; // While the group rebalances.
        let took = world.settled(members)?;
        eprintln!("{client:?} {from:?} to {to:?}: member {place} joined within {took:?}");
        // The first of the new protocol turns the group, and the last that leaves turns it back.
        let is_new = to == Protocol::Consumer || place + 1 < MEMBERS;
        let now = if is_new { Protocol::Consumer } else { to };
        world.is(now, "Stable", MEMBERS)?;
        world.consumed_once()?;
    }
    Ok(())
}

fn migrated(client: Client, classic: Protocol) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.arguments = ["--num-partitions", &PARTITIONS.to_string()].map(str::to_owned).to_vec();
    let _broker = place.up()?;
    let mut world = World::new(place.kafka, folder, PARTITIONS);
    world.protocol = classic;
    world.produce("before")?;
    let mut members = [0; MEMBERS];
    for member in &mut members {
        *member = world.start(client)?;
    }
    world.settled(&members)?;
    world.is(classic, "Stable", MEMBERS)?;
    world.consumed_once()?;
    rolled(&mut world, (client, Protocol::Consumer), &mut members)?;
    rolled(&mut world, (client, classic), &mut members)?;
    world.produce("after")?;
    world.consumed_once()?;
    world.all_committed()?;
    members.iter().try_for_each(|index| world.members[*index].leave())?;
    world.is(classic, "Empty", 0)
}

#[test]
fn a_classic_group_is_upgraded_and_downgraded_member_by_member() -> anyhow::Result<()> {
    let mut kinds = vec![(Client::Java, Protocol::Cooperative)];
    if full() {
        kinds.extend([(Client::Java, Protocol::Eager), (Client::Librdkafka, Protocol::Eager)]);
        // Not librdkafka's: its cooperative assignor tells members something of its own, and such a
        // group is not upgraded, by Kafka neither.
        kinds.push((Client::FranzGo, Protocol::Cooperative));
    }
    for (client, classic) in kinds {
        let outcome = migrated(client, classic);
        ensure!(outcome.is_ok(), "{client:?} {classic:?}: {outcome:?}");
    }
    Ok(())
}
