//! What S3's own API told of a bucket, as findings. Pure.

use serde::Deserialize;

use super::{Finding, Verdict};

pub mod rules;

/// Clocks that differ by more make times of records and of objects hard to compare.
const AHEAD_MS_MAX: u64 = 30_000;
/// Classes from which an object must be restored before it can be read.
const FROZEN_CLASSES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// An answer that came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The store's code for an error; empty when it gave none.
    pub code: String,
    /// The body.
    pub body: String,
    /// How far this clock is ahead of the store's, in milliseconds, as the answer's date has it:
    /// good to about a second.
    pub ahead_ms: Option<i64>,
}

/// No answer, in the network's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// What was asked of a bucket beside reading and writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFacts {
    /// The bucket.
    pub bucket: String,
    /// Where our keys are; empty for the whole bucket.
    pub prefix: String,
    /// Writing with a checksum that is wrong.
    pub wrong_checksum: Result<Answer, NoAnswer>,
    /// Overwriting with the ETag of something else.
    pub stale_if_match: Result<Answer, NoAnswer>,
    /// Whether versions are kept.
    pub versioning: Result<Answer, NoAnswer>,
    /// What happens to objects by themselves.
    pub lifecycle: Result<Answer, NoAnswer>,
}

/// What a bucket does with objects by itself, as `GET ?lifecycle` answers.
#[derive(Debug, Default, Deserialize)]
pub struct Lifecycle {
    /// Its rules.
    #[serde(rename = "Rule", default)]
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// Its name.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// `Enabled`, or it does nothing.
    #[serde(default)]
    pub status: String,
    /// Which keys, as it was written in old times.
    pub prefix: Option<String>,
    /// Which objects.
    pub filter: Option<Filter>,
    /// Deletes objects.
    pub expiration: Option<Expiration>,
    /// Moves objects elsewhere.
    #[serde(rename = "Transition", default)]
    pub transitions: Vec<Transition>,
    /// Deletes older versions.
    pub noncurrent_version_expiration: Option<Anything>,
    /// Deletes parts of uploads that never ended.
    pub abort_incomplete_multipart_upload: Option<Anything>,
}

/// Which objects a rule is about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Filter {
    /// Those whose keys begin so.
    pub prefix: Option<String>,
    /// Those with this tag; ours have none.
    pub tag: Option<Anything>,
    /// Those larger than this.
    pub object_size_greater_than: Option<u64>,
    /// Those smaller than this.
    pub object_size_less_than: Option<u64>,
    /// All of these.
    pub and: Option<Box<Filter>>,
}

/// When objects are deleted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Expiration {
    /// So many days after they were written.
    pub days: Option<u32>,
    /// On a day.
    pub date: Option<String>,
}

/// Where objects are moved.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Transition {
    /// To this class.
    #[serde(default)]
    pub storage_class: String,
}

/// An element that is there.
#[derive(Debug, Default, Deserialize)]
pub struct Anything {}

impl Rule {
    /// Whether it is on and about any of our objects, which lie under `prefix` and have no tags.
    pub fn concerns(&self, prefix: &str) -> bool {
        let parts = |filter: &Filter| {
            let inner = filter.and.as_deref();
            let own = filter.prefix.clone();
            let tagged = filter.tag.is_some() || inner.is_some_and(|and| and.tag.is_some());
            (own.or_else(|| inner.and_then(|and| and.prefix.clone())), tagged)
        };
        let (filtered, tagged) = self.filter.as_ref().map_or((None, false), parts);
        let asked = filtered.or_else(|| self.prefix.clone()).unwrap_or_default();
        let ours = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let meets = asked.starts_with(&ours) || ours.starts_with(&asked);
        self.status == "Enabled" && !tagged && meets
    }

