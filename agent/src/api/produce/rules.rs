//! What a topic asks of the batches produced to it. By default a batch's header is looked at and
//! its records stay unread; a codec of the topic's own, compaction, or `aquifer.validate=full` make
//! it work.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use aquifer_metadata::watch::CatalogTopic;
use aquifer_storage::{
    format::record_batch::{
        Codec, ValidatedBatch,
        compression::Packing,
        records::RecordsDamaged,
        rework::{
            RecordFault, RecordRejected, RecordRules, RecordsRejected, TimestampRule,
            check_records, repacked,
        },
    },
    model::Timestamp,
};

use crate::{
    broker::Broker,
    topic_config,
    wire::{
        codec::Str, error_code::ErrorCode,
        messages::ProduceResponseResponsesPartitionResponsesRecordErrors as RecordError,
    },
};

/// Records told of in the message of a refusal, as in Kafka; all are in its list.
const TOLD_MAX: usize = 3;

/// The default of `message.timestamp.after.max.ms`.
const AFTER_MAX_MS: i64 = 3_600_000;

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    pub code: ErrorCode,
    /// For people.
    pub words: Cow<'static, str>,
    /// The records that are the reason, where it is some of them.
    pub records: Vec<RecordError>,
}

impl Refused {
    pub fn new(code: ErrorCode, words: impl Into<Cow<'static, str>>) -> Self {
        Self { code, words: words.into(), records: Vec::new() }
    }
}

/// What a topic asks of its batches.
#[derive(Clone)]
pub(super) struct TopicRules {
    pub topic: Arc<CatalogTopic>,
    pub batch_bytes_max: usize,
    /// With the time of the append, that.
    append_time: Option<Timestamp>,
    records: RecordRules,
    /// Every record is looked at.
    is_full: bool,
    /// The codec of the topic's own.
    packing: Option<Packing>,
}

impl TopicRules {
    pub fn of(broker: &Broker, topic: Arc<CatalogTopic>) -> Self {
        let configs = broker.effective_configs(&topic);
        Self::at(&topic, &configs, broker.session.leader_wall())
    }

    fn at(topic: &Arc<CatalogTopic>, configs: &BTreeMap<String, String>, now: Timestamp) -> Self {
        // Once per topic and request: most topics have few of these, so nothing is looked up twice.
        let text = |name: &str| configs.get(name).map_or("", String::as_str);
        let limit = |name: &str, default: i64| text(name).parse().unwrap_or(default);
        let is_append_time = text("message.timestamp.type") == "LogAppendTime";
        let timestamps = match is_append_time {
            true => TimestampRule::NotOfAppend,
            false => TimestampRule::Within(
                now.millis().saturating_sub(limit("message.timestamp.before.max.ms", i64::MAX)),
                now.millis().saturating_add(limit("message.timestamp.after.max.ms", AFTER_MAX_MS)),
            ),
        };
        let packing = |codec, (level, default): (&str, i32)| {
            Some(Packing { codec, level: text(level).parse().unwrap_or(default) })
        };
        let packing = match text("compression.type") {
            "uncompressed" => packing(Codec::None, ("", 0)),
            "gzip" => packing(Codec::Gzip, ("compression.gzip.level", -1)),
            "snappy" => packing(Codec::Snappy, ("", 0)),
            "lz4" => packing(Codec::Lz4, ("compression.lz4.level", 9)),
            "zstd" => packing(Codec::Zstd, ("compression.zstd.level", 3)),
            _ => None,
        };
        Self {
            batch_bytes_max: usize::try_from(limit("max.message.bytes", 1_048_588)).unwrap_or(0),
            append_time: is_append_time.then_some(now),
            records: RecordRules { keyed: topic_config::is_compacted(configs), timestamps },
            is_full: text("aquifer.validate") == "full",
            packing,
            topic: Arc::clone(topic),
        }
    }

    /// What Produce answers for a batch that is appended now: the time of the append, if it is that
    /// of its records, else -1.
    pub fn append_time_ms(&self) -> i64 {
        self.append_time.map_or(-1, Timestamp::millis)
    }

    /// Whether the batch's records have to be looked at: they must, or its header breaks a rule and
    /// the answer says which record does.
    pub fn wants_records(&self, batch: &ValidatedBatch) -> bool {
        self.is_full
            || self.records.keyed
            || self.packing_of(batch).is_some()
            || match self.records.timestamps {
                TimestampRule::Any => false,
                TimestampRule::NotOfAppend => batch.has_client_append_time(),
                TimestampRule::Within(oldest, newest) => {
                    let header = batch.header();
                    let (first, last) = (header.base_timestamp, header.max_timestamp);
                    let is_in = |time: Timestamp| {
                        time == Timestamp::NONE || (oldest..=newest).contains(&time.millis())
                    };
                    !is_in(first) || !is_in(last)
                }
            }
    }

