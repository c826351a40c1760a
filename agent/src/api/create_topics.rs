//! CreateTopics (19) v2-7. A replication factor above the number of agents is accepted on purpose:
//! durability does not depend on it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};

use super::{
    Request,
    errors::{admin_error, config_error, topic_error},
    topics::{self, NewTopic},
};
use crate::{
    broker::Broker,
    topic_config::{self, TOPIC_CONFIGS, is_valid_topic_name},
    wire::{
        codec::Uuid,
        error_code::ErrorCode,
        messages::{
            CreateTopicsRequest, CreateTopicsRequestTopics, CreateTopicsResponse,
            CreateTopicsResponseTopics, CreateTopicsResponseTopicsConfigs,
        },
        walk::TopicRef,
    },
};

/// More would make one answer, and one topic's row, unreasonably large.
const PARTITIONS_MAX: i32 = 100_000;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &body.topics {
        if !seen.insert(topic.name.clone()) {
            twice.insert(topic.name.clone());
        }
    }
    // Each name is answered once, at its first place.
    let first = body.topics.into_iter().filter(|topic| seen.remove(&topic.name));
    let answering = stream::iter(first).map(|topic| {
        let duplicate = twice.contains(&topic.name);
        answer(broker, topic, duplicate, body.validate_only)
    });
    let answers = answering.buffered(topics::CHANGES_AT_ONCE).collect().await;
    CreateTopicsResponse { topics: answers, ..CreateTopicsResponse::default() }
}

async fn answer(
    broker: &Broker,
    topic: CreateTopicsRequestTopics,
    duplicate: bool,
    validate_only: bool,
) -> CreateTopicsResponseTopics {
    let name = topic.name.clone();
    let created = if duplicate {
        Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()))
    } else {
        create(broker, topic, validate_only).await
    };
    created.unwrap_or_else(|(code, words)| refused(&name, code, words))
}

fn refused(name: &str, code: ErrorCode, words: String) -> CreateTopicsResponseTopics {
    CreateTopicsResponseTopics {
        name: name.into(),
        error_code: code.code(),
        error_message: Some(words.into()),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()), // Null makes the Java client throw.
        ..CreateTopicsResponseTopics::default()
    }
}

type Refusal = (ErrorCode, String);

async fn create(
    broker: &Broker,
    topic: CreateTopicsRequestTopics,
    validate_only: bool,
) -> Result<CreateTopicsResponseTopics, Refusal> {
    let new = validated(broker, &topic)?;
    let (partitions, factor) = (new.partitions, new.replication_factor);
    let configs = describe(&new.configs);
    let id = if validate_only {
        broker.view.fresh().await.map_err(|error| (admin_error(&error), error.to_string()))?;
        if topics::known(broker, &TopicRef::Name(topic.name.clone())).is_some() {
            let words = format!("Topic '{}' already exists.", topic.name);
            return Err((ErrorCode::TopicAlreadyExists, words));
        }
        Uuid::ZERO
    } else {
        match topics::create(broker, new).await {
            Ok(Ok(id)) => id.into(),
            Ok(Err(rejected)) => return Err(topic_error(&rejected, &topic.name)),
            Err(error) => return Err((admin_error(&error), error.to_string())),
        }
    };
    Ok(CreateTopicsResponseTopics {
        name: topic.name,
        topic_id: id,
        error_message: None,
        num_partitions: partitions as i32,
        replication_factor: factor as i16,
        configs: Some(configs),
        ..CreateTopicsResponseTopics::default()
    })
}

fn validated(broker: &Broker, topic: &CreateTopicsRequestTopics) -> Result<NewTopic, Refusal> {
    if !is_valid_topic_name(&topic.name) {
        let words = format!("Topic name is invalid: '{}'", topic.name);
        return Err((ErrorCode::InvalidTopicException, words));
    }
    let (partitions, factor) = match topic.assignments.as_slice() {
        [] => counts(broker, topic)?,
        assigned => assigned_counts(topic, assigned.len())?,
    };
    let configs = topic
        .configs
        .iter()
        .map(|config| (config.name.as_str(), config.value.as_ref().map(|value| value.as_str())));
    let configs = topic_config::validate(configs)
        .map_err(|rejected| (config_error(&rejected), rejected.to_string()))?;
    let name = topic.name.as_str().to_owned();
    Ok(NewTopic { name, partitions, replication_factor: factor, configs })
}

fn counts(broker: &Broker, topic: &CreateTopicsRequestTopics) -> Result<(u32, u16), Refusal> {
    let partitions = match topic.num_partitions {
        -1 => broker.num_partitions,
        count @ 1..=PARTITIONS_MAX => count as u32,
        _ => {
            let words = format!("Number of partitions must be 1 to {PARTITIONS_MAX}, or -1.");
            return Err((ErrorCode::InvalidPartitions, words));
        }
    };
    let factor = match topic.replication_factor {
        -1 => broker.options.default_replication_factor,
        factor @ 1.. => factor as u16,
        _ => {
            let words = "Replication factor must be larger than 0, or -1.".to_owned();
            return Err((ErrorCode::InvalidReplicationFactor, words));
        }
    };
    Ok((partitions, factor))
}

/// A manual assignment gives the counts; where replicas live has no meaning here.
fn assigned_counts(topic: &CreateTopicsRequestTopics, count: usize) -> Result<(u32, u16), Refusal> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let words = "A manual assignment leaves both counts at -1.".to_owned();
        return Err((ErrorCode::InvalidRequest, words));
    }
    let indexes: BTreeSet<i32> = topic.assignments.iter().map(|one| one.partition_index).collect();
    let factor = topic.assignments[0].broker_ids.len();
    let consecutive = indexes.len() == count && indexes.into_iter().eq(0..count as i32);
    let same = topic.assignments.iter().all(|one| one.broker_ids.len() == factor);
    if !consecutive || !same || factor == 0 || count > PARTITIONS_MAX as usize {
        let words = "Assign partitions 0 to n-1 with the same number of replicas.".to_owned();
        return Err((ErrorCode::InvalidReplicaAssignment, words));
    }
    Ok((count as u32, u16::try_from(factor).unwrap_or(u16::MAX)))
}

fn describe(overrides: &BTreeMap<String, String>) -> Vec<CreateTopicsResponseTopicsConfigs> {
    TOPIC_CONFIGS
        .iter()
        .map(|config| {
            let (value, source) = match overrides.get(config.name) {
                Some(value) => (value.as_str(), super::describe_configs::SOURCE_TOPIC),
                None => (config.default, super::describe_configs::SOURCE_DEFAULT),
            };
            CreateTopicsResponseTopicsConfigs {
                name: config.name.into(),
                value: Some(value.into()),
                read_only: false,
                config_source: source,
                is_sensitive: false,
            }
        })
        .collect()
}
