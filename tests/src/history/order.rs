//! B4: the batches of one chain take effect in the order in which they were sent.

use std::collections::BTreeMap;

use super::{
    Answer, Findings, History, Key, Send,
    log::{Log, sends},
};

/// Where a batch stands: where its first record was seen, or where it was acknowledged.
pub(super) fn check(history: &History, log: &Log, findings: &mut Findings) {
    let mut chains = BTreeMap::<(u32, Key), Vec<&Send>>::new();
    for (operation, send) in sends(history) {
        chains.entry((send.chain, operation.key)).or_default().push(send);
    }
    for ((chain, key), mut sent) in chains {
        sent.sort_by_key(|send| send.place);
        let mut before: Option<(u64, i64)> = None;
        for send in sent {
            let first = send.values.first().and_then(|value| log.of_key(key).places(*value).next());
            let acknowledged = match send.answer {
                Answer::Done(base) => Some(base),
                _ => None,
            };
            let Some(offset) = acknowledged.or(first) else { continue };
            if let Some((place, earlier)) = before
                && offset <= earlier
            {
                findings.add(|| {
                    format!(
                        "chain {chain} of {key:?}: batch {place} is at {earlier}, batch {} at \
                         {offset}",
                        send.place
                    )
                });
            }
            before = Some((send.place, offset));
            inside(key, send, log, findings);
        }
    }
}

/// The records of a batch stand side by side.
fn inside(key: Key, send: &Send, log: &Log, findings: &mut Findings) {
    let places = |value: &super::Value| log.of_key(key).places(*value);
    let Some(first) = send.values.first().and_then(|value| places(value).next()) else { return };
    for (expected, value) in (first..).zip(&send.values) {
        let mut found = places(value).peekable();
        if found.peek().is_some() && !found.any(|place| place == expected) {
            findings.add(|| {
                let found: Vec<_> = places(value).collect();
                format!("batch at {first} of {key:?}: {value:?} at {found:?}, due at {expected}")
            });
        }
    }
}