    /// What the batch is compressed with anew.
    fn packing_of(&self, batch: &ValidatedBatch) -> Option<Packing> {
        let codec = batch.header().attributes.codec();
        self.packing.filter(|packing| Some(packing.codec) != codec)
    }

    /// The batch as it is stored, its records unread.
    pub fn stamped(&self, batch: ValidatedBatch) -> ValidatedBatch {
        match self.append_time {
            Some(now) => batch.with_append_time(now),
            // A client that claims append time is corrected, as in Kafka.
            None => batch.with_create_time(),
        }
    }

    /// The batch as it is stored, after a look at every record. Computes for long.
    pub fn rework(&self, batch: ValidatedBatch, partition: i32) -> Result<ValidatedBatch, Refused> {
        let place = Place { topic: &self.topic.name, partition, rules: self.records };
        let newest = check_records(&batch, self.records).map_err(|error| place.refused(error))?;
        let batch = match self.packing_of(&batch) {
            Some(packing) => repacked(&batch, packing, self.batch_bytes_max)
                .map_err(|error| place.refused(error))?,
            None => batch,
        };
        Ok(self.stamped(batch.with_max_timestamp(newest)))
    }
}

/// Where a batch was refused, in Kafka's words.
struct Place<'a> {
    topic: &'a str,
    partition: i32,
    rules: RecordRules,
}

impl Place<'_> {
    fn refused(&self, rejected: RecordsRejected) -> Refused {
        let words = rejected.to_string();
        match rejected {
            RecordsRejected::Damaged(RecordsDamaged::Compression | RecordsDamaged::TooLong) => {
                Refused::new(ErrorCode::CorruptMessage, words)
            }
            RecordsRejected::Damaged(
                RecordsDamaged::Short
                | RecordsDamaged::Surplus
                | RecordsDamaged::Structure
                | RecordsDamaged::Size { .. },
            ) => Refused::new(ErrorCode::InvalidRecord, words),
            RecordsRejected::TooLarge { batch_bytes } => {
                let Self { topic, partition, .. } = self;
                let words = format!(
                    "a batch of {topic}-{partition} takes {batch_bytes} B when it is compressed as \
                     the topic says, which is above its max.message.bytes"
                );
                Refused::new(ErrorCode::MessageTooLarge, words)
            }
            RecordsRejected::Records(rejected) => self.of_records(&rejected),
        }
    }

    fn of_records(&self, rejected: &[RecordRejected]) -> Refused {
        let words: Vec<String> = rejected.iter().map(|one| self.of_record(one)).collect();
        let is_of_time = |one: &RecordRejected| one.why != RecordFault::NoKey;
        let (code, message) = if rejected.iter().any(is_of_time) {
            let message = "One or more records have been rejected due to invalid timestamp";
            (ErrorCode::InvalidTimestamp, message.to_owned())
        } else {
            let told = rejected.iter().zip(&words).take(TOLD_MAX).map(|(one, words)| {
                format!("RecordError(batchIndex={}, message='{words}')", one.index)
            });
            let message = format!(
                "One or more records have been rejected due to {} record errors in total, and only \
                 showing the first three errors at most: [{}]",
                rejected.len(),
                told.collect::<Vec<_>>().join(", ")
            );
            (ErrorCode::InvalidRecord, message)
        };
        let record = |(one, words): (&RecordRejected, String)| RecordError {
            batch_index: i32::try_from(one.index).unwrap_or(i32::MAX),
            batch_index_error_message: Some(Str::from(words)),
        };
        let records = rejected.iter().zip(words).map(record).collect();
        Refused { code, words: message.into(), records }
    }

    fn of_record(&self, one: &RecordRejected) -> String {
        let Self { topic, partition, rules } = self;
        match (one.why, rules.timestamps) {
            (RecordFault::NoKey, _) => format!(
                "Compacted topic cannot accept message without key in topic partition \
                 {topic}-{partition}"
            ),
            (RecordFault::Timestamp(time), TimestampRule::Within(oldest, newest)) => format!(
                "Timestamp {time} of message with offset {} is out of range. The timestamp should \
                 be within [{oldest}, {newest}]",
                one.offset_delta
            ),
            (RecordFault::Timestamp(time), _) => format!("Timestamp {time} is out of range."),
            (RecordFault::AppendTime { timestamp, sizes: (key, value) }, _) => format!(
                "Invalid timestamp type in message DefaultRecord(offset={}, timestamp={timestamp}, \
                 key={key} bytes, value={value} bytes). Producer should not set timestamp type to \
                 LogAppendTime.",
                one.offset_delta
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
