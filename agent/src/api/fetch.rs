//! Fetch (1) v4-18, with incremental sessions (KIP-227).

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{machine::effect::Pointers, watch::CatalogTopic};
use aquifer_storage::{
    budget::BudgetPermit,
    model::{Offset, TopicPartition},
};
use bytes::Bytes;

use super::{Request, topics};
use crate::{
    broker::Broker,
    fetch::{
        BegunAnswer, ConnectionSessions, FetchParams, FetchRefused, Fetched,
        plan::Isolation,
        session::{Asked, Begun, Context, Due, PartitionKey, SessionRequest, Told},
    },
    wire::{
        codec::{DecodeError, Reader, Records, Str},
        error_code::ErrorCode,
        fetch_walk::FetchWalk,
        messages::{
            FetchResponse, FetchResponseResponses, FetchResponseResponsesPartitions as WireRow,
        },
        walk::TopicRef,
    },
};

/// The first version that names topics by id.
const FIRST_BY_ID: i16 = 13;

/// Handles one Fetch.
///
/// # Errors
/// The body does not parse.
pub async fn handle(
    broker: &Broker,
    state: &mut ConnectionSessions,
    request: &Request<'_>,
    reader: Reader,
) -> Result<(FetchResponse, Option<BudgetPermit>), DecodeError> {
    let walk = FetchWalk::read(reader, request.version)?;
    let asked = walk.iter().map(|one| {
        let partition = &one.partition;
        let asked = Asked {
            offset: partition.fetch_offset,
            bytes_max: partition.partition_max_bytes,
            leader_epoch: partition.current_leader_epoch,
        };
        ((one.topic, partition.partition), asked)
    });
    let committed = walk.isolation_level == 1;
    let session = SessionRequest {
        id: walk.session_id,
        epoch: walk.session_epoch,
        by_id: FIRST_BY_ID <= request.version,
        committed,
    };
    let fresh_id = || broker.fetcher.session_id();
    let begun = match state.begin(session, fresh_id, asked.collect(), walk.forgotten()) {
        Ok(begun) => begun,
        Err(code) => {
            let error_code = code.code();
            return Ok((FetchResponse { error_code, ..FetchResponse::default() }, None));
        }
    };
    let BegunAnswer { partitions, permit, throttle } = fetch(broker, state, &walk, &begun).await;
    let context = begun.0;
    let mut rows: Vec<(PartitionKey, WireRow)> = Vec::new();
    for (key, one) in partitions {
        let one = Answered::of(&key.0, one);
        // Of a thousand partitions in a session few have news: the others cost no row.
        if state.tell(context, &key, one.told()) {
            let row = one.wire_row(key.1, committed);
            rows.push((key, row));
        }
    }
    let bytes: usize = rows.iter().map(|(_, row)| records_len(row)).sum();
    broker.metrics.fetched_bytes.inc_by(bytes as u64);
    let session_id = match context {
        Context::Full => 0,
        Context::Opened(id) | Context::Incremental(id) => id,
    };
    let response = FetchResponse {
        throttle_time_ms: i32::try_from(throttle.as_millis()).unwrap_or(i32::MAX),
        session_id,
        responses: grouped(rows),
        ..FetchResponse::default()
    };
    Ok((response, permit))
}

fn records_len(row: &WireRow) -> usize {
    row.records.as_ref().map_or(0, Records::len)
}

/// Consecutive rows of one topic share its entry.
fn grouped(rows: Vec<(PartitionKey, WireRow)>) -> Vec<FetchResponseResponses> {
    let mut topics: Vec<FetchResponseResponses> = Vec::new();
    let mut last: Option<TopicRef> = None;
    for ((topic, _), row) in rows {
        if last.as_ref() != Some(&topic) {
            let name = match &topic {
                TopicRef::Name(name) => name.clone(),
                TopicRef::Id(_) => Str::EMPTY,
            };
            let (topic_id, partitions) = (topics::wire_id(&topic), Vec::new());
            topics.push(FetchResponseResponses { topic: name, topic_id, partitions });
            last = Some(topic);
        }
        topics.last_mut().expect("pushed above").partitions.push(row);
    }
    topics
}

