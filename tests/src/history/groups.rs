//! What members of groups saw, and the laws of groups. [pure]
//!
//! # What a member may claim
//! A member *holds* a partition from the moment the answer that gave it arrived until it begins to
//! give it up: until it sends what tells so, or hears that it is out. A pause or a lost answer must
//! not let it claim more than the coordinator promised, so a hold ends earlier where its *lease*
//! does: by its own clock, [`MAY_RUN_FAST`] hundredths of the session timeout after it *asked* the
//! last question that was answered well. The coordinator heard that question no earlier, and its
//! clock is at most 10 % fast. Who may have been told to give something up, and did not hear it,
//! has no more than the rebalance timeout, counted from the first question that was not answered
//! since it knew that nothing was to be given up. An answer after the end of a lease begins a new
//! hold.
//!
//! What cannot be claimed: that a member whose lease is over has lost its partitions. It may have
//! them still, and commit.
//!
//! A *life* is a time in which a member was in the group without a break: from the arrival of the
//! answer to its join until it asked the last question that only a member is answered well. While a
//! life lasts the group is not empty, so it is not forgotten, and its epochs only grow.

pub(super) mod commits;
pub(super) mod converged;
pub(super) mod offsets;
pub(super) mod owners;

#[cfg(test)]
mod tests;

use super::{Answer, Key, Nanos};

/// Of a time-out that a clock measures, at least so many hundredths pass in truth.
pub const MAY_RUN_FAST: u64 = 90;

/// A group, by its place in [`Groups::protocols`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupNumber(pub u32);

/// Who is in a group under one member id: somebody who comes back under another is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberNumber(pub u32);

/// What the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// The classic protocol: JoinGroup, SyncGroup, Heartbeat.
    Classic,
    /// The consumer protocol of KIP-848: ConsumerGroupHeartbeat.
    Consumer,
    /// Some the one, some the other; the group goes from one to the other and back.
    Both,
}

/// An answer that told a member its generation or epoch, and what it has in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The group.
    pub group: GroupNumber,
    /// Who was told.
    pub member: MemberNumber,
    /// Whose place it takes as a static member, if it is one.
    pub instance: Option<u32>,
    /// The generation, or member epoch.
    pub epoch: i32,
    /// Everything it has; nothing in the answer to a classic join.
    pub keys: Vec<Key>,
    /// When it asked.
    pub began: Nanos,
    /// When the answer came.
    pub ended: Nanos,
}

/// An offset that a member committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The group.
    pub group: GroupNumber,
    /// Who committed.
    pub member: MemberNumber,
    /// Of which partition.
    pub key: Key,
    /// The offset, and the text that goes with it: nobody else commits this number.
    pub token: u64,
    /// The generation or member epoch it named.
    pub epoch: i32,
    /// When it was last told, in that epoch, that it has the partition.
    pub since: Nanos,
    /// When it asked.
    pub began: Nanos,
    /// When the answer came.
    pub ended: Nanos,
    /// What came of it.
    pub answer: Answer<()>,
}

/// What somebody was told of a committed offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The group.
    pub group: GroupNumber,
    /// Of which partition.
    pub key: Key,
    /// When it asked.
    pub began: Nanos,
    /// When the answer came.
    pub ended: Nanos,
    /// The offset and the number in its text; `None` when there was nothing.
    pub found: Option<(i64, u64)>,
}

/// A time in which a member held a partition, as far as it may claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The group.
    pub group: GroupNumber,
    /// Who.
    pub member: MemberNumber,
    /// What.
    pub key: Key,
    /// Since when.
    pub from: Nanos,
    /// Until when, exclusive.
    pub until: Nanos,
}

/// A time in which a member was in the group without a break.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// The group.
    pub group: GroupNumber,
    /// Who.
    pub member: MemberNumber,
    /// Its member id.
    pub name: String,
    /// Since when.
    pub from: Nanos,
    /// Until when.
    pub until: Nanos,
}

/// Who was in a group when somebody asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The group.
    pub group: GroupNumber,
    /// When it was asked for.
    pub began: Nanos,
    /// Member ids.
    pub members: Vec<String>,
}

/// All that members of groups saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    /// What each group speaks.
    pub protocols: Vec<Protocols>,
    /// Whether offsets of a group that nobody is in may expire in this world.
    pub expires: bool,
    /// In any order, as all that follow.
    pub told: Vec<Told>,
    /// Commits.
    pub commits: Vec<Commit>,
    /// What was told of committed offsets.
    pub fetched: Vec<Fetched>,
    /// Who held what.
    pub holds: Vec<Hold>,
    /// Who was in.
    pub lives: Vec<Life>,
    /// The moment by which every group must have settled, and who was in each then.
    pub settled: Option<(Nanos, Vec<Described>)>,
}

impl Groups {
    fn speaks(&self, group: GroupNumber) -> Option<Protocols> {
        self.protocols.get(group.0 as usize).copied()
    }

    /// Whether somebody was in the group all the time.
    fn is_lived_through(&self, group: GroupNumber, from: Nanos, until: Nanos) -> bool {
        self.lives
            .iter()
            .any(|life| life.group == group && life.from <= from && until <= life.until)
    }
}
