//! Produce (0) v3-13: validate, hand over, answer when metadata did. Records are decompressed only
//! for topics that ask for it (`rules`).

mod rules;

use std::{borrow::Cow, sync::Arc, time::Duration};

use aquifer_metadata::machine::command::BatchRejected;
use aquifer_storage::{
    budget::BudgetPermit,
    cache::block::KEPT_PIECE_BYTES_MIN,
    format::record_batch::{
        BATCH_HEADER_BYTES, Codec, RejectedAs, ValidatedBatch, validate_produced,
    },
    model::TopicPartition,
    planted::{self, Bug},
};

use self::rules::{Refused, TopicRules};
use super::{Answer, ConnectionState, PendingAnswer, bad, topics};
use crate::{
    broker::Broker,
    metrics::ApiLabel,
    produce::{AppendOutcome, DEADLINE_MAX, Permit, ProduceBatch},
    server::frame_reader::Frame,
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
    /// The time of the append, of records that have it; else -1.
    append_time_ms: i64,
}

/// Kafka's own tools may write to topics that it keeps for itself.
const ADMIN_CLIENT: &str = "__admin_client";

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
    let is_admin = header.client_id.as_ref().is_some_and(|id| id.as_str() == ADMIN_CLIENT);
    let asked = Asked { walk: &walk, version, is_admin };
    let (topics, mut batches, permit) = check(broker, &asked, permit).await;
    let permit = Permit::new(permit);
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

/// A request, as far as its batches are judged by it.
struct Asked<'a> {
    walk: &'a ProduceWalk,
    version: i16,
    /// Whether it may write to topics that Kafka keeps for itself.
    is_admin: bool,
}

/// Sorts a request into batches to be handed over and partitions refused. Batches that are made
/// anew count against `permit` too.
async fn check(
    broker: &Broker,
    asked_all: &Asked<'_>,
    mut permit: BudgetPermit,
) -> (Vec<TopicRows>, Vec<ProduceBatch>, BudgetPermit) {
    let walk = asked_all.walk;
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
        let mut row = Row { index, refused: None, append_time_ms: -1 };
        match admit(asked_all, asked, &rules) {
            Ok((partition, batch, rules)) => {
                let stored = match rules.wants_records(&batch) {
                    false => Ok(rules.stamped(batch)),
                    true => rework(broker, rules, (batch, index), &mut permit).await,
                };
                row.append_time_ms = rules.append_time_ms();
                match stored {
                    Ok(batch) => batches.push(ProduceBatch { partition, batch }),
                    Err(refused) => row.refused = Some(refused),
                }
            }
            Err(refused) => row.refused = Some(refused),
        }
        topics.last_mut().expect("pushed above").rows.push(row);
    }
    let bytes = batches.iter().map(|one: &ProduceBatch| one.batch.bytes().len() as u64).sum();
    broker.metrics.produced_bytes.inc_by(bytes);
    (topics, batches, permit)
}

/// The batch after a look at its records, a few at a time and where that keeps nobody waiting.
async fn rework(
    broker: &Broker,
    rules: &TopicRules,
    (batch, index): (ValidatedBatch, i32),
    permit: &mut BudgetPermit,
) -> Result<ValidatedBatch, Refused> {
    let busy = |words: &'static str| Refused::new(ErrorCode::KafkaStorageError, words);
    let turn = Arc::clone(&broker.reworks).acquire_owned().await;
    let rules = rules.clone();
    let reworking = broker.seams.compute("rework", move || {
        let came_in = batch.bytes().as_ptr();
        let reworked = rules.rework(batch, index)?;
        let is_new = reworked.bytes().as_ptr() != came_in;
        drop(turn); // Also where nobody waits any more.
        Ok((reworked, is_new))
    });
    let stopping = busy("not stored: the agent is stopping");
    let (reworked, is_new) = reworking.await.ok_or(stopping)??;
    if is_new {
        // Waiting for memory while holding some could go round in circles.
        let bytes = reworked.bytes().len() as u64;
        match broker.budgets.produce.try_acquire(bytes) {
            Ok(Some(more)) => permit.merge(more),
            Ok(None) | Err(_) => return Err(busy("not stored: no memory to compress it anew now")),
        }
    }
    Ok(reworked)
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

fn admit<'a>(
    &Asked { walk, version, is_admin }: &Asked<'_>,
    asked: ProducePartition,
    found: &'a Result<TopicRules, ErrorCode>,
) -> Result<(TopicPartition, ValidatedBatch, &'a TopicRules), Refused> {
    let refuse = |code: ErrorCode, words: &'static str| Err(Refused::new(code, words));
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
    if topics::is_internal(&rules.topic.name) && !is_admin {
        return refuse(ErrorCode::InvalidTopicException, "the topic is internal");
    }
    let records = asked.records.unwrap_or_default();
    let batch = validate_produced(records, rules.batch_bytes_max).map_err(|rejected| {
        let code = match rejected.rejected_as() {
            RejectedAs::InvalidRecord => ErrorCode::InvalidRecord,
            RejectedAs::Corrupt => ErrorCode::CorruptMessage,
            RejectedAs::TooLarge => ErrorCode::MessageTooLarge,
        };
        Refused::new(code, rejected.to_string())
    })?;
    if batch.header().base_offset != 0 {
        return refuse(
            ErrorCode::InvalidRecord,
            "offsets are the log's to give: base offset not 0",
        );
    }
    let attributes = batch.header().attributes;
    if attributes.codec() == Some(Codec::Zstd) && version < FIRST_WITH_ZSTD {
        return refuse(ErrorCode::UnsupportedCompressionType, "zstd needs Produce v7");
    }
    if attributes.is_transactional() {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return refuse(code, "a transactional batch without a transactional id");
    }
    Ok((partition, batch, rules))
}

fn respond(version: i16, topics: Vec<TopicRows>, outcomes: Vec<AppendOutcome>) -> ProduceResponse {
    let mut outcomes = outcomes.into_iter();
    let mut answer_row = |Row { index, refused: why, append_time_ms }: Row| match why {
        Some(Refused { code, words, records }) => {
            let row = refused(index, code, Some(words));
            ProduceResponseResponsesPartitionResponses { record_errors: records, ..row }
        }
        None => {
            let outcome = outcomes.next().unwrap_or(AppendOutcome::Unknown);
            answer(version, (index, append_time_ms), outcome)
        }
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
    (index, append_time_ms): (i32, i64),
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
            accepted(base.value(), log_start.value(), append_time_ms)
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
