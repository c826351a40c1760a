//! A3: record `i` of an acknowledged batch is read at base offset + `i`; an error names no offset.

use super::{
    Findings, History,
    log::{Log, sends},
};

/// Kafka's code for a retry of a batch that is there already: it may name the original's offset.
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// A value that nobody read is A1's business.
pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    for (operation, send) in sends(history) {
        let seen = log.of_key(operation.key);
        if let Some(base) = send.answer.done() {
            for (offset, value) in (*base..).zip(&send.values) {
                let mut places = seen.places(*value).peekable();
                if places.peek().is_some() && !places.any(|place| place == offset) {
                    let read: Vec<_> = seen.places(*value).collect();
                    findings.add(|| {
                        format!(
                            "{value:?} of {:?} acknowledged at {offset} is read at {read:?}",
                            operation.key
                        )
                    });
                }
            }
            if *base < 0 {
                findings.add(|| format!("{:?} acknowledged at {base}", operation.key));
            }
        }
        for (code, base) in &send.refusals {
            if *base != -1 && *code != DUPLICATE_SEQUENCE_NUMBER {
                findings.add(|| format!("error {code} of {:?} names {base}", operation.key));
            }
        }
    }
}
