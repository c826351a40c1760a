//! Metadata (3) v0-13: live agents and topics, creating unknown topics where asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Request, admin,
    topics::{self, NewTopic},
};
use crate::{
    broker::Broker,
    topic_config::is_valid_topic_name,
    wire::{
        codec::{Str, Uuid},
        error_code::ErrorCode,
        messages::{
            MetadataRequest, MetadataRequestTopics, MetadataResponse, MetadataResponseBrokers,
            MetadataResponseTopics, MetadataResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};
use aquifer_metadata::{
    machine::command::TopicRejected,
    watch::{CatalogNode, CatalogTopic},
};

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: MetadataRequest,
) -> MetadataResponse {
    if let Some(refused) = ids_too_early(request.version, &body) {
        return refused;
    }
    let asking = Asking {
        // Read your writes through any agent; without a leader, from what this agent has.
        fresh: broker.view.fresh().await.is_ok(),
        may_create: body.allow_auto_topic_creation || request.version < 4,
        // One list for the whole answer: a leader that is not among the brokers confuses clients.
        nodes: broker.nodes(),
        zone: broker.zone_of(request),
        operations: admin::operations(
            body.include_topic_authorized_operations,
            admin::TOPIC_OPERATIONS,
        ),
    };
    let all_operations = body.include_cluster_authorized_operations;
    let asked = match body.topics {
        // v0 has no null: empty means all.
        Some(topics) if topics.is_empty() && request.version == 0 => None,
        topics => topics,
    };
    let mut answers = Vec::new();
    match asked {
        None => {
            let catalog = broker.view.catalog();
            let mut topics: Vec<&Arc<CatalogTopic>> = catalog.topics.values().collect();
            topics.sort_by(|a, b| a.name.cmp(&b.name));
            answers.extend(topics.iter().map(|topic| describe(broker, &asking, topic)));
        }
        Some(topics) => {
            // Each once, as Kafka does: a repeated name must not multiply a large answer.
            let mut answered = BTreeSet::new();
            for topic in topics {
                if answered.insert((topic.name.clone(), topic.topic_id)) {
                    answers.push(answer_topic(broker, &asking, topic).await);
                }
            }
        }
    }
    MetadataResponse {
        controller_id: asking.nodes.first().map_or(-1, |node| node.node_id.value()),
        brokers: asking.nodes.iter().map(wire_node).collect(),
        cluster_id: Some(broker.view.catalog().cluster_id.as_str().into()),
        topics: answers,
        cluster_authorized_operations: admin::operations(all_operations, admin::CLUSTER_OPERATIONS),
        ..MetadataResponse::default()
    }
}

/// The versions that have topic ids in the request but do not take them.
const IDS_NOT_TAKEN: std::ops::RangeInclusive<i16> = 10..=11;

fn ids_too_early(version: i16, body: &MetadataRequest) -> Option<MetadataResponse> {
    let topics = body.topics.as_deref().unwrap_or_default();
    let names_one = topics.iter().any(|topic| topic.topic_id != Uuid::ZERO);
    if !IDS_NOT_TAKEN.contains(&version) || !names_one {
        return None;
    }
    let refused = |topic: &MetadataRequestTopics| MetadataResponseTopics {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopics::default()
    };
    let topics = topics.iter().map(refused).collect();
    Some(MetadataResponse { topics, ..MetadataResponse::default() })
}

/// What holds for every topic of a request.
struct Asking<'a> {
    /// Whether this agent is known to be up to date: without, nothing is denied.
    fresh: bool,
    may_create: bool,
    nodes: Vec<CatalogNode>,
    /// The client's zone.
    zone: Option<&'a str>,
    /// What is told of topics as allowed operations.
    operations: i32,
}

fn wire_node(node: &CatalogNode) -> MetadataResponseBrokers {
    MetadataResponseBrokers {
        node_id: node.node_id.value(),
        host: node.advertised.host.as_str().into(),
        port: node.advertised.port.into(),
        rack: node.zone.as_deref().map(Into::into),
    }
}

async fn answer_topic(
    broker: &Broker,
    asking: &Asking<'_>,
    asked: MetadataRequestTopics,
) -> MetadataResponseTopics {
    // An id goes before a name, as in Kafka.
    let asked_name = asked.name.filter(|_| asked.topic_id == Uuid::ZERO);
    let by_name = match &asked_name {
        Some(name) => TopicRef::Name(name.clone()),
        None => TopicRef::Id(asked.topic_id),
    };
    if let Some(topic) = topics::known(broker, &by_name) {
        return describe(broker, asking, &topic);
    }
    let refused = |code: ErrorCode, id: Uuid, name: Option<Str>| MetadataResponseTopics {
        error_code: code.code(),
        name,
        topic_id: id,
        ..MetadataResponseTopics::default()
    };
    if !asking.fresh {
        return refused(ErrorCode::LeaderNotAvailable, asked.topic_id, asked_name);
    }
    let Some(name) = asked_name else {
        return refused(ErrorCode::UnknownTopicId, asked.topic_id, None);
    };
    if !is_valid_topic_name(&name) {
        return refused(ErrorCode::InvalidTopicException, Uuid::ZERO, Some(name));
    }
    if asking.may_create && broker.options.auto_create_topics {
        let new = NewTopic {
            name: name.as_str().to_owned(),
            partitions: broker.num_partitions,
            replication_factor: broker.options.default_replication_factor,
            configs: BTreeMap::new(),
        };
        if let Ok(Err(TopicRejected::Collides { .. })) = topics::create(broker, new).await {
            return refused(ErrorCode::InvalidTopicException, Uuid::ZERO, Some(name));
        }
        // As Kafka does: the answer that created it says "not yet", and the client asks again.
    }
    MetadataResponseTopics {
        topic_authorized_operations: asking.operations,
        ..refused(ErrorCode::UnknownTopicOrPartition, Uuid::ZERO, Some(name))
    }
}

fn describe(broker: &Broker, asking: &Asking<'_>, topic: &CatalogTopic) -> MetadataResponseTopics {
    let epoch = broker.view.catalog().lineage.map_or(0, |lineage| lineage.number as i32);
    let partitions = (0..topic.partitions as i32).map(|index| {
        let replicas = admin::replicas(topic, index, &asking.nodes, asking.zone);
        let nobody = replicas.is_empty();
        let code = if nobody { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
        MetadataResponseTopicsPartitions {
            error_code: code.code(),
            partition_index: index,
            leader_id: replicas.first().copied().unwrap_or(-1),
            leader_epoch: epoch,
            isr_nodes: replicas.clone(),
            replica_nodes: replicas,
            offline_replicas: Vec::new(),
        }
    });
    MetadataResponseTopics {
        name: Some(topic.name.as_str().into()),
        topic_id: topic.id.into(),
        partitions: partitions.collect(),
        topic_authorized_operations: asking.operations,
        ..MetadataResponseTopics::default()
    }
}
