//! Produce (0) v3-13: validate without decompressing, hand over, answer when metadata did.

use std::{borrow::Cow, sync::Arc, time::Duration};

use aquifer_metadata::{machine::command::BatchRejected, watch::CatalogTopic};
use aquifer_storage::{
    cache::block::KEPT_PIECE_BYTES_MIN,
    format::record_batch::{
        BATCH_HEADER_BYTES, Codec, RejectedAs, ValidatedBatch, validate_produced,
    },
    model::TopicPartition,
    planted::{self, Bug},
};

use super::{Answer, ConnectionState, PendingAnswer, bad, topics};
use crate::{
    broker::Broker,
    metrics::ApiLabel,
    produce::{AppendOutcome, DEADLINE_MAX, Permit, ProduceBatch},
    server::frame_reader::Frame,
    topic_config,
    wire::{
        codec::{Reader, Str},
        error_code::ErrorCode,
        header::{RequestHeader, response_frame},
        messages::{
            ProduceResponse, ProduceResponseResponses, ProduceResponseResponsesPartitionResponses,
        },
        produce_walk::{ProducePartition, ProduceWalk},
        walk::TopicRef,
    },
};

/// zstd needs this version: older clients could not read it back.
const FIRST_WITH_ZSTD: i16 = 7;

/// Partitions that may come without bytes enough for a batch each. Beyond it a request is no
/// producer's, and its answer would take many times its own memory.
const EMPTY_PARTITIONS_MAX: usize = 1024;

/// Less is not waited: Kafka stores a batch before it looks at the timeout, also at one of 0.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// What is known of a topic of the request before its outcomes.
struct TopicRows {
    /// In memory of its own: it outlives the frame.
    topic: TopicRef,
    rows: Vec<Row>,
}

/// What is known of one partition of the request before its outcome.
struct Row {
    index: i32,
    /// Refused before anything was sent, with words for people; else its batch was handed over.
    refused: Option<Refused>,
}

