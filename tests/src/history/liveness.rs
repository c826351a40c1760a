//! H1: soon after the last fault is healed every key takes a record and serves it, and can be read
//! to its end.

use super::{Action, Findings, History, log::Log};

pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    let Some((healed, within)) = history.healed else { return };
    let due = healed.saturating_add(within);
    let counts = |began: u64, ended: u64| healed <= began && ended <= due;
    for key in &history.keys {
        let of_key = || history.operations.iter().filter(|operation| operation.key == *key);
        let taken = of_key().any(|operation| match &operation.action {
            Action::Send(send) => {
                counts(operation.began, operation.ended) && send.answer.done().is_some()
            }
            _ => false,
        });
        if !taken {
            findings.add(|| format!("{key:?} took nothing within {within} ns after the heal"));
        }
        let is_new = |value| {
            let writer = log.of_key(*key).writer(value);
            writer.is_some_and(|place| healed <= history.operations[place].began)
        };
        let served = of_key().any(|operation| match &operation.action {
            Action::Poll(poll) if operation.ended <= due => poll
                .answer
                .done()
                .is_some_and(|polled| polled.records.iter().any(|record| is_new(record.value))),
            _ => false,
        });
        if !served {
            findings
                .add(|| format!("{key:?} served nothing new within {within} ns after the heal"));
        }
        if log.of_key(*key).last.is_none() {
            findings.add(|| format!("{key:?} could not be read to its end"));
        }
    }
}
