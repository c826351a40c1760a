//! `aquifer group reset`: sends a group without members to other offsets.

pub mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::{
    members::membership,
    offsets::{Offsets, committed},
};
use crate::{
    cli::{
        Usage, about_change,
        client::{Client, ClientError, Isolation, OffsetSpec, Topic, no_leader},
        failures,
        output::{Format, Output, Table},
    },
    wire::{
        ErrorCode, Str,
        messages::{
            OffsetCommitRequest, OffsetCommitRequestTopics, OffsetCommitRequestTopicsPartitions,
            OffsetCommitResponse,
        },
    },
};
use plan::{Bounds, Scope, Target, clamped, parse_file, place};

/// From version 10 on topics are named by id only.
const OFFSET_COMMIT: std::ops::RangeInclusive<i16> = 2..=9;

/// Of one request: no answer, and no entry of ours, becomes too large.
const PARTITIONS_AT_ONCE: usize = 1_000;

/// Arguments.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").args(["to", "shift", "from_file"]).required(true)))]
pub struct ResetArgs {
    /// Its name.
    #[arg(value_name = "GROUP")]
    group: String,
    /// Only this topic, or only some of its partitions, as orders:0,2. May be repeated.
    #[arg(short, long = "topic", value_name = "TOPIC[:N,...]")]
    topics: Vec<Scope>,
    /// Everything the group has committed.
    #[arg(long, conflicts_with = "topics")]
    all_topics: bool,
    /// earliest, latest, current, an offset, -N for the last N, a time such as
    /// 2026-01-31T12:00:00Z or @1769860800000, or -2h for how long ago.
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    to: Option<Target>,
    /// So many offsets on, or back when it is negative.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift: Option<i64>,
    /// To the offsets of a file, or of standard input for `-`: what `aquifer group lag -o json`
    /// printed, or lines [GROUP,]TOPIC,PARTITION,OFFSET as kafka-consumer-groups exports them.
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,
    /// Do it. Without this flag nothing changes.
    #[arg(long)]
    execute: bool,
    /// Only show what would change, which is the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    group: &'a str,
    /// Whether it was done.
    executed: bool,
    offsets: Vec<Move>,
}

/// A partition on its way.
#[derive(Clone, Debug, Serialize)]
struct Move {
    topic: String,
    partition: i32,
    /// Where the group was.
    committed: Option<i64>,
    /// Where it goes on.
    new: i64,
    /// How much it has not read, from there.
    lag: i64,
}

/// Resets a group.
///
/// # Errors
/// It has members, something that was named is not there, or it is not known what happened.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    args: &ResetArgs,
) -> anyhow::Result<()> {
    let group = args.group.as_str();
    if args.from_file.is_none() && args.topics.is_empty() && !args.all_topics {
        let text = "say of what: --topic orders, --topic orders:0,2, or --all-topics";
        return Err(Usage::new(text).into());
    }
    let saved = args.from_file.as_deref().map(|file| read(file, group)).transpose()?;
    let committed = inactive(client, group).await?;
    let (moves, mut errors) = match (&saved, target(args)) {
        (Some(saved), _) => to_saved(client, args, saved, &committed).await?,
        (None, Some(target)) => to_target(client, args, target, &committed).await?,
        // The group of arguments lets nothing else through.
        (None, None) => (Vec::new(), Vec::new()),
    };
    let done = match args.execute {
        true => execute(client, group, moves, &mut errors).await,
        false => moves,
    };
    if format == Format::Json {
        output.document(&Document { group, executed: args.execute, offsets: done })?;
        return failures(errors);
    }
    if !done.is_empty() {
        output.table(&table(&done))?;
    }
    if !args.execute && errors.is_empty() {
        eprintln!("nothing was changed: add --execute to do it");
    }
    failures(errors)
}

fn target(args: &ResetArgs) -> Option<Target> {
    args.to.or(args.shift.map(Target::Shift))
}

fn read(file: &str, group: &str) -> anyhow::Result<Offsets> {
    let mut text = String::new();
    let name = match file {
        "-" => {
            std::io::stdin().read_to_string(&mut text).context("standard input")?;
            "standard input"
        }
        _ => {
            text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
            file
        }
    };
    parse_file(&text, group).map_err(|error| anyhow::anyhow!("{name} {error}"))
}

