//! A metadata group of three, agents and a store as real processes, and what goes wrong with them:
//! the rows of the fault matrix, each a test. Clients note every answer; the laws judge them.
//!
//! Rows that cut links need root for network namespaces and say so where they are skipped.
//! `TEST_FULL=1` makes faults long and many. `CHAOS_SEED` changes what is drawn, `CHAOS_MINUTES`
//! how long `one_hour` takes, `CHAOS_KEEP=FOLDER` keeps logs and data.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aquifer_tests::{
    chaos::{
        disk,
        lab::{Lab, Server, Shape},
        load::{Load, LoadShape, serves_what_it_knows},
        mix,
        network::Cut,
        pump::Pump,
    },
    real::nothing_is_lost_while,
    sim::rng::SimRng,
};

#[path = "group_chaos/disks.rs"]
mod disks;
#[path = "group_chaos/links.rs"]
mod links;
#[path = "group_chaos/members.rs"]
mod members;
#[path = "group_chaos/processes.rs"]
mod processes;
#[path = "group_chaos/stores.rs"]
mod stores;

const FOUNDERS: [u64; 3] = [1, 2, 3];
const NODES: [Server; 3] = [Server::Node(1), Server::Node(2), Server::Node(3)];

fn full() -> bool {
    std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty())
}

fn seed() -> u64 {
    std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn shape() -> LoadShape {
    LoadShape { seed: seed(), ..LoadShape::default() }
}

/// A deployment whose links can be cut, or a word on why this test is skipped.
fn with_links(shape: Shape) -> anyhow::Result<Option<Lab>> {
    let mut lab = Lab::prepare(shape)?;
    if !lab.network.has_links() {
        println!("SKIPPED: it cuts links, which needs root");
        return Ok(None);
    }
    lab.boot()?;
    Ok(Some(lab))
}

/// Pauses in ascending order, told in milliseconds with their median.
fn tell(what: &str, mut pauses: Vec<Duration>) -> (Duration, Duration) {
    pauses.sort_unstable();
    let (median, longest) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    let all: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
    println!("{what}: median {median:?}, longest {longest:?} of {}; ms: {all:?}", pauses.len());
    (median, longest)
}

/// What comes before the faults of a random order: everything works for a while.
fn settled() {
    sleep(millis(300));
}

#[test]
fn x30_nothing_happens_and_nothing_is_noticed() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    settled();
    let from = load.now();
    sleep(if full() { Duration::from_secs(60) } else { millis(1500) });
    tell("no fault", vec![load.longest_pause(from)]);
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

/// The long run: `CHAOS_MINUTES=10 TEST_FULL=1 ... --test group_chaos one_hour -- --nocapture`.
/// Without TEST_FULL, a quarter of a minute.
#[test]
fn one_hour_of_one_fault_after_the_other() -> anyhow::Result<()> {
    let minutes = std::env::var("CHAOS_MINUTES").ok().and_then(|text| text.parse::<f64>().ok());
    let length = match minutes {
        Some(minutes) => Duration::from_secs_f64(60.0 * minutes),
        None if full() => Duration::from_secs(3600),
        None => Duration::from_secs(15),
    };
    let seed = seed();
    println!("CHAOS_SEED={seed} for {length:?}");
    let Some(mut lab) = with_links(Shape { agents: 3, bucket: true, ..Shape::default() })? else {
        return Ok(());
    };
    // Slow enough that an hour's history fits into memory.
    let shape = LoadShape { steady: 2, rest: millis(20), ..shape() };
    let mut load = Load::start(&mut lab, &shape)?;
    let mixed = mix::run(&mut lab, &mut load, &SimRng::stream(seed, "mix"), length);
    if mixed.is_err() {
        println!("{}", lab.logs());
    }
    for (fault, (times, longest)) in mixed? {
        println!("{fault:?}: {times} times, worked again within {longest:?}");
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}
