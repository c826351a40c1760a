//! Laws of changes of configs.

use super::*;

fn op(name: &str, action: ConfigAction) -> ConfigOp {
    ConfigOp { name: name.into(), action }
}

fn set(name: &str, value: &str) -> ConfigOp {
    op(name, ConfigAction::Set(value.into()))
}

fn list(items: &str) -> ListChange {
    ListChange { items: items.into(), default: "delete".into() }
}

fn group(name: &str) -> ConfigKey {
    ConfigKey { kind: ConfigKind::Group, name: name.into() }
}

fn alter(key: &ConfigKey, ops: Vec<ConfigOp>) -> AlterConfigs {
    let resource = ConfigResource::Other(key.clone());
    AlterConfigs { resource, change: ConfigChange::Incremental(ops), orders: Vec::new() }
}

fn value(configs: &Configs, key: &ConfigKey, name: &str) -> Option<String> {
    configs.get(key).and_then(|held| held.get(name)).cloned()
}

#[test]
fn two_that_alter_at_once_lose_no_operation() {
    let (mut configs, key) = (Configs::default(), group("g"));
    let one = alter(&key, vec![set("a", "1"), op("list", ConfigAction::Append(list("x")))]);
    let other = alter(&key, vec![set("b", "2"), op("list", ConfigAction::Append(list("y")))]);
    assert_eq!(configs.alter(&key, &one), Ok(true));
    assert_eq!(configs.alter(&key, &other), Ok(true));
    assert_eq!(value(&configs, &key, "a").as_deref(), Some("1"));
    assert_eq!(value(&configs, &key, "b").as_deref(), Some("2"));
    assert_eq!(value(&configs, &key, "list").as_deref(), Some("delete,x,y"));
}

#[test]
fn a_change_applied_twice_gives_what_it_gave_once() {
    let (mut configs, key) = (Configs::default(), group("g"));
    let ops = vec![
        set("a", "1"),
        op("list", ConfigAction::Append(list("x,delete"))),
        op("other", ConfigAction::Subtract(list("delete"))),
        op("gone", ConfigAction::Delete),
    ];
    let change = alter(&key, ops);
    assert_eq!(configs.alter(&key, &change), Ok(true));
    let once = configs.clone();
    assert_eq!(configs.alter(&key, &change), Ok(false));
    assert_eq!(configs, once);
    assert_eq!(value(&configs, &key, "list").as_deref(), Some("delete,x"));
    assert_eq!(value(&configs, &key, "other").as_deref(), Some(""));
}

#[test]
fn a_replacement_leaves_nothing_else_and_an_empty_one_no_resource() {
    let (mut configs, key) = (Configs::default(), group("g"));
    configs.alter(&key, &alter(&key, vec![set("a", "1"), set("b", "2")])).unwrap();
    let replace = |overrides: &[(&str, &str)]| AlterConfigs {
        resource: ConfigResource::Other(key.clone()),
        change: ConfigChange::Replace(
            overrides.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ),
        orders: Vec::new(),
    };
    configs.alter(&key, &replace(&[("c", "3")])).unwrap();
    assert_eq!(value(&configs, &key, "a"), None);
    assert_eq!(value(&configs, &key, "c").as_deref(), Some("3"));
    configs.alter(&key, &replace(&[])).unwrap();
    assert!(configs.iter().next().is_none());
    assert_eq!(configs, Configs::default());
}

#[test]
fn numbers_that_would_stand_against_their_order_change_nothing() {
    let (mut configs, key) = (Configs::default(), group("g"));
    let ordered = |ops| AlterConfigs {
        orders: vec![ConfigOrder { lesser: ("min".into(), 0), greater: ("max".into(), 10) }],
        ..alter(&key, ops)
    };
    let refused = |least, most| {
        let (lesser, greater) = (("min".into(), least), ("max".into(), most));
        Err(ConfigRejected::Order { lesser, greater })
    };
    assert_eq!(configs.alter(&key, &ordered(vec![set("min", "11")])), refused(11, 10));
    assert_eq!(configs.alter(&key, &ordered(vec![set("min", "10")])), Ok(true));
    // Another agent's change was right when that agent looked.
    assert_eq!(configs.alter(&key, &ordered(vec![set("max", "9")])), refused(10, 9));
    assert_eq!(value(&configs, &key, "max"), None);
}

#[test]
fn bounds_refuse_what_grows_and_never_what_shrinks() {
    let (mut configs, key) = (Configs::default(), group("g"));
    let most = "x".repeat(RESOURCE_BYTES_MAX);
    let full = Err(ConfigRejected::ResourceFull);
    assert_eq!(configs.alter(&key, &alter(&key, vec![set("a", &most)])), full);
    assert_eq!(configs.alter(&key, &alter(&key, vec![set("a", &most[1..])])), Ok(true));
    assert_eq!(configs.alter(&key, &alter(&key, vec![set("b", "")])), full);
    assert_eq!(configs.alter(&key, &alter(&key, vec![set("a", &most[2..])])), Ok(true));

    let mut many = Configs::default();
    for index in 0..RESOURCES_MAX {
        many.restore(group(&format!("{index}")), Overrides::from([("a".into(), "1".into())]));
    }
    let store_full = Err(ConfigRejected::StoreFull);
    assert_eq!(many.alter(&key, &alter(&key, vec![set("a", "1")])), store_full);
    let known = group("7");
    assert_eq!(many.alter(&known, &alter(&known, vec![set("a", "2")])), Ok(true));
    assert!(many.is_sound());
}
