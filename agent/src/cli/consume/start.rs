//! Where consuming begins and, without `--follow`, where it ends.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use crate::cli::{
    client::{Client, ClientError, Isolation, ListedOffset, OffsetSpec, Topic},
    value::{parse_duration, parse_timestamp},
};

/// What `--from` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that is kept.
    Beginning,
    /// The next record that comes.
    End,
    /// An offset, in every partition.
    Offset(i64),
    /// So many offsets before the end of each partition.
    Last(i64),
    /// The first record that is not older, in milliseconds since 1970.
    Time(i64),
    /// The same, so long ago.
    Ago(Duration),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is no place: write beginning, end, an offset, -N for the last N, a time \
                 such as 2026-01-31T12:00:00Z or @1769860800000, or -2h for how long ago"
            )
        };
        match text {
            "beginning" | "earliest" | "start" => return Ok(Self::Beginning),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(back) = text.strip_prefix('-') {
            return match back.parse::<i64>() {
                Ok(count) if back.starts_with(|c: char| c.is_ascii_digit()) => {
                    Ok(Self::Last(count))
                }
                _ => parse_duration(back).map(Self::Ago).map_err(|_| unknown()),
            };
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_timestamp(time).map(Self::Time);
        }
        match text.parse::<u64>() {
            Ok(offset) => i64::try_from(offset).map(Self::Offset).map_err(|_| unknown()),
            Err(_) => parse_timestamp(text).map(Self::Time).map_err(|_| unknown()),
        }
    }
}

impl Start {
    /// The time it names, in milliseconds since 1970, if it names one.
    pub fn time(self, now: i64) -> Option<i64> {
        match self {
            Self::Time(millis) => Some(millis),
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Some(now.saturating_sub(ago).max(0))
            }
            Self::Beginning | Self::End | Self::Offset(_) | Self::Last(_) => None,
        }
    }
}

/// Where each partition is read from, and to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends(pub BTreeMap<i32, Range>);

/// Offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first to read.
    pub from: i64,
    /// The first that was not there when it was asked.
    pub end: i64,
}

impl Ends {
    /// Asks the cluster where `start` is.
    ///
    /// # Errors
    /// It does not say.
    pub async fn look(
        client: &mut Client,
        topic: &Topic,
        partitions: &[i32],
        start: Start,
        isolation: Isolation,
    ) -> Result<Self, ClientError> {
        let earliest = client.offsets(topic, partitions, OffsetSpec::Earliest, isolation).await?;
        let at_time = match start.time(client.seams().clock.wall().millis()) {
            Some(millis) => {
                let at = OffsetSpec::AtTimestamp(millis);
                client.offsets(topic, partitions, at, isolation).await?
            }
            None => BTreeMap::new(),
        };
        // Last, so that nothing which was found lies behind the end.
        let latest = client.offsets(topic, partitions, OffsetSpec::Latest, isolation).await?;
        let offset = |found: &BTreeMap<i32, ListedOffset>, index: i32| {
            found.get(&index).and_then(|listed| listed.offset)
        };
        let range = |index: i32| {
            let (first, end) = (offset(&earliest, index)?, offset(&latest, index)?);
            // No record is that young: then nothing before the end is wanted.
            let timed = offset(&at_time, index).unwrap_or(end);
            Some((index, Range { from: from(start, first, end, timed), end }))
        };
        Ok(Self(partitions.iter().filter_map(|index| range(*index)).collect()))
    }

    /// How many offsets there are.
    pub fn records(&self) -> u64 {
        let count = |range: &Range| u64::try_from(range.end - range.from).unwrap_or(0);
        self.0.values().map(count).sum()
    }
}

/// The first offset to read of a partition that holds `first..end`.
fn from(start: Start, first: i64, end: i64, timed: i64) -> i64 {
    match start {
        Start::Beginning => first,
        Start::End => end,
        // Also beyond the end: it may come.
        Start::Offset(offset) => offset.max(first),
        Start::Last(count) => end.saturating_sub(count).max(first),
        Start::Time(_) | Start::Ago(_) => timed.max(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_where_is_understood() {
        let noon = 1_769_860_800_000;
        for (text, start) in [
            ("beginning", Start::Beginning),
            ("earliest", Start::Beginning),
            ("end", Start::End),
            ("0", Start::Offset(0)),
            ("1769860800000", Start::Offset(noon)),
            ("@1769860800000", Start::Time(noon)),
            ("2026-01-31T12:00:00Z", Start::Time(noon)),
            ("-5", Start::Last(5)),
            ("-5m", Start::Ago(Duration::from_secs(300))),
            ("-1h 30m", Start::Ago(Duration::from_secs(5400))),
        ] {
            assert_eq!(text.parse(), Ok(start), "{text}");
        }
        for bad in ["", "-", "--5", "-+5", "@", "noon", "99999999999999999999"] {
            assert!(bad.parse::<Start>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_start_never_lies_before_what_is_kept() {
        let at = |start| from(start, 10, 20, 15);
        assert_eq!(at(Start::Beginning), 10);
        assert_eq!(at(Start::End), 20);
        assert_eq!(at(Start::Offset(12)), 12);
        assert_eq!(at(Start::Offset(3)), 10);
        assert_eq!(at(Start::Offset(30)), 30);
        assert_eq!(at(Start::Last(4)), 16);
        assert_eq!(at(Start::Last(i64::MAX)), 10);
        assert_eq!(at(Start::Time(0)), 15);
        assert_eq!(Start::Ago(Duration::from_secs(2)).time(1000), Some(0));
    }
}
