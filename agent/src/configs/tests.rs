//! Laws of configs.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_metadata::{
    machine::config::{
        ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigRejected, ConfigResource,
        Overrides,
    },
    watch::Catalog,
};
use aquifer_storage::model::TopicId;

use super::{
    alter::{AlterRefused, Asked, Operation, Schema, plan},
    layers::{Layers, Source, is_topic_default},
    rule::{ConfigType, Rule, check},
    table::{self, Update},
};
use crate::topic_config::{TOPIC_CONFIGS, topic_config};

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What brokers have dynamically: for all of them, and for node 1.
fn catalog(cluster: &[(&str, &str)], node: &[(&str, &str)]) -> Catalog {
    let key = |name: &str| ConfigKey { kind: ConfigKind::Broker, name: name.to_owned() };
    let layer = |name: &str, pairs| (key(name), Arc::new(overrides(pairs)));
    Catalog { configs: [layer("", cluster), layer("1", node)].into(), ..Catalog::default() }
}

fn topic_of(layers: &Layers<'_>, name: &str, own: &[(&str, &str)]) -> (String, Vec<(String, i8)>) {
    let config = topic_config(name).unwrap();
    let described = layers.topic_value(config, &overrides(own));
    let found = described.synonyms.iter();
    let found = found.map(|one| (format!("{}={}", one.name, one.value), one.source.code()));
    let first = described.synonyms.first().map_or(Source::Default, |one| one.source);
    assert_eq!(described.source, first);
    (described.value.unwrap(), found.collect())
}

fn listed(found: &[(&str, i8)]) -> Vec<(String, i8)> {
    found.iter().map(|(name, source)| ((*name).to_owned(), *source)).collect()
}

#[test]
fn tables_are_whole_and_their_defaults_obey_their_own_rules() {
    assert_eq!(table::broker().len(), 343);
    assert_eq!(table::group().len(), 17);
    assert_eq!(table::client_metrics().len(), 3);
    let all = [table::broker(), table::group(), table::client_metrics()];
    for config in all.into_iter().flat_map(BTreeMap::values) {
        let Some(default) = config.default else { continue };
        // Kafka's own defaults that Kafka's own rules would refuse.
        let is_exception = ["authorizer.class.name", "log.cleaner.io.max.bytes.per.second"];
        if is_exception.contains(&config.name) {
            continue;
        }
        let checked = check(config.name, default, config.config_type, config.rule);
        assert_eq!(checked.as_deref(), Ok(default), "{}", config.name);
    }
    for config in table::group().values() {
        for broker in config.broker.into_iter().flatten() {
            assert!(table::broker().contains_key(broker), "{}: {broker}", config.name);
        }
    }
}

#[test]
fn every_default_of_topics_is_a_broker_config_of_the_same_default() {
    let (catalog, given) = (Catalog::default(), BTreeMap::new());
    let layers = Layers::new(&catalog, 1, &given);
    for config in TOPIC_CONFIGS {
        assert_eq!(layers.inherited(config), config.default, "{}", config.name);
        let name = super::layers::broker_name(config);
        assert!(name.is_none_or(|name| table::broker().contains_key(name)), "{}", config.name);
    }
    assert!(is_topic_default("log.retention.hours") && is_topic_default("message.max.bytes"));
    assert!(!is_topic_default("num.partitions"));
}

#[test]
fn a_topic_without_an_override_has_what_brokers_have_and_the_nearest_layer_counts() {
    let given = overrides(&[("message.max.bytes", "30")]);
    let mut state = catalog(&[("message.max.bytes", "20")], &[("message.max.bytes", "10")]);
    let all = listed(&[
        ("max.message.bytes=5", 1),
        ("message.max.bytes=10", 2),
        ("message.max.bytes=20", 3),
        ("message.max.bytes=30", 4),
        ("message.max.bytes=1048588", 5),
    ]);
    let layers = Layers::new(&state, 1, &given);
    let own = topic_of(&layers, "max.message.bytes", &[("max.message.bytes", "5")]);
    assert_eq!(own, ("5".to_owned(), all.clone()));
    assert_eq!(topic_of(&layers, "max.message.bytes", &[]), ("10".to_owned(), all[1..].to_vec()));
    let other = Layers::new(&state, 2, &given);
    assert_eq!(topic_of(&other, "max.message.bytes", &[]), ("20".to_owned(), all[2..].to_vec()));
    state.configs.clear();
    let none = Layers::new(&state, 1, &given);
    assert_eq!(topic_of(&none, "max.message.bytes", &[]), ("30".to_owned(), all[3..].to_vec()));
}

