//! What goes wrong, when, and how it is put right again.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{net::Host, rng::SimRng, store::Weather, world::World};

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undo {
    StartNode(usize),
    StartAgent(usize),
    Mend(Vec<(Host, Host)>),
    Fair,
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
            let lasts = duration(rng);
            if let Some(undo) = break_something(world, rng) {
                undos.push((now + lasts, undo));
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
        Undo::Fair => {
            world.universe.trace.note(|| "fair weather".to_owned());
            world.bucket.set_weather(Weather::FAIR);
        }
    }
}

fn break_something(world: &mut World, rng: &SimRng) -> Option<Undo> {
    match rng.below(100) {
        0..25 => {
            let agent = index(rng, world.agents.len());
            let running = world.agents[agent].is_running();
            world.agents[agent].kill(!rng.one_in(3));
            running.then_some(Undo::StartAgent(agent))
        }
        25..45 => {
            let node = index(rng, world.nodes.len());
            let running = world.nodes[node].is_running();
            world.nodes[node].kill(rng.one_in(3));
            running.then_some(Undo::StartNode(node))
        }
        45..75 => {
            let links = some_links(world, rng);
            world.universe.trace.note(|| format!("cut {links:?}"));
            links.iter().for_each(|(from, to)| world.universe.network.cut(*from, *to));
            Some(Undo::Mend(links))
        }
        75..90 => {
            let weather = some_weather(rng);
            world.universe.trace.note(|| format!("{weather:?}"));
            world.bucket.set_weather(weather);
            Some(Undo::Fair)
        }
        _ => {
            let machines = world.machines();
            let machine = rng.pick(&machines);
            let hours = i64::try_from(rng.below(49)).expect("small") - 24;
            world.universe.trace.note(|| format!("{} is {hours} h off", machine.name));
            let skew = &machine.wall_skew_ms;
            skew.store(hours * 3_600_000, std::sync::atomic::Ordering::Relaxed);
            None
        }
    }
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
        match rng.below(6) {
            0 => weather.refused = share,
            1 => weather.slow_down = share,
            2 => weather.answer_lost = share,
            3 => weather.hung = share,
            4 => weather.slow = share,
            _ => weather.flipped = share,
        }
    }
    if rng.one_in(4) {
        weather = Weather { refused: 1000, ..Weather::FAIR }; // A region's outage.
    }
    weather
}