type Refused = (ErrorCode, Cow<'static, str>);

/// Reads the request and hands its batches over, in order; the returned future is its answer.
///
/// # Errors
/// Why the connection must be closed.
pub async fn start(
    broker: &Broker,
    state: &mut ConnectionState,
    frame: Frame,
) -> Result<PendingAnswer, String> {
    let Frame { prefix, rest, permit } = frame;
    let (key, version) = (prefix.key, prefix.version);
    broker.metrics.requests.get_or_create(&ApiLabel { api: key.name() }).inc();
    let mut reader = Reader::new(rest);
    let header = RequestHeader::decode(&mut reader, key, version, true)
        .map_err(|error| bad(key, version, &error))?;
    let walk = ProduceWalk::read(reader, version).map_err(|error| bad(key, version, &error))?;
    let batches_max = prefix.rest_bytes / BATCH_HEADER_BYTES + EMPTY_PARTITIONS_MAX;
    if batches_max < walk.partition_count() {
        let count = walk.partition_count();
        return Err(format!("{count} partitions in {} bytes of a Produce", prefix.rest_bytes));
    }
    let permit = Permit::new(permit);
    let (topics, mut batches) = check(broker, &walk, version).await;
    detach_few(&mut batches, prefix.rest_bytes);
    let (acks, correlation) = (walk.acks, header.correlation_id);
    let timeout = match acks {
        -1 => Duration::from_millis(u64::try_from(walk.timeout_ms).unwrap_or(0)).max(TIMEOUT_MIN),
        // Kafka's timeout is that of the replicas, for which only acks=all waits.
        _ => DEADLINE_MAX,
    };
    let pending = broker.producer.append(state.id, timeout, (batches, permit.clone())).await;
    Ok(Box::pin(async move {
        let outcomes = pending.outcomes().await;
        let response = respond(version, topics, outcomes);
        drop(permit);
        if acks == 0 {
            return unanswered(&response);
        }
        let chunks = response_frame(correlation, version, &response);
        Answer::Frame { chunks, permit: None }
    }))
}

/// Sorts a request into batches to be handed over and partitions refused.
async fn check(
    broker: &Broker,
    walk: &ProduceWalk,
    version: i16,
) -> (Vec<TopicRows>, Vec<ProduceBatch>) {
    let mut topics: Vec<TopicRows> = Vec::new();
    let mut batches = Vec::with_capacity(walk.partition_count());
    let mut rules = Err(ErrorCode::UnknownTopicOrPartition);
    let mut last = None;
    for asked in walk.iter() {
        if last.replace(asked.topic_index) != Some(asked.topic_index) {
            let found = topics::resolve(broker, &asked.topic).await;
            rules = found.map(|topic| TopicRules::of(broker, topic));
            // Room for a few would multiply a request of many topics with a partition each.
            let rows = Vec::with_capacity(1);
            topics.push(TopicRows { topic: asked.topic.detached(), rows });
        }
        let index = asked.partition_index;
        let refused = match admit(walk, version, asked, &rules) {
            Ok((partition, batch)) => {
                batches.push(ProduceBatch { partition, batch });
                None
            }
            Err(refused) => Some(refused),
        };
        topics.last_mut().expect("pushed above").rows.push(Row { index, refused });
    }
    let bytes = batches.iter().map(|one: &ProduceBatch| one.batch.bytes().len() as u64).sum();
    broker.metrics.produced_bytes.inc_by(bytes);
    (topics, batches)
}

/// The cache keeps a large batch as the part of its frame that it is, and so keeps the frame: that
/// is right where the frame is little else, and a way to fill the memory where it is not.
fn detach_few(batches: &mut [ProduceBatch], frame_bytes: usize) {
    let is_kept = |one: &&mut ProduceBatch| KEPT_PIECE_BYTES_MIN <= one.batch.bytes().len();
    let kept_bytes: usize =
        batches.iter_mut().filter(is_kept).map(|one| one.batch.bytes().len()).sum();
    if kept_bytes / 4 < frame_bytes / 5 {
        for one in batches.iter_mut().filter(is_kept) {
            one.batch = one.batch.clone().detached();
        }
    }
}

/// `acks=0` has no answer; Kafka closes the connection so that the client learns of an error.
fn unanswered(response: &ProduceResponse) -> Answer {
    let mut rows = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match rows.find(|row| row.error_code != 0) {
        None => Answer::None,
        Some(row) => {
            let words = row.error_message.as_ref().map_or("", Str::as_str);
            Answer::Close(format!("produce with acks=0 failed: code {} {words}", row.error_code))
        }
    }
}

/// What a topic asks of its batches.
struct TopicRules {
    topic: Arc<CatalogTopic>,
    batch_bytes_max: usize,
    /// The earliest and the latest timestamp taken, in milliseconds.
    timestamps: (i64, i64),
}

impl TopicRules {
    fn of(broker: &Broker, topic: Arc<CatalogTopic>) -> Self {
        let limit = |name: &str| -> i64 {
            let value = topic.configs.get(name).map(String::as_str);
            let default = topic_config::topic_config(name).map(|config| config.default);
            value.or(default).and_then(|text| text.parse().ok()).unwrap_or(i64::MAX)
        };
        let now = broker.session.leader_wall().millis();
        let before = now.saturating_sub(limit("message.timestamp.before.max.ms"));
        let after = now.saturating_add(limit("message.timestamp.after.max.ms"));
        let batch_bytes_max = topic_config::max_message_bytes(&topic.configs);
        Self { topic, batch_bytes_max, timestamps: (before, after) }
    }

    fn check_timestamps(&self, batch: &ValidatedBatch) -> Result<(), Refused> {
        let header = batch.header();
        let (first, last) = (header.base_timestamp.millis(), header.max_timestamp.millis());
        let (before, after) = self.timestamps;
        if (last != -1 && after < last) || (first != -1 && first < before) {
            let words = format!("timestamps {first} to {last} are not within {before} to {after}");
            return Err((ErrorCode::InvalidTimestamp, words.into()));
        }
        Ok(())
    }
}

fn admit(
    walk: &ProduceWalk,
    version: i16,
    asked: ProducePartition,
    found: &Result<TopicRules, ErrorCode>,
) -> Result<(TopicPartition, ValidatedBatch), Refused> {
    let refuse = |code: ErrorCode, words: &'static str| Err((code, Cow::Borrowed(words)));
    if !matches!(walk.acks, -1..=1) {
        return refuse(ErrorCode::InvalidRequiredAcks, "acks must be -1, 0 or 1");
    }
    if walk.transactional_id.is_some() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return refuse(code, "transactions are not served yet");
    }
    let rules = match found {
        Ok(rules) => rules,
        Err(code) => return refuse(*code, "no such topic"),
    };
    let Some(partition) = topics::partition(&rules.topic, asked.partition_index) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, "no such partition");
    };
    let records = asked.records.unwrap_or_default();
    let batch = validate_produced(records, rules.batch_bytes_max).map_err(|rejected| {
        let code = match rejected.rejected_as() {
            RejectedAs::InvalidRecord => ErrorCode::InvalidRecord,
            RejectedAs::Corrupt => ErrorCode::CorruptMessage,
            RejectedAs::TooLarge => ErrorCode::MessageTooLarge,
        };
        (code, rejected.to_string().into())
    })?;
    let attributes = batch.header().attributes;
    if attributes.codec() == Some(Codec::Zstd) && version < FIRST_WITH_ZSTD {
        return refuse(ErrorCode::UnsupportedCompressionType, "zstd needs Produce v7");
    }
    if attributes.is_transactional() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return refuse(code, "a transactional batch without a transactional id");
    }
    rules.check_timestamps(&batch)?;
    // The topic's type is CreateTime: a client that claims append time is corrected, as in Kafka.
    let batch = if batch.has_client_append_time() { batch.with_create_time() } else { batch };
    Ok((partition, batch))
}

