//! Whether this node leads: not what it remembers of an election, but what a majority confirmed
//! within the last election time-out, and only once its own first entry is applied.
//!
//! # Invariants
//! - A leader that is cut off says so after [`Leadership::lease`] at the latest: it answers no
//!   heartbeat, takes no proposal and no commit stream.
//! - A new leader says nothing of the state before it holds everything that was committed before.

use std::{sync::Arc, time::Duration};

use aquifer_storage::{error::Outcome, model::LogIndex, seam::Seams};
use tokio::sync::watch;

use crate::{
    client::CallError,
    machine::MetadataState,
    raft::{
        Member, RaftHandle,
        library::{Instant, WatchReceiver},
        state_machine::MachineCell,
    },
};

/// How often a node looks whether it still leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Why this node does not answer as the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Who may lead, as far as this node knows.
    pub leader: Option<(u64, Member)>,
    /// What to tell the caller.
    pub reason: &'static str,
}

impl NotLeader {
    /// The answer to `call`, which had no effect.
    pub fn refusal_of(&self, call: &'static str) -> CallError {
        let reason = match &self.leader {
            Some((id, member)) => format!("{}: node {id} at {member} does", self.reason),
            None => self.reason.to_owned(),
        };
        CallError { call, outcome: Outcome::Unavailable, reason }
    }
}

/// Whether this node leads, and who does. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    raft: RaftHandle,
    machine: MachineCell,
    lease: Duration,
    /// The node that leadership is being handed to.
    handing_to: Arc<watch::Sender<Option<u64>>>,
    term: Arc<watch::Sender<Option<u64>>>,
}

impl Leadership {
    /// The leadership of `raft`, whose confirmations last for `lease`.
    pub fn new(raft: RaftHandle, machine: MachineCell, lease: Duration) -> Self {
        let (handing_to, term) = (Arc::default(), Arc::default());
        Self { raft, machine, lease, handing_to, term }
    }

    /// How long a majority's confirmation lasts.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The term this node leads in.
    ///
    /// # Errors
    /// It does not lead, or a majority did not confirm it of late, or it is taking over or handing
    /// over.
    pub fn term(&self) -> Result<u64, NotLeader> {
        let leader = self.raft.as_leader().map_err(|forward| NotLeader {
            leader: forward.leader_id.zip(forward.leader_node),
            reason: "this node does not lead",
        })?;
        if let Some(to) = *self.handing_to.borrow() {
            let leader = self.member(to).map(|member| (to, member));
            return Err(NotLeader { leader, reason: "this node hands leadership over" });
        }
        let unconfirmed = |reason| Err(NotLeader { leader: None, reason });
        let heard = leader.last_quorum_acked().is_some_and(|at| at.elapsed() < self.lease);
        if !heard && !self.is_alone() {
            return unconfirmed("this node led, and hears no majority");
        }
        let term = leader.leader_id().term;
        if !self.machine.lock().applied_by(term, *self.raft.node_id()) {
            return unconfirmed("this node is taking over");
        }
        Ok(term)
    }

    /// The state as it is now, its index and the term: what a planted mistake guesses from.
    pub(super) fn foresee(&self) -> Option<(MetadataState, LogIndex, u64)> {
        let term = self.term().ok()?;
        let machine = self.machine.lock();
        Some((machine.state.clone(), machine.index(), term))
    }

    fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let members = metrics.borrow_watched().membership_config.clone();
        members.voter_ids().all(|id| id == *self.raft.node_id())
    }

    /// A member of the group, as this node knows it.
    pub fn member(&self, id: u64) -> Option<Member> {
        let metrics = self.raft.metrics();
        let members = metrics.borrow_watched().membership_config.clone();
        members.membership().get_node(&id).cloned()
    }

    /// The members other than this one, as this node knows them.
    pub fn others(&self) -> Vec<(u64, Member)> {
        let metrics = self.raft.metrics();
        let members = metrics.borrow_watched().membership_config.clone();
        let all = members.membership().nodes().map(|(id, member)| (*id, member.clone()));
        all.filter(|(id, _)| id != self.raft.node_id()).collect()
    }

    /// Takes no more proposals: leadership goes to `to`. `None` takes that back.
    pub fn hand_to(&self, to: Option<u64>) {
        self.handing_to.send_replace(to);
        self.publish();
    }

    /// Follows the term this node leads in: true now, later at most [`LOOK_INTERVAL`] late.
    pub fn changes(&self) -> watch::Receiver<Option<u64>> {
        self.publish();
        self.term.subscribe()
    }

    fn publish(&self) {
        let now = self.term().ok();
        self.term.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// Looks for ever.
    pub async fn watch(self, seams: Seams) {
        let mut metrics = self.raft.server_metrics();
        loop {
            self.publish();
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() { return },
                () = seams.sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

/// Completes once this node leads no more in `term`.
pub async fn lost(mut changes: watch::Receiver<Option<u64>>, term: u64) {
    // An error: the node is gone, which means the same.
    let _ = changes.wait_for(|now| *now != Some(term)).await;
}
