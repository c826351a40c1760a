//! Resources that have configs: their types and names on the wire, what an agent knows of their
//! values, and the change of one.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_metadata::{
    machine::{
        command::{AppliedReply, Command, Reply},
        config::{ConfigKey, ConfigKind, ConfigResource, Overrides},
    },
    watch::Catalog,
};

use super::{
    admin,
    errors::{admin_error, alter_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    configs::{
        alter::{self, AlterRefused, Asked, Operation, Schema},
        layers::Layers,
        table,
    },
    wire::{codec::Str, error_code::ErrorCode, walk::TopicRef},
};

/// Kafka's code of a topic.
pub const TOPIC: i8 = 2;
/// Kafka's code of a broker.
pub const BROKER: i8 = 4;
/// Kafka's code of a broker's loggers.
pub const BROKER_LOGGER: i8 = 8;
/// Kafka's code of a client metrics subscription.
pub const CLIENT_METRICS: i8 = 16;
/// Kafka's code of a group.
pub const GROUP: i8 = 32;

/// Why loggers are refused. A level is one process's, and agents that share a node id behind one
/// address cannot be told apart in a request.
pub const LOGGERS: &str = "Log levels belong to one process, and many agents may share a node id: \
                           set AQUIFER_LOG where the agent runs";

/// A refusal with words for people.
pub type Refusal = (ErrorCode, String);

/// What a request knows of configs, all of one moment.
pub struct Seen {
    catalog: Arc<Catalog>,
    node: i32,
    given: BTreeMap<String, String>,
}

impl Seen {
    /// As this agent knows it, for values of `node`.
    pub fn new(broker: &Broker, node: i32) -> Self {
        let catalog = broker.view.catalog();
        let given = given(broker, &catalog, node);
        Self { catalog, node, given }
    }

    /// The layers of broker configs.
    pub fn layers(&self) -> Layers<'_> {
        Layers::new(&self.catalog, self.node, &self.given)
    }

    /// The overrides of a resource that is not a topic.
    pub fn overrides(&self, kind: ConfigKind, name: &str) -> Arc<Overrides> {
        let key = ConfigKey { kind, name: name.to_owned() };
        self.catalog.configs.get(&key).cloned().unwrap_or_default()
    }
}

/// Broker configs that were given when this agent started, or that are its own.
fn given(broker: &Broker, catalog: &Catalog, node: i32) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for (name, value) in &broker.options.given {
        let is_kafkas = table::broker().contains_key(name.as_str());
        let name = if is_kafkas { name.clone() } else { format!("aquifer.{name}") };
        given.insert(name, value.clone());
    }
    let mut own = |name: &str, value: String| given.insert(name.to_owned(), value);
    own("node.id", node.to_string());
    own("broker.id", node.to_string());
    own("process.roles", "broker".to_owned());
    if broker.num_partitions != 1 {
        own("num.partitions", broker.num_partitions.to_string());
    }
    if let Some(known) = catalog.nodes.iter().find(|known| known.node_id.value() == node) {
        let listener = format!("PLAINTEXT://{}:{}", known.advertised.host, known.advertised.port);
        own("listeners", listener.clone());
        own("advertised.listeners", listener);
        if let Some(zone) = &known.zone {
            own("broker.rack", zone.clone());
        }
    }
    given
}

/// A topic's name, if it can be one.
pub fn topic_name(name: &str) -> Result<(), Refusal> {
    match admin::topic_name_refusal(name) {
        Some(words) => Err((ErrorCode::InvalidTopicException, words)),
        None => Ok(()),
    }
}

/// Whether a live agent has this node id.
pub fn is_live(broker: &Broker, node: i32) -> bool {
    broker.nodes().iter().any(|known| known.node_id.value() == node)
}

/// A resource whose configs a request would change.
pub struct Altered {
    /// Kafka's code of its type.
    pub resource_type: i8,
    /// Its name.
    pub name: Str,
    /// What is done, in the request's order.
    pub configs: Vec<AlteredConfig>,
}

/// What a request would do to one config.
pub struct AlteredConfig {
    /// The config.
    pub name: Str,
    /// Kafka's code of the operation.
    pub operation: i8,
    /// With what.
    pub value: Option<Str>,
}

/// How a request changes configs.
#[derive(Clone, Copy)]
pub struct Manner {
    /// What is not named gets its default.
    pub replaces: bool,
    /// Nothing changes.
    pub validate_only: bool,
}

/// Changes a resource; the code and the words of its answer.
pub async fn alter(broker: &Broker, altered: &Altered, manner: Manner) -> (ErrorCode, Option<Str>) {
    match try_alter(broker, altered, manner).await {
        Ok(()) => (ErrorCode::None, None),
        Err((code, words)) => (code, Some(words.into())),
    }
}

