//! D1: a commit is taken only of a member in its present generation, or of one that still has the
//! partition since the epoch it names; never of one whose place or partition another has.
//!
//! Two answers prove that a commit came too late, both asked for after the committer was last told
//! that it has the partition, and there before it asked: one that gave the partition to somebody
//! else, who gets it only after the committer gave it up or was put out; and, in a classic group,
//! one of another generation. What is proved holds for one life of the group only: a forgotten
//! group begins to count anew.

use crate::history::{Findings, History, groups::Protocols, log::Log};

pub(in crate::history) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let groups = &history.groups;
    for commit in groups.commits.iter().filter(|commit| commit.answer.done().is_some()) {
        let is_classic = groups.speaks(commit.group) == Some(Protocols::Classic);
        let disproves = groups.told.iter().find(|told| {
            let between = commit.since < told.began && told.ended < commit.began;
            let is_elsewhere = told.member != commit.member && told.keys.contains(&commit.key);
            let is_past = is_classic && told.epoch != commit.epoch;
            told.group == commit.group && between && (is_elsewhere || is_past)
        });
        let Some(told) = disproves else { continue };
        if groups.is_lived_through(commit.group, commit.since, commit.ended) {
            findings.add(|| format!("{commit:?} was taken, though before {told:?}"));
        }
    }
}
