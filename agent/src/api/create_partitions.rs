//! CreatePartitions (37) v0-3. A manual assignment is checked and otherwise means nothing.

use std::collections::BTreeSet;

use aquifer_metadata::{
    machine::{
        command::{AppliedReply, Command, CreatePartitions, Reply, TopicRejected},
        topic::PARTITIONS_MAX,
    },
    watch::CatalogTopic,
};
use futures::{StreamExt, stream};

use super::{
    Request,
    admin::{self, Refusal},
    errors::{admin_error, topic_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{
            CreatePartitionsRequest, CreatePartitionsRequestTopics, CreatePartitionsResponse,
            CreatePartitionsResponseResults,
        },
    },
};

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &body.topics {
        if !seen.insert(topic.name.clone()) {
            twice.insert(topic.name.clone());
        }
    }
    let first = body.topics.into_iter().filter(|topic| seen.remove(&topic.name));
    let answering = stream::iter(first).map(|topic| {
        let duplicate = twice.contains(&topic.name);
        let (timeout_ms, validate_only) = (body.timeout_ms, body.validate_only);
        async move {
            let name = topic.name.clone();
            let grown = if duplicate {
                Err((ErrorCode::InvalidRequest, Some("Duplicate topic name.".to_owned())))
            } else {
                let growing = grow(broker, request, topic, validate_only);
                let late = Err((ErrorCode::RequestTimedOut, None));
                admin::within(broker, timeout_ms, growing).await.unwrap_or(late)
            };
            let (code, words) = grown.err().unwrap_or_default();
            CreatePartitionsResponseResults {
                name,
                error_code: code.code(),
                error_message: words.map(Into::into),
            }
        }
    });
    let results = answering.buffered(topics::CHANGES_AT_ONCE).collect().await;
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

async fn grow(
    broker: &Broker,
    request: &Request<'_>,
    asked: CreatePartitionsRequestTopics,
    validate_only: bool,
) -> Result<(), Refusal> {
    // What the topic has is judged by what was answered anywhere before.
    let fresh = broker.view.fresh().await;
    fresh.map_err(|error| (admin_error(&error), Some(error.to_string())))?;
    let topic = broker.view.topic_by_name(&asked.name);
    let topic = topic.ok_or((ErrorCode::UnknownTopicOrPartition, None))?;
    let partitions = larger_count(&topic, asked.count)?;
    if let Some(assigned) = &asked.assignments {
        let nodes = broker.nodes();
        let shown = admin::replicas(&topic, 0, &nodes, broker.zone_of(request)).len();
        let assigned: Vec<&[i32]> = assigned.iter().map(|one| &one.broker_ids[..]).collect();
        let additional = (partitions - topic.partitions) as usize;
        if assigned.len() != additional {
            let words = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) \
                 were specified.",
                assigned.len()
            );
            return Err((ErrorCode::InvalidReplicaAssignment, Some(words)));
        }
        for replicas in assigned {
            // As many as the topic has, or as clients are told while fewer agents live.
            let as_declared = replicas.len() == usize::from(topic.replication_factor);
            let factor = if as_declared { replicas.len() } else { shown };
            admin::check_assignment(replicas, &nodes, Some(factor))?;
        }
    }
    if validate_only {
        return check_limit(broker, &topic, partitions);
    }
    let command = CreatePartitions { topic: topic.id, partitions };
    match broker.metadata.propose(Command::CreatePartitions(command)).await {
        Ok(AppliedReply { index, reply: Reply::PartitionsCreated(result) }) => {
            topics::shown(broker, index).await;
            result.map_err(|rejected| refused(&rejected, &topic))
        }
        Ok(other) => {
            let error = mismatch("propose", &other);
            Err((admin_error(&error), Some(error.to_string())))
        }
        Err(error) => Err((admin_error(&error), Some(error.to_string()))),
    }
}

/// The count asked for, if it is more than the topic has.
fn larger_count(topic: &CatalogTopic, count: i32) -> Result<u32, Refusal> {
    let (name, has) = (&topic.name, i64::from(topic.partitions));
    let words = match i64::from(count) - has {
        0 => format!("Topic already has {has} partition(s)."),
        ..0 => format!(
            "The topic {name} currently has {has} partition(s); {count} would not be an increase."
        ),
        1.. if admin::TOPIC_PARTITIONS_MAX < count => {
            let words = admin::TOO_MANY_PARTITIONS.to_owned();
            return Err((ErrorCode::PolicyViolation, Some(words)));
        }
        1.. => return Ok(count.unsigned_abs()),
    };
    Err((ErrorCode::InvalidPartitions, Some(words)))
}

/// What metadata would say of the cluster's limit.
fn check_limit(broker: &Broker, topic: &CatalogTopic, partitions: u32) -> Result<(), Refusal> {
    let catalog = broker.view.catalog();
    let all: u64 = catalog.topics.values().map(|topic| u64::from(topic.partitions)).sum();
    if all + u64::from(partitions - topic.partitions) <= PARTITIONS_MAX {
        return Ok(());
    }
    Err(refused(&TopicRejected::TooManyPartitions, topic))
}

fn refused(rejected: &TopicRejected, topic: &CatalogTopic) -> Refusal {
    match rejected {
        // Deleted meanwhile.
        TopicRejected::Unknown => (ErrorCode::UnknownTopicOrPartition, None),
        rejected => {
            let (code, words) = topic_error(rejected, &topic.name);
            (code, Some(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::TopicId;

    use super::*;

    #[test]
    fn only_a_larger_count_is_taken_and_others_are_refused_in_kafkas_words() {
        let topic = CatalogTopic {
            id: TopicId::from_bytes([1; 16]),
            name: "t1".to_owned(),
            partitions: 3,
            replication_factor: 1,
            configs: Default::default(),
        };
        assert_eq!(larger_count(&topic, 4), Ok(4));
        let words = |count| larger_count(&topic, count).unwrap_err().1.unwrap_or_default();
        assert_eq!(words(3), "Topic already has 3 partition(s).");
        let fewer = "The topic t1 currently has 3 partition(s); -1 would not be an increase.";
        assert_eq!(words(-1), fewer);
        assert_eq!(larger_count(&topic, i32::MAX).unwrap_err().0, ErrorCode::PolicyViolation);
        assert_eq!(larger_count(&topic, i32::MIN).unwrap_err().0, ErrorCode::InvalidPartitions);
    }
}