/// What the group committed; only a group without members can be moved.
async fn inactive(client: &mut Client, group: &str) -> anyhow::Result<Offsets> {
    let (membership, committed) = client
        .retrying(async |client| {
            let broker = client.coordinator(group).await?;
            let membership = membership(client, &broker, group).await?;
            Ok((membership, committed(client, &broker, group).await?))
        })
        .await?;
    let state = membership.state.as_str();
    if !matches!(state, "Empty" | "Dead") {
        let members = match membership.members.len() {
            1 => "a member".to_owned(),
            count => format!("{count} members"),
        };
        anyhow::bail!("group {group} has {members} and is {state}: stop them first");
    }
    Ok(committed)
}

type Planned = (Vec<Move>, Vec<anyhow::Error>);

/// The partitions of what was named, sent to one target.
async fn to_target(
    client: &mut Client,
    args: &ResetArgs,
    target: Target,
    committed: &Offsets,
) -> anyhow::Result<Planned> {
    let (mut moves, mut errors) = (Vec::new(), Vec::new());
    let scopes = if args.all_topics { all_of(committed) } else { args.topics.clone() };
    if scopes.is_empty() {
        anyhow::bail!("group {} has committed nothing: name topics with --topic", args.group);
    }
    for scope in scopes {
        let topic = client.topic(&scope.topic).await?;
        let mut indexes = scope.partitions;
        if indexes.is_empty() {
            indexes.extend(topic.partitions.keys());
        }
        for (index, bounds) in bounds(client, &topic, &indexes, (target, committed)).await? {
            match place(target, bounds) {
                Ok(new) => moves.push(moved((&topic, index), new, bounds)),
                Err(plan::NeverCommitted) => errors.push(anyhow::anyhow!(
                    "group {} never committed {}/{index}: it cannot be shifted, give --to",
                    args.group,
                    topic.name
                )),
            }
        }
    }
    Ok((sorted(moves), errors))
}

/// What the group committed, partition by partition.
fn all_of(committed: &Offsets) -> Vec<Scope> {
    let mut scopes = BTreeMap::<&String, Vec<i32>>::new();
    for (topic, partition) in committed.keys() {
        scopes.entry(topic).or_default().push(*partition);
    }
    let scope = |(topic, partitions): (&String, _)| Scope { topic: topic.clone(), partitions };
    scopes.into_iter().map(scope).collect()
}

/// The partitions of a file, each sent to its offset there.
async fn to_saved(
    client: &mut Client,
    args: &ResetArgs,
    saved: &Offsets,
    committed: &Offsets,
) -> anyhow::Result<Planned> {
    let is_wanted = |scope: &Scope| {
        let named = |one: &&Scope| one.topic == scope.topic;
        args.topics.is_empty() || args.topics.iter().any(|one| named(&one))
    };
    let mut moves = Vec::new();
    for scope in all_of(saved).into_iter().filter(is_wanted) {
        let topic = client.topic(&scope.topic).await?;
        let unmoved = (Target::Current, committed);
        for (index, bounds) in bounds(client, &topic, &scope.partitions, unmoved).await? {
            let new = clamped(saved[&(scope.topic.clone(), index)], bounds);
            moves.push(moved((&topic, index), new, bounds));
        }
    }
    Ok((sorted(moves), Vec::new()))
}

fn moved((topic, partition): (&Topic, i32), new: i64, bounds: Bounds) -> Move {
    let lag = (bounds.end - new).max(0);
    Move { topic: topic.name.to_string(), partition, committed: bounds.committed, new, lag }
}

fn sorted(mut moves: Vec<Move>) -> Vec<Move> {
    moves.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    moves.dedup_by(|a, b| (&a.topic, a.partition) == (&b.topic, b.partition));
    moves
}

/// What is known of the partitions of a topic.
async fn bounds(
    client: &mut Client,
    topic: &Topic,
    indexes: &[i32],
    (target, committed): (Target, &Offsets),
) -> Result<BTreeMap<i32, Bounds>, ClientError> {
    if let Some(absent) = indexes.iter().find(|index| !topic.partitions.contains_key(*index)) {
        return Err(no_leader(topic, *absent));
    }
    let isolation = Isolation::ReadUncommitted;
    let first = client.offsets(topic, indexes, OffsetSpec::Earliest, isolation).await?;
    let timed = match time(target, client.seams().clock.wall().millis()) {
        Some(millis) => {
            client.offsets(topic, indexes, OffsetSpec::AtTimestamp(millis), isolation).await?
        }
        None => BTreeMap::new(),
    };
    let end = client.offsets(topic, indexes, OffsetSpec::Latest, isolation).await?;
    let known = |index: &i32| {
        let first = first.get(index)?.offset?;
        let end = end.get(index)?.offset?;
        let timed = timed.get(index).and_then(|listed| listed.offset);
        let committed = committed.get(&(topic.name.to_string(), *index)).copied();
        Some((*index, Bounds { first, end, timed, committed }))
    };
    let asked: BTreeSet<&i32> = indexes.iter().collect();
    Ok(asked.into_iter().filter_map(known).collect())
}

