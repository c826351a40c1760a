//! `group.consumer.…` as this agent was started with: defaults of every consumer group.
//!
//! The coordinator is the metadata group, which decides by nothing but its state. So an agent that
//! starts tells it, and the one that started last counts: agents are started alike, as brokers are.
//! [pure]

use std::collections::BTreeMap;

use aquifer_metadata::{
    machine::config::{AlterConfigs, ConfigChange, ConfigKey, ConfigResource, Overrides},
    watch::Catalog,
};

const PREFIX: &str = "group.consumer.";
/// The assignors there are. Kafka's own can be named by their class as well, and others are code.
const ASSIGNORS: [&str; 2] = ["uniform", "range"];

/// Kafka's default of the session, in milliseconds.
const SESSION_TIMEOUT_MS: i64 = 45_000;

/// Values that have bounds of their own, and lie within.
const BOUNDED: [&str; 3] =
    ["assignment.interval.ms", "heartbeat.interval.ms", "session.timeout.ms"];

/// Whether a broker config is a default of consumer groups.
pub fn is_one(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether what was given fits together. Bounds that were not given do not count: Kafka's are for
/// what groups may set, and who starts the agents may set them as well.
///
/// # Errors
/// What does not, in words.
pub fn check(given: &BTreeMap<String, String>) -> Result<(), String> {
    let number = |name: &str| {
        let name = format!("{PREFIX}{name}");
        let number = given.get(&name)?.parse::<i64>().ok()?;
        Some((name, number))
    };
    let ordered = |lesser: Option<(String, i64)>, greater: Option<(String, i64)>| {
        lesser.zip(greater).filter(|((_, lesser), (_, greater))| greater < lesser)
    };
    for name in BOUNDED {
        let bound = |kind: &str| number(&format!("{kind}.{name}"));
        if let Some(((least, _), (name, value))) = ordered(bound("min"), number(name)) {
            return Err(format!("{name} is {value}, it must be at least {least}"));
        }
        if let Some(((name, value), (most, _))) = ordered(number(name), bound("max")) {
            return Err(format!("{name} is {value}, it must be at most {most}"));
        }
        if let Some(((least, _), (most, _))) = ordered(bound("min"), bound("max")) {
            return Err(format!("{least} must be at most {most}"));
        }
    }
    let session = || (format!("{PREFIX}session.timeout.ms"), SESSION_TIMEOUT_MS);
    let session = number("session.timeout.ms").unwrap_or_else(session);
    if let Some((interval, _)) = number("heartbeat.interval.ms").filter(|one| session.1 <= one.1) {
        return Err(format!("{interval} must be less than {}, which is {}", session.0, session.1));
    }
    let assignors = given.get(&format!("{PREFIX}assignors"));
    let mut named = assignors.iter().flat_map(|names| names.split(',').map(str::trim));
    match named.find(|name| !ASSIGNORS.contains(name)) {
        Some(name) => {
            Err(format!("{PREFIX}assignors names {name:?}, there are {}", ASSIGNORS.join(" and ")))
        }
        None => Ok(()),
    }
}

/// What the metadata group is to be told, unless it goes by what was `given` already. Applied twice
/// it does what it does once.
pub fn change(given: &BTreeMap<String, String>, catalog: &Catalog) -> Option<AlterConfigs> {
    let own = given.iter().filter(|(name, _)| is_one(name));
    let own: Overrides = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let key = ConfigKey::group_defaults();
    let told = catalog.configs.get(&key).map(|told| &**told);
    let is_told = told.map_or(own.is_empty(), |told| *told == own);
    (!is_told).then(|| AlterConfigs {
        resource: ConfigResource::Other(key),
        change: ConfigChange::Replace(own),
        orders: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_differs_is_told_and_nothing_given_takes_back_what_was() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let mut catalog = Catalog::default();
        assert_eq!(change(&given(&[("log.retention.ms", "1")]), &catalog), None);
        let own = given(&[("group.consumer.max.size", "3")]);
        let both = given(&[("group.consumer.max.size", "3"), ("group.max.size", "4")]);
        let told = change(&both, &catalog).map(|alter| alter.change);
        assert_eq!(told, Some(ConfigChange::Replace(own.clone())));
        catalog.configs.insert(ConfigKey::group_defaults(), Arc::new(own));
        assert_eq!(change(&both, &catalog), None);
        let told = change(&given(&[]), &catalog).map(|alter| alter.change);
        assert_eq!(told, Some(ConfigChange::Replace(Overrides::new())));
    }
}
