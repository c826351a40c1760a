//! Topic configs [pure]: Kafka's names, defaults and rules, and which of them do something here.
//!
//! A known config that has no meaning in a bucket is validated, stored and reported, as Kafka does
//! with configs of features a cluster does not use. A config that *asks for behaviour* this version
//! does not have is refused: ignoring it would break a promise silently.

use std::collections::BTreeMap;

/// How a value is checked and how tools see its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRule {
    /// `true` or `false`.
    Bool,
    /// A 32-bit integer of at least this.
    IntAtLeast(i32),
    /// A 64-bit integer of at least this.
    LongAtLeast(i64),
    /// A decimal fraction from 0 to 1.
    Fraction,
    /// -1 or 1 to 9.
    GzipLevel,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Comma-separated words out of these.
    ListOf(&'static [&'static str]),
    /// Comma-separated `partition:broker` pairs, or `*`.
    Throttle,
}

/// What a value other than the default does in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    /// Honoured, or without meaning on a bucket-backed topic.
    Any,
    /// Only these values; others are refused.
    Only(&'static [&'static str]),
}

/// One topic config.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfig {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker config whose default it inherits, shown as a synonym.
    pub broker_name: &'static str,
    /// The default.
    pub default: &'static str,
    /// Its rule.
    pub rule: ValueRule,
    support: Support,
}

/// Why a set of configs was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRejected {
    /// Not a config of Kafka 4.3.
    #[error("unknown topic config name: {0}")]
    Unknown(String),
    /// A null value.
    #[error("null value not supported for topic configs: {0}")]
    Null(String),
    /// The value breaks the config's rule.
    #[error("invalid value {value} for configuration {name}: {expected}")]
    Invalid {
        /// The config.
        name: &'static str,
        /// What was asked.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// The value is valid in Kafka, and not honoured here yet.
    #[error("{name}={value} is not supported by this version of Aquifer; supported: {supported}")]
    Unsupported {
        /// The config.
        name: &'static str,
        /// What was asked.
        value: String,
        /// What works.
        supported: String,
    },
}

const MAX: &str = "9223372036854775807";
const NAMES_CODEC: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const fn config(
    name: &'static str,
    broker_name: &'static str,
    default: &'static str,
    rule: ValueRule,
) -> TopicConfig {
    TopicConfig { name, broker_name, default, rule, support: Support::Any }
}

const fn only(mut config: TopicConfig, values: &'static [&'static str]) -> TopicConfig {
    config.support = Support::Only(values);
    config
}

use ValueRule::{Bool, Fraction, GzipLevel, IntAtLeast, ListOf, LongAtLeast, OneOf, Throttle};

/// Every topic config of Kafka 4.3, by name.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    config("cleanup.policy", "log.cleanup.policy", "delete", ListOf(&["compact", "delete"])),
    config("compression.gzip.level", "compression.gzip.level", "-1", GzipLevel),
    config("compression.lz4.level", "compression.lz4.level", "9", IntAtLeast(1)),
    config("compression.type", "compression.type", "producer", OneOf(NAMES_CODEC)),
    config("compression.zstd.level", "compression.zstd.level", "3", IntAtLeast(-131_072)),
    config("delete.retention.ms", "log.cleaner.delete.retention.ms", "86400000", LongAtLeast(0)),
    config("file.delete.delay.ms", "log.segment.delete.delay.ms", "60000", LongAtLeast(0)),
    config("flush.messages", "log.flush.interval.messages", MAX, LongAtLeast(1)),
    config("flush.ms", "", MAX, LongAtLeast(0)),
    config("follower.replication.throttled.replicas", "", "", Throttle),
    config("index.interval.bytes", "log.index.interval.bytes", "4096", IntAtLeast(0)),
    config("leader.replication.throttled.replicas", "", "", Throttle),
    config("local.retention.bytes", "log.local.retention.bytes", "-2", LongAtLeast(-2)),
    config("local.retention.ms", "log.local.retention.ms", "-2", LongAtLeast(-2)),
    config("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", MAX, LongAtLeast(1)),
    config("max.message.bytes", "message.max.bytes", "1048588", IntAtLeast(0)),
    config(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "3600000",
        LongAtLeast(0),
    ),
    config(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        MAX,
        LongAtLeast(0),
    ),
    config(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
    ),
    config("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", "0.5", Fraction),
    config("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", "0", LongAtLeast(0)),
    config("min.insync.replicas", "min.insync.replicas", "1", IntAtLeast(1)),
    config("preallocate", "log.preallocate", "false", Bool),
    only(config("remote.log.copy.disable", "", "false", Bool), &["false"]),
    only(config("remote.log.delete.on.disable", "", "false", Bool), &["false"]),
    only(config("remote.storage.enable", "", "false", Bool), &["false"]),
    config("retention.bytes", "log.retention.bytes", "-1", LongAtLeast(i64::MIN)),
    config("retention.ms", "", "604800000", LongAtLeast(-1)),
    config("segment.bytes", "log.segment.bytes", "1073741824", IntAtLeast(1_048_576)),
    config("segment.index.bytes", "log.index.size.max.bytes", "10485760", IntAtLeast(4)),
    config("segment.jitter.ms", "", "0", LongAtLeast(0)),
    config("segment.ms", "", "604800000", LongAtLeast(1)),
    config("unclean.leader.election.enable", "unclean.leader.election.enable", "false", Bool),
    // Ours: whether every record of a batch is looked at, or its header only.
    config("aquifer.validate", "", "header", OneOf(&["header", "full"])),
];

