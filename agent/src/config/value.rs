//! Values of settings as they are written: addresses, voters, sizes.

use std::{collections::BTreeMap, str::FromStr};

use aquifer_metadata::machine::command::HostPort;
use serde::{Deserialize, Deserializer};

use super::flags::FOUNDER_ID_MAX;

/// More voters only make every commit slower.
const VOTERS_MAX: usize = 7;

/// Parses `NAME=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses `id=host:port,...`: one to seven voters, with ids from 1 to 99.
///
/// # Errors
/// What is wrong.
pub fn parse_voters(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let mut voters = BTreeMap::new();
    for one in text.split(',') {
        let (id, address) = one.trim().split_once('=').ok_or(format!("{one:?} is not ID=ADDR"))?;
        let id = id.parse().ok().filter(|id| (1..=FOUNDER_ID_MAX).contains(id));
        let id = id.ok_or(format!("{one:?} has no id from 1 to {FOUNDER_ID_MAX}"))?;
        parse_host_port(address)?;
        if voters.values().any(|known| known == address) {
            return Err(format!("{address} is named twice"));
        }
        if voters.insert(id, address.to_owned()).is_some() {
            return Err(format!("id {id} is named twice"));
        }
    }
    if VOTERS_MAX < voters.len() {
        return Err(format!("{} voters are more than {VOTERS_MAX}: use 3 or 5", voters.len()));
    }
    Ok(voters)
}

/// Parses `host:port`, also `[::1]:port`.
///
/// # Errors
/// What is missing.
pub fn parse_host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or(format!("{text:?} is not HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("{text:?} has no port from 1 to 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || port == 0 {
        return Err(format!("{text:?} is not HOST:PORT"));
    }
    Ok(HostPort { host, port })
}

/// `host:port`, or nothing.
pub(super) fn host_port<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<HostPort>, D::Error> {
    let text = Option::<String>::deserialize(source)?;
    text.map(|text| parse_host_port(&text).map_err(serde::de::Error::custom)).transpose()
}

/// A number of bytes, written with or without a unit: `1048576`, `64KiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "" | "B" => 1,
            "K" | "KB" | "KiB" => 1 << 10,
            "M" | "MB" | "MiB" => 1 << 20,
            "G" | "GB" | "GiB" => 1 << 30,
            other => return Err(format!("unknown unit {other:?}: use KiB, MiB or GiB")),
        };
        let number: u64 = digits.trim().parse().map_err(|_| format!("{text:?} is not a size"))?;
        number.checked_mul(unit).map(Self).ok_or(format!("{text:?} is too large"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Words(String),
        }
        match Text::deserialize(source)? {
            Text::Number(bytes) => Ok(Self(bytes)),
            Text::Words(words) => words.parse().map_err(serde::de::Error::custom),
        }
    }
}
