//! Who may ask, and how a refusal is said.

use aquifer_storage::error::Outcome;
use tonic::metadata::MetadataMap;

use super::Service;
use crate::{
    client::{
        CallError,
        remote::lineage::{self, UnreadableLineage},
    },
    codec::CodecError,
    machine::LEVEL,
    node::folder::Identity,
    proto::{Caller, Refusal, refusal::Kind},
};

/// The lineage a call was made for; `None` when the caller does not know it yet.
pub(super) type Named = Result<Option<aquifer_storage::model::Lineage>, UnreadableLineage>;

/// What the headers of a call say, to be judged by [`admit`].
pub(super) fn named(headers: &MetadataMap) -> Named {
    lineage::named_in(headers)
}

/// Refuses callers of other clusters, of other lives of this cluster and of newer levels. An empty
/// cluster id means that the caller does not know it yet, and so does a lineage not named.
pub(super) fn admit(caller: Option<Caller>, named: Named, ours: &Identity) -> Result<(), Refusal> {
    let Some(caller) = caller else {
        return Err(malformed("the request does not name its caller"));
    };
    let Identity { cluster_id, lineage, .. } = ours;
    if !caller.cluster_id.is_empty() && caller.cluster_id != *cluster_id {
        return Err(refusal(Kind::ForeignCluster, format!("this is cluster {cluster_id}")));
    }
    if named.map_err(malformed)?.is_some_and(|named| named != *lineage) {
        let reason = format!("this is lineage {lineage} of cluster {cluster_id}: start anew");
        return Err(refusal(Kind::ForeignCluster, reason));
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
    Refusal { kind: kind.into(), reason: reason.to_string(), leader: String::new() }
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        malformed(error)
    }
}

impl Service {
    /// The refusal of a call that gave no answer. What had no effect here may have one at the
    /// leader: the caller is sent there.
    pub(super) fn refusal(&self, error: CallError) -> Refusal {
        if error.outcome == Outcome::Unavailable
            && let Err(not_leader) = self.node.leadership().term()
        {
            let me = self.node.identity().node_id;
            let leader = not_leader.leader.filter(|(id, _)| *id != me);
            let leader = leader.map(|(_, member)| member.address).unwrap_or_default();
            return Refusal { kind: Kind::NotLeader.into(), reason: error.reason, leader };
        }
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
    use aquifer_storage::model::Lineage;

    use super::*;

    fn caller(cluster_id: &str, level: u32) -> Option<Caller> {
        Some(Caller { cluster_id: cluster_id.into(), level })
    }

    fn ours() -> Identity {
        let lineage = Lineage { number: 2, nonce: 7 };
        Identity { cluster_id: "ours".into(), node_id: 1, lineage }
    }

    #[test]
    fn only_this_cluster_and_known_levels_are_admitted() {
        assert_eq!(admit(caller("ours", LEVEL), Ok(None), &ours()), Ok(()));
        assert_eq!(admit(caller("", LEVEL), Ok(None), &ours()), Ok(()), "it learns the id");
        let kind = |caller| admit(caller, Ok(None), &ours()).unwrap_err().kind();
        assert_eq!(kind(caller("theirs", LEVEL)), Kind::ForeignCluster);
        assert_eq!(kind(caller("ours", LEVEL + 1)), Kind::LevelTooHigh);
        assert_eq!(kind(None), Kind::Malformed);
    }

    #[test]
    fn only_this_life_of_the_cluster_is_admitted() {
        let admit = |named| admit(caller("ours", LEVEL), named, &ours());
        assert_eq!(admit(Ok(Some(Lineage { number: 2, nonce: 7 }))), Ok(()));
        for other in [Lineage { number: 1, nonce: 7 }, Lineage { number: 2, nonce: 8 }] {
            assert_eq!(admit(Ok(Some(other))).unwrap_err().kind(), Kind::ForeignCluster);
        }
        assert_eq!(admit(Err(UnreadableLineage)).unwrap_err().kind(), Kind::Malformed);
    }
}
