//! From a piece of the input to a record with its partition.

use std::sync::Arc;

use anyhow::Context as _;
use aquifer_storage::seam::{Clock, Seams};
use bytes::Bytes;

use super::{InputFormat, ProduceArgs, delivery::Queued};
use crate::cli::{
    json::parse_record,
    partitioner::{Sticky, partition_of_key},
    records::{Header, Record},
};

/// Makes records out of the input.
pub struct Parser {
    clock: Arc<dyn Clock>,
    partitions: i32,
    sticky: Sticky,
    headers: Vec<Header>,
    /// How many records came, for messages.
    count: u64,
}

impl Parser {
    /// For a topic of `partitions`.
    pub fn new(args: &ProduceArgs, partitions: i32, seams: &Seams) -> Self {
        let header = |(name, value): &(String, String)| Header {
            key: Bytes::from(name.clone()),
            value: Some(Bytes::from(value.clone())),
        };
        let headers = args.headers.iter().map(header).collect();
        let sticky = Sticky::new(seams.rng.next_u64(), partitions);
        Self { clock: Arc::clone(&seams.clock), partitions, sticky, headers, count: 0 }
    }

    /// The record of the next piece of the input.
    ///
    /// # Errors
    /// It is no JSON record; the message says which one.
    pub fn parse(&mut self, args: &ProduceArgs, input: Vec<u8>) -> anyhow::Result<Queued> {
        self.count += 1;
        let now = self.clock.wall().millis();
        let mut record = match args.input {
            InputFormat::Json => parse_record(&input, now)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("line {} of the input is no record", self.count))?,
            InputFormat::Lines | InputFormat::Raw => self.plain(args, input, now),
        };
        record.headers.extend(self.headers.iter().cloned());
        if let Some(timestamp) = args.timestamp {
            record.timestamp = timestamp;
        }
        let partition = match (args.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, self.partitions),
            (None, None) => self.sticky.next(record.bytes_max(), self.partitions),
        };
        Ok(Queued { partition, record, ordinal: self.count })
    }

    fn plain(&self, args: &ProduceArgs, input: Vec<u8>, timestamp: i64) -> Record {
        let mut value = Bytes::from(input);
        let mut key = args.key.clone().map(Bytes::from);
        if let Some(separator) = &args.key_separator {
            let separator = separator.0.as_slice();
            // Without a separator there is no key, as kcat has it.
            let at = value.windows(separator.len()).position(|window| window == separator);
            if let Some(at) = at {
                key = Some(value.split_to(at));
                value = value.slice(separator.len()..);
            }
        }
        let is_null = args.tombstone || (args.null_empty && value.is_empty());
        Record { key, value: (!is_null).then_some(value), headers: Vec::new(), timestamp }
    }
}
