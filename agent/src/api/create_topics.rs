//! CreateTopics (19) v2-7. A replication factor above the number of agents is accepted on purpose:
//! durability does not depend on it.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_metadata::{client::CallError, machine::command::TopicRejected, watch::CatalogNode};
use futures::{StreamExt, stream};

use super::{
    Request,
    admin::{self, Refusal},
    config_resources::Seen,
    errors::{admin_error, alter_error, config_error, topic_error},
    topics::{self, NewTopic},
};
use crate::{
    broker::Broker,
    configs::{alter, layers::Described},
    topic_config::{self, TOPIC_CONFIGS, TopicConfig},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            CreateTopicsRequest, CreateTopicsRequestTopics, CreateTopicsResponse,
            CreateTopicsResponseTopics, CreateTopicsResponseTopicsConfigs,
        },
    },
};

/// The name that Kafka's own metadata log has.
const METADATA_LOG: &str = "__cluster_metadata";

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
        answer(broker, topic, duplicate, (body.timeout_ms, body.validate_only))
    });
    let answers = answering.buffered(topics::CHANGES_AT_ONCE).collect().await;
    CreateTopicsResponse { topics: answers, ..CreateTopicsResponse::default() }
}

async fn answer(
    broker: &Broker,
    topic: CreateTopicsRequestTopics,
    duplicate: bool,
    (timeout_ms, validate_only): (i32, bool),
) -> CreateTopicsResponseTopics {
    let name = topic.name.clone();
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, Some(words)));
    let created = if duplicate {
        invalid("Duplicate topic name.".to_owned())
    } else if name == *METADATA_LOG {
        invalid(format!("Creation of internal topic {METADATA_LOG} is prohibited."))
    } else {
        let creating = create(broker, topic, validate_only);
        let late = Err((ErrorCode::RequestTimedOut, None));
        admin::within(broker, timeout_ms, creating).await.unwrap_or(late)
    };
    created.unwrap_or_else(|(code, words)| refused(&name, code, words))
}

fn refused(name: &str, code: ErrorCode, words: Option<String>) -> CreateTopicsResponseTopics {
    CreateTopicsResponseTopics {
        name: name.into(),
        error_code: code.code(),
        error_message: words.map(Into::into),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()), // Null makes the Java client throw.
        ..CreateTopicsResponseTopics::default()
    }
}

