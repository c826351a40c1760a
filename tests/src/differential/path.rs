//! Paths into answers: `topics.0.errorCode` to look one up, `topics{*}.errorCode` for all that fit.

use serde_json::Value;

/// The value at a path of names and places, which starts at the answer.
pub fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, step| match step.parse::<usize>() {
        Ok(place) if value.is_array() => value.get(place),
        _ => value.get(step),
    })
}

/// Whether `pattern`, in which `*` stands for any text, is all of `text`.
pub fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let mut tails = text.char_indices().map(|(at, _)| &text[at..]).chain([""]);
            tails.any(|tail| fits(rest, tail))
        }),
    }
}
