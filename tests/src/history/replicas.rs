//! What somebody saw who looked at the replicas of the metadata group, and the laws of Raft that it
//! must obey. [pure]
//!
//! Clients cannot see these break, and may be lucky for long: a look at the replicas sees the
//! mistake where it is made.

mod applied_forward;
mod committed_stays;
mod log_matching;
mod one_leader;
mod same_state;
mod votes_durable;

#[cfg(test)]
mod tests;

use super::{Findings, Nanos, Violation};

/// What was seen of all replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicas {
    /// Looks in the order of time.
    pub looks: Vec<Look>,
    /// Copies of logs in the order of time.
    pub logs: Vec<LogCopy>,
    /// Every beginning of a leadership, as soon as it was seen.
    pub led: Vec<Led>,
}

/// A replica began to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// When it was seen.
    pub at: Nanos,
    /// The replica.
    pub node: u64,
    /// The term.
    pub term: u64,
    /// Every voter, and the vote, as (term, node), that its disk would hold after a loss of power
    /// then.
    pub votes: Vec<(u64, Option<(u64, u64)>)>,
}

/// A look at one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Nanos,
    /// The replica.
    pub node: u64,
    /// Which life of it.
    pub life: u64,
    /// The term in which it says that it leads and is confirmed.
    pub leads: Option<u64>,
    /// How far it has applied its log.
    pub applied: u64,
    /// The last index at which it hashed its state, and the hash.
    pub state: Option<(u64, u64)>,
}

/// What a replica's log held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCopy {
    /// When.
    pub at: Nanos,
    /// The replica.
    pub node: u64,
    /// Up to here it knew its log to be committed.
    pub committed: Option<u64>,
    /// Its entries, without holes.
    pub entries: Vec<LogEntry>,
}

/// An entry, by what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: u64,
    /// Its leader's term.
    pub term: u64,
    /// Its leader.
    pub leader: u64,
    /// Of what it says.
    pub digest: u64,
}

impl LogEntry {
    /// What Raft calls its log id.
    const fn id(&self) -> (u64, u64, u64) {
        (self.term, self.leader, self.index)
    }
}

type Rule = fn(&Replicas, &mut Findings);

const RULES: &[(&str, Rule)] = &[
    ("G1 one leader", one_leader::check),
    ("G1 log matching", log_matching::check),
    ("G1 committed stays", committed_stays::check),
    ("G1 applied forward", applied_forward::check),
    ("G3 votes durable", votes_durable::check),
    ("G4 same state", same_state::check),
];

/// The names of these laws, in the order of checking.
pub fn laws() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(law, _)| *law)
}

/// Every law that `replicas` break, with examples.
pub fn check(replicas: &Replicas) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (law, rule) in RULES {
        let mut findings = Findings::new(law);
        rule(replicas, &mut findings);
        violations.extend(findings.finish());
    }
    violations
}
