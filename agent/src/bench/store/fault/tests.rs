//! Laws of fault rules.

use super::{super::request::target, *};

fn rules(json: &str) -> FaultRules {
    FaultRules::parse(json.as_bytes(), 1).unwrap()
}

fn refused(json: &str) -> String {
    FaultRules::parse(json.as_bytes(), 1).unwrap_err().to_string()
}

fn put(key: &str) -> Target {
    target("PUT", &format!("/b/{key}"), "").unwrap()
}

fn get(key: &str) -> Target {
    target("GET", &format!("/b/{key}"), "").unwrap()
}

#[test]
fn the_first_rule_that_applies_wins_until_its_count_is_used_up() {
    let mut rules = rules(
        r#"{"rules":[
            {"method":"PUT","action":"status:503","count":2,"key_contains":"wal/"},
            {"method":"PUT","action":"hang","count":null},
            {"method":"*","action":"slow:2.5"}]}"#,
    );
    assert_eq!(rules.next_action(&put("wal/1")), Some(Action::Status(503)));
    assert_eq!(rules.next_action(&put("other")), Some(Action::Hang));
    assert_eq!(rules.next_action(&get("wal/1")), Some(Action::Slow(2.5)));
    assert_eq!(rules.next_action(&put("a/wal/2")), Some(Action::Status(503)));
    assert_eq!(rules.next_action(&put("wal/3")), Some(Action::Hang));
    let left = serde_json::to_value(&rules).unwrap();
    assert_eq!(
        (&left["rules"][0]["count"], &left["rules"][1]["count"]),
        (&0.into(), &None::<u8>.into())
    );
    assert_eq!(left["rules"][2]["action"], "slow:2.5");
}

#[test]
fn a_rule_is_about_its_kind_only() {
    let list = target("GET", "/b", "list-type=2&prefix=wal/").unwrap();
    let bulk = target("POST", "/b", "delete").unwrap();
    let delete = target("DELETE", "/b/k", "").unwrap();
    let head = target("HEAD", "/b/k", "").unwrap();
    let of_each = [&put("k"), &get("k"), &head, &list, &delete, &bulk];
    for (index, name) in ["PUT", "GET", "HEAD", "LIST", "DELETE", "POST"].iter().enumerate() {
        let json = format!(r#"{{"rules":[{{"method":"{name}","action":"reset"}}]}}"#);
        for (other, target) in of_each.iter().enumerate() {
            let hit = rules(&json).next_action(target);
            assert_eq!(hit.is_some(), index == other, "{name} {target:?}");
        }
    }
    let json = r#"{"rules":[{"method":"*","action":"drop-answer","key_contains":"wal"}]}"#;
    assert_eq!(rules(json).next_action(&list), Some(Action::DropAnswer));
    assert_eq!(rules(json).next_action(&bulk), None);
}

#[test]
fn a_fraction_is_seeded_and_leaves_the_rest_to_later_rules() {
    let json = r#"{"rules":[{"method":"PUT","action":"reset","fraction":0.25},
                            {"method":"PUT","action":"hang"}]}"#;
    let draw = |seed| -> Vec<_> {
        let mut rules = FaultRules::parse(json.as_bytes(), seed).unwrap();
        (0..4000).map(|_| rules.next_action(&put("k")).unwrap()).collect()
    };
    let drawn = draw(5);
    let resets = drawn.iter().filter(|action| **action == Action::Reset).count();
    assert!((900..1100).contains(&resets), "{resets}");
    assert_eq!(drawn, draw(5));
    assert_ne!(drawn, draw(6));
    let never = r#"{"rules":[{"method":"PUT","action":"reset","fraction":0,"count":1}]}"#;
    let mut never = rules(never);
    assert!((0..1000).all(|_| never.next_action(&put("k")).is_none()));
}

#[test]
fn what_cannot_be_read_is_refused_with_what_and_where() {
    let message = refused("{\"rules\":[\n {\"method\":\"PUT\",\"action\":\"explode\"}]}");
    assert!(message.contains("\"explode\"") && message.contains("line 2"), "{message}");
    let message = refused(r#"{"rules":[{"method":"PUSH","action":"hang"}]}"#);
    assert!(message.contains("PUSH") && message.contains("column 26"), "{message}");
    for (json, what) in [
        (r#"{"rules":[{"action":"hang"}]}"#, "missing field `method`"),
        (r#"{"rules":[{"method":"PUT"}]}"#, "missing field `action`"),
        (r#"{"rules":[{"method":"PUT","action":"hang","when":1}]}"#, "`when`"),
        (r#"{"rules":[{"method":"PUT","action":"hang","fraction":1.5}]}"#, "fraction 1.5"),
        (r#"{"rules":[{"method":"PUT","action":"hang","count":-1}]}"#, "-1"),
        (r#"{"rules":[{"method":"PUT","action":"status:200"}]}"#, "status:200"),
        (r#"{"rules":[{"method":"PUT","action":"status:"}]}"#, "status:"),
        (r#"{"rules":[{"method":"PUT","action":"slow:0.5"}]}"#, "slow:0.5"),
        (r#"{"rules":[{"method":"PUT","action":"slow:NaN"}]}"#, "slow:NaN"),
        (r#"{"rules":{}}"#, "invalid type"),
        ("{}", "missing field `rules`"),
        ("", "EOF"),
        ("\u{7f}", "line 1 column 1"),
    ] {
        let message = refused(json);
        assert!(message.contains(what), "{json}: {message}");
    }
    let rule = r#"{"method":"PUT","action":"hang"}"#;
    let many = format!("{{\"rules\":[{}]}}", vec![rule; RULES_MAX + 1].join(","));
    assert_eq!(refused(&many), "1001 fault rules are more than 1000");
}
