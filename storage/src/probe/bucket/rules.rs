//! The lifecycle rules that a bucket should have, beside those that it has. Pure.

use super::{Lifecycle, Rule, parse_lifecycle};

/// The rules of a bucket with ours among them, as `PUT ?lifecycle` takes them; `None` when
/// everything is there. Rules of others stay as they are written.
///
/// Ours abort uploads in parts that nobody ends, and delete what was deleted a day ago where
/// versions are kept, now or later: neither is ever read again, and both are paid for.
///
/// # Errors
/// The rules that are there are not understood: they must be left alone.
pub fn with_ours(existing: Option<&str>, prefix: &str) -> Result<Option<String>, String> {
    let there = existing.map_or_else(|| Ok(Lifecycle::default()), parse_lifecycle)?;
    let under = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let id = format!("aquifer {under}").trim_end().to_owned();
    let mut all = there.rules.iter().filter(|rule| rule.covers(prefix));
    let cleans = |rule: &Rule| rule.noncurrent_version_expiration.is_some();
    // Some stores take what they do not know and forget it: ours is not written again for that.
    let has_ours = all.clone().any(|rule| rule.id == id && cleans(rule));
    let aborts = all.clone().any(|rule| rule.abort_incomplete_multipart_upload.is_some());
    if has_ours || aborts && all.any(cleans) {
        return Ok(None);
    }
    let kept = chunks(existing.unwrap_or_default());
    if kept.len() != there.rules.len() {
        return Err("its rules are written in a way that cannot be kept".to_owned());
    }
    // An older one of ours, that lacks something.
    let kept: String =
        kept.into_iter().filter(|rule| !rule.contains(&format!("<ID>{id}</ID>"))).collect();
    Ok(Some(format!(
        "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{kept}<Rule>\
         <ID>{id}</ID><Status>Enabled</Status><Filter><Prefix>{under}</Prefix></Filter>\
         <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>\
         </NoncurrentVersionExpiration>\
         <AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>\
         </AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
    )))
}

/// Each rule as it is written, with its tags.
fn chunks(text: &str) -> Vec<String> {
    let rules = text.split("<Rule>").skip(1);
    let ended = rules.filter_map(|rest| rest.split_once("</Rule>"));
    ended.map(|(rule, _)| format!("<Rule>{rule}</Rule>")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "<Rule><ID>logs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix>\
                         </Filter><Expiration><Days>3</Days></Expiration></Rule>";

    fn document(rules: &str) -> String {
        format!("<?xml version=\"1.0\"?><LifecycleConfiguration>{rules}</LifecycleConfiguration>")
    }

    #[test]
    fn ours_are_added_once_and_others_stay_as_they_are_written() {
        let made = with_ours(Some(&document(OTHER)), "well").unwrap().unwrap();
        assert!(made.contains(OTHER), "{made}");
        assert!(made.contains("<Prefix>well/</Prefix>"), "{made}");
        assert_eq!(with_ours(Some(&made), "well"), Ok(None), "nothing is missing");
        assert_eq!(parse_lifecycle(&made).unwrap().rules.len(), 2);
        let other = with_ours(Some(&made), "other").unwrap().unwrap();
        assert_eq!(parse_lifecycle(&other).unwrap().rules.len(), 3, "{other}");
        let alone = with_ours(None, "").unwrap().unwrap();
        assert!(alone.contains("<ID>aquifer</ID>") && alone.contains("<Prefix></Prefix>"));
        assert_eq!(with_ours(Some(&alone), "well"), Ok(None), "the whole bucket is covered");
    }

    #[test]
    fn a_rule_of_ours_that_lacks_something_is_replaced() {
        let made = with_ours(Some(&document(OTHER)), "well").unwrap().unwrap();
        let without = |element: &str| {
            let (begin, rest) = made.split_once(&format!("<{element}>")).unwrap();
            let (_, end) = rest.split_once(&format!("</{element}>")).unwrap();
            format!("{begin}{end}")
        };
        let lacks = without("NoncurrentVersionExpiration");
        assert_eq!(with_ours(Some(&lacks), "well"), Ok(Some(made.clone())));
        let forgotten = without("AbortIncompleteMultipartUpload");
        assert_eq!(with_ours(Some(&forgotten), "well"), Ok(None), "the store does not know it");
    }

    #[test]
    fn rules_that_are_not_understood_are_left_alone() {
        assert!(with_ours(Some("<Lifecycle"), "well").is_err());
        let odd = document(&OTHER.replace("<Rule>", "<Rule >"));
        assert!(with_ours(Some(&odd), "well").is_err());
    }
}
