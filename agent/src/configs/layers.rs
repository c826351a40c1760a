//! Which of several layers a value comes from: set on the resource, on one broker, on all brokers,
//! given when this agent started, or Kafka's default.

use std::collections::BTreeMap;

use aquifer_metadata::{
    machine::config::{ConfigKey, ConfigKind, Overrides},
    watch::Catalog,
};

use super::{
    group_defaults,
    table::{self, Definition},
};
use crate::topic_config::TopicConfig;

/// Where a value was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the topic.
    Topic,
    /// On one node id.
    DynamicBroker,
    /// On all brokers.
    DynamicDefault,
    /// When the process started.
    Static,
    /// Nowhere.
    Default,
    /// On the client metrics subscription.
    ClientMetrics,
    /// On the group.
    Group,
}

impl Source {
    /// Kafka's code.
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefault => 3,
            Self::Static => 4,
            Self::Default => 5,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }
}

/// A name under which a value was looked for, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The config.
    pub name: String,
    /// Its value there.
    pub value: String,
    /// Where.
    pub source: Source,
}

/// The layers of broker configs, the first that has a value wins.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Of one node id.
    pub node: Option<&'a Overrides>,
    /// Of all brokers.
    pub cluster: Option<&'a Overrides>,
    /// Given at the start.
    pub given: &'a BTreeMap<String, String>,
    /// Given at the start of whichever agent started last: defaults of consumer groups.
    pub groups: Option<&'a Overrides>,
}

/// Broker configs that say one thing in several units, the finest first.
const FAMILIES: &[&[&str]] = &[
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
];

/// The broker config that a topic config inherits, if there is one.
pub fn broker_name(config: &TopicConfig) -> Option<&'static str> {
    match config.name {
        "retention.ms" => Some("log.retention.ms"),
        "segment.ms" => Some("log.roll.ms"),
        "segment.jitter.ms" => Some("log.roll.jitter.ms"),
        "flush.ms" => Some("log.flush.interval.ms"),
        _ => Some(config.broker_name).filter(|name| !name.is_empty()),
    }
}

/// Whether topics inherit this broker config.
pub fn is_topic_default(name: &str) -> bool {
    let family = FAMILIES.iter().any(|family| family.contains(&name));
    let inherits = |config: &TopicConfig| broker_name(config) == Some(name);
    family || crate::topic_config::TOPIC_CONFIGS.iter().any(inherits)
}

impl<'a> Layers<'a> {
    /// The layers as the catalog has them for a node id.
    pub fn new(catalog: &'a Catalog, node: i32, given: &'a BTreeMap<String, String>) -> Self {
        if catalog.configs.is_empty() {
            return Self { node: None, cluster: None, given, groups: None }; // Every Produce asks.
        }
        let of = |key: &ConfigKey| catalog.configs.get(key).map(|overrides| &**overrides);
        let broker = |name: String| of(&ConfigKey { kind: ConfigKind::Broker, name });
        let (node, cluster) = (broker(node.to_string()), broker(String::new()));
        Self { node, cluster, given, groups: of(&ConfigKey::group_defaults()) }
    }

