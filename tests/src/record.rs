//! Records as client programs read and print them: one JSON line each.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// A record, its bytes in base64. `timestamp` is in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key.
    pub key: Option<String>,
    /// The value.
    pub value: Option<String>,
    /// Name and value of each header.
    pub headers: Vec<(String, Option<String>)>,
    /// As the producer set it.
    pub timestamp: i64,
}

/// A record as a consumer saw it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsumedRecord {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Its offset.
    pub offset: i64,
}

/// The line the client programs parse: their parsers know this spacing.
pub fn to_line(record: &Record) -> String {
    let field = |text: &Option<String>| match text {
        Some(text) => format!("\"{text}\""),
        None => "null".to_owned(),
    };
    let headers: Vec<String> = record
        .headers
        .iter()
        .map(|(name, value)| format!("[\"{name}\", {}]", field(value)))
        .collect();
    format!(
        "{{\"key\": {}, \"value\": {}, \"headers\": [{}], \"timestamp\": {}}}",
        field(&record.key),
        field(&record.value),
        headers.join(", "),
        record.timestamp
    )
}

/// Records of every shape: null and empty keys and values, headers, one byte to one MiB. The first
/// is an hour old, so that no retention ends it.
pub fn assorted() -> Vec<Record> {
    let bytes = |count: usize, seed: u8| {
        let noise = (0..count).map(|n| (n as u8).wrapping_mul(31) ^ (n >> 8) as u8 ^ seed);
        Some(STANDARD.encode(noise.collect::<Vec<u8>>()))
    };
    let mut records = vec![
        record(None, bytes(1, 1)),
        record(bytes(1, 2), None),
        record(None, None),
        record(bytes(0, 0), bytes(0, 0)),
        // As large as the default `max.message.bytes` lets through, with its batch around it.
        record(bytes(10, 3), bytes((1 << 20) - 200, 4)),
    ];
    for size in [1, 2, 100, 1000, 10_000, 100_000] {
        records.push(record(bytes(8, size as u8), bytes(size, 5)));
    }
    records[0].headers = vec![("one".to_owned(), bytes(3, 6)), ("empty".to_owned(), bytes(0, 0))];
    for number in 0..200 {
        records.push(record(bytes(4, number), bytes(50, number)));
    }
    let begin = now_ms() - 3_600_000;
    for (place, record) in records.iter_mut().enumerate() {
        record.timestamp = begin + place as i64 * 7;
    }
    records
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

fn record(key: Option<String>, value: Option<String>) -> Record {
    Record { key, value, headers: Vec::new(), timestamp: 0 }
}
