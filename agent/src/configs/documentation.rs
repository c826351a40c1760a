//! What a config does here, for people: `documentation.tsv` beside this file, a name and a sentence
//! a line.

use std::{collections::BTreeMap, sync::LazyLock};

/// What is said of configs that are not in the file.
const WITHOUT_EFFECT: &str =
    "Known to Kafka's clients and tools: checked, kept and shown, without effect in Aquifer.";

/// What is said of settings of ours that are not in the file.
const OURS: &str =
    "A setting of Aquifer's own: `aquifer up --help` and its README say what it does.";

/// What the config of this name does.
pub fn of(name: &str) -> &'static str {
    static SENTENCES: LazyLock<BTreeMap<&str, &str>> = LazyLock::new(|| {
        include_str!("documentation.tsv").lines().filter_map(|line| line.split_once('\t')).collect()
    });
    SENTENCES.get(name).copied().unwrap_or(match name.starts_with("aquifer.") {
        true => OURS,
        false => WITHOUT_EFFECT,
    })
}
