//! DescribeTopicPartitions (75) v0: topics by name in pages, each of which says where the next
//! begins.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_metadata::watch::{CatalogNode, CatalogTopic};

use super::{Request, admin};
use crate::{
    broker::Broker,
    wire::{
        codec::{Str, Uuid},
        error_code::ErrorCode,
        messages::{
            DescribeTopicPartitionsRequest, DescribeTopicPartitionsRequestCursor as RequestCursor,
            DescribeTopicPartitionsResponse as Response,
            DescribeTopicPartitionsResponseNextCursor as NextCursor,
            DescribeTopicPartitionsResponseTopics as Topic,
            DescribeTopicPartitionsResponseTopicsPartitions as Partition,
        },
    },
};

/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DescribeTopicPartitionsRequest,
) -> Response {
    if !is_sound(&body) {
        return Response {
            topics: body.topics.into_iter().map(|one| invalid(one.name)).collect(),
            ..Response::default()
        };
    }
    // Read your writes through any agent; without a leader nothing is denied.
    let is_fresh = broker.view.fresh().await.is_ok();
    let nodes = broker.nodes();
    let catalog = broker.view.catalog();
    let epoch = catalog.lineage.map_or(0, |lineage| lineage.number as i32);
    let place = Place { nodes: &nodes, zone: broker.zone_of(request), epoch, is_fresh };
    let by_name: BTreeMap<&str, &Arc<CatalogTopic>> =
        catalog.topics.values().map(|topic| (topic.name.as_str(), topic)).collect();
    let all = body.topics.is_empty();
    let mut names: Vec<&str> = match all {
        true => by_name.keys().copied().collect(),
        false => body.topics.iter().map(|one| one.name.as_str()).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let names = names.into_iter().map(|name| (name, by_name.get(name).map(|topic| &***topic)));
    let limit = body.response_partition_limit.clamp(1, PARTITIONS_MAX);
    page(&place, names, body.cursor.as_ref(), limit)
}

/// Whether the cursor is one that an answer to this request may have given.
fn is_sound(body: &DescribeTopicPartitionsRequest) -> bool {
    let Some(RequestCursor { topic_name, partition_index }) = &body.cursor else { return true };
    let names = || body.topics.iter().map(|one| &one.name);
    0 <= *partition_index
        && (body.topics.is_empty()
            || names().filter(|name| topic_name <= *name).min() == Some(topic_name))
}

fn invalid(name: Str) -> Topic {
    Topic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(name),
        topic_authorized_operations: i32::MIN,
        ..Topic::default()
    }
}

struct Place<'a> {
    nodes: &'a [CatalogNode],
    zone: Option<&'a str>,
    epoch: i32,
    is_fresh: bool,
}

/// The topics from the cursor on, until `limit` partitions are told. A name that belongs to no
/// topic costs nothing of the limit.
fn page<'a>(
    place: &Place<'_>,
    names: impl Iterator<Item = (&'a str, Option<&'a CatalogTopic>)>,
    cursor: Option<&RequestCursor>,
    limit: i32,
) -> Response {
    let mut answer = Response::default();
    let mut left = limit;
    let start = cursor.map_or("", |cursor| cursor.topic_name.as_str());
    for (name, topic) in names.filter(|(name, _)| start <= *name) {
        if left == 0 {
            answer.next_cursor = next(name, 0);
            break;
        }
        let Some(topic) = topic else {
            answer.topics.push(unknown(place, name));
            continue;
        };
        let from = cursor.filter(|cursor| cursor.topic_name == *name);
        let from = from.map_or(0, |cursor| cursor.partition_index);
        let count = topic.partitions as i32;
        let to = from.saturating_add(left).min(count);
        left -= (to - from).max(0);
        answer.topics.push(Topic {
            name: Some(name.into()),
            topic_id: topic.id.into(),
            partitions: (from..to).map(|index| partition(place, topic, index)).collect(),
            topic_authorized_operations: admin::TOPIC_OPERATIONS,
            ..Topic::default()
        });
        if to < count {
            answer.next_cursor = next(name, to);
            break;
        }
    }
    answer
}

fn next(name: &str, partition_index: i32) -> Option<NextCursor> {
    Some(NextCursor { topic_name: name.into(), partition_index })
}

