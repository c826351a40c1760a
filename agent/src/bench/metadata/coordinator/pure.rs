//! What groups cost the pure machine: a question, a member held, a rebalance.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use aquifer_metadata::{
    codec,
    machine::{
        MetadataState,
        command::{Command, GroupAction, GroupCommand, GroupReply, Reply},
        group::{
            consumer::command::ConsumerHeartbeatResult,
            query::{GroupAnswer, GroupAsk, GroupQuery},
        },
        query::{Answer, Query},
    },
};
use serde::Serialize;

use super::{
    super::{
        super::limits::{figures::Spread, meter},
        alone::Alone,
        held::resident_bytes,
    },
    asked::Coordinator,
    member::Member,
    populate::{self, GroupsShape, Protocol},
};

/// Copies of the state whose memory is measured together, behind one that takes what was free.
const COPIES: usize = 4;
/// Joins and leaves of the largest group.
const STEPS: u32 = 11;
/// More than the longest time between two assignments of a group.
const ASSIGNED_AGAIN_AFTER_MS: u64 = 2_000;

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Pure {
    members: usize,
    groups: u32,
    /// Heartbeats of members at rest, one thread.
    heartbeats_per_core_s: f64,
    /// Of a member with its share of its group, offsets apart.
    rss_bytes_per_member: f64,
    snapshot_bytes_per_member: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebalance: Option<Rebalance>,
}

/// Entries that compute an assignment, in one group of all members with as many partitions.
#[derive(Debug, Serialize)]
struct Rebalance {
    members: u32,
    partitions: u32,
    /// One more member joins.
    join_ms: Spread,
    /// The first heartbeat after it left.
    leave_ms: Spread,
}

/// Measures groups of `members` in all.
///
/// # Errors
/// A group refuses a member.
pub async fn measure(shape: GroupsShape, groups: u32, seconds: f64) -> anyhow::Result<Pure> {
    let coordinator = Coordinator::default();
    populate::create_topic(&coordinator, shape.partitions).await?;
    let empty_bytes = codec::encode_snapshot(&coordinator.alone().state).len();
    let mut members = Vec::new();
    for number in 0..groups {
        members.extend(populate::fill(&coordinator, shape, number).await?);
    }
    let count = members.len() as f64;
    let snapshot = codec::encode_snapshot(&coordinator.alone().state);
    let rss_bytes_per_member = copies_bytes(&snapshot)? / count;
    let heartbeats_per_core_s = ask(&coordinator.alone().state, &members, seconds)?;
    let rebalance = match shape.protocol {
        Protocol::Classic => None,
        Protocol::Consumer => Some(rebalance(members.len() as u32).await?),
    };
    Ok(Pure {
        members: members.len(),
        groups,
        heartbeats_per_core_s,
        rss_bytes_per_member,
        snapshot_bytes_per_member: (snapshot.len() - empty_bytes) as f64 / count,
        rebalance,
    })
}

/// Resident bytes of a state: copies are made from its snapshot, for what fills a state by
/// commands also frees memory, which the next one then takes.
fn copies_bytes(snapshot: &[u8]) -> anyhow::Result<f64> {
    let first = codec::decode_snapshot(snapshot)?;
    let before = resident_bytes()?;
    let copies: Vec<MetadataState> =
        (0..COPIES).map(|_| codec::decode_snapshot(snapshot)).collect::<Result<_, _>>()?;
    let bytes = (resident_bytes()? - before) / COPIES as f64;
    drop((black_box(first), black_box(copies)));
    Ok(bytes)
}

fn ask(state: &MetadataState, members: &[Member], seconds: f64) -> anyhow::Result<f64> {
    let questions: Vec<Query> = members.iter().map(Member::question).collect();
    let refused = questions.iter().map(|one| state.query(one)).find(|answer| {
        !matches!(
            answer,
            Answer::Group(
                GroupAnswer::Heartbeat(Ok(())) | GroupAnswer::ConsumerHeartbeat(Some(Ok(_)))
            )
        )
    });
    ensure!(refused.is_none(), "a member is not at rest: {refused:?}");
    let (from, cpu) = (Instant::now(), meter::thread_cpu());
    let mut asked = 0_usize;
    while from.elapsed() < Duration::from_secs_f64(seconds) {
        for question in &questions {
            black_box(state.query(question));
        }
        asked += questions.len();
    }
    Ok(asked as f64 / (meter::thread_cpu() - cpu).as_secs_f64())
}

async fn rebalance(members: u32) -> anyhow::Result<Rebalance> {
    let shape = GroupsShape { protocol: Protocol::Consumer, members, partitions: members };
    let coordinator = Coordinator::default();
    populate::create_topic(&coordinator, shape.partitions).await?;
    let mut held = populate::fill(&coordinator, shape, 0).await?;
    let first = held.first_mut().context("a group without members")?;
    let mut alone = coordinator.alone();
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for number in 0..STEPS {
        let id = populate::member_id(first.group(), members + number);
        let mut newcomer = Member::consumer(first.group(), id);
        alone.pass(ASSIGNED_AGAIN_AFTER_MS);
        joins.push(assign(&mut alone, &mut newcomer)?);
        apply(&mut alone, newcomer.group(), newcomer.farewell())?;
        alone.pass(ASSIGNED_AGAIN_AFTER_MS);
        leaves.push(assign(&mut alone, first)?);
    }
    let spread = |times: Vec<Duration>| {
        Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3)).context("no steps")
    };
    let partitions = shape.partitions;
    Ok(Rebalance { members, partitions, join_ms: spread(joins)?, leave_ms: spread(leaves)? })
}

/// Applies a heartbeat that makes the group assign, and sees that it did.
fn assign(alone: &mut Alone, member: &mut Member) -> anyhow::Result<Duration> {
    let group = member.group().to_owned();
    let beat = member.command().context("a member of the consumer protocol")?;
    let (result, took) = apply(alone, &group, beat)?;
    member.take_in(result);
    let query = GroupQuery { group: group.clone(), ask: GroupAsk::ConsumerDescribe };
    let Answer::Group(GroupAnswer::ConsumerDescribed(Some(described))) =
        alone.state.query(&Query::Group(query))
    else {
        bail!("{group} is not described")
    };
    ensure!(described.assignment_epoch == described.group_epoch, "{group} did not assign");
    Ok(took)
}

fn apply(
    alone: &mut Alone,
    group: &str,
    action: GroupAction,
) -> anyhow::Result<(ConsumerHeartbeatResult, Duration)> {
    let command = GroupCommand { group: group.to_owned(), action };
    let (mut replies, took) = alone.apply_timed(vec![Command::Group(command)]);
    match replies.pop() {
        Some(Reply::Group(GroupReply::ConsumerHeartbeat(Ok(result)))) => Ok((result, took)),
        other => bail!("{group}: {other:?}"),
    }
}
