//! A record as one line of JSON: what `consume -o json` prints and `produce -i json` reads. Pure.
//!
//! Bytes that are no UTF-8 stand under the same name with `_base64` behind it, so that nothing is
//! lost: `consume -o json | produce -i json` copies records as they are.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    records::{Header, PlacedRecord, Record},
    value::timestamp_text,
};

/// A record with its place, as it is printed.
#[derive(Debug, Serialize)]
pub struct RecordLine {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: i64,
    time: String,
    timestamp_type: &'static str,
    #[serde(flatten)]
    key: Named,
    #[serde(flatten)]
    value: Named,
    headers: Vec<HeaderLine>,
}

/// A header, as it is printed.
#[derive(Debug, Serialize)]
struct HeaderLine {
    key: String,
    #[serde(flatten)]
    value: Named,
}

/// Bytes under the name that says how they are written.
#[derive(Debug)]
struct Named {
    text_name: &'static str,
    binary_name: &'static str,
    bytes: Option<Bytes>,
}

impl Named {
    fn key(bytes: Option<&Bytes>) -> Self {
        Self { text_name: "key", binary_name: "key_base64", bytes: bytes.cloned() }
    }

    fn value(bytes: Option<&Bytes>) -> Self {
        Self { text_name: "value", binary_name: "value_base64", bytes: bytes.cloned() }
    }
}

impl Serialize for Named {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(1))?;
        match self.bytes.as_deref().map(|bytes| (std::str::from_utf8(bytes), bytes)) {
            None => map.serialize_entry(self.text_name, &None::<&str>)?,
            Some((Ok(text), _)) => map.serialize_entry(self.text_name, text)?,
            Some((Err(_), bytes)) => {
                map.serialize_entry(self.binary_name, &BASE64.encode(bytes))?
            }
        }
        map.end()
    }
}

impl RecordLine {
    /// The line of a record.
    pub fn of(topic: &str, partition: i32, placed: &PlacedRecord) -> Self {
        let record = &placed.record;
        let header = |header: &Header| HeaderLine {
            key: String::from_utf8_lossy(&header.key).into_owned(),
            value: Named::value(header.value.as_ref()),
        };
        Self {
            topic: topic.to_owned(),
            partition,
            offset: placed.offset,
            timestamp: record.timestamp,
            time: timestamp_text(record.timestamp),
            timestamp_type: if placed.is_append_time { "append" } else { "create" },
            key: Named::key(record.key.as_ref()),
            value: Named::value(record.value.as_ref()),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

/// A record to produce, as it is read. Fields that only say where a record was are skipped.
#[derive(Debug, Default, Deserialize)]
struct ProducedLine {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<ProducedHeader>,
    timestamp: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct ProducedHeader {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

/// The record of a line of JSON; its timestamp is `now` unless the line has one.
///
/// # Errors
/// What is wrong with the line.
pub fn parse_record(line: &[u8], now: i64) -> Result<Record, String> {
    let line: ProducedLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut headers = Vec::with_capacity(line.headers.len());
    for header in line.headers {
        let value = bytes("a header's value", header.value, header.value_base64)?;
        headers.push(Header { key: Bytes::from(header.key), value });
    }
    Ok(Record {
        key: bytes("key", line.key, line.key_base64)?,
        value: bytes("value", line.value, line.value_base64)?,
        headers,
        timestamp: line.timestamp.unwrap_or(now),
    })
}

fn bytes(
    what: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("{what} is there twice, as text and as base64")),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(base64)) => {
            let bytes = BASE64.decode(base64).map_err(|error| format!("{what}_base64: {error}"))?;
            Ok(Some(bytes.into()))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(record: &Record) -> String {
        let placed = PlacedRecord { offset: 5, is_append_time: false, record: record.clone() };
        serde_json::to_string(&RecordLine::of("t", 1, &placed)).unwrap()
    }

    #[test]
    fn a_printed_record_is_read_as_it_was_binary_null_and_empty_told_apart() {
        let header = |value: Option<&'static [u8]>| Header {
            key: Bytes::from_static(b"h"),
            value: value.map(Bytes::from_static),
        };
        let record = |key: Option<&'static [u8]>, value: Option<&'static [u8]>| Record {
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![header(key), header(value)],
            timestamp: 77,
        };
        for record in [
            record(Some(b"k"), Some("wäßrig \" \n".as_bytes())),
            record(None, Some(b"\xff\x00")),
            record(Some(b"\xfe"), None),
            record(Some(b""), Some(b"")),
        ] {
            assert_eq!(parse_record(line(&record).as_bytes(), 0), Ok(record));
        }
    }

    #[test]
    fn the_fields_of_a_line_are_these() {
        let record = Record { value: Some(Bytes::from_static(b"v")), ..Record::default() };
        let told = concat!(
            r#"{"topic":"t","partition":1,"offset":5,"timestamp":0,"#,
            r#""time":"1970-01-01T00:00:00.000Z","timestamp_type":"create","#,
            r#""key":null,"value":"v","headers":[]}"#
        );
        assert_eq!(line(&record), told);
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_and_a_bare_one_gets_the_time() {
        assert_eq!(parse_record(br#"{"value":"v"}"#, 9).unwrap().timestamp, 9);
        for bad in ["", "5", r#"{"value":1}"#, r#"{"value":"a","value_base64":"YQ=="}"#] {
            assert!(parse_record(bad.as_bytes(), 0).is_err(), "{bad}");
        }
        assert!(parse_record(br#"{"key_base64":"?"}"#, 0).unwrap_err().contains("key_base64"));
    }
}
