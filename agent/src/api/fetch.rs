//! Fetch (1) v4-18, with incremental sessions (KIP-227).

use std::time::Duration;

use aquifer_storage::budget::BudgetPermit;

use super::{Request, topics};
use crate::{
    broker::Broker,
    fetch::{
        ConnectionSessions, FetchParams, FetchRefused, Fetched, Wanted,
        plan::Isolation,
        session::{Asked, Context, PartitionKey, SessionRequest, Told},
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
    sessions: &mut ConnectionSessions,
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
    let session = SessionRequest {
        id: walk.session_id,
        epoch: walk.session_epoch,
        by_id: FIRST_BY_ID <= request.version,
    };
    let fresh = broker.fetcher.session_id();
    let begun = sessions.begin(session, fresh, asked.collect(), walk.forgotten());
    let (context, wanted) = match begun {
        Ok(begun) => begun,
        Err(code) => {
            let error_code = code.code();
            return Ok((FetchResponse { error_code, ..FetchResponse::default() }, None));
        }
    };
    let committed = walk.isolation_level == 1;
    let (rows, permit) = fetch(broker, &walk, &wanted, committed).await;
    let rows: Vec<(PartitionKey, WireRow)> = wanted
        .into_iter()
        .map(|(key, _)| key)
        .zip(rows)
        .filter(|(key, row)| sessions.tell(context, key, told(row)))
        .collect();
    let bytes: usize = rows.iter().map(|(_, row)| records_len(row)).sum();
    broker.metrics.fetched_bytes.inc_by(bytes as u64);
    let session_id = match context {
        Context::Full => 0,
        Context::Opened(id) | Context::Incremental(id) => id,
    };
    let response =
        FetchResponse { session_id, responses: grouped(rows), ..FetchResponse::default() };
    Ok((response, permit))
}

fn records_len(row: &WireRow) -> usize {
    row.records.as_ref().map_or(0, Records::len)
}

fn told(row: &WireRow) -> Told {
    Told {
        has_records: 0 < records_len(row),
        error: ErrorCode::from_code(row.error_code).unwrap_or(ErrorCode::UnknownServerError),
        high_watermark: row.high_watermark,
        log_start: row.log_start_offset,
    }
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

/// One wire row per wanted partition, in order.
async fn fetch(
    broker: &Broker,
    walk: &FetchWalk,
    wanted: &[(PartitionKey, Asked)],
    committed: bool,
) -> (Vec<WireRow>, Option<BudgetPermit>) {
    let mut refused: Vec<Option<ErrorCode>> = Vec::with_capacity(wanted.len());
    let mut known = Vec::with_capacity(wanted.len());
    for ((topic, index), asked) in wanted {
        let found = topics::resolve(broker, topic).await;
        let partition = found.and_then(|topic| {
            topics::partition(&topic, *index).ok_or(ErrorCode::UnknownTopicOrPartition)
        });
        refused.push(partition.as_ref().err().copied());
        if let Ok(partition) = partition {
            known.push(Wanted {
                partition,
                offset: asked.offset,
                bytes_max: usize::try_from(asked.bytes_max).unwrap_or(0),
                leader_epoch: (0 <= asked.leader_epoch).then_some(asked.leader_epoch),
            });
        }
    }
    let size = |number: i32| usize::try_from(number).unwrap_or(0);
    // An error on any partition answers at once.
    let failed = refused.iter().any(Option::is_some);
    let params = FetchParams {
        bytes_min: if failed { 0 } else { size(walk.min_bytes) },
        bytes_max: size(walk.max_bytes),
        wait: Duration::from_millis(size(walk.max_wait_ms) as u64),
        isolation: if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
    };
    let answer = broker.fetcher.fetch(&known, params).await;
    let mut fetched = answer.partitions.into_iter();
    let rows = wanted.iter().zip(refused).map(|(((topic, index), _), refused)| match refused {
        Some(code) => row(*index, code, committed),
        None => {
            let one = fetched.next().expect("one answer per known partition");
            wire_row(*index, one, committed, topic)
        }
    });
    (rows.collect(), answer.permit)
}

fn row(index: i32, code: ErrorCode, committed: bool) -> WireRow {
    let bare = matches!(code, ErrorCode::OffsetOutOfRange | ErrorCode::UnknownLeaderEpoch);
    let listed = committed || code == ErrorCode::UnknownTopicId;
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

fn wire_row(index: i32, fetched: Fetched, committed: bool, topic: &TopicRef) -> WireRow {
    let (code, records) = match fetched.records {
        Ok(chunks) => (ErrorCode::None, chunks),
        Err(refused) => (refusal(refused, topic), Vec::new()),
    };
    let mut row = row(index, code, committed);
    if let Some(pointers) = fetched.pointers {
        row.high_watermark = pointers.high_watermark.value();
        row.last_stable_offset = pointers.last_stable.value();
        row.log_start_offset = pointers.log_start.value();
    }
    row.records = Some(Records::from(records));
    row
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
    }
}
