//! B1: a record of an idempotent producer is in the log once.

use super::{
    Findings, History,
    log::{Log, sends},
};

pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    for (operation, send) in sends(history).filter(|(_, send)| send.idempotent) {
        for value in &send.values {
            let places: Vec<_> = log.of_key(operation.key).places(*value).collect();
            if 1 < places.len() {
                findings.add(|| format!("{value:?} of {:?} is at {places:?}", operation.key));
            }
        }
    }
}
