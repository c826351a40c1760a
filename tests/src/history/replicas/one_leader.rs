//! G1: at no moment do two replicas say that they lead and that a majority confirmed it of late,
//! and a term that a replica led in is never led by another one at a later time of its own.

use std::collections::BTreeMap;

use super::{Findings, Look, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    for moment in replicas.looks.chunk_by(|one, next| one.at == next.at) {
        let mut leading = moment.iter().filter(|look| look.leads.is_some());
        if let (Some(one), Some(other)) = (leading.next(), leading.next()) {
            findings.add(|| {
                let Look { at, node, leads, .. } = one;
                format!(
                    "at {at} ns node {node} leads in term {leads:?} and node {} in {:?}",
                    other.node, other.leads
                )
            });
        }
    }
    // Terms rise from leader to leader. One term may have several leaders, one after the other,
    // but none of them comes back.
    let mut newest = 0;
    let mut left = BTreeMap::<(u64, u64), u64>::new();
    let mut current: Option<(u64, u64)> = None;
    for look in replicas.looks.iter() {
        let Some(term) = look.leads else { continue };
        let leader = (term, look.node);
        if term < newest {
            findings.add(|| {
                format!("at {} ns node {} leads in term {term}, after {newest}", look.at, look.node)
            });
        }
        newest = newest.max(term);
        if current != Some(leader) {
            if let Some(at) = left.get(&leader) {
                findings.add(|| {
                    format!("node {} leads in term {term} again, left at {at} ns", look.node)
                });
            }
            if let Some(before) = current.replace(leader) {
                left.insert(before, look.at);
            }
        }
    }
}
