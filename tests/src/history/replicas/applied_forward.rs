//! G1: within a life a replica applies its log forwards.

use std::collections::BTreeMap;

use super::{Findings, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    let mut reached = BTreeMap::<(u64, u64), u64>::new();
    for look in &replicas.looks {
        let before = reached.insert((look.node, look.life), look.applied);
        if before.is_some_and(|before| look.applied < before) {
            findings.add(|| {
                format!(
                    "node {} had applied {before:?} and then, at {} ns, {}",
                    look.node, look.at, look.applied
                )
            });
        }
    }
}