/// The time of a target that is one.
fn time(target: Target, now: i64) -> Option<i64> {
    match target {
        Target::At(start) => start.time(now),
        Target::Current | Target::Shift(_) => None,
    }
}

/// Commits, and gives back what was done.
async fn execute(
    client: &mut Client,
    group: &str,
    moves: Vec<Move>,
    errors: &mut Vec<anyhow::Error>,
) -> Vec<Move> {
    let mut done = Vec::new();
    for some in moves.chunks(PARTITIONS_AT_ONCE) {
        match commit(client, group, some).await {
            // A member that came since we looked: told once, nothing was done.
            Ok(refused) if refused.values().any(|code| is_of_member(*code)) => {
                errors.push(anyhow::anyhow!("group {group} has members: stop them first"));
                break;
            }
            Ok(refused) => {
                for one in some {
                    match refused.get(&(one.topic.as_str(), one.partition)) {
                        None => done.push(one.clone()),
                        Some(code) => errors.push(refusal(group, one, *code)),
                    }
                }
            }
            Err(error) => errors.push(about_change(error, &format!("group lag {group}"))),
        }
    }
    done
}

fn refusal(group: &str, one: &Move, code: i16) -> anyhow::Error {
    let subject = || format!("offset of {}/{}", one.topic, one.partition);
    match ClientError::check(subject, code) {
        Err(error) => about_change(error, &format!("group lag {group}")),
        Ok(()) => anyhow::anyhow!("no answer about {}/{}", one.topic, one.partition),
    }
}

/// The error codes of the partitions that were refused.
async fn commit<'a>(
    client: &mut Client,
    group: &str,
    moves: &'a [Move],
) -> Result<BTreeMap<(&'a str, i32), i16>, ClientError> {
    let mut by_topic = BTreeMap::<&str, Vec<OffsetCommitRequestTopicsPartitions>>::new();
    for one in moves {
        by_topic.entry(&one.topic).or_default().push(OffsetCommitRequestTopicsPartitions {
            partition_index: one.partition,
            committed_offset: one.new,
            committed_leader_epoch: -1,
            committed_metadata: Some(Str::EMPTY),
        });
    }
    let topics = by_topic.into_iter().map(|(name, partitions)| OffsetCommitRequestTopics {
        name: Str::from(name),
        partitions,
        ..OffsetCommitRequestTopics::default()
    });
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        member_id: Str::EMPTY,
        group_instance_id: None,
        topics: topics.collect(),
        ..OffsetCommitRequest::default()
    };
    let answer: OffsetCommitResponse = client
        .changing(async |client| {
            let broker = client.coordinator(group).await?;
            let answer: OffsetCommitResponse =
                client.call_at(&broker, OFFSET_COMMIT, &request, Duration::ZERO).await?;
            // Those that pass are told of the whole group.
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let passing = codes
                .map(|row| row.error_code)
                .find(|code| ErrorCode::from_code(*code).is_some_and(is_of_coordinator));
            ClientError::check(|| format!("group {group}"), passing.unwrap_or(0))?;
            Ok(answer)
        })
        .await?;
    let mut codes = BTreeMap::new();
    for topic in &answer.topics {
        for row in &topic.partitions {
            codes.insert((topic.name.to_string(), row.partition_index), row.error_code);
        }
    }
    // One that is not answered was not done either.
    let code = |one: &Move| codes.get(&(one.topic.clone(), one.partition)).copied().unwrap_or(-1);
    let rows = moves.iter().map(|one| ((one.topic.as_str(), one.partition), code(one)));
    Ok(rows.filter(|(_, code)| *code != 0).collect())
}

fn is_of_member(code: i16) -> bool {
    ErrorCode::from_code(code) == Some(ErrorCode::UnknownMemberId)
}

fn is_of_coordinator(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
    )
}

fn table(moves: &[Move]) -> Table {
    let mut table = Table::new(&["topic", "partition", "committed", "new", "lag"]);
    for one in moves {
        table.row([
            one.topic.clone(),
            one.partition.to_string(),
            one.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            one.new.to_string(),
            one.lag.to_string(),
        ]);
    }
    table
}
