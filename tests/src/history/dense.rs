//! A4: offsets have no gaps. For topics that are neither compacted nor transactional, in a lineage
//! that was never restored.

use super::{Action, Findings, History, Key, Polled, log::Log};

/// A poll begins at the offset asked for, and the final read holds every offset of the log.
pub(super) fn check(history: &History, _: &Log, findings: &mut Findings) {
    for operation in &history.operations {
        let Action::Poll(poll) = &operation.action else { continue };
        if let Some(polled) = poll.answer.done() {
            consecutive(operation.key, poll.from, polled, findings);
        }
    }
    for (key, polled) in &history.final_reads {
        consecutive(*key, polled.log_start, polled, findings);
        let end = polled.log_start + polled.records.len() as i64;
        if end != polled.high_watermark {
            findings.add(|| {
                format!("{key:?} ends at {} but holds records up to {end}", polled.high_watermark)
            });
        }
    }
}

fn consecutive(key: Key, from: i64, polled: &Polled, findings: &mut Findings) {
    let mut expected = from.max(polled.log_start);
    for record in &polled.records {
        if record.offset != expected {
            let offset = record.offset;
            findings.add(|| format!("{key:?} read from {from}: {offset} where {expected} is due"));
        }
        expected = record.offset + 1;
    }
}
