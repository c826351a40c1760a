//! What goes wrong, when, and how it is put right again.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    net::{Host, Latency},
    rng::SimRng,
    store::Weather,
    world::World,
};

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undo {
    StartNode(usize),
    StartAgent(usize),
    Mend(Vec<(Host, Host)>),
    LoseAnswers(Host, Host),
    MendDisk(usize),
    Fair,
    Calm,
}

/// Breaks things until `until`, then puts everything right.
pub async fn rage(world: &mut World, rng: &SimRng, until: Instant) {
    let mut undos: Vec<(Instant, Undo)> = Vec::new();
    let mut next = Instant::now() + rng.between(Duration::from_millis(500), Duration::from_secs(3));
    loop {
        let undo = undos.iter().map(|(at, _)| *at).min();
        let at = undo.map_or(next, |undo| undo.min(next)).min(until);
        sleep_until(at).await;
        let now = Instant::now();
        while let Some(place) = undos.iter().position(|(at, _)| *at <= now) {
            let (_, undo) = undos.remove(place);
            put_right(world, undo);
        }
        if until <= now {
            break;
        }
        if next <= now {
            let ends = now + duration(rng);
            if let Some(undo) = break_something(world, rng, until) {
                undos.push((ends, undo));
            }
            next = now + rng.between(Duration::from_millis(100), Duration::from_secs(4));
        }
    }
    for (_, undo) in undos {
        put_right(world, undo);
    }
    // What starts now starts with the links whole.
    sleep(Duration::from_millis(1)).await;
}

/// Mostly short, sometimes longer than every time-out.
fn duration(rng: &SimRng) -> Duration {
    let max = match rng.below(10) {
        0..6 => Duration::from_millis(800),
        6..9 => Duration::from_secs(5),
        _ => Duration::from_secs(25),
    };
    rng.between(Duration::from_millis(10), max)
}

fn put_right(world: &mut World, undo: Undo) {
    match undo {
        Undo::StartNode(node) => world.nodes[node].start(),
        Undo::StartAgent(agent) => world.start_agent(agent),
        Undo::Mend(links) => {
            world.universe.trace.note(|| format!("mend {links:?}"));
            links.into_iter().for_each(|(from, to)| world.universe.network.mend(from, to));
        }
        Undo::LoseAnswers(from, to) => {
            world.universe.trace.note(|| format!("answers of {from} to {to} are lost"));
            world.universe.network.lose_answers(from, to);
            world.universe.network.mend(from, to);
        }
        Undo::MendDisk(node) => world.nodes[node].mend_disk(),
        Undo::Fair => {
            world.universe.trace.note(|| "fair weather".to_owned());
            world.bucket.set_weather(Weather::FAIR);
        }
        Undo::Calm => {
            world.universe.trace.note(|| "the network is calm".to_owned());
            world.universe.network.set_latency(Latency::default());
        }
    }
}

/// Breaks something, until what it returns is done or `until`.
fn break_something(world: &mut World, rng: &SimRng, until: Instant) -> Option<Undo> {
    match rng.below(100) {
        0..18 => {
            let agent = index(rng, world.agents.len());
            let running = world.agents[agent].is_running();
            world.agents[agent].kill(!rng.one_in(3));
            running.then_some(Undo::StartAgent(agent))
        }
        18..34 => {
            let node = index(rng, world.nodes.len());
            let running = world.nodes[node].is_running();
            world.nodes[node].kill(rng.one_in(3));
            running.then_some(Undo::StartNode(node))
        }
        34..54 => {
            let links = some_links(world, rng);
            world.universe.trace.note(|| format!("cut {links:?}"));
            links.iter().for_each(|(from, to)| world.universe.network.cut(*from, *to));
            Some(Undo::Mend(links))
        }
        54..62 => Some(hold_answers(world, rng)),
        62..72 => {
            stop_something(world, rng, until);
            None
        }
        72..84 => {
            let weather = some_weather(rng);
            world.universe.trace.note(|| format!("{weather:?}"));
            world.bucket.set_weather(weather);
            Some(Undo::Fair)
        }
        84..88 => {
            let max = *rng.pick(&[Duration::from_millis(50), Duration::from_millis(400)]);
            let (slow_max, slow_per_mille) = (3 * max, 50);
            let latency = Latency { max, slow_max, slow_per_mille, ..Latency::default() };
            world.universe.trace.note(|| format!("{latency:?}"));
            world.universe.network.set_latency(latency);
            Some(Undo::Calm)
        }
        88..93 => {
            let node = index(rng, world.nodes.len());
            if rng.one_in(2) {
                world.nodes[node].fill_disk();
            } else {
                world.nodes[node].break_disk(rng.below(40));
            }
            Some(Undo::MendDisk(node))
        }
        _ => {
            set_wall_clock(world, rng);
            None
        }
    }
}

