//! DescribeConfigs (32) v1-4: topics, brokers, groups and client metrics, each with all configs
//! that Kafka 4.3 has there, their values here and where these come from.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_metadata::machine::config::ConfigKind;

use super::{
    Request,
    config_resources::{
        self, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, LOGGERS, Refusal, Seen, TOPIC,
    },
    topics,
};
use crate::{
    broker::Broker,
    configs::{
        documentation,
        layers::{Described, Source, Synonym},
        table::{self, Definition, Update},
    },
    topic_config::TOPIC_CONFIGS,
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

/// What Kafka says of a type it does not know.
const UNKNOWN_TYPE: &str = "This most likely occurs because of a request being malformed by the \
                            client library or the message was sent to an incompatible broker. See \
                            the broker logs for more details.";

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    // Read your writes through any agent; without a leader, what this agent has.
    let _ = broker.view.fresh().await;
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    for resource in body.resources {
        // Each takes some kilobytes: a request that repeats one must not multiply it.
        let keys = resource.configuration_keys.clone();
        if answered.insert((resource.resource_type, resource.resource_name.clone(), keys)) {
            let shown = (body.include_synonyms, body.include_documentation);
            results.push(describe(broker, resource, shown).await);
        }
    }
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

async fn describe(
    broker: &Broker,
    asked: DescribeConfigsRequestResources,
    (synonyms, documentation): (bool, bool),
) -> DescribeConfigsResponseResults {
    let name = asked.resource_name.as_str();
    let rows = match asked.resource_type {
        TOPIC => topic(broker, &asked.resource_name).await,
        BROKER => brokers(broker, name),
        BROKER_LOGGER => loggers(broker, name),
        GROUP => group(broker, name),
        CLIENT_METRICS => client_metrics(broker, name),
        _ => Err((ErrorCode::InvalidRequest, UNKNOWN_TYPE.to_owned())),
    };
    let (error_code, error_message, rows) = match rows {
        Ok(rows) => (ErrorCode::None, String::new(), rows),
        // Kafka has no words for this one.
        Err((code @ ErrorCode::UnknownTopicOrPartition, _)) => (code, String::new(), Vec::new()),
        Err((code, words)) => (code, words, Vec::new()),
    };
    let keys = asked.configuration_keys.filter(|keys| !keys.is_empty());
    let is_asked = |row: &Row| keys.as_ref().is_none_or(|keys| keys.contains(&row.name));
    let rows = rows.into_iter().filter(is_asked);
    DescribeConfigsResponseResults {
        error_code: error_code.code(),
        error_message: Some(error_message.into()),
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        configs: rows.map(|row| row.on_wire(synonyms, documentation)).collect(),
    }
}

/// One config as it is told.
struct Row {
    name: Str,
    described: Described,
    config_type: i8,
    read_only: bool,
    sensitive: bool,
}

impl Row {
    fn of(config: &Definition, described: Described) -> Self {
        Self {
            name: config.name.into(),
            described,
            config_type: config.config_type.code(),
            read_only: config.update == Update::ReadOnly,
            sensitive: config.is_sensitive(),
        }
    }

    /// A name that no table has: nobody knows whether its value is a secret.
    fn unknown(name: &str, described: Described) -> Self {
        Self { name: name.into(), described, config_type: 0, read_only: true, sensitive: true }
    }

    fn on_wire(self, synonyms: bool, documentation: bool) -> DescribeConfigsResponseResultsConfigs {
        let sensitive = self.sensitive;
        let shown = |value: String| if sensitive { None } else { Some(Str::from(value)) };
        let synonym = |synonym: Synonym| DescribeConfigsResponseResultsConfigsSynonyms {
            name: synonym.name.into(),
            value: shown(synonym.value),
            source: synonym.source.code(),
        };
        let Described { value, source, synonyms: found } = self.described;
        let found = found.into_iter().filter(|_| synonyms);
        DescribeConfigsResponseResultsConfigs {
            documentation: documentation.then(|| documentation::of(&self.name).into()),
            value: value.and_then(shown),
            read_only: self.read_only,
            config_source: source.code(),
            is_sensitive: sensitive,
            synonyms: found.map(synonym).collect(),
            config_type: self.config_type,
            name: self.name,
        }
    }
}

type Rows = Result<Vec<Row>, Refusal>;

async fn topic(broker: &Broker, name: &Str) -> Rows {
    config_resources::topic_name(name)?;
    let found = topics::resolve(broker, &TopicRef::Name(name.clone()))
        .await
        .map_err(|code| (code, format!("cannot tell whether topic '{name}' exists")))?;
    let seen = Seen::new(broker, broker.node_id());
    let layers = seen.layers();
    let row = |config: &crate::topic_config::TopicConfig| Row {
        name: config.name.into(),
        described: layers.topic_value(config, &found.configs),
        config_type: config.rule.parts().0.code(),
        read_only: false,
        sensitive: false,
    };
    Ok(TOPIC_CONFIGS.iter().map(row).collect())
}

fn brokers(broker: &Broker, name: &str) -> Rows {
    if name.is_empty() {
        return Ok(all_brokers(broker));
    }
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, words));
    let Ok(node) = name.parse::<i32>() else {
        return invalid(format!("Broker id must be an integer, but it is: {name}"));
    };
    if !config_resources::is_live(broker, node) {
        let own = broker.node_id();
        return invalid(format!(
            "Unexpected broker id, expected {own} or empty string, but received {name}"
        ));
    }
    let seen = Seen::new(broker, node);
    let layers = seen.layers();
    let known = table::broker().values().filter(|config| config.update != Update::Hidden);
    let mut rows: Vec<Row> =
        known.map(|config| Row::of(config, layers.broker_value(config.name))).collect();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    for layer in [layers.node, layers.cluster].into_iter().flatten() {
        others.extend(layer.keys().map(String::as_str));
    }
    others.retain(|name| !table::broker().contains_key(name));
    rows.extend(others.iter().map(|name| Row::unknown(name, layers.broker_value(name))));
    let own = layers.given.keys().filter(|name| name.starts_with("aquifer."));
    rows.extend(own.map(|name| Row {
        config_type: 2,
        sensitive: false,
        ..Row::unknown(name, layers.broker_value(name))
    }));
    Ok(rows)
}