fn respond(version: i16, topics: Vec<TopicRows>, outcomes: Vec<AppendOutcome>) -> ProduceResponse {
    let mut outcomes = outcomes.into_iter();
    let mut answer_row = |Row { index, refused: why }: Row| match why {
        Some((code, words)) => refused(index, code, Some(words)),
        None => answer(version, index, outcomes.next().unwrap_or(AppendOutcome::Unknown)),
    };
    let mut answer_topic = |TopicRows { topic, rows }: TopicRows| ProduceResponseResponses {
        topic_id: topics::wire_id(&topic),
        name: match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(_) => Str::EMPTY,
        },
        partition_responses: rows.into_iter().map(&mut answer_row).collect(),
    };
    let responses = topics.into_iter().map(&mut answer_topic).collect();
    ProduceResponse { responses, ..ProduceResponse::default() }
}

fn refused(
    index: i32,
    code: ErrorCode,
    words: Option<Cow<'static, str>>,
) -> ProduceResponseResponsesPartitionResponses {
    ProduceResponseResponsesPartitionResponses {
        index,
        error_code: code.code(),
        base_offset: if planted::is(Bug::OffsetZeroOnError) { 0 } else { -1 },
        log_append_time_ms: -1,
        log_start_offset: -1,
        error_message: words.map(|words| match words {
            Cow::Borrowed(words) => Str::from_static(words),
            Cow::Owned(words) => Str::from(words),
        }),
        ..ProduceResponseResponsesPartitionResponses::default()
    }
}

fn answer(
    version: i16,
    index: i32,
    outcome: AppendOutcome,
) -> ProduceResponseResponsesPartitionResponses {
    let accepted = |base: i64, log_start: i64, log_append_time_ms: i64| {
        ProduceResponseResponsesPartitionResponses {
            base_offset: base,
            log_start_offset: log_start,
            log_append_time_ms,
            ..refused(index, ErrorCode::None, None)
        }
    };
    match outcome {
        AppendOutcome::Appended { base, log_start } => {
            accepted(base.value(), log_start.value(), -1)
        }
        AppendOutcome::Duplicate { base, max_timestamp, log_start } => {
            accepted(base.value(), log_start.value(), max_timestamp.millis())
        }
        AppendOutcome::Rejected(rejected) => {
            refused(index, rejected_code(version, rejected), Some(format!("{rejected:?}").into()))
        }
        AppendOutcome::BrokenChain => {
            let words = "an earlier batch of this producer was not stored";
            refused(index, ErrorCode::KafkaStorageError, Some(words.into()))
        }
        AppendOutcome::Unknown if planted::is(Bug::UnknownAsFailed) => {
            refused(index, ErrorCode::KafkaStorageError, None)
        }
        AppendOutcome::Unavailable => {
            let words = "not stored: the object store or metadata is unavailable";
            refused(index, ErrorCode::KafkaStorageError, Some(words.into()))
        }
        AppendOutcome::Unknown => refused(index, ErrorCode::RequestTimedOut, None),
    }
}

fn rejected_code(version: i16, rejected: BatchRejected) -> ErrorCode {
    match rejected {
        BatchRejected::UnknownPartition if 13 <= version => ErrorCode::UnknownTopicId,
        BatchRejected::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        BatchRejected::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        BatchRejected::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        // Not retriable: no later try can succeed either.
        BatchRejected::OffsetsExhausted => ErrorCode::PolicyViolation,
    }
}

#[cfg(test)]
mod tests;
