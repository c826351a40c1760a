//! What a request to alter configs proposes: names and values are judged here, before metadata
//! orders the change. Refusals are in Kafka's words.

use aquifer_metadata::{
    codec::NAME_BYTES_MAX,
    machine::config::{
        AlterConfigs, ConfigAction, ConfigChange, ConfigOp, ConfigOrder, ConfigRejected,
        ConfigResource, ListChange, Overrides, RESOURCE_BYTES_MAX, RESOURCE_CONFIGS_MAX,
    },
};

use super::{
    layers::Layers,
    rule::{self, ConfigType},
    table::{self, Update},
};
use crate::topic_config::{self, ConfigRejected as TopicConfigRejected};

/// What is done to one config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It gets the value.
    Set,
    /// It gets its default.
    Delete,
    /// The value's items are added to the list.
    Append,
    /// The value's items are taken from the list.
    Subtract,
}

/// One operation as asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The config.
    pub name: &'a str,
    /// What is done.
    pub operation: Operation,
    /// With what.
    pub value: Option<&'a str>,
}

/// Whose configs, which says what they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// A topic's.
    Topic,
    /// All brokers'.
    AllBrokers,
    /// One broker's.
    OneBroker,
    /// A group's.
    Group,
    /// A client metrics subscription's.
    ClientMetrics,
}

/// Why a change is not proposed, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterRefused {
    /// A name or a value that the resource cannot have.
    #[error("{0}")]
    Config(String),
    /// A request that cannot be right.
    #[error("{0}")]
    Request(String),
    /// What only metadata can tell.
    #[error("{}", rejected_words(.0))]
    Rejected(ConfigRejected),
}

fn rejected_words(rejected: &ConfigRejected) -> String {
    match rejected {
        ConfigRejected::UnknownTopic => "The topic does not exist.".to_owned(),
        ConfigRejected::Order { lesser, greater } => conflict(lesser, greater),
        ConfigRejected::ResourceFull => {
            "this resource's configs are at their limit of 64 KiB".to_owned()
        }
        ConfigRejected::StoreFull => {
            "the configs of all brokers, groups and client metrics are at their limit of 10000 \
             resources or 16 MiB: delete some"
                .to_owned()
        }
    }
}

fn conflict(lesser: &(String, i64), greater: &(String, i64)) -> String {
    let (low, least) = lesser;
    let (high, most) = greater;
    format!("conflict topic config setting {low} ({least}) > {high} ({most})")
}

