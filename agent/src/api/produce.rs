//! Produce (0) v3-13: validate without decompressing, hand over, answer when metadata did.

use std::{borrow::Cow, sync::Arc, time::Duration};

use aquifer_metadata::{machine::command::BatchRejected, watch::CatalogTopic};
use aquifer_storage::{
    cache::block::KEPT_PIECE_BYTES_MIN,
    format::record_batch::{
        BATCH_HEADER_BYTES, Codec, RejectedAs, ValidatedBatch, validate_produced,
    },
    model::TopicPartition,
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

/// What is known of one partition of the request before its outcome.
struct Row {
    topic_index: usize,
    topic: TopicRef,
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
    let permit = Arc::new(permit);
    let mut rows = Vec::with_capacity(walk.partition_count());
    let mut batches = Vec::with_capacity(walk.partition_count());
    let mut topic: Option<(usize, Result<Arc<CatalogTopic>, ErrorCode>)> = None;
    for asked in walk.iter() {
        if topic.as_ref().is_none_or(|(index, _)| *index != asked.topic_index) {
            topic = Some((asked.topic_index, topics::resolve(broker, &asked.topic).await));
        }
        let (_, found) = topic.as_ref().expect("set above");
        let row = (asked.topic_index, asked.topic.clone(), asked.partition_index);
        let refused = match admit(broker, &walk, version, asked, found) {
            Ok((partition, batch)) => {
                broker.metrics.produced_bytes.inc_by(batch.bytes().len() as u64);
                let permit = Permit::new(Arc::clone(&permit));
                batches.push(ProduceBatch { partition, batch, permit });
                None
            }
            Err(refused) => Some(refused),
        };
        let (topic_index, topic, index) = row;
        rows.push(Row { topic_index, topic, index, refused });
    }
    detach_few(&mut batches, prefix.rest_bytes);
    let (acks, correlation) = (walk.acks, header.correlation_id);
    let timeout = match acks {
        -1 => Duration::from_millis(u64::try_from(walk.timeout_ms).unwrap_or(0)).max(TIMEOUT_MIN),
        // Kafka's timeout is that of the replicas, for which only acks=all waits.
        _ => DEADLINE_MAX,
    };
    let pending = broker.producer.append(state.id, timeout, batches).await;
    Ok(Box::pin(async move {
        let outcomes = pending.outcomes().await;
        let response = respond(version, rows, outcomes);
        drop(permit);
        if acks == 0 {
            return unanswered(&response);
        }
        let chunks = response_frame(correlation, version, &response);
        Answer::Frame { chunks, permit: None }
    }))
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

fn admit(
    broker: &Broker,
    walk: &ProduceWalk,
    version: i16,
    asked: ProducePartition,
    found: &Result<Arc<CatalogTopic>, ErrorCode>,
) -> Result<(TopicPartition, ValidatedBatch), Refused> {
    let refuse = |code: ErrorCode, words: &'static str| Err((code, Cow::Borrowed(words)));
    if !matches!(walk.acks, -1..=1) {
        return refuse(ErrorCode::InvalidRequiredAcks, "acks must be -1, 0 or 1");
    }
    if walk.transactional_id.is_some() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return refuse(code, "transactions are not served yet");
    }
    let topic = match found {
        Ok(topic) => topic,
        Err(code) => return refuse(*code, "no such topic"),
    };
    let Some(partition) = topics::partition(topic, asked.partition_index) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, "no such partition");
    };
    let records = asked.records.unwrap_or_default();
    let bytes_max = topic_config::max_message_bytes(&topic.configs);
    let batch = validate_produced(records, bytes_max).map_err(|rejected| {
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
    check_timestamps(broker, topic, &batch)?;
    // The topic's type is CreateTime: a client that claims append time is corrected, as in Kafka.
    let batch = if batch.has_client_append_time() { batch.with_create_time() } else { batch };
    Ok((partition, batch))
}

fn check_timestamps(
    broker: &Broker,
    topic: &CatalogTopic,
    batch: &ValidatedBatch,
) -> Result<(), Refused> {
    let limit = |name: &str| -> i64 {
        let value = topic.configs.get(name).map(String::as_str);
        let default = topic_config::topic_config(name).map(|config| config.default);
        value.or(default).and_then(|text| text.parse().ok()).unwrap_or(i64::MAX)
    };
    let now = broker.session.leader_wall().millis();
    let header = batch.header();
    let (first, last) = (header.base_timestamp.millis(), header.max_timestamp.millis());
    let after = now.saturating_add(limit("message.timestamp.after.max.ms"));
    let before = now.saturating_sub(limit("message.timestamp.before.max.ms"));
    if (last != -1 && after < last) || (first != -1 && first < before) {
        let words = format!("timestamps {first} to {last} are not within {before} to {after}");
        return Err((ErrorCode::InvalidTimestamp, words.into()));
    }
    Ok(())
}

fn respond(version: i16, rows: Vec<Row>, outcomes: Vec<AppendOutcome>) -> ProduceResponse {
    let mut responses: Vec<ProduceResponseResponses> = Vec::new();
    let mut outcomes = outcomes.into_iter();
    let mut last_topic = None;
    for row in rows {
        if last_topic != Some(row.topic_index) {
            last_topic = Some(row.topic_index);
            let name = match &row.topic {
                TopicRef::Name(name) => name.detached(),
                TopicRef::Id(_) => Str::EMPTY,
            };
            let topic_id = topics::wire_id(&row.topic);
            responses.push(ProduceResponseResponses {
                name,
                topic_id,
                ..ProduceResponseResponses::default()
            });
        }
        let answer = match row.refused {
            Some((code, words)) => refused(row.index, code, Some(words)),
            None => {
                let outcome = outcomes.next().unwrap_or(AppendOutcome::Unknown);
                answer(version, row.index, outcome)
            }
        };
        let topic = responses.last_mut().expect("pushed above");
        topic.partition_responses.push(answer);
    }
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
        base_offset: -1,
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
