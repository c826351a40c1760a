//! Takes out of an answer what differs from run to run and from server to server.
//!
//! Values that a server draws become tokens numbered by their first appearance, so that it is still
//! compared where the same one comes again. Everything else stays as it is.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{compare::label, variables::Variables};

/// Topics that Kafka makes for itself and Aquifer has no use for.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Fields that name nodes. A server's own id becomes a token, another id stays.
const NODE_FIELDS: [&str; 16] = [
    "nodeId",
    "brokerId",
    "brokerIds",
    "leaderId",
    "controllerId",
    "voterId",
    "replicaId",
    "replicas",
    "replicaNodes",
    "isrNodes",
    "offlineReplicas",
    "eligibleLeaderReplicas",
    "lastKnownElr",
    "addingReplicas",
    "removingReplicas",
    "preferredReadReplica",
];

/// The tokens of one run of an area.
#[derive(Debug, Default)]
pub struct Tokens {
    given: BTreeMap<(&'static str, String), usize>,
    counts: BTreeMap<&'static str, usize>,
    /// Drawn texts, which may come again inside others.
    texts: Vec<(String, String)>,
    /// How many ids were seen beside each name.
    topics: BTreeMap<String, usize>,
    node: Option<i64>,
}

impl Tokens {
    /// Tokens of a server that says this of itself: `$node`, `$cluster`, `$address`.
    pub fn new(variables: &Variables) -> Self {
        let text = |name| variables.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let texts = vec![
            (text("cluster"), "<cluster>".to_owned()),
            (text("address"), "<address>".to_owned()),
        ];
        let node = variables.get("node").and_then(Value::as_i64);
        Self { texts, node, ..Self::default() }
    }

    /// The answer in its normal form.
    pub fn normal(&mut self, answer: &Value) -> Value {
        self.learn_topics(answer);
        self.value("", answer)
    }

    fn token(&mut self, kind: &'static str, drawn: &str) -> String {
        let counts = &mut self.counts;
        let number = *self.given.entry((kind, drawn.to_owned())).or_insert_with(|| {
            let count = counts.entry(kind).or_default();
            *count += 1;
            *count
        });
        format!("<{kind} {number}>")
    }

    /// A label with the tokens that its drawn parts have by now.
    fn known(&self, mut label: String) -> String {
        while let Some(at) = find_uuid(&label) {
            let drawn = label[at..at + UUID_CHARS].to_owned();
            let number = self.given.get(&("uuid", drawn)).copied().unwrap_or(usize::MAX);
            label.replace_range(at..at + UUID_CHARS, &format!("{number:>20}"));
        }
        for (drawn, token) in &self.texts {
            label = label.replace(drawn.as_str(), token);
        }
        label
    }

    /// An id that stands beside a name is known by it from then on: numbers alone would shift when
    /// one topic more or less was seen before.
    fn learn_topics(&mut self, answer: &Value) {
        match answer {
            Value::Array(values) => values.iter().for_each(|value| self.learn_topics(value)),
            Value::Object(fields) => {
                fields.values().for_each(|value| self.learn_topics(value));
                self.learn_topic(fields);
            }
            _ => {}
        }
    }

    fn learn_topic(&mut self, fields: &Map<String, Value>) {
        let text = |name| fields.get(name).and_then(Value::as_str);
        let (Some(name), Some(id)) = (text("name").or(text("topicName")), text("topicId")) else {
            return;
        };
        if is_zero_uuid(id) || self.texts.iter().any(|(drawn, _)| drawn == id) {
            return;
        }
        let count = self.topics.entry(name.to_owned()).or_insert(0);
        *count += 1;
        let token = match count {
            1 => format!("<id of {name}>"),
            count => format!("<id of {name}, {count}>"),
        };
        self.texts.push((id.to_owned(), token));
    }

    fn value(&mut self, name: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields =
                    fields.iter().map(|(name, value)| (name.clone(), self.value(name, value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Array(values) => {
                let mut values: Vec<&Value> = values.iter().filter(|v| !is_internal(v)).collect();
                if values.iter().all(|value| value.is_object()) && !is_ordered(name) {
                    values.sort_by_cached_key(|value| {
                        (self.known(label(value)), without_drawn(value))
                    });
                }
                values.into_iter().map(|value| self.value(name, value)).collect()
            }
            Value::Number(number) => self.number(name, number.as_i64(), value),
            Value::String(text) => self.text(name, text).into(),
            other => other.clone(),
        }
    }

    fn number(&mut self, name: &str, number: Option<i64>, value: &Value) -> Value {
        let Some(number) = number else { return value.clone() };
        match name {
            _ if NODE_FIELDS.contains(&name) && self.node == Some(number) => "<node>".into(),
            "port" => "<port>".into(),
            "leaderEpoch" | "partitionLeaderEpoch" if 0 <= number => "<leader epoch>".into(),
            "finalizedFeaturesEpoch" if 0 <= number => "<features epoch>".into(),
            "producerId" if 0 <= number => self.token("producer", &number.to_string()).into(),
            "sessionId" if number != 0 => self.token("session", &number.to_string()).into(),
            _ => value.clone(),
        }
    }

    fn text(&mut self, name: &str, text: &str) -> String {
        match name {
            "host" => return "<host>".to_owned(),
            "topicId"
                if !is_zero_uuid(text) && self.texts.iter().all(|(drawn, _)| drawn != text) =>
            {
                let token = self.token("topic id", text);
                self.texts.push((text.to_owned(), token.clone()));
                return token;
            }
            "memberId" if is_uuid(text) && self.texts.iter().all(|(drawn, _)| drawn != text) => {
                let token = self.token("member", text);
                self.texts.push((text.to_owned(), token));
            }
            _ => {}
        }
        let mut text = text.to_owned();
        while let Some(at) = find_uuid(&text) {
            let token = self.token("uuid", &text[at..at + UUID_CHARS]);
            text.replace_range(at..at + UUID_CHARS, &token);
        }
        for (drawn, token) in &self.texts {
            text = text.replace(drawn.as_str(), token);
        }
        text
    }
}

/// Whether the order of these is an answer too.
fn is_ordered(name: &str) -> bool {
    matches!(name, "records" | "synonyms")
}

fn is_internal(value: &Value) -> bool {
    let name = value.get("name").or(value.get("topic")).and_then(Value::as_str);
    name.is_some_and(|name| INTERNAL.contains(&name))
}

/// What orders elements of the same label: all but the texts, of which some are drawn.
fn without_drawn(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}:{};", without_drawn(value))).collect()
        }
        Value::Array(values) => values.iter().map(without_drawn).collect(),
        Value::String(_) => String::new(),
        other => other.to_string(),
    }
}

/// Whether it is a UUID as Kafka writes those of members it names itself.
fn is_uuid(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

fn is_zero_uuid(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'A')
}

const UUID_CHARS: usize = 36;

/// Where `8-4-4-4-12` hexadecimal digits begin.
fn find_uuid(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_dash = |place: usize| matches!(place, 8 | 13 | 18 | 23);
    bytes.windows(UUID_CHARS).position(|window| {
        let fits = |(place, byte): (usize, &u8)| match is_dash(place) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        window.iter().enumerate().all(fits)
    })
}
