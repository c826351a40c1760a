//! G4: at one index every replica, in every one of its lives, holds the same state: whether it
//! applied the log, replayed it or began from a snapshot.

use std::collections::BTreeMap;

use super::{Findings, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    let mut hashes = BTreeMap::<u64, (u64, u64, u64)>::new();
    for look in &replicas.looks {
        let Some((index, hash)) = look.state else { continue };
        let (first, node, life) = *hashes.entry(index).or_insert((hash, look.node, look.life));
        if first != hash {
            findings.add(|| {
                format!(
                    "at index {index} node {} in life {} has state {hash:x}, node {node} in life \
                     {life} had {first:x}",
                    look.node, look.life
                )
            });
        }
    }
}
