//! DescribeLogDirs (35) v1-5: how many bytes partitions hold, in the one directory that there is.
//!
//! Clients ask every agent and add up what they hear, so each partition is told by its owner only.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_metadata::{
    client::CallError,
    machine::{
        QUERY_LISTED_MAX,
        query::{Answer, Query},
    },
    watch::CatalogTopic,
};
use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};

use super::{Request, admin::Ownership, errors::admin_error, topics};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{
            DescribeLogDirsRequest, DescribeLogDirsRequestTopics, DescribeLogDirsResponse,
            DescribeLogDirsResponseResults, DescribeLogDirsResponseResultsTopics,
            DescribeLogDirsResponseResultsTopicsPartitions as Partition,
        },
    },
};

/// What the one directory is called: the bucket is the same for all agents.
pub const LOG_DIR: &str = "/aquifer";

/// A bucket has no size.
const UNKNOWN_BYTES: i64 = -1;

/// Above this many topics it is cheaper to ask for all.
const SINGLE_TOPICS_MAX: usize = 16;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    match described(broker, body.topics).await {
        Ok(topics) => DescribeLogDirsResponse {
            results: vec![directory(ErrorCode::None, topics)],
            ..DescribeLogDirsResponse::default()
        },
        // Before v3 there is no place for an error but at the directory.
        Err(error) => DescribeLogDirsResponse {
            error_code: admin_error(&error).code(),
            results: vec![directory(admin_error(&error), Vec::new())],
            ..DescribeLogDirsResponse::default()
        },
    }
}

fn directory(
    code: ErrorCode,
    topics: Vec<DescribeLogDirsResponseResultsTopics>,
) -> DescribeLogDirsResponseResults {
    DescribeLogDirsResponseResults {
        error_code: code.code(),
        log_dir: LOG_DIR.into(),
        topics,
        total_bytes: UNKNOWN_BYTES,
        usable_bytes: UNKNOWN_BYTES,
        is_cordoned: false,
    }
}

async fn described(
    broker: &Broker,
    asked: Option<Vec<DescribeLogDirsRequestTopics>>,
) -> Result<Vec<DescribeLogDirsResponseResultsTopics>, CallError> {
    broker.view.fresh().await?;
    let catalog = broker.view.catalog();
    let wanted: BTreeMap<TopicId, Option<BTreeSet<i32>>> = match asked {
        None => catalog.topics.keys().map(|topic| (*topic, None)).collect(),
        Some(asked) => {
            let mut wanted = BTreeMap::<TopicId, Option<BTreeSet<i32>>>::new();
            for one in asked {
                let Some(topic) = broker.view.topic_by_name(&one.topic) else { continue };
                let indexes = wanted.entry(topic.id).or_default().get_or_insert_default();
                indexes.extend(one.partitions);
            }
            wanted
        }
    };
    let sizes = sizes(broker, &wanted).await?;
    let ownership = Ownership::now(broker).await;
    let mut answers = Vec::new();
    for (id, indexes) in wanted {
        let Some(topic) = catalog.topics.get(&id) else { continue };
        let owned = |index: &i32| ownership.covers(at(id, *index));
        let partitions: Vec<Partition> = indexes_of(topic, indexes)
            .filter(owned)
            .map(|index| partition(index, sizes.get(&at(id, index)).copied().unwrap_or(0)))
            .collect();
        if !partitions.is_empty() {
            let name = topic.name.as_str().into();
            answers.push(DescribeLogDirsResponseResultsTopics { name, partitions });
        }
    }
    answers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(answers)
}

/// The partitions asked for that the topic has; all without a list.
fn indexes_of(
    topic: &CatalogTopic,
    asked: Option<BTreeSet<i32>>,
) -> Box<dyn Iterator<Item = i32> + Send + '_> {
    match asked {
        None => Box::new(0..topic.partitions as i32),
        Some(asked) => {
            Box::new(asked.into_iter().filter(|index| topics::partition(topic, *index).is_some()))
        }
    }
}

fn partition(index: i32, bytes: u64) -> Partition {
    Partition {
        partition_index: index,
        partition_size: i64::try_from(bytes).unwrap_or(i64::MAX),
        offset_lag: 0,
        is_future_key: false,
    }
}

fn at(topic: TopicId, index: i32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex::new(index) }
}

/// What partitions hold that hold anything: at least those of the wanted topics.
async fn sizes<T>(
    broker: &Broker,
    wanted: &BTreeMap<TopicId, T>,
) -> Result<BTreeMap<TopicPartition, u64>, CallError> {
    let ranges: Vec<(TopicId, TopicId)> = match wanted.len() {
        0..=SINGLE_TOPICS_MAX => wanted.keys().map(|topic| (*topic, *topic)).collect(),
        _ => vec![(TopicId::ZERO, TopicId::from_bytes([0xff; 16]))],
    };
    let mut sizes = BTreeMap::new();
    for (first, last) in ranges {
        let (mut from, to) = (at(first, 0), at(last, i32::MAX));
        loop {
            let limit = QUERY_LISTED_MAX;
            let page = match broker.metadata.query(Query::Sizes { from, to, limit }).await? {
                (_, Answer::Sizes(page)) => page,
                (_, other) => return Err(mismatch("query", &other)),
            };
            let is_full = page.len() == limit as usize;
            let last = page.last().map(|(last, _)| *last);
            sizes.extend(page);
            match last {
                Some(last) if is_full => {
                    from = at(last.topic, last.partition.value().saturating_add(1));
                }
                _ => break,
            }
        }
    }
    Ok(sizes)
}
