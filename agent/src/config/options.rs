//! Server settings by their Kafka or Aquifer names, each with its range.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use aquifer_metadata::{machine::group::GroupSettings, node::expiry::OffsetExpiry};

use super::{ConfigError, value::ByteSize};
use crate::{
    configs::{group_defaults, layers, rule, table},
    placement::zone::ZoneBlocks,
};

/// Server settings with meaning here, by their Kafka or Aquifer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `default.replication.factor`: what Metadata shows for automatically created topics.
    pub default_replication_factor: u16,
    /// `flush.interval.ms`: the longest a batch waits for its object to fill, in milliseconds.
    pub flush_interval_ms: u64,
    /// `object.size`: the writer closes an object at this many bytes.
    pub object_bytes: usize,
    /// `put.budget`: PUTs per second, bursts of ten times that up to 100.
    pub puts_per_second: Option<u32>,
    /// `fetch.max.bytes`: the most one Fetch answers.
    pub fetch_bytes_max: usize,
    /// `socket.request.max.bytes`: the largest frame.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_ms_max: u64,
    /// `drain.delay.ms`: how long a draining agent keeps serving after `/readyz` turned 503, so
    /// that a load balancer moves its clients first. `None` means not set: see
    /// [`super::Settings::drain_delay`].
    pub drain_delay_ms: Option<u64>,
    /// `backup.interval`: how long committed metadata may wait until it is shipped to the bucket.
    pub backup_interval: Duration,
    /// `backup.keep`: how long older backups of the metadata stay in the bucket.
    pub backup_keep: Duration,
    /// `group.lag.interval`: how often the lag of groups is asked for; zero for never.
    pub group_lag_interval: Duration,
    /// `group.lag.series.max`: the most partitions of groups whose lag one agent tells.
    pub group_lag_series_max: usize,
    /// `client.zone.blocks`: zones by client address, such as
    /// `10.0.0.0/16=us-east-1a,10.1.0.0/16=us-east-1b`; a zone in the client id goes before.
    pub client_zone_blocks: ZoneBlocks,
    /// `offsets.retention.minutes` and `offsets.retention.check.interval.ms`, of a metadata node.
    pub offset_expiry: OffsetExpiry,
    /// `group.initial.rebalance.delay.ms`, `group.max.size`, `group.min.session.timeout.ms` and
    /// `group.max.session.timeout.ms`, if one of them was given.
    pub group_limits: Option<GroupSettings>,
    /// Every setting that was given, as text by its name. Also the defaults of topics and groups
    /// under Kafka's broker names, such as `log.retention.ms` or
    /// `group.consumer.session.timeout.ms`, which brokers' dynamic configs go before.
    pub given: BTreeMap<String, String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            delete_topics: true,
            default_replication_factor: 1,
            flush_interval_ms: 100,
            object_bytes: 8 << 20,
            puts_per_second: None,
            fetch_bytes_max: 55 << 20,
            request_bytes_max: 100 << 20,
            idle_ms_max: 600_000,
            drain_delay_ms: None,
            backup_interval: Duration::from_secs(15),
            backup_keep: Duration::from_secs(60 * 60),
            group_lag_interval: Duration::from_secs(30),
            group_lag_series_max: 10_000,
            client_zone_blocks: ZoneBlocks::default(),
            offset_expiry: OffsetExpiry::default(),
            group_limits: None,
            given: BTreeMap::new(),
        }
    }
}

