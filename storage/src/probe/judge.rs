//! What was seen of a store, as findings. Pure.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Finding, Verdict,
    observe::{Observed, Seen},
};
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    store::Listed,
};

/// The reason why a store with these findings must not be used; `None` when it may be.
pub fn refusal(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.verdict == Verdict::Failed)
}

/// Judges what was seen: one finding per thing that was asked.
pub fn judge(seen: &Observed) -> Vec<Finding> {
    let mut findings = vec![write(seen)];
    findings.extend(bytes("read after write", &seen.whole, &seen.body));
    // Within the body: both are constants of the test.
    let range = seen.part_range.start as usize..seen.part_range.end as usize;
    let part = if range.end <= seen.body.len() { seen.body.slice(range) } else { Bytes::new() };
    findings.extend(bytes("read a range", &seen.part, &part));
    findings.extend(list(seen));
    findings.extend(conditions(seen));
    findings.extend(races(seen));
    if seen.put.is_answered() {
        findings.extend(delete(seen));
    }
    findings
}

fn millis(took: Duration) -> String {
    format!("{} ms", took.as_millis().max(1))
}

fn write(seen: &Observed) -> Finding {
    const CHECK: &str = "write";
    match &seen.put {
        Seen::Answered((), took) => {
            let kib = seen.body.len() / 1024;
            Finding::ok(CHECK, format!("{kib} KiB in {}", millis(*took)))
        }
        Seen::NotAsked => Finding::bad(CHECK, Verdict::Unknown, "was not tried", ""),
        Seen::Silent(waited) => silent(CHECK, *waited),
        Seen::Refused(error) => refused(CHECK, error),
    }
}

fn bytes(check: &'static str, seen: &Seen<Bytes>, expected: &Bytes) -> Option<Finding> {
    const BROKEN: &str = "records would be lost: use another store";
    Some(match seen {
        Seen::NotAsked => return None,
        Seen::Answered(bytes, took) if bytes == expected => Finding::ok(check, millis(*took)),
        Seen::Answered(bytes, _) => {
            let (got, asked) = (bytes.len(), expected.len());
            let what =
                format!("the store returned other bytes ({got}) than were written ({asked})");
            Finding::bad(check, Verdict::Failed, what, BROKEN)
        }
        Seen::Silent(waited) => silent(check, *waited),
        Seen::Refused(error) => match (error.condition, error.outcome) {
            (StoreCondition::NotFound, _) => {
                let what = "an object that was just written is not found";
                Finding::bad(check, Verdict::Failed, what, BROKEN)
            }
            (StoreCondition::Unsupported, _) => {
                let what = "the store does not serve ranges of an object";
                Finding::bad(check, Verdict::Failed, what, "use another store")
            }
            (_, Outcome::Corrupt) => {
                let what = format!("the store returned less than was written: {}", error.reason);
                Finding::bad(check, Verdict::Failed, what, BROKEN)
            }
            _ => refused(check, error),
        },
    })
}

fn list(seen: &Observed) -> Option<Finding> {
    const CHECK: &str = "list after write";
    const MEANS: &str = "a restore from the bucket finds its backups by listing";
    let is_it = |listed: &&Listed| listed.key == seen.key;
    Some(match &seen.listed {
        Seen::NotAsked => return None,
        Seen::Silent(waited) => silent(CHECK, *waited),
        Seen::Answered(listed, took) => match listed.iter().find(is_it) {
            Some(found) if found.size_bytes == seen.body.len() as u64 => {
                Finding::ok(CHECK, millis(*took))
            }
            Some(found) => {
                let what = format!("{} bytes are listed as {}", seen.body.len(), found.size_bytes);
                Finding::bad(CHECK, Verdict::Warning, what, MEANS)
            }
            None => {
                let what = "an object that was just written is not listed";
                Finding::bad(CHECK, Verdict::Warning, what, format!("{MEANS}: it may miss one"))
            }
        },
        Seen::Refused(error) => {
            let found = refused(CHECK, error);
            let verdict = found.verdict.min(Verdict::Warning); // No data path lists.
            let advice = if found.advice.is_empty() { MEANS.to_owned() } else { found.advice };
            Finding { verdict, advice, ..found }
        }
    })
}

