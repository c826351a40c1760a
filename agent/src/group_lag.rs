//! Consumer lag of groups, for Prometheus: told by the agent that owns the group, so that each is
//! told once and by an agent that answers for it anyway.
//!
//! Asked for in rounds, not when somebody reads: a scrape costs metadata nothing, and while nobody
//! scrapes no round is made at all.
//!
//! # Invariants
//! - There are never more rows than `group.lag.series.max`. A group is told whole or not at all;
//!   how many are left out is told too.
//! - What is told is at most [`FAILED_ROUNDS_MAX`] intervals old: after that it is nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::{
    client::CallError,
    machine::{
        group::query::{GroupAnswer, GroupAsk, GroupQuery},
        query::{Answer, Query},
    },
};
use aquifer_storage::model::{Offset, TopicId, TopicPartition};
use futures::{StreamExt, TryStreamExt, stream};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{
    api::{admin::Ownership, list_groups},
    broker::{Broker, mismatch},
    fetch::plan::Isolation,
    placement,
};

/// Questions of a round that are asked at once: it has half a minute, and clients come first.
const AT_ONCE: usize = 8;

/// After this many rounds that nobody read, no more are made.
const UNREAD_ROUNDS_MAX: u32 = 10;

/// After this many rounds without an answer nothing is told any more.
const FAILED_ROUNDS_MAX: u32 = 3;

/// What was found last. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct GroupLag(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Told>,
    /// Rounds since somebody read.
    unread: AtomicU32,
}

/// The lag of partitions, and what there was no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    rows: Vec<Row>,
    groups_left_out: u64,
}

/// A partition that a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    group: Arc<str>,
    topic: Arc<str>,
    partition: i32,
    lag: i64,
}

/// What a group committed.
struct GroupOffsets {
    group: String,
    offsets: Vec<(TopicPartition, Offset)>,
}

impl GroupLag {
    fn set(&self, told: Told) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }
}

