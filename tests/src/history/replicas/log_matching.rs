//! G1: two logs that hold an entry of the same term, leader and index hold the same there, and the
//! same before it.

use std::collections::BTreeMap;

use super::{Findings, LogEntry, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    // By log id: what it says, and the log id before it. The rest follows by induction.
    let mut known = BTreeMap::<(u64, u64, u64), (u64, Option<(u64, u64, u64)>)>::new();
    for log in &replicas.logs {
        let mut before: Option<&LogEntry> = None;
        for entry in &log.entries {
            let this = (entry.digest, before.map(LogEntry::id));
            let first = known.entry(entry.id()).or_insert(this);
            let differs =
                first.0 != this.0 || first.1.zip(this.1).is_some_and(|(first, this)| first != this);
            if differs {
                let first = *first;
                findings.add(|| {
                    format!(
                        "node {} at {} ns: {entry:?} behind {:?}; elsewhere {:x} behind {:?}",
                        log.node, log.at, this.1, first.0, first.1
                    )
                });
            } else if first.1.is_none() {
                first.1 = this.1;
            }
            before = Some(entry);
        }
    }
}