fn unknown(place: &Place<'_>, name: &str) -> Topic {
    let code = match admin::topic_name_refusal(name) {
        Some(_) => ErrorCode::InvalidTopicException,
        None if !place.is_fresh => ErrorCode::LeaderNotAvailable,
        None => ErrorCode::UnknownTopicOrPartition,
    };
    Topic {
        error_code: code.code(),
        name: Some(name.into()),
        topic_id: Uuid::ZERO,
        topic_authorized_operations: admin::TOPIC_OPERATIONS,
        ..Topic::default()
    }
}

fn partition(place: &Place<'_>, topic: &CatalogTopic, index: i32) -> Partition {
    let replicas = admin::replicas(topic, index, place.nodes, place.zone);
    let nobody = replicas.is_empty();
    let code = if nobody { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
    Partition {
        error_code: code.code(),
        partition_index: index,
        leader_id: replicas.first().copied().unwrap_or(-1),
        leader_epoch: place.epoch,
        isr_nodes: replicas.clone(),
        replica_nodes: replicas,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::TopicId;

    use super::*;

    fn topic(name: &str, partitions: u32) -> CatalogTopic {
        CatalogTopic {
            id: TopicId::from_bytes([1; 16]),
            name: name.to_owned(),
            partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        }
    }

    /// Partitions told per topic, and where the next page begins.
    type Told = (Vec<(String, Vec<i32>)>, Option<(String, i32)>);

    fn told(topics: &[CatalogTopic], cursor: Option<(&str, i32)>, limit: i32) -> Told {
        let place = Place { nodes: &[], zone: None, epoch: 0, is_fresh: true };
        let names = topics.iter().map(|topic| (&topic.name[..], Some(topic)));
        let cursor = cursor.map(|(name, partition_index)| RequestCursor {
            topic_name: name.into(),
            partition_index,
        });
        let answer = page(&place, names, cursor.as_ref(), limit);
        let told = |topic: Topic| {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            (name, topic.partitions.iter().map(|one| one.partition_index).collect())
        };
        let topics = answer.topics.into_iter().map(told);
        let next =
            answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    #[test]
    fn pages_from_cursor_to_cursor_tell_every_partition_once_in_order() {
        let topics = [topic("a", 3), topic("b", 1), topic("c", 5)];
        for limit in 1..=10 {
            let (mut all, mut cursor) = (Vec::new(), None::<(String, i32)>);
            loop {
                let from = cursor.as_ref().map(|(name, index)| (name.as_str(), *index));
                let (page, next) = told(&topics, from, limit);
                let count: usize = page.iter().map(|(_, indexes)| indexes.len()).sum();
                assert!(count <= limit as usize);
                assert!(page.iter().all(|(_, indexes)| !indexes.is_empty()), "no topic in vain");
                let rows = page.into_iter().flat_map(|(name, indexes)| {
                    indexes.into_iter().map(move |index| (name.clone(), index))
                });
                all.extend(rows);
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            let expected: Vec<(String, i32)> = topics
                .iter()
                .flat_map(|topic| (0..topic.partitions as i32).map(|i| (topic.name.clone(), i)))
                .collect();
            assert_eq!(all, expected, "limit {limit}");
        }
    }

    #[test]
    fn a_cursor_beyond_a_topic_tells_it_without_partitions_and_goes_on() {
        let topics = [topic("a", 3), topic("b", 1)];
        let (page, next) = told(&topics, Some(("a", 99)), 10);
        assert_eq!(page, [("a".to_owned(), vec![]), ("b".to_owned(), vec![0])]);
        assert_eq!(next, None);
    }

    #[test]
    fn a_cursor_names_a_topic_of_the_request() {
        let asked = |names: &[&'static str], cursor: (&'static str, i32)| {
            let topics = names.iter().map(|name| {
                crate::wire::messages::DescribeTopicPartitionsRequestTopics {
                    name: Str::from_static(name),
                }
            });
            let (topic_name, partition_index) = (Str::from_static(cursor.0), cursor.1);
            is_sound(&DescribeTopicPartitionsRequest {
                topics: topics.collect(),
                cursor: Some(RequestCursor { topic_name, partition_index }),
                ..DescribeTopicPartitionsRequest::default()
            })
        };
        assert!(asked(&["b", "a", "c"], ("b", 0)));
        assert!(asked(&[], ("anything", 7)));
        assert!(!asked(&["a", "c"], ("b", 0)));
        assert!(!asked(&["a"], ("a", -1)));
        assert!(!asked(&["a"], ("", 0)));
    }
}