async fn try_alter(broker: &Broker, altered: &Altered, manner: Manner) -> Result<(), Refusal> {
    let asked = altered.configs.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
    alter::check_form(&asked).map_err(refusal)?;
    // What is refused, and what a list holds before the change, is judged by what was true when the
    // request came.
    broker.view.fresh().await.map_err(|error| (admin_error(&error), error.to_string()))?;
    if altered.resource_type == BROKER_LOGGER && manner.replaces {
        // Loggers are altered incrementally only.
        let words = format!("Unknown resource type {BROKER_LOGGER}");
        return Err((ErrorCode::InvalidRequest, words));
    }
    let (schema, resource, held) = resource(broker, altered)?;
    let seen = Seen::new(broker, broker.node_id());
    let change = alter::plan(schema, resource, (&asked, manner.replaces), &seen.layers());
    let change = change.map_err(refusal)?;
    if manner.validate_only {
        let after = change.changed(&held);
        return after.map(drop).map_err(|rejected| refusal(AlterRefused::Rejected(rejected)));
    }
    let command = Command::AlterConfigs(change);
    match broker.metadata.propose(command).await {
        Ok(AppliedReply { index, reply: Reply::ConfigsAltered(outcome) }) => {
            outcome.map_err(|rejected| refusal(AlterRefused::Rejected(rejected)))?;
            topics::shown(broker, index).await;
            Ok(())
        }
        Ok(other) => {
            let error = mismatch("propose", &other);
            Err((admin_error(&error), error.to_string()))
        }
        Err(error) => Err((admin_error(&error), error.to_string())),
    }
}

fn refusal(refused: AlterRefused) -> Refusal {
    (alter_error(&refused), refused.to_string())
}

fn asked(config: &AlteredConfig) -> Result<Asked<'_>, Refusal> {
    let operation = match config.operation {
        0 => Operation::Set,
        1 => Operation::Delete,
        2 => Operation::Append,
        3 => Operation::Subtract,
        other => {
            let words = format!("Unknown operation type {other} for config {}", config.name);
            return Err((ErrorCode::InvalidRequest, words));
        }
    };
    let value = config.value.as_ref().map(Str::as_str);
    Ok(Asked { name: &config.name, operation, value })
}

/// Whose configs, what they may be, and what they are.
fn resource(
    broker: &Broker,
    altered: &Altered,
) -> Result<(Schema, ConfigResource, Arc<Overrides>), Refusal> {
    let name = altered.name.as_str();
    let invalid = |words: &str| Err((ErrorCode::InvalidRequest, words.to_owned()));
    let other = |schema, kind| {
        let key = ConfigKey { kind, name: name.to_owned() };
        let held = broker.view.catalog().configs.get(&key).cloned().unwrap_or_default();
        Ok((schema, ConfigResource::Other(key), held))
    };
    match altered.resource_type {
        TOPIC if name.is_empty() => invalid("Default topic resources are not allowed."),
        TOPIC => {
            topic_name(name)?;
            let found = topics::known(broker, &TopicRef::Name(altered.name.clone()));
            let Some(topic) = found else {
                let words = format!("The topic '{name}' does not exist.");
                return Err((ErrorCode::UnknownTopicOrPartition, words));
            };
            let held = Arc::new(topic.configs.clone());
            Ok((Schema::Topic, ConfigResource::Topic(topic.id), held))
        }
        BROKER if name.is_empty() => other(Schema::AllBrokers, ConfigKind::Broker),
        BROKER => {
            named_node(broker, name, "broker id", "expected")?;
            other(Schema::OneBroker, ConfigKind::Broker)
        }
        BROKER_LOGGER => {
            named_node(broker, name, "node id", "Expected")?;
            invalid(LOGGERS)
        }
        GROUP if name.is_empty() => invalid("Default group resources are not allowed."),
        GROUP => other(Schema::Group, ConfigKind::Group),
        CLIENT_METRICS if name.is_empty() => invalid("Subscription name can't be empty"),
        CLIENT_METRICS => other(Schema::ClientMetrics, ConfigKind::ClientMetrics),
        unknown => invalid(&format!("Unknown resource type {unknown}")),
    }
}

/// Refuses a name that is not a live agent's node id.
fn named_node(broker: &Broker, name: &str, what: &str, expected: &str) -> Result<(), Refusal> {
    let Ok(node) = name.parse::<i32>() else {
        let words = format!("Node id must be an integer, but it is: {name}");
        return Err((ErrorCode::InvalidRequest, words));
    };
    if is_live(broker, node) {
        return Ok(());
    }
    let own = broker.node_id();
    let stop = if expected == "Expected" { "." } else { "," };
    let words = format!("Unexpected {what}{stop} {expected} {own}, but received {node}");
    Err((ErrorCode::InvalidRequest, words))
}