/// The config of this name.
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

impl TopicConfig {
    /// Kafka's type code in DescribeConfigs v3+.
    pub fn wire_type(&self) -> i8 {
        match self.rule {
            Bool => 1,
            OneOf(_) => 2,
            IntAtLeast(_) | GzipLevel => 3,
            LongAtLeast(_) => 5,
            Fraction => 6,
            ListOf(_) | Throttle => 7,
        }
    }
}

impl ValueRule {
    /// What a value must be, for people.
    fn expected(self) -> String {
        match self {
            Bool => "true or false".to_owned(),
            IntAtLeast(least) => format!("a 32-bit integer of at least {least}"),
            LongAtLeast(i64::MIN) => "a 64-bit integer".to_owned(),
            LongAtLeast(least) => format!("a 64-bit integer of at least {least}"),
            Fraction => "a number from 0 to 1".to_owned(),
            GzipLevel => "-1, or 1 to 9".to_owned(),
            OneOf(words) => format!("one of {}", words.join(", ")),
            ListOf(words) => format!("a list of {}", words.join(", ")),
            Throttle => "partition:broker pairs, or *".to_owned(),
        }
    }

    fn accepts(self, value: &str) -> bool {
        let value = value.trim();
        match self {
            Bool => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            IntAtLeast(least) => value.parse::<i32>().is_ok_and(|number| least <= number),
            LongAtLeast(least) => value.parse::<i64>().is_ok_and(|number| least <= number),
            Fraction => value.parse::<f64>().is_ok_and(|number| (0.0..=1.0).contains(&number)),
            GzipLevel => matches!(value.parse::<i32>(), Ok(-1 | 1..=9)),
            OneOf(words) => words.contains(&value),
            ListOf(words) => {
                value.is_empty() || value.split(',').all(|word| words.contains(&word.trim()))
            }
            Throttle => value.is_empty() || value == "*" || value.split(',').all(is_pair),
        }
    }
}

/// Whether `text` is `partition:broker`.
fn is_pair(text: &str) -> bool {
    text.split_once(':').is_some_and(|(partition, broker)| {
        partition.trim().parse::<u32>().is_ok() && broker.trim().parse::<u32>().is_ok()
    })
}

/// Checks the configs of a new topic and returns the overrides to store.
///
/// # Errors
/// The first config that is unknown, null, invalid or not honoured.
pub fn validate<'a>(
    configs: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<String, String>, ConfigRejected> {
    let mut overrides = BTreeMap::new();
    for (name, value) in configs {
        let config = topic_config(name).ok_or_else(|| ConfigRejected::Unknown(name.to_owned()))?;
        let value = value.ok_or_else(|| ConfigRejected::Null(name.to_owned()))?;
        if !config.rule.accepts(value) {
            let expected = config.rule.expected();
            let value = value.to_owned();
            return Err(ConfigRejected::Invalid { name: config.name, value, expected });
        }
        if let Support::Only(supported) = config.support
            && !supported.contains(&value.trim())
        {
            let supported = supported.join(" ");
            let value = value.to_owned();
            return Err(ConfigRejected::Unsupported { name: config.name, value, supported });
        }
        overrides.insert(name.to_owned(), value.trim().to_owned());
    }
    Ok(overrides)
}

/// The value of `max.message.bytes` among a topic's overrides.
pub fn max_message_bytes(overrides: &BTreeMap<String, String>) -> usize {
    overrides.get("max.message.bytes").and_then(|value| value.parse().ok()).unwrap_or(1_048_588)
}

/// Whether a topic keeps the last record of each key for ever: `cleanup.policy` without `delete`.
pub fn is_compacted_only(overrides: &BTreeMap<String, String>) -> bool {
    is_compacted(overrides) && !policies(overrides).any(|policy| policy == "delete")
}

/// Whether `cleanup.policy` names `compact`.
pub fn is_compacted(overrides: &BTreeMap<String, String>) -> bool {
    policies(overrides).any(|policy| policy == "compact")
}

fn policies(overrides: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let policy = overrides.get("cleanup.policy").map_or("delete", String::as_str);
    policy.split(',').map(str::trim)
}

/// A topic name's rule (Kafka's): 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub fn is_valid_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}

#[cfg(test)]
mod tests;
