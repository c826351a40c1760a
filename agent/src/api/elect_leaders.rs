//! ElectLeaders (43) v0-2. The preferred leader of a partition, its home agent, always leads, so
//! no election is ever needed.

use super::Request;
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            ElectLeadersRequest, ElectLeadersRequestTopicPartitions, ElectLeadersResponse,
            ElectLeadersResponseReplicaElectionResults as TopicResult,
            ElectLeadersResponseReplicaElectionResultsPartitionResult as PartitionResult,
        },
    },
};

use super::{errors::admin_error, topics};

/// Preferred and unclean elections.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: ElectLeadersRequest,
) -> ElectLeadersResponse {
    if !ELECTION_TYPES.contains(&body.election_type) {
        let words = format!("Unknown election type {}", body.election_type);
        return whole(ErrorCode::InvalidRequest, &words, body.topic_partitions);
    }
    if let Err(error) = broker.view.fresh().await {
        return whole(admin_error(&error), &error.to_string(), body.topic_partitions);
    }
    let results = match body.topic_partitions {
        // All topics are named, and of their partitions those that elected a leader.
        None => {
            let catalog = broker.view.catalog();
            let mut names: Vec<&str> =
                catalog.topics.values().map(|topic| topic.name.as_str()).collect();
            names.sort_unstable();
            let none = |name: &str| TopicResult { topic: name.into(), partition_result: vec![] };
            names.into_iter().map(none).collect()
        }
        Some(topics) => topics.into_iter().map(|topic| judged(broker, topic)).collect(),
    };
    ElectLeadersResponse { replica_election_results: results, ..ElectLeadersResponse::default() }
}

/// The same for everything that was asked for.
fn whole(
    code: ErrorCode,
    words: &str,
    asked: Option<Vec<ElectLeadersRequestTopicPartitions>>,
) -> ElectLeadersResponse {
    let results = asked.unwrap_or_default().into_iter().map(|topic| TopicResult {
        partition_result: topic
            .partitions
            .into_iter()
            .map(|index| result(index, code, words.to_owned()))
            .collect(),
        topic: topic.topic,
    });
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results: results.collect(),
        ..ElectLeadersResponse::default()
    }
}

fn judged(broker: &Broker, asked: ElectLeadersRequestTopicPartitions) -> TopicResult {
    let name = asked.topic;
    let topic = broker.view.topic_by_name(&name);
    let judge = |index: i32| {
        let exists = topic.as_ref().map(|topic| topics::partition(topic, index).is_some());
        let (code, words) = match exists {
            None => (ErrorCode::UnknownTopicOrPartition, format!("No such topic as {name}")),
            Some(false) => {
                (ErrorCode::UnknownTopicOrPartition, format!("No such partition as {name}-{index}"))
            }
            Some(true) => (
                ErrorCode::ElectionNotNeeded,
                "Leader election not needed for topic partition.".to_owned(),
            ),
        };
        result(index, code, words)
    };
    let partition_result = asked.partitions.into_iter().map(judge).collect();
    TopicResult { topic: name, partition_result }
}

fn result(partition_id: i32, code: ErrorCode, words: String) -> PartitionResult {
    PartitionResult { partition_id, error_code: code.code(), error_message: Some(words.into()) }
}