fn conditions(seen: &Observed) -> Option<Finding> {
    const CHECK: &str = "If-None-Match";
    const MEANS: &str = "never begin two clusters on one prefix at the same time; nothing else \
                         depends on it";
    let bad = |verdict, what: String| Finding::bad(CHECK, verdict, what, MEANS);
    Some(match &seen.created_again {
        Seen::NotAsked => return None,
        Seen::Silent(waited) => silent(CHECK, *waited),
        Seen::Answered((), _) => bad(Verdict::Warning, "is ignored: the store overwrites".into()),
        Seen::Refused(_) if seen.created_again.is_refused_for_existing() => {
            Finding::ok(CHECK, "a second write is refused")
        }
        Seen::Refused(error) if error.condition == StoreCondition::Unsupported => {
            bad(Verdict::Warning, "the store knows no conditional writes".into())
        }
        Seen::Refused(error) => bad(Verdict::Unknown, error.reason.clone()),
    })
}

fn races(seen: &Observed) -> Option<Finding> {
    const CHECK: &str = "concurrent writers";
    const MEANS: &str = "conditions do not decide between two at once: never begin two clusters on \
                         one prefix at the same time";
    let winners = |race: &[Seen<()>; 2]| race.iter().filter(|one| one.is_answered()).count();
    let (mut decided, mut double) = (0, 0);
    for race in &seen.races {
        let losers = race.iter().filter(|one| one.is_refused_for_existing()).count();
        decided += usize::from(winners(race) == 1 && losers == 1);
        double += usize::from(winners(race) == 2);
    }
    let all = seen.races.len();
    Some(match (all, double) {
        (0, _) => return None,
        (_, 0) if decided == all => Finding::ok(CHECK, format!("one of two won, {all} times")),
        (_, 0) => {
            let what = format!("one of two won {decided} times of {all}, others were not answered");
            Finding::bad(CHECK, Verdict::Unknown, what, "")
        }
        _ => {
            let what = format!("both of two writers won {double} times of {all}");
            Finding::bad(CHECK, Verdict::Warning, what, MEANS)
        }
    })
}

fn delete(seen: &Observed) -> Option<Finding> {
    const CHECK: &str = "delete";
    const MEANS: &str = "what retention lets go of would be paid for ever";
    let failed = |what: String| Finding::bad(CHECK, Verdict::Failed, what, MEANS);
    let took = match &seen.deleted {
        Seen::NotAsked => return None,
        Seen::Silent(waited) => return Some(silent(CHECK, *waited)),
        Seen::Refused(error) if error.condition == StoreCondition::Unsupported => {
            return Some(failed(format!("the store does not delete: {}", error.reason)));
        }
        Seen::Refused(error) => return Some(refused(CHECK, error)),
        Seen::Answered((), took) => *took,
    };
    let still_listed = match &seen.listed_after_delete {
        Seen::Answered(listed, _) => listed.iter().any(|listed| listed.key == seen.key),
        _ => false,
    };
    Some(match &seen.after_delete {
        Seen::Answered(..) => failed("a deleted object is still read".to_owned()),
        Seen::Refused(error) if error.condition == StoreCondition::NotFound && still_listed => {
            Finding::bad(CHECK, Verdict::Warning, "a deleted object is still listed", "")
        }
        Seen::Refused(error) if error.condition == StoreCondition::NotFound => {
            Finding::ok(CHECK, millis(took))
        }
        Seen::Refused(error) => {
            let what = format!("what was deleted is answered with: {}", error.reason);
            Finding::bad(CHECK, Verdict::Warning, what, "a missing object should be a 404")
        }
        Seen::Silent(waited) => silent(CHECK, *waited),
        Seen::NotAsked => Finding::ok(CHECK, millis(took)),
    })
}

fn silent(check: &'static str, waited: Duration) -> Finding {
    let what = format!("no answer for {} s", waited.as_secs());
    Finding::bad(check, Verdict::Unknown, what, "is the endpoint right, and does it run?")
}

/// An error that says nothing special about `check`.
fn refused(check: &'static str, error: &StoreError) -> Finding {
    let advice = match error.condition {
        StoreCondition::Denied => {
            "allow s3:PutObject, s3:GetObject, s3:DeleteObject on the prefix and s3:ListBucket on \
             the bucket, and look at AWS_ACCESS_KEY_ID, AWS_PROFILE or the role (for a folder: its \
             owner and mode)"
        }
        StoreCondition::NoAnswer => "is the endpoint right, and does it run?",
        StoreCondition::Busy => "the store is overloaded, full or broken",
        _ if error.reason.contains("NoSuchBucket") => "make the bucket first",
        _ => "",
    };
    // Only a definite no is one: what may work in a second is not held against the store.
    let verdict = match error.outcome {
        Outcome::Rejected | Outcome::Fenced | Outcome::Corrupt => Verdict::Failed,
        Outcome::Unavailable | Outcome::Indefinite => Verdict::Unknown,
    };
    Finding::bad(check, verdict, error.reason.clone(), advice)
}