    /// Whether it is about all of our objects.
    pub fn covers(&self, prefix: &str) -> bool {
        let filter = self.filter.as_ref();
        let inner = filter.and_then(|filter| filter.and.as_deref());
        let has_size = |filter: &Filter| {
            filter.object_size_greater_than.is_some() || filter.object_size_less_than.is_some()
        };
        let sized = filter.is_some_and(has_size) || inner.is_some_and(has_size);
        let own = filter.and_then(|filter| filter.prefix.clone());
        let own = own.or_else(|| inner.and_then(|and| and.prefix.clone()));
        let asked = own.or_else(|| self.prefix.clone()).unwrap_or_default();
        let ours = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        self.concerns(prefix) && !sized && ours.starts_with(&asked)
    }
}

/// Reads what `GET ?lifecycle` answered.
///
/// # Errors
/// It is no such document.
pub fn parse_lifecycle(body: &str) -> Result<Lifecycle, String> {
    quick_xml::de::from_str(body).map_err(|error| error.to_string())
}

/// Judges what was asked of a bucket.
pub fn judge_bucket(facts: &BucketFacts) -> Vec<Finding> {
    let mut findings = vec![checksum(facts), if_match(facts)];
    findings.extend(clock(facts));
    let lifecycle = lifecycle(facts);
    findings.push(versioning(facts, lifecycle.as_ref().ok()));
    match lifecycle {
        Ok(lifecycle) => findings.extend(rules(facts, &lifecycle)),
        Err(finding) => findings.push(finding),
    }
    findings
}

fn checksum(facts: &BucketFacts) -> Finding {
    const CHECK: &str = "checksums";
    const MEANS: &str = "damage on the way to the store is found when the records are read, not \
                         when they are written";
    match &facts.wrong_checksum {
        Ok(answer) if answer.status == 400 => Finding::ok(CHECK, "a wrong one is refused"),
        Ok(answer) if answer.status < 300 => {
            let what = "the store takes an object whose checksum is wrong";
            Finding::bad(CHECK, Verdict::Warning, what, MEANS)
        }
        other => unknown(CHECK, other),
    }
}

fn if_match(facts: &BucketFacts) -> Finding {
    const CHECK: &str = "If-Match";
    match &facts.stale_if_match {
        Ok(answer) if matches!(answer.status, 409 | 412) => {
            Finding::ok(CHECK, "a stale one is refused")
        }
        Ok(answer) if answer.status < 300 => {
            let what = "is ignored: the store overwrites";
            Finding::bad(CHECK, Verdict::Warning, what, "nothing depends on it yet")
        }
        other => unknown(CHECK, other),
    }
}

fn clock(facts: &BucketFacts) -> Option<Finding> {
    const CHECK: &str = "clock";
    let answers = [&facts.versioning, &facts.lifecycle, &facts.stale_if_match];
    let ahead = answers.into_iter().flatten().find_map(|answer| answer.ahead_ms)?;
    let (seconds, side) = (ahead.unsigned_abs() / 1000, if ahead < 0 { "behind" } else { "ahead" });
    if ahead.unsigned_abs() <= AHEAD_MS_MAX {
        return Some(Finding::ok(CHECK, format!("within {} s of the store's", seconds + 1)));
    }
    let what = format!("this clock is {seconds} s {side} of the store's");
    let advice = "run an NTP client (chronyd): times of records come from this clock, and S3 \
                  refuses requests that are 15 min off";
    Some(Finding::bad(CHECK, Verdict::Warning, what, advice))
}

