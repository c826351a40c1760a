//! Claims a prefix for a cluster by `cluster.json`, or says whose it is.
//!
//! Where the store ignores conditions, two first starts can race; the last writer's file stays and
//! the other finds a foreign claim at its next start. Random lineages keep their data apart.

use crate::{
    error::{Outcome, StoreCondition, StoreError},
    format::cluster_file::{CLUSTER_FILE_KEY, ClusterFile, ClusterFileRefused},
    store::Store,
};

/// Whose the prefix is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It was free, and is ours now.
    Claimed,
    /// It was ours: same cluster, same lineage.
    Ours,
    /// It is ours in an older lineage, whose restore we are.
    OlderLineage {
        /// What stands there.
        found: ClusterFile,
    },
    /// Another cluster's: choose another prefix.
    Foreign {
        /// Whose.
        cluster_id: String,
    },
    /// Our cluster was restored since: this start is out of date.
    NewerLineage {
        /// What stands there.
        found: ClusterFile,
    },
}

/// The claim could not be decided.
#[derive(Debug, thiserror::Error)]
pub enum ClaimFailed {
    /// The store did not answer, or refused.
    #[error("the prefix cannot be claimed")]
    Store {
        /// What it said.
        #[from]
        source: StoreError,
    },
    /// The file there is not ours to read.
    #[error("the prefix holds a {CLUSTER_FILE_KEY} that cannot be used")]
    File {
        /// Why.
        #[from]
        source: ClusterFileRefused,
    },
}

