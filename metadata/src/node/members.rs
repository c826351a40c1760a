//! Who is in the group: how it stands, and changes of it, one node at a time.
//!
//! # Invariants
//! - An id is given once. Founders have up to [`FOUNDER_ID_MAX`]; a node that joins gets that plus
//!   the index at which its admission stands at the earliest, so ids grow with the log and need no
//!   memory of their own.
//! - A voter is added only once it holds nearly everything: before, it could stop the group.

use std::{collections::BTreeSet, time::Duration};

use aquifer_storage::{error::Outcome, model::LogIndex};

use super::MetadataNode;
use crate::{
    client::CallError,
    proto,
    raft::{
        Member,
        library::{ChangeMembers, Instant, WatchReceiver},
    },
};

/// Ids below are for founders.
pub const FOUNDER_ID_MAX: u64 = 99;
/// A learner that is further behind is not made a voter yet.
const LAG_MAX: u64 = 1_000;
/// A change needs two entries, each confirmed by a majority.
const CHANGE_MAX: Duration = Duration::from_secs(10);

fn refused(outcome: Outcome, reason: impl Into<String>) -> CallError {
    CallError { call: "change members", outcome, reason: reason.into() }
}

impl MetadataNode {
    /// How this node sees the group. The state hash, which takes a pass over the state, only when
    /// `hashed`.
    pub fn status(&self, hashed: bool) -> proto::GroupStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let (applied, state) = {
            let machine = self.inner.machine.lock();
            (machine.index(), hashed.then(|| machine.state.clone()))
        };
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let leads = self.inner.leadership.term().is_ok();
        let matched = |id: &u64| {
            let known = metrics.replication.as_ref()?.get(id)?.as_ref()?;
            leads.then_some(known.index)
        };
        let silent = |id: &u64| {
            let heard = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
            leads.then(|| heard.elapsed().as_millis() as u64)
        };
        let members = metrics.membership_config.membership().nodes();
        let members = members.map(|(id, member)| proto::MemberStatus {
            id: *id,
            address: member.address.clone(),
            voter: voters.contains(id),
            matched_index: matched(id),
            silent_ms: silent(id),
            incarnation: member.incarnation,
        });
        let identity = &self.inner.identity;
        proto::GroupStatus {
            cluster_id: identity.cluster_id.clone(),
            lineage: Some(proto::Lineage {
                number: identity.lineage.number,
                nonce: identity.lineage.nonce,
            }),
            node: identity.node_id,
            leader: match self.inner.leadership.term() {
                Ok(_) => Some(identity.node_id),
                Err(not_leader) => not_leader.leader.map(|(id, _)| id),
            },
            term: metrics.current_term,
            last_index: metrics.last_log_index.unwrap_or_default(),
            committed_index: metrics.local_committed.map_or(0, |id| id.index),
            applied_index: applied.value(),
            members: members.collect(),
            purged_index: metrics.purged.map(|id| id.index),
            state_hash: state.map(|state| state.state_hash()),
            backup: self.backup().map(|backup| proto::BackupStatus {
                covered_index: backup.covered.map(LogIndex::value),
                age_ms: backup.age.map(|age| age.as_millis() as u64),
                failures: backup.failures,
            }),
        }
    }

    /// Admits a node without a log, as a learner, under an id that nobody had. The same folder
    /// asking again gets the same id.
    pub async fn admit(&self, joining: Member) -> Result<u64, CallError> {
        let _turn = self.inner.changing.lock().await;
        self.lead("join")?;
        let metrics = self.inner.raft.metrics();
        let (known, last) = {
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.membership().nodes();
            let mut known = members.filter(|(_, one)| one.incarnation == joining.incarnation);
            (known.next().map(|(id, _)| *id), metrics.last_log_index.unwrap_or_default())
        };
        if let Some(id) = known {
            return Ok(id);
        }
        let id = FOUNDER_ID_MAX + 1 + last;
        let adding = self.inner.raft.add_learner(id, joining, false);
        match self.inner.seams.timeout(CHANGE_MAX, adding).await {
            Some(Ok(_)) => Ok(id),
            Some(Err(error)) => Err(refused(Outcome::Indefinite, error.to_string())),
            None => Err(refused(Outcome::Indefinite, "no majority confirmed it in time")),
        }
    }

    /// Makes the learner `id` a voter.
    pub async fn add_voter(&self, id: u64) -> Result<(), CallError> {
        let status = self.leading_status()?;
        let member = status.members.iter().find(|member| member.id == id);
        let Some(member) = member else {
            let reason = format!("node {id} is not known: start it with --join first");
            return Err(refused(Outcome::Rejected, reason));
        };
        if member.voter {
            return Ok(());
        }
        let behind = status.last_index.saturating_sub(member.matched_index.unwrap_or_default());
        if member.matched_index.is_none() || LAG_MAX < behind {
            let reason = format!("node {id} is {behind} entries behind: wait until it caught up");
            return Err(refused(Outcome::Rejected, reason));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes the voter or learner `id`, for ever.
    pub async fn remove_member(&self, id: u64) -> Result<(), CallError> {
        let status = self.leading_status()?;
        let voters = status.members.iter().filter(|member| member.voter).count();
        match status.members.iter().find(|member| member.id == id) {
            None => Err(refused(Outcome::Rejected, format!("node {id} is not in the group"))),
            Some(member) if !member.voter => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await
            }
            Some(_) if voters == 1 => {
                Err(refused(Outcome::Rejected, format!("node {id} is the last voter")))
            }
            Some(_) => self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await,
        }
    }

    fn leading_status(&self) -> Result<proto::GroupStatus, CallError> {
        self.lead("change members")?;
        Ok(self.status(false))
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), CallError> {
        let _turn = self.inner.changing.lock().await;
        let changing = self.inner.raft.change_membership(change, false);
        match self.inner.seams.timeout(CHANGE_MAX, changing).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(refused(Outcome::Indefinite, error.to_string())),
            None => Err(refused(Outcome::Indefinite, "no majority confirmed it in time")),
        }
    }
}