impl Collector for GroupLag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.unread.store(0, Ordering::Relaxed);
        let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let help = "Records between a group's committed offset and the end of the partition";
        let mut family =
            encoder.encode_descriptor("aquifer_group_lag", help, None, MetricType::Gauge)?;
        for row in told.rows {
            let partition = row.partition.to_string();
            let labels =
                [("group", &*row.group), ("topic", &*row.topic), ("partition", &*partition)];
            ConstGauge::new(row.lag).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("aquifer_group_lag_left_out", "Groups there was no room for");
        let gauge = ConstGauge::new(i64::try_from(told.groups_left_out).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

/// Asks for the lag of this agent's groups, round by round, until `shutdown`.
///
/// # Cancel safety
/// Dropping the future ends it; what was told last stays.
pub async fn run(broker: Arc<Broker>, shutdown: impl Future<Output = ()>) {
    let interval = broker.options.group_lag_interval;
    if interval == Duration::ZERO {
        return;
    }
    let rounds = async {
        let mut failed = 0;
        loop {
            let told = &broker.metrics.group_lag;
            if UNREAD_ROUNDS_MAX < told.0.unread.fetch_add(1, Ordering::Relaxed) {
                // What it would show to the first reader is as old as nobody read.
                told.set(Told::default());
            } else {
                match round(&broker).await {
                    Ok(found) => {
                        failed = 0;
                        told.set(found);
                    }
                    Err(error) => {
                        failed += 1;
                        tracing::debug!(%error, failed, "the lag of groups is not known");
                        if FAILED_ROUNDS_MAX <= failed {
                            told.set(Told::default());
                        }
                    }
                }
            }
            broker.seams.sleep(interval).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = shutdown => {}
    }
}

async fn round(broker: &Broker) -> Result<Told, CallError> {
    let ownership = Ownership::now(broker).await;
    let listed = list_groups::groups(broker).await?.into_iter().map(|listed| listed.group);
    let owned = listed.filter(|group| ownership.covers(placement::slot_of(group.as_bytes())));
    let asking = stream::iter(owned.map(|group| committed(broker, group)));
    let groups = asking.buffered(AT_ONCE).try_collect().await?;
    let names: BTreeMap<TopicId, Arc<str>> = broker
        .view
        .catalog()
        .topics
        .values()
        .map(|one| (one.id, one.name.as_str().into()))
        .collect();
    let (groups, groups_left_out) =
        those_with_room(groups, &names, broker.options.group_lag_series_max);
    let partitions: BTreeSet<TopicPartition> =
        groups.iter().flat_map(|group| &group.offsets).map(|(partition, _)| *partition).collect();
    let asking = stream::iter(partitions.into_iter().map(|partition| end(broker, partition)));
    let ends: Vec<Option<(TopicPartition, Offset)>> =
        asking.buffered(AT_ONCE).try_collect().await?;
    Ok(Told { rows: rows(groups, &names, &ends.into_iter().flatten().collect()), groups_left_out })
}

async fn committed(broker: &Broker, group: String) -> Result<GroupOffsets, CallError> {
    let ask = GroupAsk::Offsets { partitions: None, reader: None };
    let offsets = match broker.ask_group(GroupQuery { group: group.clone(), ask }).await? {
        // Nobody is refused who does not say who reads.
        GroupAnswer::Offsets(offsets) => offsets.unwrap_or_default(),
        other => return Err(mismatch("query", &other)),
    };
    let offsets = offsets.into_iter().map(|(partition, one)| (partition, one.offset)).collect();
    Ok(GroupOffsets { group, offsets })
}

/// Where a partition ends; `None` when it is gone. Not watched: its pushes, all the time, would
/// cost more than a question now and then.
async fn end(
    broker: &Broker,
    partition: TopicPartition,
) -> Result<Option<(TopicPartition, Offset)>, CallError> {
    let query = Query::Runs { partition, offset: Offset::ZERO, limit: 0 };
    match broker.metadata.query(query).await? {
        (_, Answer::Runs(found)) => {
            Ok(found.map(|found| (partition, Isolation::ReadUncommitted.bound(&found.pointers))))
        }
        (_, other) => Err(mismatch("query", &other)),
    }
}

/// The groups that fit, in the order of their names, and how many did not. Offsets of topics that
/// are gone take no room.
fn those_with_room(
    groups: Vec<GroupOffsets>,
    names: &BTreeMap<TopicId, Arc<str>>,
    series_max: usize,
) -> (Vec<GroupOffsets>, u64) {
    let (mut kept, mut room, mut left_out) = (Vec::new(), series_max, 0);
    for mut group in groups {
        group.offsets.retain(|(partition, _)| names.contains_key(&partition.topic));
        match room.checked_sub(group.offsets.len()) {
            Some(rest) => {
                room = rest;
                kept.push(group);
            }
            None => left_out += 1,
        }
    }
    (kept, left_out)
}

fn rows(
    groups: Vec<GroupOffsets>,
    names: &BTreeMap<TopicId, Arc<str>>,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for GroupOffsets { group, offsets } in groups {
        let group: Arc<str> = group.into();
        for (partition, committed) in offsets {
            let (Some(topic), Some(end)) = (names.get(&partition.topic), ends.get(&partition))
            else {
                continue;
            };
            rows.push(Row {
                group: Arc::clone(&group),
                topic: Arc::clone(topic),
                partition: partition.partition.value(),
                // A commit may lie beyond the end: clients commit what they like.
                lag: end.value().saturating_sub(committed.value()).max(0),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::PartitionIndex;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::render;

    const TOPIC: TopicId = TopicId::from_bytes([1; 16]);
    const GONE: TopicId = TopicId::from_bytes([2; 16]);

    fn at(topic: TopicId, index: i32) -> TopicPartition {
        TopicPartition { topic, partition: PartitionIndex::new(index) }
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).expect("an offset")
    }

    fn group(name: &str, offsets: &[(TopicPartition, i64)]) -> GroupOffsets {
        let offsets = offsets.iter().map(|(partition, value)| (*partition, offset(*value)));
        GroupOffsets { group: name.to_owned(), offsets: offsets.collect() }
    }

    fn names() -> BTreeMap<TopicId, Arc<str>> {
        BTreeMap::from([(TOPIC, "t".into())])
    }

    #[test]
    fn lag_lies_between_the_commit_and_the_end_and_is_never_negative() {
        let committed = [(at(TOPIC, 0), 3), (at(TOPIC, 1), 9), (at(TOPIC, 2), 1)];
        let ends = BTreeMap::from([(at(TOPIC, 0), offset(10)), (at(TOPIC, 1), offset(5))]);
        let told = rows(vec![group("g", &committed)], &names(), &ends);
        let told: Vec<(i32, i64)> = told.iter().map(|row| (row.partition, row.lag)).collect();
        assert_eq!(told, [(0, 7), (1, 0)], "what is gone has no lag");
    }

    #[test]
    fn a_group_without_room_is_left_out_whole_and_counted() {
        let two = [(at(TOPIC, 0), 0), (at(TOPIC, 1), 0), (at(GONE, 0), 0)];
        let groups = vec![group("a", &two), group("b", &two), group("c", &two[..1])];
        let (kept, left_out) = those_with_room(groups, &names(), 3);
        let kept: Vec<(&str, usize)> =
            kept.iter().map(|one| (one.group.as_str(), one.offsets.len())).collect();
        assert_eq!((kept, left_out), (vec![("a", 2), ("c", 1)], 1));
    }

    #[test]
    fn whatever_a_group_is_called_it_is_one_line() {
        let lag = GroupLag::default();
        let row = |name: &str| Row { group: name.into(), topic: "t".into(), partition: 4, lag: 7 };
        lag.set(Told { rows: vec![row("a\"}\n x 1")], groups_left_out: 2 });
        lag.0.unread.store(5, Ordering::Relaxed);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(lag.clone()));
        let text = render(&registry);
        let line = r#"aquifer_group_lag{group="a\"}\n x 1",topic="t",partition="4"} 7"#;
        assert!(text.lines().any(|told| told == line), "{text}");
        assert!(text.lines().any(|told| told == "aquifer_group_lag_left_out 2"), "{text}");
        assert_eq!(lag.0.unread.load(Ordering::Relaxed), 0, "a scrape is a reader");
    }
}