/// As a Kafka broker describes them.
#[test]
fn coarser_units_count_where_finer_ones_are_not_set_and_are_listed_behind_them_only() {
    let given = overrides(&[("log.retention.hours", "24")]);
    let state = Catalog::default();
    let layers = Layers::new(&state, 1, &given);
    assert_eq!(topic_of(&layers, "retention.ms", &[]), ("86400000".to_owned(), Vec::new()));
    let state = catalog(&[("log.retention.ms", "7200000")], &[]);
    let layers = Layers::new(&state, 1, &given);
    let found = listed(&[
        ("log.retention.ms=7200000", 3),
        ("log.retention.hours=24", 4),
        ("log.retention.hours=168", 5),
    ]);
    assert_eq!(topic_of(&layers, "retention.ms", &[]), ("7200000".to_owned(), found));
    let state = catalog(&[("log.retention.ms", "-5")], &[]);
    let layers = Layers::new(&state, 1, &given);
    assert_eq!(topic_of(&layers, "retention.ms", &[]).0, "-1", "for ever");
}

#[test]
fn a_groups_default_is_the_brokers() {
    // What another agent was given counts, and not this one's.
    let given = overrides(&[("group.consumer.session.timeout.ms", "46000")]);
    let mut state = Catalog::default();
    let told = overrides(&[("group.consumer.session.timeout.ms", "50000")]);
    state.configs.insert(ConfigKey::group_defaults(), Arc::new(told));
    let layers = Layers::new(&state, 1, &given);
    let config = &table::group()["consumer.session.timeout.ms"];
    let described = layers.group_value(config, &Overrides::new());
    assert_eq!((described.value.as_deref(), described.source), (Some("50000"), Source::Static));
    let own = overrides(&[("consumer.session.timeout.ms", "45000")]);
    let described = layers.group_value(config, &own);
    assert_eq!((described.value.as_deref(), described.source), (Some("45000"), Source::Group));
    assert_eq!(described.synonyms.len(), 3);
}

fn one(schema: Schema, asked: &[(&str, Operation, Option<&str>)]) -> Result<Vec<String>, String> {
    let asked: Vec<Asked<'_>> = asked
        .iter()
        .map(|(name, operation, value)| Asked { name, operation: *operation, value: *value })
        .collect();
    let (state, given) = (Catalog::default(), BTreeMap::new());
    let layers = Layers::new(&state, 1, &given);
    let resource = ConfigResource::Topic(TopicId::from_bytes([1; 16]));
    match plan(schema, resource, (&asked, false), &layers) {
        Err(refused @ AlterRefused::Config(_)) => Err(format!("40 {refused}")),
        Err(refused @ AlterRefused::Request(_)) => Err(format!("42 {refused}")),
        Err(refused) => Err(format!("{refused}")),
        Ok(change) => {
            let ConfigChange::Incremental(ops) = change.change else { panic!("not asked") };
            Ok(ops
                .into_iter()
                .map(|op| match op.action {
                    ConfigAction::Set(value) => value,
                    other => format!("{other:?}"),
                })
                .collect())
        }
    }
}

/// Schema, config, operation (`=` set, `+` append, `-` subtract, `x` delete), value, and what a
/// Kafka 4.3.1 broker answers: the value as it describes it, or the code and the words.
const ANSWERS: &str = include_str!("answers.tsv");

