//! Kafka's tables of broker, group and client metrics configs: `*.tsv` beside this file, as a 4.3.1
//! broker describes them. The first line of each names the columns. Values that are this agent's
//! own are not in them.
//!
//! `update` says how a broker config may change while brokers run: `read-only`; `cluster`, for all
//! or one; `node`, for one only; `listener`, under a listener's prefix only; `hidden`, like
//! `cluster` and never described.

use std::{collections::BTreeMap, sync::LazyLock};

use super::rule::{ConfigType, Rule};

/// How a broker config may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Not while the broker runs.
    ReadOnly,
    /// For all brokers, or for one.
    Cluster,
    /// For one broker only.
    Node,
    /// Under the prefix of a listener only.
    Listener,
    /// As `Cluster`; not described.
    Hidden,
}

/// One config.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Kafka's name.
    pub name: &'static str,
    /// Its type.
    pub config_type: ConfigType,
    /// Kafka's default; `None` is null.
    pub default: Option<&'static str>,
    /// What its value may be.
    pub rule: Rule,
    /// How it changes; of brokers only, elsewhere [`Update::Cluster`].
    pub update: Update,
    /// Of a group config: the broker configs with its default, its least and its greatest value.
    pub broker: [Option<&'static str>; 3],
}

impl Definition {
    /// Whether its value is never shown.
    pub fn is_sensitive(&self) -> bool {
        self.config_type == ConfigType::Password
    }
}

/// Configs by name.
pub type Table = BTreeMap<&'static str, Definition>;

/// Every broker config.
pub fn broker() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| read(include_str!("broker.tsv")));
    &TABLE
}

/// Every group config.
pub fn group() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| read(include_str!("group.tsv")));
    &TABLE
}

/// Every client metrics config.
pub fn client_metrics() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| read(include_str!("client_metrics.tsv")));
    &TABLE
}

/// Reads a table. It is part of the program: what is wrong with it is a bug, and a test reads all.
fn read(text: &'static str) -> Table {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    lines.map(|line| row(&columns, line)).map(|one| (one.name, one)).collect()
}

fn row(columns: &[&str], line: &'static str) -> Definition {
    let cells: Vec<&'static str> = line.split('\t').collect();
    let cell = |name: &str| {
        let place = columns.iter().position(|column| *column == name);
        place.and_then(|place| cells.get(place)).copied().unwrap_or_default()
    };
    let config_type = ConfigType::named(cell("type"));
    let config_type = config_type.unwrap_or_else(|| panic!("a type is unknown: {line}"));
    let update = match cell("update") {
        "read-only" => Update::ReadOnly,
        "node" => Update::Node,
        "listener" => Update::Listener,
        "hidden" => Update::Hidden,
        _ => Update::Cluster,
    };
    let named = |name| Some(cell(name)).filter(|name| !name.is_empty());
    Definition {
        name: cell("name"),
        config_type,
        default: Some(cell("default")).filter(|default| *default != "<null>"),
        rule: rule(cell("rule")).unwrap_or_else(|| panic!("a rule is unknown: {line}")),
        update,
        broker: [named("broker"), named("least"), named("most")],
    }
}

fn rule(text: &'static str) -> Option<Rule> {
    let words = |text: &'static str| -> &'static [&'static str] {
        // Once for each of a handful of rules: tables live as long as the process.
        text.split(',').collect::<Vec<_>>().leak()
    };
    if let Some(range) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let (least, most) = range.split_once(",...").unwrap_or((range, ""));
        let bound = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        return Some(Rule::Within(bound(least), bound(most.trim_start_matches(','))));
    }
    let listed = text.strip_prefix("one of ").or_else(|| text.strip_prefix("items of "));
    if let Some(listed) = listed {
        return Some(Rule::OneOf(words(listed)));
    }
    if let Some(listed) = text.strip_prefix("any case of ") {
        return Some(Rule::AnyCaseOf(words(listed)));
    }
    Some(match text {
        "" => Rule::Any,
        "non-empty" => Rule::NonEmpty,
        "gzip level" => Rule::GzipLevel,
        "offset reset" => Rule::OffsetReset,
        _ => return None,
    })
}
