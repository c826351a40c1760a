//! `consume --format`: a line of one's own for each record, with kcat's tokens. Pure.

use std::{borrow::Cow, io::Write as _};

use bytes::Bytes;

use super::{
    json::RecordLine,
    records::PlacedRecord,
    value::{parse_escaped, timestamp_text},
};

/// What `--help` says of the tokens.
pub const TOKENS: &str = "\
Tokens of --format (as in kcat):
  %t  topic            %k  key                      %T  timestamp, ms since 1970
  %p  partition        %K  key length (-1: null)    %D  timestamp, RFC 3339 in UTC
  %o  offset           %s  value                    %h  headers: name=value,...
  %%  a % sign         %S  value length (-1: null)  %R  %S as 4 bytes, big-endian
  %J  the record as JSON, as -o json prints it
  and \\n \\r \\t \\0 \\\\ \\xNN. No newline is added: end the format with \\n.";

/// A piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    ValueLengthBinary,
    Timestamp,
    Date,
    Headers,
    Json,
}

/// A format that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            push_text(&mut pieces, &rest[..at])?;
            let token = rest[at + 1..].chars().next();
            let piece = match token {
                Some('t') => Piece::Topic,
                Some('p') => Piece::Partition,
                Some('o') => Piece::Offset,
                Some('k') => Piece::Key,
                Some('K') => Piece::KeyLength,
                Some('s') => Piece::Value,
                Some('S') => Piece::ValueLength,
                Some('R') => Piece::ValueLengthBinary,
                Some('T') => Piece::Timestamp,
                Some('D') => Piece::Date,
                Some('h') => Piece::Headers,
                Some('J') => Piece::Json,
                Some('%') => Piece::Text(b"%".to_vec()),
                Some(other) => return Err(format!("%{other} is no token; see --help")),
                None => return Err("it ends in a single %: write %%".to_owned()),
            };
            pieces.push(piece);
            rest = &rest[at + 1 + token.map_or(0, char::len_utf8)..];
        }
        push_text(&mut pieces, rest)?;
        Ok(Self(pieces))
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        pieces.push(Piece::Text(parse_escaped(text)?));
    }
    Ok(())
}

impl Template {
    /// Appends a record to `out`.
    pub fn write(&self, topic: &str, partition: i32, placed: &PlacedRecord, out: &mut Vec<u8>) {
        let record = &placed.record;
        for piece in &self.0 {
            let text: Cow<'_, [u8]> = match piece {
                Piece::Text(text) => Cow::Borrowed(text),
                Piece::Topic => Cow::Borrowed(topic.as_bytes()),
                Piece::Partition => number(partition),
                Piece::Offset => number(placed.offset),
                Piece::Key => Cow::Borrowed(record.key.as_deref().unwrap_or_default()),
                Piece::KeyLength => number(length(record.key.as_ref())),
                Piece::Value => Cow::Borrowed(record.value.as_deref().unwrap_or_default()),
                Piece::ValueLength => number(length(record.value.as_ref())),
                Piece::ValueLengthBinary => {
                    let length = i32::try_from(length(record.value.as_ref()));
                    Cow::Owned(length.unwrap_or(i32::MAX).to_be_bytes().to_vec())
                }
                Piece::Timestamp => number(record.timestamp),
                Piece::Date => Cow::Owned(timestamp_text(record.timestamp).into_bytes()),
                Piece::Headers => Cow::Owned(headers(placed)),
                Piece::Json => {
                    let line = RecordLine::of(topic, partition, placed);
                    Cow::Owned(serde_json::to_vec(&line).unwrap_or_default())
                }
            };
            out.extend_from_slice(&text);
        }
    }
}

fn number<'a>(value: impl std::fmt::Display) -> Cow<'a, [u8]> {
    Cow::Owned(value.to_string().into_bytes())
}

fn length(bytes: Option<&Bytes>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn headers(placed: &PlacedRecord) -> Vec<u8> {
    let mut text = Vec::new();
    for (at, header) in placed.record.headers.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"" } else { b"," });
        text.extend_from_slice(&header.key);
        text.push(b'=');
        let value = header.value.as_deref().unwrap_or(b"NULL");
        // Writing to memory does not fail.
        let _ = text.write_all(value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::records::{Header, Record};

    fn formatted(format: &str) -> Result<String, String> {
        let header = |key, value| Header { key: Bytes::from_static(key), value };
        let record = Record {
            key: Some(Bytes::from_static(b"k1")),
            value: Some(Bytes::from_static("wässer".as_bytes())),
            headers: vec![header(b"a", Some(Bytes::from_static(b"1"))), header(b"b", None)],
            timestamp: 1_769_860_800_000,
        };
        let placed = PlacedRecord { offset: 42, is_append_time: false, record };
        let mut out = Vec::new();
        format.parse::<Template>()?.write("orders", 3, &placed, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_token_stands_for_its_part_of_the_record() {
        let all = formatted(r"%t/%p@%o %k(%K) %s(%S) %T %D [%h] 100%%\n");
        let told = "orders/3@42 k1(2) wässer(7) 1769860800000 2026-01-31T12:00:00.000Z \
                    [a=1,b=NULL] 100%\n";
        assert_eq!(all.as_deref(), Ok(told));
        assert_eq!(formatted("%R").as_deref(), Ok("\0\0\0\x07"));
        assert!(formatted("%J").unwrap().starts_with(r#"{"topic":"orders","partition":3,"#));
    }

    #[test]
    fn what_is_no_token_is_refused_by_name() {
        assert_eq!(formatted("%q").unwrap_err(), "%q is no token; see --help");
        assert_eq!(formatted("%ü").unwrap_err(), "%ü is no token; see --help");
        assert!(formatted("50%").unwrap_err().contains("%%"));
        assert!(formatted(r"\q").is_err());
    }
}
