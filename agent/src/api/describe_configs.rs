//! DescribeConfigs (32) v1-4: topics completely; of the broker, the settings honoured here.

use std::collections::{BTreeMap, BTreeSet};

use super::{Request, topics};
use crate::{
    broker::Broker,
    topic_config::{TOPIC_CONFIGS, TopicConfig},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            DescribeConfigsRequest, DescribeConfigsRequestResources, DescribeConfigsResponse,
            DescribeConfigsResponseResults, DescribeConfigsResponseResultsConfigs,
            DescribeConfigsResponseResultsConfigsSynonyms,
        },
        walk::TopicRef,
    },
};

/// Set on the topic itself.
pub const SOURCE_TOPIC: i8 = 1;
/// Set when the process started.
pub const SOURCE_STATIC: i8 = 4;
/// Kafka's default.
pub const SOURCE_DEFAULT: i8 = 5;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    for resource in body.resources {
        // Each takes some kilobytes: a request that repeats one must not multiply it.
        if !answered.insert((resource.resource_type, resource.resource_name.clone())) {
            continue;
        }
        results.push(describe(broker, resource, body.include_synonyms).await);
    }
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

async fn describe(
    broker: &Broker,
    asked: DescribeConfigsRequestResources,
    synonyms: bool,
) -> DescribeConfigsResponseResults {
    let configs = match asked.resource_type {
        RESOURCE_TOPIC => topic(broker, &asked.resource_name, synonyms).await,
        RESOURCE_BROKER => broker_configs(broker, &asked.resource_name),
        _ => Err((ErrorCode::InvalidRequest, "resource type is not served".to_owned())),
    };
    let (error_code, error_message, mut configs) = match configs {
        Ok(configs) => (ErrorCode::None, None, configs),
        Err((code, words)) => (code, Some(Str::from(words)), Vec::new()),
    };
    if let Some(keys) = &asked.configuration_keys {
        configs.retain(|config| keys.contains(&config.name));
    }
    DescribeConfigsResponseResults {
        error_code: error_code.code(),
        error_message,
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        configs,
    }
}

type Described = Result<Vec<DescribeConfigsResponseResultsConfigs>, (ErrorCode, String)>;

async fn topic(broker: &Broker, name: &Str, synonyms: bool) -> Described {
    let found = topics::resolve(broker, &TopicRef::Name(name.clone()))
        .await
        .map_err(|code| (code, format!("Topic '{name}' does not exist.")))?;
    let one = |config| topic_value(config, &found.configs, synonyms);
    Ok(TOPIC_CONFIGS.iter().map(one).collect())
}

fn topic_value(
    config: &TopicConfig,
    overrides: &BTreeMap<String, String>,
    synonyms: bool,
) -> DescribeConfigsResponseResultsConfigs {
    let synonym = |name: &str, value: &str, source| DescribeConfigsResponseResultsConfigsSynonyms {
        name: name.into(),
        value: Some(value.into()),
        source,
    };
    let mut known = Vec::new();
    let (value, source) = match overrides.get(config.name) {
        Some(value) => {
            known.push(synonym(config.name, value, SOURCE_TOPIC));
            (value.as_str(), SOURCE_TOPIC)
        }
        None => (config.default, SOURCE_DEFAULT),
    };
    if !config.broker_name.is_empty() {
        known.push(synonym(config.broker_name, config.default, SOURCE_DEFAULT));
    }
    DescribeConfigsResponseResultsConfigs {
        name: config.name.into(),
        value: Some(value.into()),
        config_source: source,
        synonyms: if synonyms { known } else { Vec::new() },
        config_type: config.wire_type(),
        documentation: None,
        ..DescribeConfigsResponseResultsConfigs::default()
    }
}

fn broker_configs(broker: &Broker, name: &str) -> Described {
    let own = broker.session.current().map_or(-1, |session| session.node_id.value());
    let named: Option<i32> = name.parse().ok();
    if name.is_empty() {
        return Ok(Vec::new()); // Dynamic defaults: there are none.
    }
    if !broker.nodes().iter().any(|node| Some(node.node_id.value()) == named) {
        let words = format!("Unexpected broker id, expected {own} but received {name}");
        return Err((ErrorCode::InvalidRequest, words));
    }
    let options = &broker.options;
    let node = named.unwrap_or(own);
    let rows = [
        ("auto.create.topics.enable", options.auto_create_topics.to_string(), "true", 1),
        ("broker.id", node.to_string(), "", 3),
        ("broker.rack", broker.zone.clone().unwrap_or_default(), "", 2),
        ("connections.max.idle.ms", options.idle_ms_max.to_string(), "600000", 5),
        ("default.replication.factor", options.default_replication_factor.to_string(), "1", 3),
        ("delete.topic.enable", options.delete_topics.to_string(), "true", 1),
        ("fetch.max.bytes", options.fetch_bytes_max.to_string(), "57671680", 3),
        ("message.max.bytes", "1048588".to_owned(), "1048588", 3),
        ("min.insync.replicas", "1".to_owned(), "1", 3),
        ("node.id", node.to_string(), "", 3),
        ("num.partitions", broker.num_partitions.to_string(), "1", 3),
        ("socket.request.max.bytes", options.request_bytes_max.to_string(), "104857600", 3),
    ];
    let configs = rows.into_iter().map(|(name, value, default, config_type)| {
        let source = if value == default { SOURCE_DEFAULT } else { SOURCE_STATIC };
        DescribeConfigsResponseResultsConfigs {
            name: name.into(),
            value: Some(value.into()),
            read_only: true,
            config_source: source,
            config_type,
            documentation: None,
            ..DescribeConfigsResponseResultsConfigs::default()
        }
    });
    Ok(configs.collect())
}
