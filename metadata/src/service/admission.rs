//! Who may ask, and how a refusal is said.

use aquifer_storage::error::Outcome;

use crate::{
    client::CallError,
    codec::CodecError,
    machine::LEVEL,
    proto::{Caller, Refusal, refusal::Kind},
};

/// Refuses callers of other clusters and of newer levels. An empty cluster id means that the
/// caller does not know it yet.
pub(super) fn admit(caller: Option<Caller>, cluster_id: &str) -> Result<(), Refusal> {
    let Some(caller) = caller else {
        return Err(malformed("the request does not name its caller"));
    };
    if !caller.cluster_id.is_empty() && caller.cluster_id != cluster_id {
        return Err(refusal(Kind::ForeignCluster, format!("this is cluster {cluster_id}")));
    }
    if LEVEL < caller.level {
        let reason = format!("level {} is above {LEVEL}, the newest known here", caller.level);
        return Err(refusal(Kind::LevelTooHigh, reason));
    }
    Ok(())
}

/// The refusal of a request that cannot be read.
pub(super) fn malformed(reason: impl ToString) -> Refusal {
    refusal(Kind::Malformed, reason)
}

/// A refusal of any kind.
pub(super) fn refusal(kind: Kind, reason: impl ToString) -> Refusal {
    Refusal { kind: kind.into(), reason: reason.to_string() }
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        malformed(error)
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let kind = match error.outcome {
            Outcome::Rejected => Kind::Rejected,
            Outcome::Fenced => Kind::Fenced,
            Outcome::Unavailable => Kind::Unavailable,
            Outcome::Indefinite => Kind::Indefinite,
            Outcome::Corrupt => Kind::Corrupt,
        };
        refusal(kind, error.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(cluster_id: &str, level: u32) -> Option<Caller> {
        Some(Caller { cluster_id: cluster_id.into(), level })
    }

    #[test]
    fn only_this_cluster_and_known_levels_are_admitted() {
        assert_eq!(admit(caller("ours", LEVEL), "ours"), Ok(()));
        assert_eq!(admit(caller("", LEVEL), "ours"), Ok(()), "it learns the id from the reply");
        let kind = |caller| admit(caller, "ours").unwrap_err().kind();
        assert_eq!(kind(caller("theirs", LEVEL)), Kind::ForeignCluster);
        assert_eq!(kind(caller("ours", LEVEL + 1)), Kind::LevelTooHigh);
        assert_eq!(kind(None), Kind::Malformed);
    }
}
