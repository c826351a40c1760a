//! What an error says about the world: the five kinds, and errors of the store.

use std::fmt;

/// What a caller may conclude from an error, decided where the error is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Did not happen and will not as asked: wrong against the current state.
    Rejected,
    /// Did not happen: someone newer owns it.
    Fenced,
    /// Did not happen, no effect, transient: retry.
    Unavailable,
    /// May have happened: retry only the *same* idempotent write.
    Indefinite,
    /// Bytes fail a checksum or a parse: quarantine, never retry in a loop.
    Corrupt,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "rejected",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Indefinite => "outcome unknown",
            Self::Corrupt => "corrupt",
        })
    }
}

/// An operation on the object store that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {key}: {outcome}: {reason}")]
pub struct StoreError {
    /// `put`, `get`, `list` or `delete`.
    pub operation: &'static str,
    /// The full key, or the prefix of a list.
    pub key: String,
    /// Whether the operation may have taken effect.
    pub outcome: Outcome,
    /// The condition, for callers that act on it.
    pub condition: StoreCondition,
    /// What the store or the network said.
    pub reason: String,
}

/// Conditions of a store that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreCondition {
    /// No object has this key.
    NotFound,
    /// `put_if_absent` found an object, or lost a race (412 and 409 alike).
    AlreadyExists,
    /// Credentials or policy forbid it (401, 403).
    Denied,
    /// The store asks to slow down or is broken (429, 5xx).
    Busy,
    /// No answer in time, or the connection broke.
    NoAnswer,
    /// The store does not know the operation (501, or a missing precondition).
    Unsupported,
    /// Anything else, such as a bad bucket name.
    Other,
}