fn versioning(facts: &BucketFacts, lifecycle: Option<&Lifecycle>) -> Finding {
    const CHECK: &str = "versioning";
    let body = match &facts.versioning {
        Ok(answer) if answer.status == 200 => &answer.body,
        other => return unknown(CHECK, other),
    };
    let status = body.split_once("<Status>").and_then(|(_, rest)| rest.split('<').next());
    let cleans =
        |rule: &Rule| rule.noncurrent_version_expiration.is_some() && rule.covers(&facts.prefix);
    match status {
        Some("Enabled" | "Suspended") => {}
        _ => return Finding::ok(CHECK, "off"),
    }
    let rules = lifecycle.map(|lifecycle| lifecycle.rules.iter().any(cleans));
    let what = match rules {
        Some(true) => return Finding::ok(CHECK, "on, and older versions are deleted by a rule"),
        Some(false) => {
            "older versions are kept and no rule deletes them: what Aquifer deletes is \
                        paid for ever"
        }
        None => "older versions are kept, and whether a rule deletes them is not known",
    };
    Finding::bad(CHECK, Verdict::Warning, what, set_rule(facts))
}

/// The command that makes a rule for older versions.
fn set_rule(facts: &BucketFacts) -> String {
    let prefix = if facts.prefix.is_empty() { String::new() } else { format!("{}/", facts.prefix) };
    let rule = format!(
        "{{\"ID\":\"aquifer\",\"Status\":\"Enabled\",\"Filter\":{{\"Prefix\":\"{prefix}\"}},\
         \"NoncurrentVersionExpiration\":{{\"NoncurrentDays\":1}}}}"
    );
    format!(
        "start once with --create-bucket, or add a rule yourself (this command replaces all that \
         are there): aws s3api put-bucket-lifecycle-configuration --bucket {} \
         --lifecycle-configuration '{{\"Rules\":[{rule}]}}'",
        facts.bucket
    )
}

fn lifecycle(facts: &BucketFacts) -> Result<Lifecycle, Finding> {
    const CHECK: &str = "lifecycle";
    match &facts.lifecycle {
        Ok(answer) if answer.code == "NoSuchLifecycleConfiguration" => Ok(Lifecycle::default()),
        Ok(answer) if answer.status == 200 => parse_lifecycle(&answer.body).map_err(|error| {
            Finding::bad(
                CHECK,
                Verdict::Unknown,
                format!("rules that are not understood: {error}"),
                "",
            )
        }),
        other => Err(unknown(CHECK, other)),
    }
}

fn rules(facts: &BucketFacts, lifecycle: &Lifecycle) -> Vec<Finding> {
    const CHECK: &str = "lifecycle";
    let mut findings = Vec::new();
    for rule in lifecycle.rules.iter().filter(|rule| rule.concerns(&facts.prefix)) {
        let id = &rule.id;
        let deletes = rule.expiration.as_ref();
        if deletes.is_some_and(|at| at.days.is_some() || at.date.is_some()) {
            let what = format!("rule {id:?} deletes objects that Aquifer needs: RECORDS ARE LOST");
            let advice = "take the rule away from this prefix: topics have retention.ms";
            findings.push(Finding::bad(CHECK, Verdict::Failed, what, advice));
        }
        for Transition { storage_class } in &rule.transitions {
            let is_frozen = FROZEN_CLASSES.contains(&storage_class.as_str());
            let (verdict, means) = match is_frozen {
                true => (Verdict::Failed, "where they cannot be read"),
                false => (Verdict::Warning, "where each read costs, and a minimum of time is paid"),
            };
            let what = format!("rule {id:?} moves objects to {storage_class}, {means}");
            let advice = "take the rule away from this prefix";
            findings.push(Finding::bad(CHECK, verdict, what, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "no rule touches live objects"));
    }
    findings
}

fn unknown(check: &'static str, answer: &Result<Answer, NoAnswer>) -> Finding {
    let what = match answer {
        Ok(Answer { status: 403, code, .. }) => {
            let what = format!("the store does not tell: 403 {code}");
            let advice = "these credentials may not ask; Aquifer itself needs no such right";
            return Finding::bad(check, Verdict::Unknown, what, advice);
        }
        Ok(Answer { status, code, .. }) => format!("the store does not tell: {status} {code}"),
        Err(error) => error.to_string(),
    };
    Finding::bad(check, Verdict::Unknown, what.trim_end(), "")
}

#[cfg(test)]
mod tests;
