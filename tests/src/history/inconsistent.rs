//! A2: an offset, once acknowledged or read, is never bound to another value.

use std::collections::BTreeMap;

use super::{
    Findings, History, Key, Value,
    log::{Log, sends},
};

/// Acks count as sightings: what was promised at an offset must be what is read there.
pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    let mut bound = BTreeMap::<Key, Vec<(i64, Value)>>::new();
    for (operation, send) in sends(history) {
        if let Some(base) = send.answer.done() {
            let values = (*base..).zip(send.values.iter().copied());
            bound.entry(operation.key).or_default().extend(values);
        }
    }
    for (key, seen) in log.keys() {
        let mut bound = bound.remove(&key).unwrap_or_default();
        bound.extend_from_slice(&seen.seen);
        bound.sort_unstable();
        bound.dedup();
        for pair in bound.windows(2) {
            let [(offset, first), (other, second)] = pair else { continue };
            if offset == other {
                findings.add(|| format!("{key:?} at {offset} holds {first:?} and {second:?}"));
            }
        }
    }
}