    /// The value of a broker config; `None` is null.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let set = |layer: Option<&'a Overrides>| layer.and_then(|layer| layer.get(name));
        let found =
            set(self.node).or_else(|| set(self.cluster)).or_else(|| set(self.started_with(name)));
        found.map(String::as_str).or_else(|| table::broker().get(name)?.default)
    }

    /// The layer of what was given at a start.
    fn started_with(&self, name: &str) -> Option<&'a Overrides> {
        if group_defaults::is_one(name) { self.groups } else { Some(self.given) }
    }

    /// Every layer that has a value for a broker config, the one that counts first. Other units are
    /// listed only behind a value in the config's own: that is how Kafka does it.
    pub fn synonyms(&self, name: &str) -> Vec<Synonym> {
        let alone = [name];
        let family = FAMILIES.iter().find(|family| family.contains(&name));
        let family: &[&str] = family.copied().unwrap_or(&alone);
        let layers = [
            (self.node, Source::DynamicBroker),
            (self.cluster, Source::DynamicDefault),
            (self.started_with(name), Source::Static),
        ];
        let mut found = Vec::new();
        let mut add = |name: &str, value: &str, source| {
            found.push(Synonym { name: name.to_owned(), value: value.to_owned(), source });
        };
        for (layer, source) in layers {
            for name in family {
                if let Some(value) = layer.and_then(|layer| layer.get(*name)) {
                    add(name, value, source);
                }
            }
        }
        for name in family {
            if let Some(default) = table::broker().get(name).and_then(|known| known.default) {
                add(name, default, Source::Default);
            }
        }
        let own = found.iter().position(|synonym| synonym.name == name);
        own.map_or_else(Vec::new, |own| found.split_off(own))
    }

    /// What a topic has that does not override `config`.
    pub fn inherited(&self, config: &TopicConfig) -> String {
        let number = |name: &str| self.value(name).and_then(|value| value.parse::<i64>().ok());
        let hours = |name: &str| number(name).map(|hours| hours.saturating_mul(3_600_000));
        let derived = match config.name {
            "retention.ms" => {
                let minutes = number("log.retention.minutes").map(|n| n.saturating_mul(60_000));
                let millis = number("log.retention.ms").or(minutes);
                // Any negative time is "for ever".
                millis.or(hours("log.retention.hours")).map(|millis| millis.max(-1))
            }
            "segment.ms" => number("log.roll.ms").or(hours("log.roll.hours")),
            "segment.jitter.ms" => number("log.roll.jitter.ms").or(hours("log.roll.jitter.hours")),
            "flush.ms" => {
                number("log.flush.interval.ms").or(number("log.flush.scheduler.interval.ms"))
            }
            _ => {
                let value = broker_name(config).and_then(|name| self.value(name));
                return value.unwrap_or(config.default).to_owned();
            }
        };
        derived.map_or_else(|| config.default.to_owned(), |number| number.to_string())
    }

    /// A topic's config and where it comes from.
    pub fn topic_value(&self, config: &TopicConfig, overrides: &Overrides) -> Described {
        let mut synonyms = broker_name(config).map(|name| self.synonyms(name)).unwrap_or_default();
        let own = overrides.get(config.name);
        if let Some(value) = own {
            let name = config.name.to_owned();
            synonyms.insert(0, Synonym { name, value: value.clone(), source: Source::Topic });
        }
        let value = own.cloned().unwrap_or_else(|| self.inherited(config));
        Described::new(Some(value), synonyms)
    }

    /// A group's config and where it comes from.
    pub fn group_value(&self, config: &Definition, overrides: &Overrides) -> Described {
        let mut synonyms = match config.broker[0] {
            Some(name) => self.synonyms(name),
            None => default_of(config),
        };
        if let Some(value) = overrides.get(config.name) {
            let (name, value) = (config.name.to_owned(), value.clone());
            synonyms.insert(0, Synonym { name, value, source: Source::Group });
        }
        let value = synonyms.first().map(|synonym| synonym.value.clone());
        Described::new(value, synonyms)
    }

    /// A broker config and where it comes from.
    pub fn broker_value(&self, name: &str) -> Described {
        let synonyms = self.synonyms(name);
        Described::new(synonyms.first().map(|synonym| synonym.value.clone()), synonyms)
    }
}

fn default_of(config: &Definition) -> Vec<Synonym> {
    let synonym = |value: &str| Synonym {
        name: config.name.to_owned(),
        value: value.to_owned(),
        source: Source::Default,
    };
    config.default.map(synonym).into_iter().collect()
}

/// A value with everything that was found for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The value that counts; `None` is null.
    pub value: Option<String>,
    /// Where it was set.
    pub source: Source,
    /// Everything that was found, the one that counts first.
    pub synonyms: Vec<Synonym>,
}

impl Described {
    /// A value whose source is that of the first synonym.
    pub fn new(value: Option<String>, synonyms: Vec<Synonym>) -> Self {
        let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
        Self { value, source, synonyms }
    }
}
