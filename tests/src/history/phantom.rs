//! E1: what is read was sent, to this key, with these bytes.

use super::{Action, Findings, History, log::Log};

pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    let polls = history.operations.iter().filter_map(|operation| match &operation.action {
        Action::Poll(poll) => Some((operation.key, poll.answer.done()?)),
        _ => None,
    });
    let finals = history.final_reads.iter().map(|(key, polled)| (*key, polled));
    for (key, polled) in polls.chain(finals) {
        for record in &polled.records {
            if !record.intact {
                findings.add(|| format!("{key:?} at {}: wrong bytes", record.offset));
            } else if log.of_key(key).writer(record.value).is_none() {
                let (offset, value) = (record.offset, record.value);
                findings.add(|| format!("{key:?} at {offset}: {value:?}, which nobody sent"));
            }
        }
    }
}
