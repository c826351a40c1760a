//! Which differences are listed, and which are not.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::Value;

use super::{
    compare::{Difference, differences},
    path::fits,
    recorded::{Answered, Answers},
    script::{Area, Rule, RuleKind},
};

/// What became of an area.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Its name.
    pub area: String,
    /// Steps compared, each version counted.
    pub steps: usize,
    /// Steps without any difference but masked values.
    pub same: usize,
    /// Steps with listed differences only.
    pub listed: usize,
    /// What is wrong, a line each: unlisted differences, lists of what no longer differs.
    pub wrong: Vec<String>,
}

/// Compares what Aquifer answered with what Kafka did.
pub fn judge(area: &Area, kafka: &Answers, ours: &[Answered]) -> Verdict {
    let mut verdict = Verdict { area: area.name.clone(), ..Verdict::default() };
    let mut used = BTreeSet::new();
    let mut unlisted: Vec<(String, Vec<String>)> = Vec::new();
    for Answered { step, answer } in ours {
        verdict.steps += 1;
        let Some(expected) = kafka.get(step) else {
            verdict.wrong.push(format!("{step}: Kafka's answer is not recorded"));
            continue;
        };
        let rules = rules_of(area, step);
        let (mut is_listed, mut is_wrong) = (false, false);
        for difference in differences(expected, answer) {
            match rules.iter().find(|rule| forgives(rule, &difference)) {
                Some(rule) => {
                    used.insert(std::ptr::from_ref::<Rule>(rule));
                    is_listed |= rule.kind != RuleKind::Mask;
                }
                None => {
                    is_wrong = true;
                    let (name, version) = step.rsplit_once('@').unwrap_or((step, ""));
                    let line = format!("{name}: {difference}");
                    match unlisted.iter_mut().find(|(other, _)| *other == line) {
                        Some((_, versions)) => versions.push(version.to_owned()),
                        None => unlisted.push((line, vec![version.to_owned()])),
                    }
                }
            }
        }
        verdict.same += usize::from(!is_listed && !is_wrong);
        verdict.listed += usize::from(is_listed && !is_wrong);
    }
    let line = |(line, versions): (String, Vec<String>)| format!("{line} @{}", versions.join(","));
    verdict.wrong.extend(unlisted.into_iter().map(line));
    let lists = area.steps.iter().map(|step| (&step.name, &step.rules));
    for (name, rules) in lists.chain([(&area.name, &area.rules)]) {
        let is_stale = |rule: &&Rule| {
            matches!(rule.kind, RuleKind::Differs(_)) && !used.contains(&std::ptr::from_ref(*rule))
        };
        for rule in rules.iter().filter(is_stale) {
            let gone = "is listed as a difference, and there is none like it";
            verdict.wrong.push(format!("{name}: {} {gone} ({})", rule.path, rule.reason));
        }
    }
    verdict
}

/// Where Kafka answers otherwise than it did when it was recorded. Not where a difference is
/// listed: addresses, folders and free space are listed too, and no two runs share them.
pub fn drift(area: &Area, recorded: &Answers, kafka: &[Answered]) -> Vec<String> {
    let mut found = Vec::new();
    for Answered { step, answer } in kafka {
        let before = recorded.get(step).unwrap_or(&Value::Null);
        let rules = rules_of(area, step);
        let unmasked = differences(before, answer).into_iter().filter(|difference| {
            !rules.iter().any(|rule| match rule.kind {
                RuleKind::Mask => forgives(rule, difference),
                RuleKind::Differs(_) => fits(&rule.path, &difference.path),
            })
        });
        found.extend(unmasked.map(|difference| format!("{step}: (before, now) {difference}")));
    }
    found
}

fn rules_of<'a>(area: &'a Area, step: &str) -> Vec<&'a Rule> {
    let name = step.rsplit_once('@').map_or(step, |(name, _)| name);
    let own = area.steps.iter().find(|other| other.name == step || other.name == name);
    own.into_iter().flat_map(|step| &step.rules).chain(&area.rules).collect()
}

fn forgives(rule: &Rule, difference: &Difference) -> bool {
    let kind = match &rule.kind {
        // A value that is there for one and says "none" for the other is a difference.
        RuleKind::Mask => {
            let is_none = |value: &Option<Value>| {
                value.as_ref().is_none_or(|value| value.is_null() || *value == -1)
            };
            is_none(&difference.kafka) == is_none(&difference.ours)
        }
        RuleKind::Differs(None) => true,
        RuleKind::Differs(ours) => difference.ours == *ours,
    };
    kind && fits(&rule.path, &difference.path)
}

/// The table of areas, in Markdown.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text =
        "| area | steps | same | listed differences | unlisted |\n|---|---|---|---|---|\n"
            .to_owned();
    let mut row = |name: &str, steps: usize, same: usize, listed: usize| {
        let rest = steps - same - listed;
        writeln!(text, "| {name} | {steps} | {same} | {listed} | {rest} |").expect("to memory");
    };
    for verdict in verdicts {
        row(&verdict.area, verdict.steps, verdict.same, verdict.listed);
    }
    let sum = |count: fn(&Verdict) -> usize| verdicts.iter().map(count).sum();
    row("all", sum(|v| v.steps), sum(|v| v.same), sum(|v| v.listed));
    text
}
