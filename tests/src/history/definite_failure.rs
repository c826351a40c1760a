//! A8: what was answered as a definite failure never takes effect.

use super::{
    Answer, Findings, History,
    log::{Log, sends},
};

pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    for (operation, send) in sends(history) {
        let Answer::Failed(code) = send.answer else { continue };
        for value in &send.values {
            if let Some(place) = log.of_key(operation.key).places(*value).next() {
                findings.add(|| {
                    format!(
                        "{value:?} of {:?} failed with {code} and is read at {place}",
                        operation.key
                    )
                });
            }
        }
    }
}