/// Reads whose the prefix is; `None` when nobody's. For a start with an empty `--data`.
pub async fn read_claim(store: &dyn Store) -> Result<Option<ClusterFile>, ClaimFailed> {
    match store.get(CLUSTER_FILE_KEY).await {
        Ok(bytes) => Ok(Some(ClusterFile::decode(&bytes)?)),
        Err(error) if error.condition == StoreCondition::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Claims the prefix for `ours`, or says whose it is. May be repeated.
///
/// # Cancel safety
/// Dropping the future may leave the prefix claimed; repeating it then says [`Claim::Ours`].
pub async fn claim_prefix(store: &dyn Store, ours: &ClusterFile) -> Result<Claim, ClaimFailed> {
    if let Some(found) = read_claim(store).await? {
        return Ok(judge(ours, found, Claim::Ours));
    }
    let body = bytes::Bytes::from(ours.encode());
    let failure = match store.put_if_absent(CLUSTER_FILE_KEY, body.clone()).await {
        Ok(()) => return Ok(Claim::Claimed),
        Err(error) if error.condition == StoreCondition::Unsupported => {
            store.put(CLUSTER_FILE_KEY, vec![body]).await.err()
        }
        Err(error) => Some(error),
    };
    // `AlreadyExists` may be this very write after a lost answer: what stands there decides.
    match (read_claim(store).await?, failure) {
        (Some(found), _) => Ok(judge(ours, found, Claim::Claimed)),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(vanished().into()),
    }
}

/// Lets the prefix go over to `ours`, a restored life of the cluster it belongs to: nodes of older
/// ones do not start from then on. The one place that writes other bytes under the same key.
/// [`Claim::Claimed`] and [`Claim::Ours`] say that it is; anything else that it was left alone.
///
/// # Cancel safety
/// As [`claim_prefix`].
pub async fn advance_claim(store: &dyn Store, ours: &ClusterFile) -> Result<Claim, ClaimFailed> {
    match claim_prefix(store, ours).await? {
        Claim::OlderLineage { .. } => {}
        decided => return Ok(decided),
    }
    let body = bytes::Bytes::from(ours.encode());
    let failure = store.put(CLUSTER_FILE_KEY, vec![body]).await.err();
    // What stands there decides: the write may have worked, or another restore overtaken it.
    match (read_claim(store).await?, failure) {
        (Some(found), None) => Ok(judge(ours, found, Claim::Claimed)),
        (Some(found), Some(error)) => match judge(ours, found, Claim::Claimed) {
            Claim::OlderLineage { .. } => Err(error.into()),
            decided => Ok(decided),
        },
        (None, error) => Err(error.unwrap_or_else(vanished).into()),
    }
}

/// Compares what stands there with ours; `same` when they are equal.
fn judge(ours: &ClusterFile, found: ClusterFile, same: Claim) -> Claim {
    if found.cluster_id != ours.cluster_id {
        return Claim::Foreign { cluster_id: found.cluster_id };
    }
    if found.lineage == ours.lineage {
        return same;
    }
    if found.lineage.number < ours.lineage.number {
        return Claim::OlderLineage { found };
    }
    // Also an equal number with another nonce: two restores raced, and the other one won.
    Claim::NewerLineage { found }
}

fn vanished() -> StoreError {
    StoreError {
        operation: "get",
        key: CLUSTER_FILE_KEY.to_owned(),
        outcome: Outcome::Unavailable,
        condition: StoreCondition::NotFound,
        reason: "the file that was just written cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{
        model::Lineage,
        seam::system,
        store::{
            MemoryStore,
            fault::{Fault, FaultStore},
        },
    };

    fn file(cluster_id: &str, number: u32, nonce: u64) -> ClusterFile {
        ClusterFile { cluster_id: cluster_id.to_owned(), lineage: Lineage { number, nonce } }
    }

    #[tokio::test]
    async fn a_free_prefix_is_claimed_once_and_then_ours() {
        let store = MemoryStore::new();
        assert_eq!(read_claim(&store).await.unwrap(), None);
        let ours = file("a", 0, 1);
        assert_eq!(claim_prefix(&store, &ours).await.unwrap(), Claim::Claimed);
        assert_eq!(claim_prefix(&store, &ours).await.unwrap(), Claim::Ours);
        assert_eq!(read_claim(&store).await.unwrap(), Some(ours));
    }

    #[tokio::test]
    async fn a_foreign_or_newer_claim_is_told_and_left_alone() {
        let store = MemoryStore::new();
        let stands = file("a", 1, 1);
        claim_prefix(&store, &stands).await.unwrap();
        let claim = async |ours: ClusterFile| claim_prefix(&store, &ours).await.unwrap();
        assert_eq!(claim(file("b", 9, 1)).await, Claim::Foreign { cluster_id: "a".to_owned() });
        let newer = Claim::NewerLineage { found: stands.clone() };
        assert_eq!(claim(file("a", 0, 1)).await, newer);
        assert_eq!(claim(file("a", 1, 2)).await, newer);
        let older = Claim::OlderLineage { found: stands.clone() };
        assert_eq!(claim(file("a", 2, 1)).await, older);
        assert_eq!(read_claim(&store).await.unwrap(), Some(stands));
    }

    #[tokio::test]
    async fn a_restored_life_takes_the_prefix_over_and_older_ones_are_told() {
        let store = MemoryStore::new();
        let (old, new) = (file("a", 0, 1), file("a", 1, 2));
        claim_prefix(&store, &old).await.unwrap();
        assert_eq!(advance_claim(&store, &new).await.unwrap(), Claim::Claimed);
        assert_eq!(advance_claim(&store, &new).await.unwrap(), Claim::Ours);
        let newer = Claim::NewerLineage { found: new.clone() };
        assert_eq!(claim_prefix(&store, &old).await.unwrap(), newer);
        assert_eq!(advance_claim(&store, &old).await.unwrap(), newer, "never back");
        let foreign = Claim::Foreign { cluster_id: "a".to_owned() };
        assert_eq!(advance_claim(&store, &file("b", 7, 1)).await.unwrap(), foreign);
        assert_eq!(read_claim(&store).await.unwrap(), Some(new));
    }

    #[tokio::test]
    async fn a_claim_whose_answer_was_lost_is_still_a_claim() {
        let script = VecDeque::from([Fault::None, Fault::LoseAnswer]);
        let store = FaultStore::new(MemoryStore::new(), script, system::seams());
        assert_eq!(claim_prefix(&store, &file("a", 0, 1)).await.unwrap(), Claim::Claimed);
    }

    #[tokio::test]
    async fn a_claim_that_was_refused_is_an_error_and_may_be_repeated() {
        let script = VecDeque::from([Fault::None, Fault::Refuse]);
        let store = FaultStore::new(MemoryStore::new(), script, system::seams());
        assert!(claim_prefix(&store, &file("a", 0, 1)).await.is_err());
        assert_eq!(claim_prefix(&store, &file("a", 0, 1)).await.unwrap(), Claim::Claimed);
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_never_overwritten() {
        let store = MemoryStore::new();
        let foreign = bytes::Bytes::from_static(b"not json");
        store.put(CLUSTER_FILE_KEY, vec![foreign.clone()]).await.unwrap();
        assert!(claim_prefix(&store, &file("a", 0, 1)).await.is_err());
        assert_eq!(store.get(CLUSTER_FILE_KEY).await.unwrap(), foreign);
    }
}
