//! Where two answers differ, by path.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// One place where Aquifer answers otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where, with the elements of arrays by their label: `topics{a}.errorCode`.
    pub path: String,
    /// What Kafka has there; `None` for nothing.
    pub kafka: Option<Value>,
    /// What Aquifer has there.
    pub ours: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                match text.char_indices().nth(300) {
                    Some((end, _)) => format!("{}..", &text[..end]),
                    None => text,
                }
            }
        };
        let (kafka, ours) = (shown(&self.kafka), shown(&self.ours));
        write!(f, "{}: Kafka {kafka}, Aquifer {ours}", self.path)
    }
}

/// Fields that tell the elements of an array apart, the most telling first.
const LABELS: [&str; 17] = [
    "name",
    "topicName",
    "topic",
    "topicId",
    "groupId",
    "apiKey",
    "partitionIndex",
    "partitionId",
    "partition",
    "index",
    "feature",
    "key",
    "nodeId",
    "brokerId",
    "memberId",
    "batchIndex",
    "baseOffset",
];

/// What an element of an array is called; empty when it has no name.
pub fn label(value: &Value) -> String {
    if let (Some(kind), Some(name)) = (value.get("resourceType"), value.get("resourceName")) {
        return format!("{kind} {}", name.as_str().unwrap_or_default());
    }
    let named = LABELS.iter().filter_map(|name| value.get(name)).find(|value| !value.is_null());
    match named {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        // Numbers sort as numbers.
        Some(Value::Number(number)) => format!("{:>6}", number.to_string()),
        Some(other) => other.to_string(),
    }
}

/// Every difference between two normal answers.
pub fn differences(kafka: &Value, ours: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(kafka), Some(ours), &mut found);
    found
}

fn compare(path: &str, kafka: Option<&Value>, ours: Option<&Value>, found: &mut Vec<Difference>) {
    match (kafka, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(mine))) => {
            let dot = if path.is_empty() { "" } else { "." };
            for name in theirs.keys().chain(mine.keys().filter(|name| !theirs.contains_key(*name)))
            {
                compare(&format!("{path}{dot}{name}"), theirs.get(name), mine.get(name), found);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(mine))) => {
            // Their order says which of them counts.
            let is_ordered = path.ends_with(".synonyms");
            let (theirs, mine) = (labelled(theirs, is_ordered), labelled(mine, is_ordered));
            for name in theirs.keys().chain(mine.keys().filter(|name| !theirs.contains_key(*name)))
            {
                let path = format!("{path}{{{}}}", name.trim());
                compare(&path, theirs.get(name).copied(), mine.get(name).copied(), found);
            }
        }
        _ if kafka == ours => {}
        _ => {
            let path = if path.is_empty() { "answer" } else { path }.to_owned();
            found.push(Difference { path, kafka: kafka.cloned(), ours: ours.cloned() });
        }
    }
}

/// Elements by label; by place where labels do not tell them apart.
fn labelled(values: &[Value], is_ordered: bool) -> BTreeMap<String, &Value> {
    let by_label: BTreeMap<String, &Value> =
        values.iter().map(|value| (label(value), value)).collect();
    if by_label.len() == values.len() && !by_label.contains_key("") && !is_ordered {
        return by_label;
    }
    values.iter().enumerate().map(|(place, value)| (format!("{place:>6}"), value)).collect()
}