/// What is set for all brokers.
fn all_brokers(broker: &Broker) -> Vec<Row> {
    let seen = Seen::new(broker, broker.node_id());
    let set = seen.overrides(ConfigKind::Broker, "");
    let row = |(name, value): (&String, &String)| {
        let synonym =
            Synonym { name: name.clone(), value: value.clone(), source: Source::DynamicDefault };
        let described = Described::new(Some(value.clone()), vec![synonym]);
        match table::broker().get(name.as_str()) {
            Some(config) if config.update == Update::Hidden => None,
            Some(config) => Some(Row::of(config, described)),
            None => Some(Row::unknown(name, described)),
        }
    };
    set.iter().filter_map(row).collect()
}

fn loggers(broker: &Broker, name: &str) -> Rows {
    let words = match name.parse::<i32>() {
        _ if name.is_empty() => "Broker id must not be empty".to_owned(),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
        Ok(node) if config_resources::is_live(broker, node) => LOGGERS.to_owned(),
        Ok(_) => {
            let own = broker.node_id();
            format!("Unexpected broker id, expected {own} but received {name}")
        }
    };
    Err((ErrorCode::InvalidRequest, words))
}

fn group(broker: &Broker, name: &str) -> Rows {
    if name.is_empty() {
        return Err((ErrorCode::InvalidRequest, "Group name must not be empty".to_owned()));
    }
    let seen = Seen::new(broker, broker.node_id());
    let (layers, set) = (seen.layers(), seen.overrides(ConfigKind::Group, name));
    let row = |config: &Definition| Row::of(config, layers.group_value(config, &set));
    Ok(table::group().values().map(row).collect())
}

fn client_metrics(broker: &Broker, name: &str) -> Rows {
    if name.is_empty() {
        let words = "Client metrics subscription name must not be empty";
        return Err((ErrorCode::InvalidRequest, words.to_owned()));
    }
    let seen = Seen::new(broker, broker.node_id());
    let set: BTreeMap<String, String> = (*seen.overrides(ConfigKind::ClientMetrics, name)).clone();
    let row = |config: &Definition| {
        let own = set.get(config.name).map(|value| Synonym {
            name: config.name.to_owned(),
            value: value.clone(),
            source: Source::ClientMetrics,
        });
        let value = set.get(config.name).map(String::as_str).or(config.default);
        Row::of(config, Described::new(value.map(str::to_owned), own.into_iter().collect()))
    };
    Ok(table::client_metrics().values().map(row).collect())
}
