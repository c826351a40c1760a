//! Whether all replicas hold the same state. At indexes that every node passes, each hashes a clone
//! of its state beside apply; the leader compares, and the minority stops: what it would answer is
//! not what the group decided.
//!
//! # Invariants
//! - Nobody stops for an answer that is missing, or for an index it did not hash.
//! - A follower stops only when told that it differs and it finds the same; a leader stops, after
//!   it handed leadership over, when more nodes differ from it than agree with it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::{model::LogIndex, seam::Seams};
use tokio::sync::{mpsc, watch};

use super::{Fatal, MetadataNode, health::report};
use crate::{
    machine::MetadataState,
    proto::{self, compare_reply::Reply},
    raft::{
        Member,
        network::{Grpc, Peers},
        snapshot_file::SnapshotFiles,
    },
};

/// Hashes kept: followers that are late still find the leader's index.
const KEPT_MAX: usize = 8;
/// How often the leader compares.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
/// A node that does not answer is asked again with the next hash.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Hashes of this node's state by index. Cheap to clone.
#[derive(Clone, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<LogIndex, u64>>>);

impl Checkpoints {
    fn note(&self, index: LogIndex, hash: u64) {
        let mut known = self.known();
        known.insert(index, hash);
        while KEPT_MAX < known.len() {
            known.pop_first();
        }
    }

    /// The hash at `index`, if this node made one.
    pub fn at(&self, index: LogIndex) -> Option<u64> {
        self.known().get(&index).copied()
    }

    /// The newest.
    pub fn newest(&self) -> Option<(LogIndex, u64)> {
        self.known().last_key_value().map(|(index, hash)| (*index, *hash))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<LogIndex, u64>> {
        self.0.lock().expect("no panic while held")
    }

    /// Hashes the states that come, on a thread of their own.
    pub(super) async fn hash(
        self,
        files: Arc<SnapshotFiles>,
        mut states: mpsc::Receiver<(LogIndex, MetadataState)>,
    ) {
        while let Some((index, state)) = states.recv().await {
            match files.work(move || Ok(state.state_hash())).await {
                Ok(hash) => self.note(index, hash),
                Err(error) => tracing::warn!(%error, "the metadata state was not hashed"),
            }
        }
    }
}

/// What follows from the answers of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// These differ, and must stop.
    Stop(Vec<u64>),
    /// This node differs from more of them than it agrees with.
    StopMyself,
}

/// Compares the leader's hash with those of the others, as far as they have one.
fn judge(mine: u64, others: &[(u64, Option<u64>)]) -> Verdict {
    let differ = others.iter().filter(|(_, hash)| hash.is_some_and(|hash| hash != mine));
    let differ: Vec<u64> = differ.map(|(id, _)| *id).collect();
    let agree = 1 + others.iter().filter(|(_, hash)| *hash == Some(mine)).count();
    if agree < differ.len() { Verdict::StopMyself } else { Verdict::Stop(differ) }
}

/// Compares for as long as the node lives, while it leads.
pub(super) struct Comparison {
    pub(super) checkpoints: Checkpoints,
    pub(super) leadership: super::leadership::Leadership,
    pub(super) peers: Peers,
    pub(super) fatal: watch::Sender<Option<Fatal>>,
    pub(super) seams: Seams,
}

impl Comparison {
    pub(super) async fn run(self) {
        let mut compared = None;
        loop {
            self.seams.sleep(COMPARE_INTERVAL).await;
            let newest = self.checkpoints.newest();
            if newest == compared || self.leadership.term().is_err() {
                continue;
            }
            let Some((index, hash)) = newest else { continue };
            let others = self.leadership.others();
            let answers = self.ask_all(&others, index, hash, false).await;
            match judge(hash, &answers) {
                Verdict::StopMyself => {
                    let reason = format!(
                        "this leader's state differs from the others' at {index}: restore this \
                         node, and keep its folder for whoever looks into it"
                    );
                    return report(&self.fatal, &reason);
                }
                Verdict::Stop(ids) if ids.is_empty() => {}
                Verdict::Stop(ids) => {
                    tracing::error!(?ids, %index, "nodes whose state differs are told to stop");
                    let told = others.into_iter().filter(|(id, _)| ids.contains(id));
                    self.ask_all(&told.collect::<Vec<_>>(), index, hash, true).await;
                }
            }
            // Who was late is not asked for this one again.
            compared = newest;
        }
    }

    async fn ask_all(
        &self,
        others: &[(u64, Member)],
        index: LogIndex,
        hash: u64,
        differs: bool,
    ) -> Vec<(u64, Option<u64>)> {
        let asking = others.iter().map(|(id, member)| async move {
            let send = |mut grpc: Grpc, peer| {
                let (peer, index) = (Some(peer), index.value());
                let request = proto::CompareRequest { peer, index, hash, differs };
                async move { grpc.compare(request).await }
            };
            let hash = match self.peers.call((*id, member), ASK_MAX, send).await {
                Ok(proto::CompareReply { reply: Some(Reply::Hash(hash)) }) => Some(hash),
                Ok(proto::CompareReply { reply: Some(Reply::Refusal(refusal)) }) => {
                    self.peers.refused(*id, refusal);
                    None
                }
                _ => None,
            };
            (*id, hash)
        });
        futures::future::join_all(asking).await
    }
}

impl MetadataNode {
    /// This node's hash at `index`, if it made one. Stops the node if the leader, whose hash is
    /// `theirs`, found that it differs, and it does.
    pub(crate) fn compare(&self, index: LogIndex, theirs: u64, differs: bool) -> Option<u64> {
        let mine = self.inner.checkpoints.at(index)?;
        if differs && mine != theirs {
            let reason = format!(
                "this node's state differs from the group's at {index}: start it anew with an \
                 empty --data and --join, and keep its folder for whoever looks into it"
            );
            report(&self.inner.stopped, &reason);
        }
        Some(mine)
    }

    /// The newest hash of this node's state.
    pub fn checkpoint(&self) -> Option<(LogIndex, u64)> {
        self.inner.checkpoints.newest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minority_stops_and_silence_says_nothing() {
        assert_eq!(judge(7, &[(2, Some(7)), (3, Some(7))]), Verdict::Stop(vec![]));
        assert_eq!(judge(7, &[(2, Some(7)), (3, Some(8))]), Verdict::Stop(vec![3]));
        assert_eq!(judge(7, &[(2, Some(8)), (3, Some(8))]), Verdict::StopMyself);
        assert_eq!(judge(7, &[(2, None), (3, None)]), Verdict::Stop(vec![]));
        let four = [(2, Some(7)), (3, Some(8)), (4, Some(8)), (5, None)];
        assert_eq!(judge(7, &four), Verdict::Stop(vec![3, 4]));
    }

    #[test]
    fn only_the_newest_hashes_are_kept() {
        let checkpoints = Checkpoints::default();
        for index in 1..=20 {
            checkpoints.note(LogIndex::new(index), index);
        }
        assert_eq!(checkpoints.newest(), Some((LogIndex::new(20), 20)));
        assert_eq!(checkpoints.at(LogIndex::new(13)), Some(13));
        assert_eq!(checkpoints.at(LogIndex::new(12)), None);
    }
}
