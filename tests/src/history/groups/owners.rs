//! D3: no two members hold a partition at a time, nor are two told that it is theirs in one
//! generation or epoch.
//!
//! The first is what revoke-before-assign is for, and what a hold is says the module above. The
//! second knows no time at all, so it also speaks of members that were silent for long; of static
//! members those of one instance follow each other in one generation.

use std::collections::BTreeMap;

use super::{GroupNumber, Groups, Hold, Told};
use crate::history::{Findings, History, Key, log::Log};

pub(in crate::history) fn check(history: &History, _: &Log, findings: &mut Findings) {
    at_a_time(&history.groups, findings);
    in_an_epoch(&history.groups, findings);
}

fn at_a_time(groups: &Groups, findings: &mut Findings) {
    let mut by_place: BTreeMap<(GroupNumber, Key), Vec<&Hold>> = BTreeMap::new();
    for hold in &groups.holds {
        by_place.entry((hold.group, hold.key)).or_default().push(hold);
    }
    for holds in by_place.values_mut() {
        holds.sort_unstable_by_key(|hold| (hold.from, hold.until, hold.member));
        // The one that lasts longest, of every member.
        let mut lasting: BTreeMap<_, &Hold> = BTreeMap::new();
        for hold in holds {
            let other = lasting
                .values()
                .find(|other| other.member != hold.member && hold.from < other.until);
            if let Some(other) = other {
                findings.add(|| format!("{hold:?} and {other:?}"));
            }
            let known = lasting.entry(hold.member).or_insert(hold);
            if known.until < hold.until {
                *known = hold;
            }
        }
    }
}

fn in_an_epoch(groups: &Groups, findings: &mut Findings) {
    let mut by_epoch: BTreeMap<(GroupNumber, i32, Key), Vec<&Told>> = BTreeMap::new();
    for told in &groups.told {
        for key in &told.keys {
            by_epoch.entry((told.group, told.epoch, *key)).or_default().push(told);
        }
    }
    for ((group, _, key), all) in by_epoch {
        let first = all[0];
        let is_other = |told: &&&Told| {
            let follows = told.instance.is_some() && told.instance == first.instance;
            told.member != first.member && !follows
        };
        let Some(second) = all.iter().find(is_other) else { continue };
        let (from, until) = (first.began.min(second.began), first.ended.max(second.ended));
        if groups.is_lived_through(group, from, until) {
            findings.add(|| format!("{key:?} is of {first:?} and of {second:?}"));
        }
    }
}
