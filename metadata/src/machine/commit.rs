//! Applies a session's next part batch by batch, so that one deleted topic cannot fail its
//! neighbours (DESIGN 4.6). A part that was applied before gets its first answer; one that comes
//! too early, or from a fenced session, has no effect.

use aquifer_storage::model::{ObjectName, Offset};

use super::{
    MetadataState,
    command::{BatchOutcome, BatchRejected, CommitPart, CommitReply, PartBatch, PartExtent},
    effect::Effect,
    object::ObjectId,
    partition_log::{NewBatch, Placed},
    producer::{Numbered, Verdict},
};

/// What became of one batch, and the row that took it.
struct Judged {
    outcome: BatchOutcome,
    row: Option<Offset>,
}

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
        self.objects.condemn_unused(part.session, (low_seq, Some(part.low_seq)), self.index);
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
        let mut from = None;
        for batch in &extent.batches {
            let judged = self.append_batch(part, extent, (object, batch));
            from = from.or(judged.row);
            outcomes.push(judged.outcome);
        }
        let Some(from) = from else { return };
        effects.push(Effect::PartitionAdvanced {
            partition: extent.partition,
            from,
            runs: self.runs_from(extent.partition, from, usize::MAX),
            pointers: self.pointers(extent.partition),
        });
    }

    fn append_batch(
        &mut self,
        part: &CommitPart,
        extent: &PartExtent,
        (object, batch): (ObjectId, &PartBatch),
    ) -> Judged {
        let partition = extent.partition;
        if !self.topics.has(partition) {
            return rejected(BatchRejected::UnknownPartition);
        }
        let pointers = self.pointers(partition);
        let Ok(numbered) = numbered(part, batch) else {
            return rejected(BatchRejected::OutOfOrderSequence);
        };
        if let Some(numbered) = &numbered {
            let is_fresh = pointers.high_watermark == Offset::ZERO;
            match self.producers.judge(partition, numbered, is_fresh) {
                Verdict::Append => {}
                Verdict::Rejected(why) => return rejected(why),
                Verdict::Duplicate(original) => {
                    let outcome = BatchOutcome::Duplicate {
                        base: original.base,
                        max_timestamp: original.max_timestamp,
                        log_start: pointers.log_start,
                    };
                    return Judged { outcome, row: None };
                }
            }
        }
        let new = NewBatch {
            object,
            position: batch.position,
            length: batch.length,
            record_count: batch.record_count,
            max_timestamp: batch.max_timestamp,
        };
        if pointers.high_watermark.checked_add(batch.record_count).is_none() {
            return rejected(BatchRejected::OffsetsExhausted);
        }
        let placed = self.logs.open(partition).append(&new).expect("the offsets were checked");
        let Placed { base, row, is_new_row } = placed;
        if is_new_row {
            self.objects.add_run(object);
        }
        if let Some(numbered) = &numbered {
            let at = (base, batch.max_timestamp);
            self.producers.appended(partition, numbered, at, self.clocks.wall());
        }
        let outcome = BatchOutcome::Appended { base, log_start: pointers.log_start };
        Judged { outcome, row: Some(row) }
    }
}

fn rejected(why: BatchRejected) -> Judged {
    Judged { outcome: BatchOutcome::Rejected(why), row: None }
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
