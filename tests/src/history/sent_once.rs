//! A7: what a producer sent once is in the log once, however often those behind it tried again.

use super::{
    Findings, History,
    log::{Log, sends},
};

pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    for (operation, send) in sends(history).filter(|(_, send)| send.sent_once) {
        for value in &send.values {
            let places: Vec<_> = log.of_key(operation.key).places(*value).collect();
            if 1 < places.len() {
                findings.add(|| {
                    format!("{value:?} of {:?}, sent once, is at {places:?}", operation.key)
                });
            }
        }
    }
}