/// Holds back what a metadata node tells an agent or another node; in the end it is lost, though
/// what was asked was done.
fn hold_answers(world: &World, rng: &SimRng) -> Undo {
    let node = world.nodes[index(rng, world.nodes.len())].machine().address;
    let others: Vec<Host> = world.machines().iter().map(|machine| machine.address).collect();
    let others: Vec<Host> = others.into_iter().filter(|other| *other != node).collect();
    let other = *rng.pick(&others);
    world.universe.trace.note(|| format!("hold answers of {node} to {other}"));
    world.universe.network.cut(node, other);
    Undo::LoseAnswers(node, other)
}

/// Stops a process: for a moment, for longer than a lease, or for longer than a session.
fn stop_something(world: &World, rng: &SimRng, until: Instant) {
    let lasts = *rng.pick(&[300, 1_000, 4_000, 20_000]);
    let lasts = rng.between(Duration::from_millis(lasts / 2), Duration::from_millis(lasts));
    let wakes = until.min(Instant::now() + lasts);
    let agents = world.agents.len();
    match index(rng, agents + world.nodes.len()) {
        agent if agent < agents => world.agents[agent].pause(wakes),
        node => world.nodes[node - agents].pause(wakes),
    }
}

/// Sets a machine's wall clock: by some hours, by ten years, or right again.
fn set_wall_clock(world: &World, rng: &SimRng) {
    const HOURS_OF_TEN_YEARS: i64 = 10 * 365 * 24;
    let machines = world.machines();
    let machine = rng.pick(&machines);
    let hours = match rng.below(4) {
        0 => i64::try_from(rng.below(49)).expect("small") - 24,
        1 => HOURS_OF_TEN_YEARS,
        2 => -HOURS_OF_TEN_YEARS,
        _ => 0,
    };
    world.universe.trace.note(|| format!("{} is {hours} h off", machine.name));
    machine.wall_skew_ms.store(hours * 3_600_000, Ordering::Relaxed);
}

fn index(rng: &SimRng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).expect("an index")
}

/// Links between two hosts, or of one host with all others; one way or both.
fn some_links(world: &World, rng: &SimRng) -> Vec<(Host, Host)> {
    let servers: Vec<Host> = world.machines().iter().map(|machine| machine.address).collect();
    let mut everybody = servers.clone();
    everybody.extend(&world.client_hosts);
    let one = *rng.pick(&servers);
    let others: Vec<Host> = if rng.one_in(3) {
        everybody.into_iter().filter(|other| *other != one).collect()
    } else {
        let others: Vec<_> = everybody.into_iter().filter(|other| *other != one).collect();
        vec![*rng.pick(&others)]
    };
    let (mut there, back) = match rng.below(4) {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    };
    there |= !back;
    let mut links = Vec::new();
    for other in others {
        links.extend(there.then_some((one, other)));
        links.extend(back.then_some((other, one)));
    }
    links
}

fn some_weather(rng: &SimRng) -> Weather {
    let mut weather = Weather::FAIR;
    let share = *rng.pick(&[20, 100, 300]);
    for _ in 0..1 + rng.below(2) {
        match rng.below(7) {
            0 => weather.refused = share,
            1 => weather.slow_down = share,
            2 => weather.answer_lost = share,
            3 => weather.hung = share,
            4 => weather.slow = share,
            5 => weather.absent = share,
            _ => weather.flipped = share,
        }
    }
    if rng.one_in(4) {
        weather = Weather { refused: 1000, ..Weather::FAIR }; // A region's outage.
    }
    weather
}
