//! A1: what was acknowledged, and what was once read, is there at the end.

use std::collections::BTreeMap;

use super::{
    Findings, History, Key, Polled,
    log::{Log, sends},
};

/// The final read is taken for what the log holds: a value at an offset it does not reach is lost.
pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    let finals: BTreeMap<Key, &Polled> =
        history.final_reads.iter().map(|(key, polled)| (*key, polled)).collect();
    let holds = |polled: &Polled, offset: i64, value| {
        let found = polled.records.binary_search_by_key(&offset, |record| record.offset);
        offset < polled.log_start || found.is_ok_and(|at| polled.records[at].value == value)
    };
    for (operation, send) in sends(history) {
        let (Some(base), Some(polled)) = (send.answer.done(), finals.get(&operation.key)) else {
            continue;
        };
        for (offset, value) in (*base..).zip(&send.values) {
            if !holds(polled, offset, *value) {
                findings.add(|| {
                    format!(
                        "{:?} acknowledged at {offset} of {:?} at {} ns is not there at the end, \
                         which is {}",
                        value, operation.key, operation.ended, polled.high_watermark
                    )
                });
            }
        }
    }
    for (key, seen) in log.keys() {
        let Some(polled) = finals.get(&key) else { continue };
        for (offset, value) in &seen.seen {
            if !holds(polled, *offset, *value) {
                findings
                    .add(|| format!("{value:?} read at {offset} of {key:?} is gone at the end"));
            }
        }
    }
}
