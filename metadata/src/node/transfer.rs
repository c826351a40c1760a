//! Handing leadership over, so that nobody notices: what was given to Raft is answered first, what
//! comes meanwhile is sent on, and the next leader holds every entry before it is asked to lead.

use std::{sync::Weak, time::Duration};

use aquifer_storage::{error::Outcome, seam::Seams};

use super::{Inner, MetadataNode, health::has_space};
use crate::{client::CallError, raft::library::WatchReceiver};

/// How long the entries under way, and those the next leader misses, are waited for.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long the next leader may take to be elected.
const ELECTION_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether it is there yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How often the leader looks whether its disk is full.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// Hands leadership over when the leader's disk is full, as another's may not be: once each time
/// that it fills, or leadership would go round while all are.
pub(super) async fn yield_when_full(node: Weak<Inner>, seams: Seams) {
    let mut yielded = false;
    loop {
        seams.sleep(DISK_INTERVAL).await;
        let Some(inner) = node.upgrade() else { return };
        let node = MetadataNode { inner };
        let full = !has_space(&node.inner.wal);
        if full && !yielded && !node.inner.leadership.others().is_empty() {
            match node.transfer_leader(None).await {
                Ok(to) => tracing::warn!(to, "handed leadership over: the metadata disk is full"),
                Err(error) => tracing::debug!(%error, "kept what leadership there is"),
            }
        }
        yielded = full;
    }
}

fn refused(outcome: Outcome, reason: impl Into<String>) -> CallError {
    CallError { call: "transfer leader", outcome, reason: reason.into() }
}

impl MetadataNode {
    /// Hands leadership to the voter `to`, or to the one that is furthest, and returns who it was.
    ///
    /// # Errors
    /// `Rejected` for a node that cannot lead; `Unavailable` when this one does not lead, or goes
    /// on leading.
    ///
    /// # Cancel safety
    /// Dropping the future leaves this node refusing proposals: do not.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, CallError> {
        let leadership = &self.inner.leadership;
        leadership.term().map_err(|not_leader| not_leader.refusal_of("transfer leader"))?;
        let to = self.successor(to)?;
        leadership.hand_to(Some(to));
        let handed = self.hand_over(to).await;
        leadership.hand_to(None);
        handed.map(|()| to)
    }

    /// Before a shutdown: another voter leads afterwards, if there is one.
    pub async fn step_aside(&self) {
        if self.inner.leadership.term().is_err() || self.inner.leadership.others().is_empty() {
            return;
        }
        match self.transfer_leader(None).await {
            Ok(to) => tracing::info!(to, "handed leadership over"),
            Err(error) => tracing::warn!(%error, "stops as the leader: the others must elect one"),
        }
    }

    /// Who shall lead next: a voter that answered of late, the furthest first.
    fn successor(&self, wanted: Option<u64>) -> Result<u64, CallError> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = *self.inner.raft.node_id();
        let voters = metrics.membership_config.voter_ids().filter(|id| *id != me);
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            replication.get(id).copied().flatten().map(|log_id| log_id.index)
        };
        match wanted {
            Some(id) if metrics.membership_config.voter_ids().all(|voter| voter != id) => {
                Err(refused(Outcome::Rejected, format!("node {id} is not a voter")))
            }
            Some(id) if id == me => {
                Err(refused(Outcome::Rejected, format!("node {id} leads already")))
            }
            Some(id) => Ok(id),
            None => voters
                .max_by_key(matched)
                .ok_or_else(|| refused(Outcome::Rejected, "there is no other voter")),
        }
    }

    async fn hand_over(&self, to: u64) -> Result<(), CallError> {
        let (raft, seams) = (&self.inner.raft, &self.inner.seams);
        let ready = async {
            self.inner.proposer.idle().await;
            while !self.holds_everything(to) {
                seams.sleep(LOOK_INTERVAL).await;
            }
        };
        if seams.timeout(DRAIN_MAX, ready).await.is_none() {
            let reason = format!("node {to} is behind, and did not catch up in {DRAIN_MAX:?}");
            return Err(refused(Outcome::Unavailable, reason));
        }
        let stopped = |error| refused(Outcome::Unavailable, format!("{error}"));
        raft.trigger().transfer_leader(to).await.map_err(stopped)?;
        let elected = async {
            while raft.as_leader().is_ok() {
                seams.sleep(LOOK_INTERVAL).await;
            }
            while raft.current_leader().await.is_none() {
                seams.sleep(LOOK_INTERVAL).await;
            }
        };
        match seams.timeout(ELECTION_MAX, elected).await {
            Some(()) => Ok(()),
            None => Err(refused(Outcome::Unavailable, format!("node {to} was not elected"))),
        }
    }

    fn holds_everything(&self, id: u64) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = metrics.replication.as_ref() else { return false };
        let matched = replication.get(&id).copied().flatten().map(|log_id| log_id.index);
        matched.is_some() && metrics.last_log_index <= matched
    }
}