impl ServerOptions {
    /// Sets one; an error names it and where it came from.
    pub(super) fn set(&mut self, name: &str, value: &str, from: &str) -> Result<(), ConfigError> {
        match name {
            "auto.create.topics.enable" => self.auto_create_topics = parse(name, value, from)?,
            "delete.topic.enable" => self.delete_topics = parse(name, value, from)?,
            "default.replication.factor" => {
                self.default_replication_factor = parse(name, value, from)?;
            }
            "flush.interval.ms" => {
                self.flush_interval_ms = bounded(name, value, from, 1, 10_000)?;
            }
            "object.size" => {
                let bytes: ByteSize = parse(name, value, from)?;
                let range = 64 << 10..=64 << 20;
                if !range.contains(&bytes.0) {
                    return Err(ConfigError::server(name, from, "must be 64KiB to 64MiB"));
                }
                self.object_bytes = bytes.0 as usize;
            }
            "put.budget" => {
                let puts: u64 = bounded(name, value, from, 1, 100_000)?;
                self.puts_per_second = Some(puts as u32);
            }
            "fetch.max.bytes" => {
                self.fetch_bytes_max = bounded(name, value, from, 1024, 1 << 30)? as usize;
            }
            "socket.request.max.bytes" => {
                self.request_bytes_max = bounded(name, value, from, 1 << 16, 1 << 30)? as usize;
            }
            "connections.max.idle.ms" => {
                self.idle_ms_max = bounded(name, value, from, 1000, u64::MAX)?;
            }
            "client.zone.blocks" => self.client_zone_blocks = parse(name, value, from)?,
            "drain.delay.ms" => {
                self.drain_delay_ms = Some(bounded(name, value, from, 0, 600_000)?);
            }
            "backup.interval" => {
                let range = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
                self.backup_interval = period(name, value, from, range)?;
            }
            "backup.keep" => {
                let range = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
                self.backup_keep = period(name, value, from, range)?;
            }
            "group.lag.interval" => {
                let least = if value == "0s" { 0 } else { 100 };
                let range = Duration::from_millis(least)..=Duration::from_secs(60 * 60);
                self.group_lag_interval = period(name, value, from, range)?;
            }
            "group.lag.series.max" => {
                self.group_lag_series_max = bounded(name, value, from, 0, 1_000_000)? as usize;
            }
            _ if self.set_of_groups(name, value, from)? => {}
            _ => {
                let is_default = layers::is_topic_default(name) || group_defaults::is_one(name);
                let known = table::broker().get(name).filter(|_| is_default);
                let Some(known) = known else {
                    return Err(ConfigError::server(name, from, "unknown, or not honoured here"));
                };
                let value = rule::check(name, value, known.config_type, known.rule)
                    .map_err(|words| ConfigError::server(name, from, words))?;
                self.given.insert(name.to_owned(), value);
                return Ok(());
            }
        }
        self.given.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Settings of groups; false for another's name.
    fn set_of_groups(&mut self, name: &str, value: &str, from: &str) -> Result<bool, ConfigError> {
        match name {
            "group.initial.rebalance.delay.ms" => {
                let delay_ms = bounded(name, value, from, 0, INT_MAX)? as u32;
                let limits = self.group_limits.get_or_insert_default();
                limits.initial_rebalance_delay_ms = delay_ms;
            }
            "offsets.retention.minutes" => {
                let minutes = bounded(name, value, from, 1, INT_MAX)?;
                self.offset_expiry.retention = Duration::from_secs(60 * minutes);
            }
            "offsets.retention.check.interval.ms" => {
                let interval_ms = bounded(name, value, from, 1, u64::MAX)?;
                self.offset_expiry.check_interval = Duration::from_millis(interval_ms);
            }
            "group.max.size" => {
                let max_size = bounded(name, value, from, 1, INT_MAX)? as u32;
                self.group_limits.get_or_insert_default().max_size = max_size;
            }
            "group.min.session.timeout.ms" => {
                let timeout_ms = bounded(name, value, from, 0, INT_MAX)? as u32;
                self.group_limits.get_or_insert_default().session_timeout_min_ms = timeout_ms;
            }
            "group.max.session.timeout.ms" => {
                let timeout_ms = bounded(name, value, from, 0, INT_MAX)? as u32;
                self.group_limits.get_or_insert_default().session_timeout_max_ms = timeout_ms;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The largest value of Kafka's INT.
const INT_MAX: u64 = i32::MAX as u64;

/// Reads any value.
pub(super) fn parse<T: FromStr<Err: fmt::Display>>(
    name: &str,
    value: &str,
    from: &str,
) -> Result<T, ConfigError> {
    value.parse().map_err(|error| ConfigError::server(name, from, format!("{value:?}: {error}")))
}

fn bounded(name: &str, value: &str, from: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    let number: u64 = parse(name, value, from)?;
    if min <= number && number <= max {
        Ok(number)
    } else {
        Err(ConfigError::server(name, from, format!("{number} is not in {min}..={max}")))
    }
}

/// A time with its unit: `500ms`, `15s`, `90m`, `1h`, `7d`.
fn period(
    name: &str,
    value: &str,
    from: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = value[..value.len() - unit.len()].parse().ok();
    let millis: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let millis = number.zip(millis).and_then(|(number, unit)| number.checked_mul(unit));
    let Some(period) = millis.map(Duration::from_millis) else {
        let reason = format!("{value:?} is no time with its unit, such as 500ms, 15s, 90m or 1h");
        return Err(ConfigError::server(name, from, reason));
    };
    if range.contains(&period) {
        Ok(period)
    } else {
        let reason = format!("{value} is not from {:?} to {:?}", range.start(), range.end());
        Err(ConfigError::server(name, from, reason))
    }
}
