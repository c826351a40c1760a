//! One section of AWS's shared `credentials` and `config` files. Pure.

use std::collections::BTreeMap;

/// The settings of the section called `name`, of all its occurrences; `None` when there is none.
///
/// Indented lines, which nest settings below a setting, are skipped.
pub(super) fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut found = None;
    let mut inside = false;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) || is_nested {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let spelled = rest.split(']').next().unwrap_or(rest);
            inside = spelled.split_whitespace().eq(name.split_whitespace());
            if inside {
                found.get_or_insert_with(BTreeMap::new);
            }
            continue;
        }
        let (Some(settings), Some((key, value))) = (&mut found, line.split_once('=')) else {
            continue;
        };
        if inside {
            // A comment behind a value starts with a space.
            let value = value.split(" #").next().unwrap_or(value);
            let value = value.split(" ;").next().unwrap_or(value);
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
# comment
[default]
aws_access_key_id = A # mine
Region=eu-west-1
s3 =
  addressing_style = virtual
  region = nested
[ profile  deep water ]
region = us-west-2
[default]
aws_secret_access_key=a+/=b
";

    #[test]
    fn a_section_has_its_own_settings_only() {
        let default = section(TEXT, "default").unwrap();
        assert_eq!(default["aws_access_key_id"], "A");
        assert_eq!(default["aws_secret_access_key"], "a+/=b");
        assert_eq!(default["region"], "eu-west-1");
        assert_eq!(default["s3"], "");
        assert!(!default.contains_key("addressing_style"));
        assert_eq!(section(TEXT, "profile deep water").unwrap()["region"], "us-west-2");
        assert_eq!(section(TEXT, "profile deep"), None);
        assert_eq!(section(TEXT, ""), None);
    }

    proptest! {
        #[test]
        fn any_text_has_sections_or_none(text in "[\\[\\]a= #;\\n\\t\\r\\PC]{0,80}") {
            let _ = section(&text, "a");
        }
    }
}
