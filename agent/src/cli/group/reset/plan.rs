//! Where a reset sends a group, and the files that say it. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::Deserialize;

use crate::cli::{consume::start::Start, group::offsets::Offsets};

/// Where partitions are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To where the group is; to the end where it never committed.
    Current,
    /// So many offsets on, or back.
    Shift(i64),
    /// To a place that does not depend on the group.
    At(Start),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "current" => Ok(Self::Current),
            _ => text.parse().map(Self::At).map_err(|error| format!("{error}; or current")),
        }
    }
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub first: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// The first record that is young enough, where one was asked for and there is one.
    pub timed: Option<i64>,
    /// Where the group is.
    pub committed: Option<i64>,
}

/// The group never committed an offset of the partition that could be shifted.
#[derive(Debug, PartialEq, Eq)]
pub struct NeverCommitted;

/// The offset the group reads next, always one between the first that is kept and the end.
///
/// # Errors
/// There is nothing to shift.
pub fn place(target: Target, bounds: Bounds) -> Result<i64, NeverCommitted> {
    let Bounds { first, end, timed, committed } = bounds;
    let wanted = match target {
        // Not moved, wherever it is.
        Target::Current => return Ok(committed.unwrap_or(end)),
        Target::Shift(by) => committed.ok_or(NeverCommitted)?.saturating_add(by),
        Target::At(Start::Beginning) => first,
        Target::At(Start::End) => end,
        Target::At(Start::Offset(offset)) => offset,
        Target::At(Start::Last(count)) => end.saturating_sub(count),
        // No record is that young.
        Target::At(Start::Time(_) | Start::Ago(_)) => timed.unwrap_or(end),
    };
    Ok(clamped(wanted, bounds))
}

/// The nearest offset that can be read.
pub fn clamped(offset: i64, bounds: Bounds) -> i64 {
    offset.min(bounds.end).max(bounds.first)
}

/// A topic, or some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The topic.
    pub topic: String,
    /// Its partitions; empty for all.
    pub partitions: Vec<i32>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        for (position, partition) in self.partitions.iter().enumerate() {
            write!(f, "{}{partition}", if position == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: write TOPIC, or TOPIC:0,2 for some of its partitions");
        let (topic, partitions) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((topic, list)) => {
                let index = |index: &str| index.parse().ok().filter(|index: &i32| 0 <= *index);
                let list: Option<Vec<i32>> = list.split(',').map(index).collect();
                (topic, list.ok_or_else(wrong)?)
            }
        };
        match topic.is_empty() {
            true => Err(wrong()),
            false => Ok(Self { topic: topic.to_owned(), partitions }),
        }
    }
}

#[derive(Deserialize)]
struct SavedDocument {
    groups: Vec<SavedGroup>,
}

#[derive(Deserialize)]
struct SavedGroup {
    group: String,
    offsets: Vec<SavedOffset>,
}

#[derive(Deserialize)]
struct SavedOffset {
    topic: String,
    partition: i32,
    committed: Option<i64>,
}

/// The offsets of `group` in a file: what `aquifer group lag -o json` printed, or lines
/// `[GROUP,]TOPIC,PARTITION,OFFSET` as Kafka's own tool exports them. A document of one group only
/// may be of another one, whose offsets are taken.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse_file(text: &str, group: &str) -> Result<Offsets, String> {
    let offsets = match text.trim_start().starts_with('{') {
        true => of_document(text, group)?,
        false => of_lines(text, group)?,
    };
    match offsets.is_empty() {
        true => Err(format!("has no offset of group {group}")),
        false => Ok(offsets),
    }
}

fn of_document(text: &str, group: &str) -> Result<Offsets, String> {
    let document: SavedDocument = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let is_only = document.groups.len() == 1;
    let mut offsets = BTreeMap::new();
    for saved in document.groups {
        if saved.group == group || is_only {
            for row in saved.offsets {
                offsets.extend(row.committed.map(|offset| ((row.topic, row.partition), offset)));
            }
        }
    }
    Ok(offsets)
}

