//! Topic configs [pure]: Kafka's names, defaults and rules, and which of them do something here.
//!
//! A known config that has no meaning in a bucket is validated, stored and reported, as Kafka does
//! with configs of features a cluster does not use. A config that *asks for behaviour* this version
//! does not have is refused, for ignoring it would break a promise silently. `compact` is taken
//! although nothing is compacted yet: a topic that keeps more than it must breaks none.

use std::collections::BTreeMap;

use crate::configs::rule::{self, ConfigType, Rule};

/// How a value is checked and how tools see its type. Bounds are written as Kafka prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRule {
    /// `true` or `false`.
    Bool,
    /// A 32-bit integer of at least this.
    IntAtLeast(&'static str),
    /// A 32-bit integer from the first to the second.
    IntWithin(&'static str, &'static str),
    /// A 64-bit integer.
    Long,
    /// A 64-bit integer of at least this.
    LongAtLeast(&'static str),
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
}

/// Why a set of configs was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRejected {
    /// Not a config of Kafka 4.3.
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    /// Null values.
    #[error("Null value not supported for topic configs: {0}")]
    Null(String),
    /// The value breaks the config's rule, in Kafka's words.
    #[error("{0}")]
    Invalid(String),
    /// Remote storage, which Kafka refuses in these words where it is off.
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with \
         remote log storage."
    )]
    Tiered,
}

const MAX: &str = "9223372036854775807";
const REMOTE_STORAGE: &str = "remote.storage.enable";
const NAMES_CODEC: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const fn config(
    name: &'static str,
    broker_name: &'static str,
    default: &'static str,
    rule: ValueRule,
) -> TopicConfig {
    TopicConfig { name, broker_name, default, rule }
}

use ValueRule::{
    Bool, Fraction, GzipLevel, IntAtLeast, IntWithin, ListOf, Long, LongAtLeast, OneOf, Throttle,
};

/// Every topic config of Kafka 4.3, by name.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    config("cleanup.policy", "log.cleanup.policy", "delete", ListOf(&["compact", "delete"])),
    config("compression.gzip.level", "compression.gzip.level", "-1", GzipLevel),
    config("compression.lz4.level", "compression.lz4.level", "9", IntWithin("1", "17")),
    config("compression.type", "compression.type", "producer", OneOf(NAMES_CODEC)),
    config("compression.zstd.level", "compression.zstd.level", "3", IntWithin("-131072", "22")),
    config("delete.retention.ms", "log.cleaner.delete.retention.ms", "86400000", LongAtLeast("0")),
    config("file.delete.delay.ms", "log.segment.delete.delay.ms", "60000", LongAtLeast("0")),
    config("flush.messages", "log.flush.interval.messages", MAX, LongAtLeast("1")),
    config("flush.ms", "", MAX, LongAtLeast("0")),
    config("follower.replication.throttled.replicas", "", "", Throttle),
    config("index.interval.bytes", "log.index.interval.bytes", "4096", IntAtLeast("0")),
    config("leader.replication.throttled.replicas", "", "", Throttle),
    config("local.retention.bytes", "log.local.retention.bytes", "-2", LongAtLeast("-2")),
    config("local.retention.ms", "log.local.retention.ms", "-2", LongAtLeast("-2")),
    config("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", MAX, LongAtLeast("1")),
    config("max.message.bytes", "message.max.bytes", "1048588", IntAtLeast("0")),
    config(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "3600000",
        LongAtLeast("0"),
    ),
    config(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        MAX,
        LongAtLeast("0"),
    ),
    config(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
    ),
    config("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", "0.5", Fraction),
    config("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", "0", LongAtLeast("0")),
    config("min.insync.replicas", "min.insync.replicas", "1", IntAtLeast("1")),
    config("preallocate", "log.preallocate", "false", Bool),
    config("remote.log.copy.disable", "", "false", Bool),
    config("remote.log.delete.on.disable", "", "false", Bool),
    config(REMOTE_STORAGE, "", "false", Bool),
    config("retention.bytes", "log.retention.bytes", "-1", Long),
    config("retention.ms", "", "604800000", LongAtLeast("-1")),
    config("segment.bytes", "log.segment.bytes", "1073741824", IntAtLeast("1048576")),
    config("segment.index.bytes", "log.index.size.max.bytes", "10485760", IntAtLeast("4")),
    config("segment.jitter.ms", "", "0", LongAtLeast("0")),
    config("segment.ms", "", "604800000", LongAtLeast("1")),
    config("unclean.leader.election.enable", "unclean.leader.election.enable", "false", Bool),
    // Ours: whether every record of a batch is looked at, or its header only.
    config("aquifer.validate", "", "header", OneOf(&["header", "full"])),
];

/// The config of this name.
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

impl ValueRule {
    /// Kafka's type, and what beside it.
    pub const fn parts(self) -> (ConfigType, Rule) {
        match self {
            Bool => (ConfigType::Boolean, Rule::Any),
            IntAtLeast(least) => (ConfigType::Int, Rule::Within(Some(least), None)),
            IntWithin(least, most) => (ConfigType::Int, Rule::Within(Some(least), Some(most))),
            Long => (ConfigType::Long, Rule::Any),
            LongAtLeast(least) => (ConfigType::Long, Rule::Within(Some(least), None)),
            Fraction => (ConfigType::Double, Rule::Within(Some("0"), Some("1"))),
            GzipLevel => (ConfigType::Int, Rule::GzipLevel),
            OneOf(words) => (ConfigType::String, Rule::OneOf(words)),
            ListOf(words) => (ConfigType::List, Rule::OneOf(words)),
            Throttle => (ConfigType::List, Rule::Throttle),
        }
    }
}

/// The value of a topic config as it is stored.
///
/// # Errors
/// It is unknown or invalid, or asks for remote storage.
pub fn check(name: &str, value: &str) -> Result<String, ConfigRejected> {
    let config = topic_config(name).ok_or_else(|| ConfigRejected::Unknown(name.to_owned()))?;
    let (config_type, rule) = config.rule.parts();
    let value = rule::check(name, value, config_type, rule).map_err(ConfigRejected::Invalid)?;
    if name == REMOTE_STORAGE && value != "false" {
        return Err(ConfigRejected::Tiered);
    }
    Ok(value)
}

/// Checks the configs of a new topic and returns the overrides to store. The last of several values
/// of one config counts.
///
/// # Errors
/// The first config that is null, unknown or invalid, or asks for remote storage.
pub fn validate<'a>(
    configs: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<String, String>, ConfigRejected> {
    let configs: Vec<_> = configs.collect();
    let nulls: Vec<&str> =
        configs.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    if !nulls.is_empty() {
        return Err(ConfigRejected::Null(nulls.join(",")));
    }
    if let Some((name, _)) = configs.iter().find(|(name, _)| topic_config(name).is_none()) {
        return Err(ConfigRejected::Unknown((*name).to_owned()));
    }
    let one = |(name, value): (&str, Option<&str>)| {
        check(name, value.unwrap_or_default()).map(|value| (name.to_owned(), value))
    };
    configs.into_iter().map(one).collect()
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
