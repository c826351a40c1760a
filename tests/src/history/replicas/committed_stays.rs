//! G1: an entry that a replica knew to be committed stands at its index in every log that knows
//! that index to be committed, at any time.

use std::collections::BTreeMap;

use super::{Findings, LogEntry, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    let mut committed = BTreeMap::<u64, (LogEntry, u64)>::new();
    for log in &replicas.logs {
        let Some(last) = log.committed else { continue };
        for entry in log.entries.iter().take_while(|entry| entry.index <= last) {
            let (first, node) = committed.entry(entry.index).or_insert((*entry, log.node));
            if first != entry {
                findings.add(|| {
                    format!(
                        "node {} at {} ns committed {entry:?}, node {node} had committed {first:?}",
                        log.node, log.at
                    )
                });
            }
        }
    }
}
