//! G3: who leads was voted for by a majority, whose votes would survive a loss of power.

use super::{Findings, Led, Replicas};

pub(super) fn check(replicas: &Replicas, findings: &mut Findings) {
    for Led { at, node, term, votes } in &replicas.led {
        // A vote never goes back, so a later one stands for an earlier one.
        let durable = votes.iter().filter(|(_, vote)| Some((*term, *node)) <= *vote).count();
        if durable * 2 <= votes.len() {
            findings.add(|| {
                format!("at {at} ns node {node} leads in term {term}, durable are {votes:?}")
            });
        }
    }
}
