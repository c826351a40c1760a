//! Applies a session's next part batch by batch, so that one deleted topic cannot fail its
//! neighbours (DESIGN 4.6). A part that was applied before gets its first answer; one that comes
//! too early, or from a fenced session, has no effect.

use aquifer_storage::{
    model::{ObjectName, Offset, TopicPartition},
    planted::{self, Bug},
};

use super::{
    MetadataState,
    command::{BatchOutcome, BatchRejected, CommitPart, CommitReply, PartBatch, PartExtent},
    effect::Effect,
    object::ObjectId,
    partition_log::{NewBatch, PartitionLog, Placed, Row},
    producer::{AppendedBatch, Numbered, Producers, Verdict},
    time::Elapsed,
};

impl MetadataState {
    /// Applies a part.
    pub(super) fn commit(&mut self, part: &CommitPart, effects: &mut Vec<Effect>) -> CommitReply {
        if let Err(reply) = self.sessions.admit(part) {
            return reply;
        }
        let batch_count = part.extents.iter().map(|extent| extent.batches.len()).sum();
        let mut outcomes = Vec::with_capacity(batch_count);
        if batch_count > 0 {
            let object = self.objects.intern(self.object_of(part), part.object_bytes);
            for extent in &part.extents {
                self.append_extent(part, (object, extent), &mut outcomes, effects);
            }
        }
        let low_seq = self.sessions.complete(part, &outcomes);
        self.objects.close(part.session, (low_seq, Some(part.low_seq)), self.index);
        CommitReply::Applied(outcomes)
    }

    fn object_of(&self, part: &CommitPart) -> ObjectName {
        let lineage = self.genesis.lineage;
        ObjectName { lineage, session: part.session, seq: part.object_seq, merged: false }
    }

    fn append_extent(
        &mut self,
        part: &CommitPart,
        (object, extent): (ObjectId, &PartExtent),
        outcomes: &mut Vec<BatchOutcome>,
        effects: &mut Vec<Effect>,
    ) {
        let partition = extent.partition;
        if !self.topics.has(partition) {
            let unknown = BatchOutcome::Rejected(BatchRejected::UnknownPartition);
            outcomes.resize(outcomes.len() + extent.batches.len(), unknown);
            return;
        }
        // A log begins with its first record.
        let mut new_log = PartitionLog::default();
        let mut appending = Appending {
            part,
            object,
            partition,
            log: self.logs.get_mut(partition).unwrap_or(&mut new_log),
            producers: &mut self.producers,
            now: self.clocks.elapsed(),
            first_row: None,
            new_rows: 0,
        };
        outcomes.extend(extent.batches.iter().map(|batch| appending.append(batch)));
        let Appending { log, first_row, new_rows, .. } = appending;
        let Some(from) = first_row else { return };
        let rows: Vec<Row> = log.rows_from(from).collect();
        if new_log.high_watermark() != Offset::ZERO {
            self.logs.restore(partition, new_log);
        }
        self.objects.add_runs(object, new_rows);
        let foreign = planted::is(Bug::ForeignHighWatermark);
        let told = if foreign { part.extents[0].partition } else { partition };
        effects.push(Effect::PartitionAdvanced {
            partition,
            from,
            runs: rows.iter().map(|row| self.run(row)).collect(),
            pointers: self.pointers(told),
        });
    }
}

/// An extent on its way into its partition's log.
struct Appending<'a> {
    part: &'a CommitPart,
    object: ObjectId,
    partition: TopicPartition,
    log: &'a mut PartitionLog,
    producers: &'a mut Producers,
    now: Elapsed,
    /// The first row that took a batch.
    first_row: Option<Offset>,
    new_rows: u32,
}

impl Appending<'_> {
    fn append(&mut self, batch: &PartBatch) -> BatchOutcome {
        let (base, log_start) = (self.log.high_watermark(), self.log.log_start());
        let Ok(numbered) = numbered(self.part, batch) else {
            return BatchOutcome::Rejected(BatchRejected::OutOfOrderSequence);
        };
        if let Some(numbered) = &numbered {
            match self.producers.judge(self.partition, numbered, base == Offset::ZERO) {
                Verdict::Append => {}
                Verdict::Rejected(why) => return BatchOutcome::Rejected(why),
                Verdict::Duplicate(original) => {
                    let AppendedBatch { base, max_timestamp, .. } = original;
                    return BatchOutcome::Duplicate { base, max_timestamp, log_start };
                }
            }
        }
        let new = NewBatch {
            object: self.object,
            position: batch.position,
            length: batch.length,
            record_count: batch.record_count,
            max_timestamp: batch.max_timestamp,
        };
        let Some(Placed { base, row, is_new_row }) = self.log.append(&new) else {
            return BatchOutcome::Rejected(BatchRejected::OffsetsExhausted);
        };
        self.first_row = self.first_row.or(Some(row));
        self.new_rows += u32::from(is_new_row);
        if let Some(numbered) = &numbered {
            let at = (base, batch.max_timestamp);
            self.producers.appended(self.partition, numbered, at, self.now);
        }
        BatchOutcome::Appended { base, log_start }
    }
}

/// A malformed batch, which validation before the proposal lets nobody send: it names a producer
/// that its part does not list, or holds no record.
struct Malformed;

/// The batch as its producer numbered it; `None` without idempotence.
fn numbered(part: &CommitPart, batch: &PartBatch) -> Result<Option<Numbered>, Malformed> {
    if batch.record_count == 0 {
        return Err(Malformed);
    }
    let Some((index, first)) = batch.producer else { return Ok(None) };
    let producer = usize::try_from(index).ok().and_then(|index| part.producers.get(index));
    let producer = producer.ok_or(Malformed)?;
    Ok(Some(Numbered {
        producer: producer.id,
        epoch: producer.epoch,
        first,
        record_count: batch.record_count,
    }))
}
