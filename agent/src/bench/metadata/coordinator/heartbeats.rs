//! Heartbeats of members that have nothing to do: as many as the leader answers, and as many as
//! members send by themselves.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    super::super::{
        clock::{BenchClock, Window},
        report::{self, Latency},
    },
    agents::{Agents, nodes_cpu},
    asked::Coordinator,
    member::Member,
};

/// Pools fill and connections open meanwhile.
const WARM_UP: Duration = Duration::from_millis(500);

/// Heartbeats in a closed loop.
#[derive(Debug, Serialize)]
pub struct HeartbeatLoad {
    per_s: f64,
    /// By the CPU time of the nodes alone: what one core of theirs would answer.
    per_node_core_s: f64,
    latency: Latency,
}

/// Members at rest, with heartbeats as often as they were told.
#[derive(Debug, Serialize)]
pub struct RestLoad {
    members: usize,
    per_s: f64,
    /// Of one core, by all nodes together.
    nodes_cpu_percent: f64,
    /// The same before there was a member.
    idle_cpu_percent: f64,
    /// From when a heartbeat was due.
    latency: Latency,
}

/// Has `waiting` members at a time ask, over all agents.
///
/// # Errors
/// A member was not at rest.
pub async fn closed_loop(
    agents: &Agents,
    members: &[Vec<Member>],
    waiting: usize,
    seconds: f64,
) -> anyhow::Result<HeartbeatLoad> {
    let clock = BenchClock::start();
    let window = window(clock, seconds);
    // Each of those that wait is a task with members of its own.
    let mut tasks = Vec::new();
    for number in 0..waiting {
        let agent = number % members.len();
        let (first, step) = (number / members.len(), waiting.div_ceil(members.len()));
        let own: Vec<Member> = members[agent].iter().skip(first).step_by(step).cloned().collect();
        if !own.is_empty() {
            tasks.push(ask_in_turn(agents.coordinators[agent].clone(), own, window, clock));
        }
    }
    let (latencies, cpu) = tokio::join!(agents.run(tasks), cpu_within(window, clock));
    let mut latency = report::micros_histogram();
    for one in latencies? {
        latency.add(one)?;
    }
    let (answered, cpu) = (latency.len() as f64, cpu?.as_secs_f64());
    Ok(HeartbeatLoad {
        per_s: answered / window.seconds(),
        per_node_core_s: answered / cpu,
        latency: Latency::of_micros(&latency),
    })
}

async fn ask_in_turn(
    coordinator: Arc<Coordinator>,
    mut members: Vec<Member>,
    window: Window,
    clock: BenchClock,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = report::micros_histogram();
    loop {
        for member in &mut members {
            let sent = clock.now_micros();
            if window.end <= sent {
                return Ok(latencies);
            }
            ensure!(member.beat(&coordinator).await?, "a member of {} moved", member.group());
            if window.contains(sent) {
                latencies.saturating_record(clock.now_micros() - sent);
            }
        }
    }
}

/// What the nodes use of a core before they have members.
///
/// # Errors
/// `/proc` cannot be read.
pub async fn idle_percent(seconds: f64) -> anyhow::Result<f64> {
    let clock = BenchClock::start();
    let window = window(clock, seconds);
    Ok(cpu_within(window, clock).await?.as_secs_f64() / window.seconds() * 100.0)
}

/// Has all members send heartbeats when they are due.
///
/// # Errors
/// A member was not at rest.
pub async fn at_rest(
    agents: &Agents,
    members: Vec<Vec<Member>>,
    idle_cpu_percent: f64,
    seconds: f64,
) -> anyhow::Result<RestLoad> {
    let count = members.iter().map(Vec::len).sum();
    let clock = BenchClock::start();
    let window = window(clock, seconds);
    let latency = Arc::new(Mutex::new(report::micros_histogram()));
    let tasks = members.into_iter().zip(&agents.coordinators).map(|(members, coordinator)| {
        send_when_due(coordinator.clone(), members, (window, clock), latency.clone())
    });
    let (sent, cpu) = tokio::join!(agents.run(tasks), cpu_within(window, clock));
    sent?;
    let latency = latency.lock().expect("no panic while it is held");
    Ok(RestLoad {
        members: count,
        per_s: latency.len() as f64 / window.seconds(),
        nodes_cpu_percent: cpu?.as_secs_f64() / window.seconds() * 100.0,
        idle_cpu_percent,
        latency: Latency::of_micros(&latency),
    })
}

async fn send_when_due(
    coordinator: Arc<Coordinator>,
    members: Vec<Member>,
    (window, clock): (Window, BenchClock),
    latency: Arc<Mutex<Histogram<u64>>>,
) -> anyhow::Result<()> {
    let begun = clock.now_micros();
    let count = members.len().max(1) as u64;
    // The first ones are spread over an interval, and so all others are.
    let due =
        |(place, member): (u64, Member)| (begun + micros(member.interval) * place / count, member);
    let mut waiting: VecDeque<(u64, Member)> = (0..).zip(members).map(due).collect();
    while let Some((due, mut member)) = waiting.pop_front() {
        if window.end <= due {
            break;
        }
        let left = due.saturating_sub(clock.now_micros());
        tokio::time::sleep(Duration::from_micros(left)).await;
        ensure!(member.beat(&coordinator).await?, "a member of {} moved", member.group());
        if window.contains(due) {
            let took = clock.now_micros().saturating_sub(due);
            latency.lock().expect("no panic while it is held").saturating_record(took);
        }
        waiting.push_back((due + micros(member.interval), member));
    }
    Ok(())
}

/// A time that begins after a warm-up.
pub fn window(clock: BenchClock, seconds: f64) -> Window {
    let start = clock.now_micros() + micros(WARM_UP);
    Window { start, end: start + (seconds * 1e6) as u64 }
}

/// Waits for the window's ends, and tells what the nodes used in between.
///
/// # Errors
/// `/proc` cannot be read.
pub async fn cpu_within(window: Window, clock: BenchClock) -> anyhow::Result<Duration> {
    wait_until(window.start, clock).await;
    let from = nodes_cpu()?;
    wait_until(window.end, clock).await;
    Ok(nodes_cpu()?.saturating_sub(from))
}

/// Waits for a moment of the clock.
pub async fn wait_until(at: u64, clock: BenchClock) {
    tokio::time::sleep(Duration::from_micros(at.saturating_sub(clock.now_micros()))).await;
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