/// What is wrong with a request whatever its resource is.
///
/// # Errors
/// A null value, or a config named twice.
pub fn check_form(asked: &[Asked<'_>]) -> Result<(), AlterRefused> {
    let nulls: Vec<&str> = asked
        .iter()
        .filter(|one| one.value.is_none() && one.operation != Operation::Delete)
        .map(|one| one.name)
        .collect();
    if !nulls.is_empty() {
        let words = format!("Null value not supported for : {}", nulls.join(","));
        return Err(AlterRefused::Request(words));
    }
    let bytes: usize = asked.iter().map(|one| one.name.len()).sum::<usize>()
        + asked.iter().filter_map(|one| one.value).map(str::len).sum::<usize>();
    if RESOURCE_CONFIGS_MAX < asked.len() || RESOURCE_BYTES_MAX < bytes {
        return Err(AlterRefused::Rejected(ConfigRejected::ResourceFull));
    }
    if let Some(long) = asked.iter().find(|one| NAME_BYTES_MAX < one.name.len()) {
        let words = format!("a config name of {} bytes is too long", long.name.len());
        return Err(AlterRefused::Request(words));
    }
    let mut names: Vec<&str> = asked.iter().map(|one| one.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(AlterRefused::Request("Error due to duplicate config keys".to_owned()));
    }
    Ok(())
}

/// The change to propose: operations on what is there, or, where `replaces`, all that remains.
///
/// # Errors
/// The first name or value that cannot be. Nothing was proposed.
pub fn plan(
    schema: Schema,
    resource: ConfigResource,
    (asked, replaces): (&[Asked<'_>], bool),
    layers: &Layers<'_>,
) -> Result<AlterConfigs, AlterRefused> {
    check_form(asked)?;
    schema.check_names(asked)?;
    let mut ops = Vec::with_capacity(asked.len());
    for one in asked {
        let action = schema.action(*one, layers)?;
        ops.push(ConfigOp { name: one.name.to_owned(), action });
    }
    let change = if replaces {
        let value = |op: ConfigOp| match op.action {
            ConfigAction::Set(value) => Some((op.name, value)),
            _ => None,
        };
        ConfigChange::Replace(ops.into_iter().filter_map(value).collect())
    } else {
        ConfigChange::Incremental(ops)
    };
    let orders = if schema == Schema::Topic { topic_orders(layers) } else { Vec::new() };
    Ok(AlterConfigs { resource, change, orders })
}

/// What must hold between configs of a topic.
fn topic_orders(layers: &Layers<'_>) -> Vec<ConfigOrder> {
    let number = |name: &str| {
        let config = topic_config::topic_config(name);
        let value = config.and_then(|config| layers.inherited(config).parse().ok());
        (name.to_owned(), value.unwrap_or_default())
    };
    let lesser = number("min.compaction.lag.ms");
    vec![ConfigOrder { lesser, greater: number("max.compaction.lag.ms") }]
}

/// Whether the overrides of a new topic stand in their order.
///
/// # Errors
/// The two that do not.
pub fn check_new_topic(overrides: &Overrides, layers: &Layers<'_>) -> Result<(), AlterRefused> {
    for order in topic_orders(layers) {
        order.check(overrides).map_err(AlterRefused::Rejected)?;
    }
    Ok(())
}

impl Schema {
    /// The default of a config that is a list.
    fn list_default(self, name: &str) -> Option<&'static str> {
        match self {
            Self::Topic => {
                let config = topic_config::topic_config(name)?;
                (config.rule.parts().0 == ConfigType::List).then_some(config.default)
            }
            Self::AllBrokers | Self::OneBroker => {
                let config = table::broker().get(name)?;
                let is_list = config.config_type == ConfigType::List;
                is_list.then_some(config.default.unwrap_or_default())
            }
            // Kafka does not know its own lists here.
            Self::Group | Self::ClientMetrics => None,
        }
    }

    fn check_names(self, asked: &[Asked<'_>]) -> Result<(), AlterRefused> {
        if !matches!(self, Self::AllBrokers | Self::OneBroker) {
            return Ok(());
        }
        let refused = |words: &str, is: &dyn Fn(&str) -> bool| {
            let sets = asked.iter().filter(|one| one.operation != Operation::Delete);
            let mut names: Vec<&str> = sets.map(|one| one.name).filter(|name| is(name)).collect();
            if names.is_empty() {
                return Ok(());
            }
            names.sort_unstable();
            Err(AlterRefused::Request(format!("{words}: [{}]", names.join(", "))))
        };
        let update = |name: &str| table::broker().get(name).map(|config| config.update);
        // Secrets and listeners of clients are settings of an agent here, not replicated.
        let is_own = |name: &str| {
            let known = table::broker().get(name);
            name.starts_with("listener.name.")
                || known.is_some_and(|one| one.is_sensitive() && one.update != Update::Listener)
        };
        refused("Cannot update these configs dynamically", &|name| {
            is_own(name) || update(name) == Some(Update::ReadOnly)
        })?;
        refused(
            "These security configs can be dynamically updated only per-listener using the \
             listener prefix",
            &|name| update(name) == Some(Update::Listener),
        )?;
        if self == Self::AllBrokers {
            refused(
                "Cannot update these configs at default cluster level, broker id must be specified",
                &|name| update(name) == Some(Update::Node),
            )?;
        }
        Ok(())
    }

    fn action(self, asked: Asked<'_>, layers: &Layers<'_>) -> Result<ConfigAction, AlterRefused> {
        let value = asked.value.unwrap_or_default();
        let list = |verb: &str| {
            let default = self.list_default(asked.name).ok_or_else(|| {
                let name = asked.name;
                let words = format!("Can't {verb} to key {name} because its type is not LIST.");
                AlterRefused::Config(words)
            })?;
            Ok(ListChange { items: value.to_owned(), default: default.to_owned() })
        };
        Ok(match asked.operation {
            Operation::Delete => ConfigAction::Delete,
            Operation::Set => ConfigAction::Set(self.check(asked.name, value, layers)?),
            Operation::Append => {
                let change = list("APPEND")?;
                self.check(asked.name, value, layers)?;
                ConfigAction::Append(change)
            }
            Operation::Subtract => ConfigAction::Subtract(list("SUBTRACT")?),
        })
    }

    /// The value as it is stored.
    fn check(self, name: &str, value: &str, layers: &Layers<'_>) -> Result<String, AlterRefused> {
        match self {
            Self::Topic => topic_config::check(name, value).map_err(topic_refused),
            Self::AllBrokers | Self::OneBroker => match table::broker().get(name) {
                Some(config) => rule::check(name, value, config.config_type, config.rule)
                    .map_err(AlterRefused::Request),
                // As Kafka: it may be the config of a plugin.
                None => Ok(value.to_owned()),
            },
            Self::Group => check_group(name, value, layers).map_err(AlterRefused::Config),
            Self::ClientMetrics => check_client_metrics(name, value),
        }
    }
}

/// A topic config's refusal as one of an alteration.
pub fn topic_refused(rejected: TopicConfigRejected) -> AlterRefused {
    AlterRefused::Config(rejected.to_string())
}

fn check_group(name: &str, value: &str, layers: &Layers<'_>) -> Result<String, String> {
    let Some(config) = table::group().get(name) else {
        return Err(format!("Unknown group config name: {name}"));
    };
    let value = rule::check(name, value, config.config_type, config.rule)?;
    let bound = |broker: Option<&'static str>| {
        let bound = broker.and_then(|broker| layers.value(broker)?.parse::<i64>().ok());
        broker.zip(bound)
    };
    if let Ok(number) = value.parse::<i64>() {
        if let Some((broker, _)) = bound(config.broker[1]).filter(|(_, least)| number < *least) {
            return Err(format!("{name} must be greater than or equal to {broker}"));
        }
        if let Some((broker, _)) = bound(config.broker[2]).filter(|(_, most)| *most < number) {
            return Err(format!("{name} must be less than or equal to {broker}"));
        }
    }
    Ok(value)
}

/// What a client metrics subscription may match clients by.
const MATCHED_BY: &[&str] = &[
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

fn check_client_metrics(name: &str, value: &str) -> Result<String, AlterRefused> {
    let Some(config) = table::client_metrics().get(name) else {
        let words = format!("Unknown client metrics configuration: {name}");
        return Err(AlterRefused::Request(words));
    };
    let value =
        rule::check(name, value, config.config_type, config.rule).map_err(AlterRefused::Config)?;
    let interval: Option<i64> = value.parse().ok().filter(|_| name == "interval.ms");
    if interval.is_some_and(|interval| !(100..=3_600_000).contains(&interval)) {
        let words = format!(
            "Invalid value {value} for interval.ms, interval must be between 100 and 3600000 \
             (1 hour)"
        );
        return Err(AlterRefused::Request(words));
    }
    if name == "match" {
        for pattern in value.split(',').filter(|pattern| !pattern.is_empty()) {
            let parts = pattern.split_once('=');
            let is_legal = parts.is_some_and(|(by, pattern)| {
                MATCHED_BY.contains(&by.trim()) && regex_syntax::parse(pattern.trim()).is_ok()
            });
            if !is_legal {
                let words = format!("Illegal client matching pattern: {pattern}");
                return Err(AlterRefused::Config(words));
            }
        }
    }
    Ok(value)
}
