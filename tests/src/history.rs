//! What clients saw, and the laws it must obey. [pure]
//!
//! A history is a list of operations, each with the time it began and ended, what was asked and
//! what came of it. The rules are those of Jepsen's checker for Kafka and those it has not; one
//! file each. None of them needs to know how the history came about: a simulation, a chaos run.
//!
//! # Words
//! - A *key* is one topic partition.
//! - A *value* is the number in a record's payload, sent at most once per key.
//! - `Failed` means that it certainly did not happen; `Unknown`, that it may have.

mod ack_offset;
mod definite_failure;
mod dense;
mod duplicates;
mod error_codes;
pub mod groups;
mod inconsistent;
mod liveness;
mod log;
mod lost;
mod monotone;
mod order;
mod out_of_range;
mod phantom;
mod read_your_ack;
pub mod replicas;
mod sent_once;

#[cfg(test)]
mod tests;

use std::fmt;

use self::{groups::Groups, log::Log};

/// A topic partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// The number in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// Nanoseconds on the one clock of the history.
pub type Nanos = u64;

/// One request about one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked: one thread of control, which waits for its answers unless it is a chain.
    pub process: u32,
    /// Which server was asked: an agent's life.
    pub server: u32,
    /// The partition.
    pub key: Key,
    /// When it was asked.
    pub began: Nanos,
    /// When the answer came, or the asker gave up.
    pub ended: Nanos,
    /// What was asked, and what was answered.
    pub action: Action,
}

/// What was asked, and what was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A batch was sent.
    Send(Send),
    /// Records were asked for.
    Poll(Poll),
    /// An end of the log was asked for.
    ListOffsets {
        /// Which.
        end: LogEnd,
        /// What was answered.
        answer: Answer<i64>,
    },
}

/// A batch that was sent, with all its retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// The chain it belongs to: batches of one chain take effect in the order of [`Self::place`].
    pub chain: u32,
    /// Its place in the chain.
    pub place: u64,
    /// The values of its records, in order.
    pub values: Vec<Value>,
    /// Whether the producer was idempotent: then no value may appear twice.
    pub idempotent: bool,
    /// Whether the producer sent it only once: then it may not appear twice either.
    pub sent_once: bool,
    /// The offset of the first record; with an error, the base offset that came with the code.
    pub answer: Answer<i64>,
    /// Every error code that one of its tries was answered with, with its base offset.
    pub refusals: Vec<(i16, i64)>,
}

/// Records that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// From this offset on.
    pub from: i64,
    /// What was answered.
    pub answer: Answer<Polled>,
}

/// What a poll answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polled {
    /// Records from the asked offset on.
    pub records: Vec<Record>,
    /// The high watermark that came with them.
    pub high_watermark: i64,
    /// The log start offset that came with them.
    pub log_start: i64,
}

/// A record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: Value,
    /// Whether the payload is the one that was sent with this value.
    pub intact: bool,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    /// It happened.
    Done(T),
    /// It certainly did not happen; the code says why.
    Failed(i16),
    /// It may have happened.
    Unknown,
}

impl<T> Answer<T> {
    /// What was answered, if it happened.
    pub const fn done(&self) -> Option<&T> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Failed(_) | Self::Unknown => None,
        }
    }
}

/// An end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogEnd {
    /// The first offset that is kept.
    Earliest,
    /// The offset that the next record gets.
    Latest,
}

/// All operations of a run, and what else is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
    /// What every key holds at the end, read from the log start to the end by a reader that
    /// nothing disturbed; absent for keys that could not be read.
    pub final_reads: Vec<(Key, Polled)>,
    /// When the last fault was healed, and how long everything may take from then on to work.
    pub healed: Option<(Nanos, Nanos)>,
    /// The keys that must work.
    pub keys: Vec<Key>,
    /// What members of groups saw.
    pub groups: Groups,
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The law's name.
    pub law: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// Violations told of one law; more say the same.
const TOLD_MAX: usize = 5;

/// Where a rule reports to.
pub(crate) struct Findings {
    law: &'static str,
    count: usize,
    told: Vec<Violation>,
}

impl Findings {
    fn new(law: &'static str) -> Self {
        Self { law, count: 0, told: Vec::new() }
    }

    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(Violation { law: self.law, what: what() });
        }
    }

    fn finish(mut self) -> Vec<Violation> {
        let more = self.count.saturating_sub(self.told.len());
        if 0 < more {
            self.told.push(Violation { law: self.law, what: format!("and {more} more") });
        }
        self.told
    }
}

/// A rule: looks at a history and reports.
type Rule = fn(&History, &Log, &mut Findings);

/// Every law by its name.
const RULES: &[(&str, Rule)] = &[
    ("A1 lost", lost::check),
    ("A2 inconsistent offsets", inconsistent::check),
    ("A3 ack offset", ack_offset::check),
    ("A4 dense", dense::check),
    ("A5 monotone", monotone::check),
    ("A7 sent once", sent_once::check),
    ("A8 definite failure", definite_failure::check),
    ("B1 duplicate", duplicates::check),
    ("B3 error code", error_codes::check),
    ("B4 order", order::check),
    ("D1 commit of the present", groups::commits::check),
    ("D2 committed offset", groups::offsets::check),
    ("D3 one owner", groups::owners::check),
    ("D4 offsets kept", groups::offsets::check_kept),
    ("E1 payload", phantom::check),
    ("E3 read your ack", read_your_ack::check),
    ("E6 out of range", out_of_range::check),
    ("H1 liveness", liveness::check),
    ("H1 groups settle", groups::converged::check),
];

/// The names of all laws, in the order of checking.
pub fn laws() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(law, _)| *law)
}

/// Every law that `history` breaks, with examples.
pub fn check(history: &History) -> Vec<Violation> {
    let log = Log::of(history);
    let mut violations = Vec::new();
    for (law, rule) in RULES {
        let mut findings = Findings::new(law);
        rule(history, &log, &mut findings);
        violations.extend(findings.finish());
    }
    violations
}
