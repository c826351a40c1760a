//! Commits of offsets through a metadata group, from members that hold their partitions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use aquifer_metadata::machine::command::GroupReply;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    super::{
        super::{
            clock::{BenchClock, Window},
            report::{self, Latency},
        },
        Reading,
        group::Group,
    },
    agents::{Agents, nodes_cpu},
    asked::Coordinator,
    heartbeats::{wait_until, window},
    member::Member,
};

/// Commits in a closed loop.
#[derive(Debug, Serialize)]
pub struct OffsetLoad {
    commits_per_s: f64,
    offsets_per_s: f64,
    latency: Latency,
    commits_per_entry: f64,
    entry_bytes_per_commit: f64,
    /// By the CPU time of all nodes together: what one core of theirs would take.
    commits_per_node_core_s: f64,
}

/// Has `waiting` members commit `partitions` offsets each, again and again.
///
/// # Errors
/// A commit was refused.
pub async fn closed_loop(
    (group, agents): (&Group, &Agents),
    members: &[Vec<Member>],
    (waiting, partitions): (usize, u32),
    seconds: f64,
) -> anyhow::Result<OffsetLoad> {
    let clock = BenchClock::start();
    let window = window(clock, seconds);
    let pairs = members.iter().zip(&agents.coordinators);
    let all = pairs.flat_map(|(own, coordinator)| own.iter().map(move |one| (one, coordinator)));
    let next = Arc::new(AtomicI64::new(1));
    let tasks: Vec<_> = all
        .take(waiting)
        .map(|(member, coordinator)| {
            let (member, coordinator) = (member.clone(), coordinator.clone());
            commit_on(coordinator, member, (partitions, next.clone()), (window, clock))
        })
        .collect();
    ensure!(tasks.len() == waiting, "there are {} members to commit", tasks.len());
    let (latencies, readings) = tokio::join!(agents.run(tasks), read(group, window, clock));
    let mut latency = report::micros_histogram();
    for one in latencies? {
        latency.add(one)?;
    }
    let ((first, cpu_from), (last, cpu_to)) = readings?;
    let commands = (last.proposed.commands - first.proposed.commands) as f64;
    let entries = (last.proposed.entries - first.proposed.entries) as f64;
    let bytes = (last.proposed.entry_bytes - first.proposed.entry_bytes) as f64;
    let commits = latency.len() as f64;
    Ok(OffsetLoad {
        commits_per_s: commits / window.seconds(),
        offsets_per_s: commits * f64::from(partitions) / window.seconds(),
        latency: Latency::of_micros(&latency),
        commits_per_entry: commands / entries,
        entry_bytes_per_commit: bytes / commands,
        commits_per_node_core_s: commits / cpu_to.saturating_sub(cpu_from).as_secs_f64(),
    })
}

async fn read(
    group: &Group,
    window: Window,
    clock: BenchClock,
) -> anyhow::Result<((Reading, Duration), (Reading, Duration))> {
    wait_until(window.start, clock).await;
    let first = (Reading::take(group), nodes_cpu()?);
    wait_until(window.end, clock).await;
    Ok((first, (Reading::take(group), nodes_cpu()?)))
}

async fn commit_on(
    coordinator: Arc<Coordinator>,
    member: Member,
    (partitions, next): (u32, Arc<AtomicI64>),
    (window, clock): (Window, BenchClock),
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = report::micros_histogram();
    loop {
        let sent = clock.now_micros();
        if window.end <= sent {
            return Ok(latencies);
        }
        let commit = member.commit(partitions, next.fetch_add(1, Ordering::Relaxed));
        let reply = coordinator.tell(member.group(), commit).await?;
        let is_taken = matches!(&reply, GroupReply::CommitOffsets(Ok(gone)) if gone.is_empty());
        ensure!(is_taken, "{}: {reply:?}", member.group());
        if window.contains(sent) {
            latencies.saturating_record(clock.now_micros() - sent);
        }
    }
}
