//! Laws of bucket.

use super::*;

fn answer(status: u16, code: &str, body: &str) -> Result<Answer, NoAnswer> {
    let (code, body) = (code.to_owned(), body.to_owned());
    Ok(Answer { status, code, body, ahead_ms: Some(0) })
}

fn sound() -> BucketFacts {
    BucketFacts {
        bucket: "water".to_owned(),
        prefix: "well/one".to_owned(),
        wrong_checksum: answer(400, "BadDigest", ""),
        stale_if_match: answer(412, "PreconditionFailed", ""),
        versioning: answer(200, "", "<VersioningConfiguration/>"),
        lifecycle: answer(404, "NoSuchLifecycleConfiguration", ""),
    }
}

fn found(facts: &BucketFacts, check: &str) -> Finding {
    let mut findings = judge_bucket(facts).into_iter();
    findings.find(|finding| finding.check == check).unwrap()
}

fn with_rules(rules: &str) -> BucketFacts {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><LifecycleConfiguration \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rules}</LifecycleConfiguration>"
    );
    BucketFacts { lifecycle: answer(200, "", &body), ..sound() }
}

fn rule(rest: &str) -> String {
    format!("<Rule><ID>r</ID><Status>Enabled</Status>{rest}</Rule>")
}

const DAY: &str = "<Expiration><Days>1</Days></Expiration>";

#[test]
fn a_sound_bucket_has_nothing_to_say() {
    let findings = judge_bucket(&sound());
    assert!(findings.iter().all(|one| one.verdict == Verdict::Ok), "{findings:?}");
    assert_eq!(findings.len(), 5);
}

#[test]
fn what_is_ignored_is_a_warning_and_what_is_not_told_is_unknown() {
    let taken = || answer(200, "", "");
    let facts = BucketFacts { wrong_checksum: taken(), stale_if_match: taken(), ..sound() };
    assert_eq!(found(&facts, "checksums").verdict, Verdict::Warning);
    assert_eq!(found(&facts, "If-Match").verdict, Verdict::Warning);
    let denied = || answer(403, "AccessDenied", "");
    let facts = BucketFacts { versioning: denied(), lifecycle: denied(), ..sound() };
    for check in ["versioning", "lifecycle"] {
        let finding = found(&facts, check);
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(finding.to_string().contains("may not ask"), "{finding}");
    }
    let silent = BucketFacts { wrong_checksum: Err(NoAnswer("broken pipe".into())), ..sound() };
    assert_eq!(found(&silent, "checksums").what, "broken pipe");
}

#[test]
fn a_clock_that_is_off_is_told_with_its_side() {
    let at = |ahead_ms| {
        let answer = Answer { ahead_ms: Some(ahead_ms), ..sound().versioning.unwrap() };
        found(&BucketFacts { versioning: Ok(answer), ..sound() }, "clock")
    };
    assert_eq!(at(-30_000).verdict, Verdict::Ok);
    let ahead = at(95_200);
    assert_eq!(
        (ahead.verdict, &*ahead.what),
        (Verdict::Warning, "this clock is 95 s ahead of the store's")
    );
    assert!(at(-95_200).what.contains("95 s behind"));
    assert_eq!(at(i64::MIN).verdict, Verdict::Warning);
}

#[test]
fn rules_that_delete_or_freeze_our_objects_fail() {
    use Verdict::{Failed, Ok, Warning};
    let filter = |prefix: &str| format!("<Filter><Prefix>{prefix}</Prefix></Filter>");
    let moves = |class: &str| {
        rule(&format!(
            "<Transition><Days>9</Days><StorageClass>{class}</StorageClass></Transition>"
        ))
    };
    let tagged = "<Filter><And><Prefix>well</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And>\
                  </Filter>";
    let sized = "<Filter><And><Prefix>well</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>\
                 </And></Filter>";
    for (rules, verdict) in [
        (rule(DAY), Failed),
        (rule(&format!("{}{DAY}", filter(""))), Failed),
        (rule(&format!("{}{DAY}", filter("well/"))), Failed),
        (rule(&format!("{}{DAY}", filter("well/one/wal/"))), Failed),
        (rule(&format!("{}{DAY}", filter("well/on"))), Failed),
        (rule(&format!("<Prefix>well/one/</Prefix>{DAY}")), Failed),
        (rule(&format!("{sized}{DAY}")), Failed),
        (rule(&format!("{}{DAY}", filter("well/two"))), Ok),
        (rule(&format!("<Prefix>other/</Prefix>{DAY}")), Ok),
        (rule(&format!("{tagged}{DAY}")), Ok),
        (rule(DAY).replace("Enabled", "Disabled"), Ok),
        (
            rule(
                "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
            ),
            Ok,
        ),
        (moves("DEEP_ARCHIVE"), Failed),
        (moves("STANDARD_IA"), Warning),
        (rule(&format!("{}{DAY}", filter("logs/"))) + &moves("GLACIER"), Failed),
    ] {
        let finding = found(&with_rules(&rules), "lifecycle");
        assert_eq!(finding.verdict, verdict, "{rules}: {finding}");
    }
    let broken = BucketFacts { lifecycle: answer(200, "", "<Rule"), ..sound() };
    assert_eq!(found(&broken, "lifecycle").verdict, Verdict::Unknown);
}

#[test]
fn kept_versions_need_a_rule_that_covers_everything_of_ours() {
    let on = || {
        answer(
            200,
            "",
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
        )
    };
    let clean = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>\
                 </NoncurrentVersionExpiration>";
    let at = |prefix: &str| rule(&format!("<Filter><Prefix>{prefix}</Prefix></Filter>{clean}"));
    for (rules, verdict) in [
        (String::new(), Verdict::Warning),
        (at("well/one/wal/"), Verdict::Warning),
        (at("well/one/"), Verdict::Ok),
        (at(""), Verdict::Ok),
        (at("well/two/"), Verdict::Warning),
        (at("").replace("Enabled", "Disabled"), Verdict::Warning),
    ] {
        let facts = BucketFacts { versioning: on(), ..with_rules(&rules) };
        assert_eq!(found(&facts, "versioning").verdict, verdict, "{rules}");
    }
    let facts = BucketFacts { versioning: on(), ..sound() };
    let told = found(&facts, "versioning").advice;
    assert!(told.contains("--bucket water") && told.contains("\"Prefix\":\"well/one/\""), "{told}");
}
