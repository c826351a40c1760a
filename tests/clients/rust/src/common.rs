//! Records as lines of JSON, and steps whose failure is printed.

use std::{fmt::Display, future::Future, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

// What `admin` does, as README.md says.
pub const KEEP_MS: &str = "315360000000";
pub const KEEP_LONGER_MS: &str = "946080000000";
pub const DELETE_BEFORE: i64 = 50;

/// The time after which nothing is waited for any more.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A header: its name and its value, if any.
pub type Header = (String, Option<Vec<u8>>);

/// A record.
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    pub timestamp: i64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    timestamp: i64,
    #[serde(default)]
    offset: i64,
}

fn decode(text: Option<String>) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(text.map(|text| STANDARD.decode(text)).transpose()?)
}

fn encode(data: Option<Vec<u8>>) -> Option<String> {
    data.map(|data| STANDARD.encode(data))
}

/// The records of a file.
pub fn read(path: &str) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    let record = |line: &str| {
        let line: Line = serde_json::from_str(line)?;
        let header = |(name, value)| Ok((name, decode(value)?));
        Ok(Record {
            key: decode(line.key)?,
            value: decode(line.value)?,
            headers: line.headers.into_iter().map(header).collect::<anyhow::Result<_>>()?,
            timestamp: line.timestamp,
        })
    };
    text.lines().map(record).collect()
}

/// Prints a record that was read.
pub fn show(record: Record, offset: i64) -> anyhow::Result<()> {
    let header = |(name, value)| (name, encode(value));
    let line = Line {
        key: encode(record.key),
        value: encode(record.value),
        headers: record.headers.into_iter().map(header).collect(),
        timestamp: record.timestamp,
        offset,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

/// Takes a step; prints its name and what came of it, an error too.
pub async fn step<T: Display>(name: &str, doing: impl Future<Output = anyhow::Result<T>>) {
    match doing.await {
        Ok(result) => println!("{name} {result}"),
        Err(error) => println!("{name} failed: {}", format!("{error:#}").replace('\n', " ")),
    }
}

/// Asks until the answer is the wanted one, for 10 s; returns the last answer.
pub async fn until<T: PartialEq, F: Future<Output = anyhow::Result<T>>>(
    wanted: T,
    ask: impl Fn() -> F,
) -> anyhow::Result<T> {
    for _ in 0..50 {
        let answer = ask().await?;
        if answer == wanted {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ask().await
}
