//! H1 of groups: some time after the last fault is healed and members behave, every partition is
//! held, by one member of each group; and nobody is in a group who was silent for long.

use super::{Described, Groups};
use crate::history::{Findings, History, Nanos, log::Log};

/// Who was silent for so long is no member, whatever the clocks: more than any session here.
const GHOST_AFTER: Nanos = 10_000_000_000;

pub(in crate::history) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let groups = &history.groups;
    let Some((settled, described)) = &groups.settled else { return };
    for (number, protocols) in (0_u32..).zip(&groups.protocols) {
        for key in &history.keys {
            let holders: Vec<_> = groups
                .holds
                .iter()
                .filter(|hold| hold.group.0 == number && hold.key == *key)
                .filter(|hold| hold.from <= *settled && *settled < hold.until)
                .map(|hold| hold.member)
                .collect();
            if holders.len() != 1 {
                findings
                    .add(|| format!("{key:?} of group {number}, {protocols:?}, is of {holders:?}"));
            }
        }
    }
    described.iter().for_each(|one| no_ghosts(groups, one, findings));
}

fn no_ghosts(groups: &Groups, described: &Described, findings: &mut Findings) {
    for name in &described.members {
        let lives = groups.lives.iter().filter(|life| life.group == described.group);
        let last = lives.filter(|life| life.name == *name).map(|life| life.until).max();
        if last.is_none_or(|last| last + GHOST_AFTER < described.began) {
            findings.add(|| {
                let (group, began) = (described.group, described.began);
                format!("{name} is in {group:?} at {began} ns and was last there at {last:?}")
            });
        }
    }
}
