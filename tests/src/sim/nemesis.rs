//! What goes wrong, when, and how it is put right again.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    aim::Moment,
    net::{Host, Latency},
    rng::SimRng,
    store::Weather,
    temperament::{Fault, WEATHERS},
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

/// What happens when a moment has come that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Strike {
    /// A node loses power.
    KillNode(usize),
    /// An agent is killed.
    KillAgent(usize),
    /// Both.
    KillBoth(usize, usize),
    /// A node's connections to all agents are reset, and what it said last is lost.
    Reset(usize),
    /// A node's answers to an agent are held back, and lost in the end.
    Hold(usize, usize),
}

/// What is wrong, and what will be.
struct Rage {
    rng: SimRng,
    until: Instant,
    undos: Vec<(Instant, Undo)>,
    strike: Option<Strike>,
}

/// Breaks things until `until`, or until the end of a longer outage, then puts everything right.
pub async fn rage(world: &mut World, rng: &SimRng, until: Instant) {
    let mut rage = Rage { rng: rng.clone(), until, undos: Vec::new(), strike: None };
    let mut next = Instant::now() + rng.between(Duration::from_millis(500), Duration::from_secs(3));
    let aim = world.universe.aim.clone();
    loop {
        let undo = rage.undos.iter().map(|(at, _)| *at).min();
        let at = undo.map_or(next, |undo| undo.min(next)).min(rage.until);
        tokio::select! {
            biased;
            () = aim.came() => rage.strike(world),
            () = sleep_until(at) => {}
        }
        let now = Instant::now();
        while let Some(place) = rage.undos.iter().position(|(at, _)| *at <= now) {
            let (_, undo) = rage.undos.remove(place);
            put_right(world, undo);
        }
        if rage.until <= now {
            break;
        }
        if next <= now {
            let ends = now + duration(rng);
            let fault = world.temperament.draw(rng);
            if let Some(undo) = rage.break_something(world, fault) {
                rage.undos.push((ends, undo));
            }
            let rest_max = world.temperament.rest_max;
            next = now + rng.between(Duration::from_millis(100), rest_max);
        }
    }
    aim.lower();
    for (_, undo) in rage.undos {
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

impl Rage {
    /// Breaks something, until what it returns is done or `until`.
    fn break_something(&mut self, world: &mut World, fault: Fault) -> Option<Undo> {
        let rng = &self.rng.clone();
        match fault {
            Fault::KillAgent => kill_agent(world, index(rng, world.agents.len()), !rng.one_in(3)),
            Fault::KillNode => kill_node(world, index(rng, world.nodes.len()), rng.one_in(3)),
            Fault::Cut => Some(cut(world, some_links(world, rng))),
            Fault::CutPeers => {
                // Long enough for another leader, as a rule.
                let lasts = rng.between(Duration::from_millis(500), Duration::from_secs(6));
                let undo = cut(world, links_of_leader(world, rng));
                self.undos.push((Instant::now() + lasts, undo));
                None
            }
            Fault::HoldAnswers => Some(hold_answers(world, rng)),
            Fault::Stop => {
                stop_something(world, rng, self.until);
                None
            }
            Fault::Weather => {
                if self.undos.iter().any(|(_, undo)| *undo == Undo::Fair) {
                    return None; // One weather after the other.
                }
                set_weather(world, some_weather(world, rng));
                // Longer than other faults: few requests of a moment meet a bad answer.
                let lasts = rng.between(Duration::from_millis(200), Duration::from_secs(8));
                self.undos.push((Instant::now() + lasts, Undo::Fair));
                None
            }
            Fault::Outage => {
                self.outage(world);
                None
            }
            Fault::Latency => {
                let max = *rng.pick(&[Duration::from_millis(50), Duration::from_millis(400)]);
                let (slow_max, slow_per_mille) = (3 * max, 50);
                let latency = Latency { max, slow_max, slow_per_mille, ..Latency::default() };
                world.universe.trace.note(|| format!("{latency:?}"));
                world.universe.network.set_latency(latency);
                Some(Undo::Calm)
            }
            Fault::Disk => {
                let node = index(rng, world.nodes.len());
                if rng.one_in(2) {
                    world.nodes[node].fill_disk();
                } else {
                    world.nodes[node].break_disk(rng.below(40));
                }
                Some(Undo::MendDisk(node))
            }
            Fault::WallClock => {
                set_wall_clock(world, rng);
                None
            }
            Fault::Aim => {
                self.aim(world);
                None
            }
        }
    }

    /// The store is away, for longer than a producer waits or anybody tries. The run goes on until
    /// it is back.
    fn outage(&mut self, world: &World) {
        let lasts = self.rng.between(Duration::from_secs(4), Duration::from_secs(80));
        let weather = match self.rng.below(3) {
            0 => Weather { denied: 1000, ..Weather::FAIR },
            1 => Weather { hung: 1000, ..Weather::FAIR },
            _ => Weather { refused: 1000, ..Weather::FAIR },
        };
        set_weather(world, weather);
        self.undos.retain(|(_, undo)| *undo != Undo::Fair);
        let ends = Instant::now() + lasts;
        self.until = self.until.max(ends);
        self.undos.push((ends, Undo::Fair));
    }

    /// Waits for a moment, and says what will happen then.
    fn aim(&mut self, world: &World) {
        let rng = &self.rng;
        let any = index(rng, world.nodes.len());
        let node = if rng.one_in(4) { any } else { world.leader().unwrap_or(any) };
        let agent = index(rng, world.agents.len());
        let (of_node, of_agent) =
            (world.nodes[node].machine().address, world.agents[agent].machine().address);
        let (moment, strike) = match rng.below(7) {
            0 | 1 => (Moment::Told(of_node), Strike::KillNode(node)),
            2 | 3 => (Moment::Heard(of_node), Strike::Reset(node)),
            4 => (Moment::Synced(of_node), Strike::Hold(node, agent)),
            5 => (Moment::Synced(of_node), Strike::KillBoth(node, agent)),
            _ => (Moment::Stored(of_agent), Strike::KillAgent(agent)),
        };
        let skip = rng.below(6);
        world.universe.trace.note(|| format!("at {moment:?} after {skip}: {strike:?}"));
        world.universe.aim.at(moment, skip);
        self.strike = Some(strike);
    }

    /// The moment has come.
    fn strike(&mut self, world: &mut World) {
        let Some(strike) = self.strike.take() else { return };
        world.universe.trace.note(|| format!("strike: {strike:?}"));
        let ends = Instant::now() + duration(&self.rng);
        let undos = match strike {
            Strike::KillNode(node) => vec![kill_node(world, node, false)],
            Strike::KillAgent(agent) => vec![kill_agent(world, agent, true)],
            Strike::KillBoth(node, agent) => {
                vec![kill_node(world, node, false), kill_agent(world, agent, true)]
            }
            Strike::Reset(node) => {
                let node = world.nodes[node].machine().address;
                for agent in &world.agents {
                    world.universe.network.lose_answers(node, agent.machine().address);
                }
                Vec::new()
            }
            Strike::Hold(node, agent) => {
                let node = world.nodes[node].machine().address;
                let agent = world.agents[agent].machine().address;
                world.universe.network.cut(node, agent);
                vec![Some(Undo::LoseAnswers(node, agent))]
            }
        };
        self.undos.extend(undos.into_iter().flatten().map(|undo| (ends, undo)));
    }
}

fn kill_agent(world: &mut World, agent: usize, with_power: bool) -> Option<Undo> {
    let running = world.agents[agent].is_running();
    world.agents[agent].kill(with_power);
    running.then_some(Undo::StartAgent(agent))
}

fn kill_node(world: &mut World, node: usize, with_power: bool) -> Option<Undo> {
    let running = world.nodes[node].is_running();
    world.nodes[node].kill(with_power);
    running.then_some(Undo::StartNode(node))
}

fn cut(world: &World, links: Vec<(Host, Host)>) -> Undo {
    world.universe.trace.note(|| format!("cut {links:?}"));
    links.iter().for_each(|(from, to)| world.universe.network.cut(*from, *to));
    Undo::Mend(links)
}

fn set_weather(world: &World, weather: Weather) {
    world.universe.trace.note(|| format!("{weather:?}"));
    world.bucket.set_weather(weather);
}

/// Links of the leader with the other nodes, both ways; of any node when none leads.
fn links_of_leader(world: &World, rng: &SimRng) -> Vec<(Host, Host)> {
    if world.nodes.len() == 1 {
        return some_links(world, rng);
    }
    let node = world.leader().unwrap_or_else(|| index(rng, world.nodes.len()));
    let node = world.nodes[node].machine().address;
    let others = world.nodes.iter().map(|other| other.machine().address);
    let others = others.filter(|other| *other != node);
    others.flat_map(|other| [(node, other), (other, node)]).collect()
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

fn some_weather(world: &World, rng: &SimRng) -> Weather {
    let mut weather = Weather::FAIR;
    let share = *rng.pick(&[20, 100, 300]);
    for _ in 0..1 + rng.below(2) {
        match world.temperament.weather.unwrap_or_else(|| rng.below(WEATHERS)) {
            0 => weather.refused = share,
            7 => weather.denied = share,
            1 => weather.slow_down = share,
            2 => weather.answer_lost = share,
            3 => weather.hung = share,
            4 => weather.slow = share,
            5 => weather.absent = share,
            _ => weather.flipped = share,
        }
    }
    if world.temperament.weather.is_none() && rng.one_in(4) {
        weather = Weather { refused: 1000, ..Weather::FAIR }; // A region's outage.
    }
    weather
}
