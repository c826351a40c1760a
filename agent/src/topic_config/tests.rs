//! Laws of topic configs.

use super::*;

fn check(name: &str, value: Option<&str>) -> Result<BTreeMap<String, String>, ConfigRejected> {
    validate([(name, value)].into_iter())
}

#[test]
fn every_default_obeys_its_own_rule_and_is_supported() {
    for config in TOPIC_CONFIGS {
        assert!(check(config.name, Some(config.default)).is_ok(), "{}", config.name);
    }
}

#[test]
fn names_are_sorted_and_complete() {
    let (kafkas, ours) = TOPIC_CONFIGS.split_at(33);
    assert!(kafkas.is_sorted_by(|a, b| a.name < b.name));
    assert!(ours.iter().all(|config| config.name.starts_with("aquifer.")));
}

#[test]
fn unknown_null_and_invalid_values_are_told_apart() {
    assert!(matches!(check("no.such", Some("1")), Err(ConfigRejected::Unknown(_))));
    assert!(matches!(check("retention.ms", None), Err(ConfigRejected::Null(_))));
    for (name, value) in [
        ("retention.ms", "-2"),
        ("retention.ms", "soon"),
        ("segment.bytes", "1048575"),
        ("cleanup.policy", "shred"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("preallocate", "yes"),
    ] {
        assert!(matches!(check(name, Some(value)), Err(ConfigRejected::Invalid(_))), "{name}");
    }
}

#[test]
fn behaviour_that_is_not_there_is_refused_not_ignored() {
    assert_eq!(check("remote.storage.enable", Some("true")), Err(ConfigRejected::Tiered));
}

#[test]
fn topic_names_follow_kafkas_rule() {
    for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
        assert!(is_valid_topic_name(good));
    }
    for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
        assert!(!is_valid_topic_name(bad));
    }
}

#[test]
fn the_table_is_what_a_kafka_4_3_broker_describes() {
    let types = ["", "BOOLEAN", "STRING", "INT", "", "LONG", "DOUBLE", "LIST"];
    let oracle = include_str!("oracle.tsv");
    let rows: Vec<Vec<&str>> =
        oracle.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 33);
    for (row, config) in rows.iter().zip(TOPIC_CONFIGS) {
        let synonym = row[6].rsplit(',').next().unwrap_or_default();
        assert_eq!(row[0], config.name);
        assert_eq!(row[1], types[config.rule.parts().0.code() as usize], "{}", config.name);
        assert_eq!(row[2], config.default, "{}", config.name);
        assert_eq!(synonym.split('@').next().unwrap_or_default(), config.broker_name);
    }
}