async fn create(
    broker: &Broker,
    topic: CreateTopicsRequestTopics,
    validate_only: bool,
) -> Result<CreateTopicsResponseTopics, Refusal> {
    let unanswered = |error: CallError| (admin_error(&error), Some(error.to_string()));
    if let Some(words) = admin::topic_name_refusal(&topic.name) {
        return Err((ErrorCode::InvalidTopicException, Some(words)));
    }
    // Whether the name is taken comes before what is wrong with the rest, as in Kafka.
    broker.view.fresh().await.map_err(unanswered)?;
    check_name_is_free(broker, &topic.name)?;
    let new = validated(broker, &topic)?;
    let (partitions, factor) = (new.partitions, new.replication_factor);
    let configs = describe(broker, &new.configs);
    let id = if validate_only {
        topics::draw_id(broker).into()
    } else {
        match topics::create(broker, new).await.map_err(unanswered)? {
            Ok(id) => id.into(),
            Err(rejected) => return Err(refusal(&rejected, &topic.name)),
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

/// What metadata would say of the name.
fn check_name_is_free(broker: &Broker, name: &Str) -> Result<(), Refusal> {
    if let Some(known) = broker.view.topic_by_name(name) {
        return Err(refusal(&TopicRejected::AlreadyExists { topic: known.id }, name));
    }
    let folded = |name: &str| name.replace('.', "_");
    let (catalog, ours) = (broker.view.catalog(), folded(name));
    match catalog.topics.values().find(|topic| folded(&topic.name) == ours) {
        Some(other) => Err(refusal(&TopicRejected::Collides { with: other.name.clone() }, name)),
        None => Ok(()),
    }
}

fn refusal(rejected: &TopicRejected, name: &str) -> Refusal {
    let (code, words) = topic_error(rejected, name);
    (code, Some(words))
}

fn validated(broker: &Broker, topic: &CreateTopicsRequestTopics) -> Result<NewTopic, Refusal> {
    let (partitions, factor) = match topic.assignments.as_slice() {
        [] => counts(broker, topic)?,
        _ => assigned_counts(&broker.nodes(), topic)?,
    };
    let configs = topic
        .configs
        .iter()
        .map(|config| (config.name.as_str(), config.value.as_ref().map(|value| value.as_str())));
    let configs = topic_config::validate(configs)
        .map_err(|rejected| (config_error(&rejected), Some(rejected.to_string())))?;
    let seen = Seen::new(broker, broker.node_id());
    alter::check_new_topic(&configs, &seen.layers())
        .map_err(|refused| (alter_error(&refused), Some(refused.to_string())))?;
    let name = topic.name.as_str().to_owned();
    Ok(NewTopic { name, partitions, replication_factor: factor, configs })
}

fn counts(broker: &Broker, topic: &CreateTopicsRequestTopics) -> Result<(u32, u16), Refusal> {
    let refused = |code: ErrorCode, words: &str| Err((code, Some(words.to_owned())));
    let factor = match topic.replication_factor {
        -1 => broker.options.default_replication_factor,
        factor @ 1.. => factor.unsigned_abs(),
        _ => {
            let words = "Replication factor must be larger than 0, or -1 to use the default value.";
            return refused(ErrorCode::InvalidReplicationFactor, words);
        }
    };
    let partitions = match topic.num_partitions {
        -1 => broker.num_partitions,
        count @ 1..=admin::TOPIC_PARTITIONS_MAX => count.unsigned_abs(),
        1.. => return refused(ErrorCode::PolicyViolation, admin::TOO_MANY_PARTITIONS),
        _ => {
            let words = "Number of partitions was set to an invalid non-positive value.";
            return refused(ErrorCode::InvalidPartitions, words);
        }
    };
    Ok((partitions, factor))
}

/// A manual assignment gives the counts; where replicas live has no meaning here.
fn assigned_counts(
    nodes: &[CatalogNode],
    topic: &CreateTopicsRequestTopics,
) -> Result<(u32, u16), Refusal> {
    let counted = |what: &str| {
        let words = format!("A manual partition assignment was specified, but {what} to -1.");
        Err((ErrorCode::InvalidRequest, Some(words)))
    };
    if topic.replication_factor != -1 {
        return counted("replication factor was not set");
    }
    if topic.num_partitions != -1 {
        return counted("numPartitions was not set");
    }
    let refused = |words: String| Err((ErrorCode::InvalidReplicaAssignment, Some(words)));
    let mut indexes = BTreeSet::new();
    let mut factor = None;
    for one in &topic.assignments {
        let index = one.partition_index;
        if !indexes.insert(index) {
            let words =
                format!("Found multiple manual partition assignments for partition {index}");
            return refused(words);
        }
        admin::check_assignment(&one.broker_ids, nodes, factor)?;
        factor = Some(one.broker_ids.len());
    }
    let count = indexes.len() as i32;
    if !indexes.into_iter().eq(0..count) {
        return refused("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    if admin::TOPIC_PARTITIONS_MAX < count {
        let words = admin::TOO_MANY_PARTITIONS.to_owned();
        return Err((ErrorCode::PolicyViolation, Some(words)));
    }
    // As many as live nodes at most.
    let factor = u16::try_from(factor.unwrap_or_default()).unwrap_or(u16::MAX);
    Ok((count.unsigned_abs(), factor))
}

/// Every config as the topic has it.
fn describe(
    broker: &Broker,
    overrides: &BTreeMap<String, String>,
) -> Vec<CreateTopicsResponseTopicsConfigs> {
    let seen = Seen::new(broker, broker.node_id());
    let layers = seen.layers();
    let one = |config: &TopicConfig| {
        let Described { value, source, .. } = layers.topic_value(config, overrides);
        CreateTopicsResponseTopicsConfigs {
            name: config.name.into(),
            value: value.map(Into::into),
            read_only: false,
            config_source: source.code(),
            is_sensitive: false,
        }
    };
    TOPIC_CONFIGS.iter().map(one).collect()
}
