//! A member's way to its target: what it has goes before what it gets.
//!
//! # Invariants
//! - A member is not told a new epoch while it holds something that it has to give up.
//! - It gets a partition only when nobody holds it any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aquifer_storage::model::{TopicId, TopicPartition};

use super::{
    AssignedTopic,
    state::{ConsumerMember, MemberState, Owned, Target, flat},
};

/// What a member's next step goes by.
pub(crate) struct Goal<'a> {
    /// The epoch of the target.
    pub epoch: i32,
    /// What the member shall hold.
    pub target: &'a Target,
    /// The topics it subscribes to now; the target may be older.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// Whether it subscribes to something else than before.
    pub has_new_subscription: bool,
    /// What it says that it holds; `None`: as before.
    pub owned: Option<&'a [AssignedTopic]>,
    /// Whether nobody but the member holds a partition.
    pub is_free: &'a dyn Fn(TopicPartition) -> bool,
}

/// The member after its next step; its deadline is not set here.
pub(crate) fn reconcile(member: &ConsumerMember, goal: &Goal<'_>) -> ConsumerMember {
    if !goal.has_new_subscription && member.is_reconciled_to(goal.epoch) {
        return member.clone();
    }
    match member.state {
        MemberState::Stable if member.epoch != goal.epoch => next_assignment(member, goal),
        MemberState::UnrevokedPartitions if !goal.still_owns(&member.revoking) => {
            next_assignment(member, goal)
        }
        MemberState::UnreleasedPartitions => next_assignment(member, goal),
        MemberState::Stable | MemberState::UnrevokedPartitions if goal.has_new_subscription => {
            without_unsubscribed(member, goal)
        }
        MemberState::Stable | MemberState::UnrevokedPartitions => member.clone(),
    }
}

impl Goal<'_> {
    /// Whether the member holds some of these; who does not say may hold all.
    fn still_owns(&self, revoking: &Owned) -> bool {
        match self.owned {
            None => true,
            Some(owned) => flat(owned).any(|partition| revoking.contains_key(&partition)),
        }
    }
}

/// Towards the target: revoke first, then take what is free.
fn next_assignment(member: &ConsumerMember, goal: &Goal<'_>) -> ConsumerMember {
    let shall_hold = |partition: &TopicPartition| {
        goal.target.contains(partition) && goal.subscribed.contains(&partition.topic)
    };
    let (mut kept, mut revoking) = (BTreeMap::new(), BTreeMap::new());
    for (partition, epoch) in member.assigned.iter() {
        let place = if shall_hold(partition) { &mut kept } else { &mut revoking };
        place.insert(*partition, *epoch);
    }
    if !revoking.is_empty() && goal.still_owns(&revoking) {
        return ConsumerMember {
            state: MemberState::UnrevokedPartitions,
            previous_epoch: member.epoch,
            assigned: Arc::new(kept),
            revoking: Arc::new(revoking),
            ..member.clone()
        };
    }
    let mut waits = false;
    for partition in goal.target.iter().filter(|partition| shall_hold(partition)) {
        if kept.contains_key(partition) {
            continue;
        }
        if (goal.is_free)(*partition) {
            kept.insert(*partition, goal.epoch);
        } else {
            waits = true;
        }
    }
    ConsumerMember {
        state: if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable },
        previous_epoch: member.epoch,
        epoch: goal.epoch,
        assigned: Arc::new(kept),
        revoking: Arc::default(),
        ..member.clone()
    }
}

/// Gives up the topics it does not subscribe to any more, ahead of the target.
fn without_unsubscribed(member: &ConsumerMember, goal: &Goal<'_>) -> ConsumerMember {
    let is_subscribed = |partition: &TopicPartition| goal.subscribed.contains(&partition.topic);
    if member.assigned.keys().all(is_subscribed) {
        return member.clone();
    }
    let (mut kept, mut revoking) = (BTreeMap::new(), (*member.revoking).clone());
    for (partition, epoch) in member.assigned.iter() {
        let place = if is_subscribed(partition) { &mut kept } else { &mut revoking };
        place.insert(*partition, *epoch);
    }
    let assigned = Arc::new(kept);
    if goal.still_owns(&revoking) {
        return ConsumerMember {
            state: MemberState::UnrevokedPartitions,
            previous_epoch: member.epoch,
            assigned,
            revoking: Arc::new(revoking),
            ..member.clone()
        };
    }
    ConsumerMember { previous_epoch: member.epoch, assigned, ..member.clone() }
}