fn of_lines(text: &str, group: &str) -> Result<Offsets, String> {
    let mut offsets = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = || format!("line {}: expected [GROUP,]TOPIC,PARTITION,OFFSET", at + 1);
        // From the right: a group's name may have commas.
        let mut fields = line.trim().rsplitn(4, ',');
        let mut number = || fields.next().map(unquoted);
        let (offset, partition) = (number(), number());
        let offset: Option<i64> = offset.and_then(|text| text.parse().ok());
        let partition: Option<i32> = partition.and_then(|text| text.parse().ok());
        let topic = fields.next().map(unquoted).filter(|topic| !topic.is_empty());
        let (Some(offset @ 0..), Some(partition @ 0..), Some(topic)) = (offset, partition, topic)
        else {
            return Err(wrong());
        };
        if fields.next().is_none_or(|named| unquoted(named) == group) {
            let twice = offsets.insert((topic.clone(), partition), offset);
            if twice.is_some() {
                return Err(format!("line {}: {topic}/{partition} a second time", at + 1));
            }
        }
    }
    Ok(offsets)
}

/// A field of such a line: those that are long, or have a comma, stand in quotes.
fn unquoted(field: &str) -> String {
    let field = field.trim();
    match field.strip_prefix('"').and_then(|field| field.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Bounds = Bounds { first: 10, end: 20, timed: Some(15), committed: Some(12) };

    #[test]
    fn a_group_is_sent_to_what_is_kept_and_no_further() {
        let at = |text: &str| place(text.parse().unwrap(), KNOWN);
        for (text, offset) in [
            ("current", 12),
            ("earliest", 10),
            ("latest", 20),
            ("13", 13),
            ("3", 10),
            ("30", 20),
            ("-4", 16),
            ("-400", 10),
            ("2026-01-31", 15),
            ("-2h", 15),
        ] {
            assert_eq!(at(text), Ok(offset), "{text}");
        }
        let shift = |by| place(Target::Shift(by), KNOWN);
        assert_eq!([shift(1), shift(-9), shift(i64::MAX)], [Ok(13), Ok(10), Ok(20)]);
        assert!("nowhere".parse::<Target>().unwrap_err().ends_with("; or current"));
    }

    #[test]
    fn a_partition_never_committed_has_an_end_but_nothing_to_shift() {
        let fresh = Bounds { timed: None, committed: None, ..KNOWN };
        assert_eq!(place(Target::Current, fresh), Ok(20));
        assert_eq!(place(Target::Shift(1), fresh), Err(NeverCommitted));
        assert_eq!(place("@0".parse().unwrap(), fresh), Ok(20));
        let lost = Bounds { committed: Some(3), ..KNOWN };
        assert_eq!(place(Target::Current, lost), Ok(3), "current is where it is, kept or not");
    }

    #[test]
    fn a_topic_is_named_with_or_without_partitions() {
        let scope = |text: &str| text.parse::<Scope>().map(|one| (one.topic, one.partitions));
        assert_eq!(scope("orders"), Ok(("orders".to_owned(), Vec::new())));
        assert_eq!(scope("orders:2,0"), Ok(("orders".to_owned(), vec![2, 0])));
        for bad in ["", ":1", "orders:", "orders:-1", "orders:a"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_kafkas_lines_or_what_lag_printed() {
        let one = |offset: i64| Offsets::from([(("t".to_owned(), 1), offset)]);
        assert_eq!(parse_file("t,1,5\n\n", "g"), Ok(one(5)));
        assert_eq!(parse_file("g,t,1,5\nother,t,1,6\n", "g"), Ok(one(5)));
        assert_eq!(parse_file("\"a,\"\"b\",\"t\",1,5", "a,\"b"), Ok(one(5)));
        let saved = |group: &str| {
            let offsets = r#"[{"topic":"t","partition":1,"committed":7,"lag":0},
                {"topic":"t","partition":2,"committed":null}]"#;
            format!(r#"{{"group":"{group}","offsets":{offsets}}}"#)
        };
        let document = |groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| saved(group)).collect();
            format!(r#"{{"groups":[{}]}}"#, groups.join(","))
        };
        assert_eq!(parse_file(&document(&["g"]), "g"), Ok(one(7)));
        assert_eq!(parse_file(&document(&["other"]), "g"), Ok(one(7)), "copied to another group");
        assert_eq!(parse_file(&document(&["other", "g"]), "g"), Ok(one(7)));
        let none = Err("has no offset of group g".to_owned());
        assert_eq!(parse_file(&document(&["a", "b"]), "g"), none);
        assert_eq!(parse_file("other,t,1,6\n", "g"), none);
        assert!(parse_file("t,1,5\nt,1,6", "g").unwrap_err().starts_with("line 2: t/1"));
        for bad in ["t,1", "t,x,1", "t,1,-1", ",1,1", "{}"] {
            assert!(parse_file(bad, "g").is_err(), "{bad}");
        }
    }
}
