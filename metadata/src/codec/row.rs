//! Rows of the snapshot, one message each.

use std::sync::Arc;

use aquifer_storage::model::{
    CommitSeq, LogIndex, ObjectSeq, Offset, ProducerEpoch, ProducerId, Sequence, SessionId,
    Timestamp, TopicPartition,
};
use rpds::RedBlackTreeMapSync;

use super::{
    CodecError,
    column::{Column, timestamp_step},
    host_port_from_proto, host_port_to_proto, narrow, node_id, object_from_proto, object_to_proto,
    offset, partition_from_proto, partition_to_proto,
    reply::{outcomes_from_proto, outcomes_to_proto},
    zone,
};
use crate::{
    machine::{
        Elapsed,
        object::{ObjectId, ObjectRow},
        partition_log::{PartitionLog, Row},
        producer::{AppendedBatch, BATCHES_KEPT, LastBatches, ProducerKey, ProducerState},
        session::Session,
    },
    proto,
};

const OFFSETS_FINAL: u64 = 1;

/// Numbers of one row in a log's column.
const ROW_NUMBERS: usize = 7;

/// A timestamp's step counts from here.
const FIRST_TIMESTAMP: Timestamp = Timestamp::from_millis(0);

pub(super) fn object_row_to_proto(id: ObjectId, row: &ObjectRow) -> proto::ObjectRow {
    proto::ObjectRow {
        id: id.0,
        name: Some(object_to_proto(&row.name)),
        bytes: row.bytes,
        live_runs: row.live_runs,
        condemned: row.condemned.map(LogIndex::value),
    }
}

pub(super) fn object_row_from_proto(
    row: proto::ObjectRow,
) -> Result<(ObjectId, ObjectRow), CodecError> {
    if row.condemned.is_some() && row.live_runs != 0 {
        return Err(CodecError::Invalid("object: condemned with live runs"));
    }
    Ok((
        ObjectId(row.id),
        ObjectRow {
            name: object_from_proto(row.name)?,
            bytes: row.bytes,
            live_runs: row.live_runs,
            condemned: row.condemned.map(LogIndex::new),
        },
    ))
}

pub(super) fn log_to_proto(partition: TopicPartition, log: &PartitionLog) -> proto::LogRow {
    let mut runs = Vec::new();
    let (mut end, mut timestamp) = (log.log_start(), FIRST_TIMESTAMP);
    for row in log.rows() {
        runs.extend([
            row.base.value().wrapping_sub(end.value()) as u64,
            u64::from(row.record_count),
            u64::from(row.object.0),
            u64::from(row.position),
            u64::from(row.length),
            timestamp_step(timestamp, row.max_timestamp),
            if row.offsets_final { OFFSETS_FINAL } else { 0 },
        ]);
        (end, timestamp) = (row.next(), row.max_timestamp);
    }
    proto::LogRow {
        partition: Some(partition_to_proto(partition)),
        log_start: log.log_start().value(),
        high_watermark: log.high_watermark().value(),
        runs,
    }
}

pub(super) fn log_from_proto(
    row: &proto::LogRow,
) -> Result<(TopicPartition, PartitionLog), CodecError> {
    let partition = partition_from_proto(row.partition.clone())?;
    let high_watermark = offset(row.high_watermark)?;
    let mut log = PartitionLog::restored(offset(row.log_start)?, high_watermark);
    let mut column = Column::new(&row.runs, "run");
    if !column.remaining().is_multiple_of(ROW_NUMBERS) {
        return Err(CodecError::Invalid("runs"));
    }
    let (mut end, mut timestamp) = (log.log_start(), FIRST_TIMESTAMP);
    while !column.is_empty() {
        let base = offset(end.value().wrapping_add(column.next()? as i64))?;
        let row = Row {
            base,
            record_count: column.narrow()?,
            object: ObjectId(column.narrow()?),
            position: column.narrow()?,
            length: column.narrow()?,
            max_timestamp: column.timestamp(timestamp)?,
            offsets_final: column.next()? & OFFSETS_FINAL != 0,
        };
        let next = row_end(&row, high_watermark)?;
        (end, timestamp) = (next, row.max_timestamp);
        log.push(row);
    }
    Ok((partition, log))
}

