//! Tries a store out: what it does with writes, reads, lists, deletes and conditions.
//!
//! A test writes under a folder of its own (`format::object_key::probe_folder`), never where data
//! lies, and deletes what it wrote whatever happened in between. Tests at once do not meet.
//! [`observe`] asks, [`judge`] says what the answers mean.
//!
//! # Cost
//! [`Depth::Start`] sends 2 PUT, 1 LIST, 3 GET and 1 DELETE: $0.000016 at the list prices of S3.
//! [`Depth::Whole`] sends about 30 requests, $0.0001.

pub mod bucket;
pub mod judge;
mod observe;

pub use observe::{ANSWER_MAX, Observed, Seen, observe, sweep};

use serde::Serialize;

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What a start can wait for.
    Start,
    /// Everything.
    Whole,
}

/// How serious a finding is, the least serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be found out.
    Unknown,
    /// Works, but costs something or lacks something.
    Warning,
    /// Does not work, or loses data.
    Failed,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How serious it is.
    pub verdict: Verdict,
    /// What was seen, and what it means.
    pub what: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, what: what.into(), advice: String::new() }
    }

    /// Something that is not, and what to do.
    pub fn bad(
        check: &'static str,
        verdict: Verdict,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, verdict, what: what.into(), advice: advice.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.check, self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

#[cfg(test)]
mod tests;