async fn fetch(
    broker: &Broker,
    state: &mut ConnectionSessions,
    walk: &FetchWalk,
    begun: &Begun,
) -> BegunAnswer {
    let found = find(broker, &begun.1).await;
    let size = |number: i32| usize::try_from(number).unwrap_or(0);
    // An error on any partition answers at once.
    let failed = found.iter().any(Result::is_err);
    let params = FetchParams {
        bytes_min: if failed { 0 } else { size(walk.min_bytes) },
        bytes_max: size(walk.max_bytes),
        wait: Duration::from_millis(size(walk.max_wait_ms) as u64),
        isolation: if walk.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
    };
    broker.fetcher.fetch_begun(state, begun, &found, params).await
}

/// What those due name, in order.
async fn find(broker: &Broker, due: &[Due]) -> Vec<Result<TopicPartition, ErrorCode>> {
    let mut partitions = Vec::with_capacity(due.len());
    // Partitions of one topic mostly follow each other.
    let mut last: Option<(&TopicRef, Result<Arc<CatalogTopic>, ErrorCode>)> = None;
    for Due { key: (topic, index), .. } in due {
        let found = match &last {
            Some((same, found)) if *same == topic => found,
            _ => &last.insert((topic, topics::resolve(broker, topic).await)).1,
        };
        partitions.push(found.as_ref().map_err(|code| *code).and_then(|topic| {
            topics::partition(topic, *index).ok_or(ErrorCode::UnknownTopicOrPartition)
        }));
    }
    partitions
}

fn row(index: i32, code: ErrorCode, committed: bool) -> WireRow {
    let bare = matches!(code, ErrorCode::OffsetOutOfRange | ErrorCode::UnknownLeaderEpoch);
    let unknown = matches!(code, ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition);
    let listed = committed || unknown;
    WireRow {
        partition_index: index,
        error_code: code.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: (listed && !bare).then(Vec::new),
        preferred_read_replica: -1,
        records: Some(Records::EMPTY),
        ..WireRow::default()
    }
}

/// What is answered for one partition.
struct Answered {
    code: ErrorCode,
    pointers: Option<Pointers>,
    records: Vec<Bytes>,
    is_at_end: bool,
}

impl Answered {
    fn of(topic: &TopicRef, result: Result<Fetched, ErrorCode>) -> Self {
        let Fetched { pointers, records, is_at_end } = match result {
            Ok(fetched) => fetched,
            Err(code) => {
                return Self { code, pointers: None, records: Vec::new(), is_at_end: false };
            }
        };
        let (code, records) = match records {
            Ok(records) => (ErrorCode::None, records),
            Err(refused) => (refusal(refused, topic), Vec::new()),
        };
        Self { code, pointers, records, is_at_end }
    }

    fn told(&self) -> Told {
        let pointer =
            |of: fn(&Pointers) -> Offset| self.pointers.as_ref().map_or(-1, |p| of(p).value());
        Told {
            has_records: !self.records.is_empty(),
            error: self.code,
            high_watermark: pointer(|pointers| pointers.high_watermark),
            log_start: pointer(|pointers| pointers.log_start),
            is_at_end: self.is_at_end,
        }
    }

    fn wire_row(self, index: i32, committed: bool) -> WireRow {
        let mut row = row(index, self.code, committed);
        // With an error Kafka tells none.
        if let (ErrorCode::None, Some(pointers)) = (self.code, self.pointers) {
            row.high_watermark = pointers.high_watermark.value();
            row.last_stable_offset = pointers.last_stable.value();
            row.log_start_offset = pointers.log_start.value();
        }
        row.records = Some(Records::from(self.records));
        row
    }
}

fn refusal(refused: FetchRefused, topic: &TopicRef) -> ErrorCode {
    match (refused, topic) {
        (FetchRefused::Unknown, TopicRef::Id(_)) => ErrorCode::UnknownTopicId,
        (FetchRefused::Unknown, TopicRef::Name(_)) => ErrorCode::UnknownTopicOrPartition,
        (FetchRefused::OffsetOutOfRange, _) => ErrorCode::OffsetOutOfRange,
        (FetchRefused::FencedLeaderEpoch, _) => ErrorCode::FencedLeaderEpoch,
        (FetchRefused::UnknownLeaderEpoch, _) => ErrorCode::UnknownLeaderEpoch,
        (FetchRefused::Unavailable, _) => ErrorCode::KafkaStorageError,
        (FetchRefused::Corrupt, _) => ErrorCode::CorruptMessage,
        (FetchRefused::Elsewhere, _) => ErrorCode::NotLeaderOrFollower,
    }
}