/// The end of a row read from a snapshot, which its log must hold.
fn row_end(row: &Row, high_watermark: Offset) -> Result<Offset, CodecError> {
    let next = row.base.checked_add(row.record_count).filter(|next| *next <= high_watermark);
    next.filter(|next| *next > row.base).ok_or(CodecError::Invalid("run"))
}

fn producer_key_to_proto((partition, producer): ProducerKey) -> proto::ProducerKey {
    proto::ProducerKey {
        partition: Some(partition_to_proto(partition)),
        producer: producer.value(),
    }
}

fn producer_key_from_proto(key: Option<proto::ProducerKey>) -> Result<ProducerKey, CodecError> {
    let key = key.ok_or(CodecError::Missing("producer"))?;
    Ok((partition_from_proto(key.partition)?, ProducerId::new(key.producer)))
}

pub(super) fn producer_to_proto(key: ProducerKey, state: &ProducerState) -> proto::ProducerRow {
    let batches = state.batches.iter().flat_map(|batch| {
        [
            u64::from(batch.first.value().cast_unsigned()),
            u64::from(batch.last.value().cast_unsigned()),
            batch.base.value() as u64,
            timestamp_step(FIRST_TIMESTAMP, batch.max_timestamp),
        ]
    });
    proto::ProducerRow {
        key: Some(producer_key_to_proto(key)),
        epoch: i32::from(state.epoch.value()),
        touched_elapsed_ms: Some(state.touched.millis()),
        queued_elapsed_ms: (state.queued != state.touched).then(|| state.queued.millis()),
        batches: batches.collect(),
    }
}

pub(super) fn producer_from_proto(
    row: proto::ProducerRow,
    now: Elapsed,
) -> Result<(ProducerKey, ProducerState), CodecError> {
    let epoch = ProducerEpoch::new(narrow(row.epoch, "epoch")?);
    let touched = row.touched_elapsed_ms.map_or(now, Elapsed::from_millis);
    let sequence = |value| Sequence::new(value).ok_or(CodecError::Invalid("sequence"));
    let mut batches = LastBatches::new();
    let mut column = Column::new(&row.batches, "producer batch");
    while !column.is_empty() {
        if batches.len() == BATCHES_KEPT {
            return Err(CodecError::TooLong("producer batches"));
        }
        batches.push(AppendedBatch {
            first: sequence(column.narrow()?)?,
            last: sequence(column.narrow()?)?,
            base: column.offset()?,
            max_timestamp: column.timestamp(FIRST_TIMESTAMP)?,
        });
    }
    Ok((
        producer_key_from_proto(row.key)?,
        ProducerState {
            epoch: epoch.ok_or(CodecError::Invalid("epoch"))?,
            touched,
            queued: row.queued_elapsed_ms.map_or(touched, Elapsed::from_millis),
            batches,
        },
    ))
}

pub(super) fn session_to_proto(id: SessionId, session: &Session) -> proto::SessionRow {
    let results = session.results.iter().map(|(seq, outcomes)| proto::PartResult {
        commit_seq: seq.value(),
        outcomes: Some(outcomes_to_proto(outcomes)),
    });
    proto::SessionRow {
        session: id.value(),
        request: session.request,
        node_id: session.node.value(),
        advertised: Some(host_port_to_proto(&session.advertised)),
        zone: session.zone.clone(),
        next_commit_seq: session.next_commit_seq.value(),
        low_seq: session.low_seq.value(),
        fenced_elapsed_ms: session.fenced.map(Elapsed::millis),
        results: results.collect(),
    }
}

pub(super) fn session_from_proto(
    row: proto::SessionRow,
) -> Result<(SessionId, Session), CodecError> {
    let mut results = RedBlackTreeMapSync::default();
    for result in row.results {
        let outcomes = result.outcomes.ok_or(CodecError::Missing("outcomes"))?;
        let outcomes: Arc<[_]> = outcomes_from_proto(&outcomes)?.into();
        results.insert_mut(CommitSeq::new(result.commit_seq), outcomes);
    }
    Ok((
        SessionId::new(row.session),
        Session {
            request: row.request,
            node: node_id(row.node_id)?,
            advertised: host_port_from_proto(row.advertised)?,
            zone: zone(row.zone)?,
            next_commit_seq: CommitSeq::new(row.next_commit_seq),
            low_seq: ObjectSeq::new(row.low_seq),
            fenced: row.fenced_elapsed_ms.map(Elapsed::from_millis),
            results,
        },
    ))
}