#[test]
fn values_are_judged_as_a_kafka_4_3_broker_does() {
    let mut count = 0;
    for line in ANSWERS.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [schema, name, operation, value, expected] = cells[..] else { panic!("{line}") };
        let schema = match schema {
            "topic" => Schema::Topic,
            "brokers" => Schema::AllBrokers,
            "broker" => Schema::OneBroker,
            "group" => Schema::Group,
            _ => Schema::ClientMetrics,
        };
        let operation = match operation {
            "=" => Operation::Set,
            "+" => Operation::Append,
            "-" => Operation::Subtract,
            _ => Operation::Delete,
        };
        let value = Some(value).filter(|value| *value != "<null>");
        let answer = match one(schema, &[(name, operation, value)]) {
            Ok(_) if expected == "ok" => "ok".to_owned(),
            Ok(values) => values.join(""),
            Err(words) => words,
        };
        assert_eq!(answer, expected, "{line}");
        count += 1;
    }
    assert!(90 < count, "{count}");
}

#[test]
fn a_config_named_twice_or_too_much_at_once_is_refused() {
    let set = |name, value| (name, Operation::Set, Some(value));
    let twice = [set("retention.ms", "1"), ("retention.ms", Operation::Delete, None)];
    let words = "42 Error due to duplicate config keys";
    assert_eq!(one(Schema::Topic, &twice), Err(words.to_owned()));
    let long = "x".repeat(65 << 10);
    let full = one(Schema::OneBroker, &[set("no.such", &long)]).unwrap_err();
    assert!(full.contains("64 KiB"), "{full}");
    let name = "n".repeat(256);
    assert!(one(Schema::Topic, &[(&name, Operation::Delete, None)]).is_err());
    let read_only = [set("num.partitions", "1"), set("max.connections", "5"), set("node.id", "3")];
    let words = "42 Cannot update these configs dynamically: [node.id, num.partitions]";
    assert_eq!(one(Schema::OneBroker, &read_only), Err(words.to_owned()));
}

#[test]
fn lags_of_compaction_must_stand_in_their_order_also_against_what_is_inherited() {
    let state = catalog(&[("log.cleaner.max.compaction.lag.ms", "5")], &[]);
    let given = BTreeMap::new();
    let layers = Layers::new(&state, 1, &given);
    let asked =
        [Asked { name: "min.compaction.lag.ms", operation: Operation::Set, value: Some("10") }];
    let resource = ConfigResource::Topic(TopicId::from_bytes([1; 16]));
    let change = plan(Schema::Topic, resource, (&asked, false), &layers).unwrap();
    let refused = change.changed(&Overrides::new()).unwrap_err();
    assert!(matches!(refused, ConfigRejected::Order { .. }));
    assert_eq!(
        AlterRefused::Rejected(refused).to_string(),
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    );
    let room = overrides(&[("max.compaction.lag.ms", "10")]);
    assert!(change.changed(&room).is_ok());
}

#[test]
fn no_secret_is_taken_and_none_would_be_shown() {
    for config in table::broker().values().filter(|config| config.is_sensitive()) {
        for schema in [Schema::OneBroker, Schema::AllBrokers] {
            let refused = one(schema, &[(config.name, Operation::Set, Some("secret"))]);
            assert!(refused.is_err(), "{}", config.name);
        }
    }
    assert!(table::broker().values().any(|config| config.update == Update::Listener));
}

#[test]
fn numbers_are_kept_as_kafka_prints_them() {
    let double = |value| check("d", value, ConfigType::Double, Rule::Within(Some("0"), Some("1")));
    assert_eq!(double("0.50").as_deref(), Ok("0.5"));
    assert_eq!(double(" 1 ").as_deref(), Ok("1.0"));
    assert!(double("1.01").is_err());
    for good in ["PT1H", "P1D", "P2DT3M4.5S", "PT0S"] {
        let value = format!("by_duration:{good}");
        assert!(check("r", &value, ConfigType::String, Rule::OffsetReset).is_ok(), "{good}");
    }
    for bad in ["", "P", "PT", "-PT1H", "PT1X", "1H", "PT1.5H", "P1DT"] {
        let value = format!("by_duration:{bad}");
        assert!(check("r", &value, ConfigType::String, Rule::OffsetReset).is_err(), "{bad}");
    }
}
