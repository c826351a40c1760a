//! Real clients over a deployment that breaks: what was acknowledged is there, once, at its offset.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    thread::sleep,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::client::{Client, succeeded};

/// Streams numbered records while `nemesis` runs, then reads everything back as a new consumer.
pub fn nothing_is_lost_while(
    bootstrap: SocketAddr,
    folder: &Path,
    nemesis: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stop = folder.join("stop");
    let (address, stop_path) = (bootstrap.to_string(), stop.to_string_lossy().into_owned());
    let stream = Client::Librdkafka.start(&["stream", &address, "chaos", "300", &stop_path])?;
    sleep(Duration::from_secs(2)); // Let records flow before the first kill.
    let outcome = nemesis();
    std::fs::write(&stop, "")?;
    let printed = succeeded("stream", stream.wait_with_output()?)?;
    outcome?;
    let mut acked = BTreeMap::new();
    for line in printed.lines() {
        let (value, offset) = line.split_once(' ').expect("value and offset");
        acked.insert(offset.parse::<i64>()?, value.to_owned());
    }
    anyhow::ensure!(100 < acked.len(), "only {} records were acknowledged", acked.len());
    let consumed = Client::Java.consume(bootstrap, "chaos", "reader", acked.len())?;
    let mut seen = BTreeSet::new();
    for (place, record) in consumed.iter().enumerate() {
        let value =
            String::from_utf8(STANDARD.decode(record.record.value.as_deref().unwrap_or(""))?)?;
        anyhow::ensure!(record.offset == place as i64, "hole before offset {}", record.offset);
        anyhow::ensure!(seen.insert(value.clone()), "value {value} is there twice");
        let told = acked.get(&record.offset);
        anyhow::ensure!(told == Some(&value), "offset {place}: told {told:?}, read {value}");
    }
    Ok(())
}
