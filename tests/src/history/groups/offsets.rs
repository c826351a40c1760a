//! D2 and D4: what a group committed is what was committed last, and it stays while somebody is in.
//!
//! Every commit is of a number of its own, so an answer tells which commit it shows. A commit took
//! effect after it was asked for, and before its answer or the first answer that shows it; one
//! whose outcome is not known may do so at any later time, or never.

use std::collections::BTreeMap;

use super::{Commit, Fetched, GroupNumber, Groups};
use crate::history::{Answer, Findings, History, Key, Nanos, log::Log};

/// A commit that took effect, or may have, and the time by which it certainly had.
struct Write<'a> {
    commit: &'a Commit,
    by: Option<Nanos>,
}

impl Write<'_> {
    fn is_there_before(&self, moment: Nanos) -> bool {
        self.by.is_some_and(|by| by < moment)
    }
}

type Place = (GroupNumber, Key);

/// The commits of each partition, by their numbers.
fn writes(groups: &Groups) -> BTreeMap<Place, BTreeMap<u64, Write<'_>>> {
    let mut all: BTreeMap<Place, BTreeMap<u64, Write<'_>>> = BTreeMap::new();
    for commit in &groups.commits {
        let by = commit.answer.done().map(|()| commit.ended);
        let place = all.entry((commit.group, commit.key)).or_default();
        place.insert(commit.token, Write { commit, by });
    }
    for fetched in &groups.fetched {
        let writes = all.get_mut(&(fetched.group, fetched.key));
        if let (Some(writes), Some((_, token))) = (writes, fetched.found)
            && let Some(write) = writes.get_mut(&token)
        {
            write.by = Some(write.by.map_or(fetched.ended, |by| by.min(fetched.ended)));
        }
    }
    all
}

pub(in crate::history) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let groups = &history.groups;
    let all = writes(groups);
    let none = BTreeMap::new();
    for fetched in &groups.fetched {
        let writes = all.get(&(fetched.group, fetched.key)).unwrap_or(&none);
        match fetched.found {
            Some((offset, token)) => shows(fetched, (offset, token), writes, findings),
            None if groups.expires => {} // See `check_kept`.
            None => {
                let lost = writes.values().find(|write| write.is_there_before(fetched.began));
                if let Some(Write { commit, .. }) = lost {
                    findings.add(|| format!("{fetched:?}, though there was {commit:?}"));
                }
            }
        }
    }
}

/// Whether a commit that an answer shows can be the last one.
fn shows(
    fetched: &Fetched,
    (offset, token): (i64, u64),
    writes: &BTreeMap<u64, Write<'_>>,
    findings: &mut Findings,
) {
    let shown = writes.get(&token).filter(|_| u64::try_from(offset) == Ok(token));
    let Some(shown) = shown else {
        findings.add(|| format!("{fetched:?}, which nobody committed"));
        return;
    };
    if matches!(shown.commit.answer, Answer::Failed(_)) {
        findings.add(|| format!("{fetched:?}, though it was refused: {:?}", shown.commit));
    }
    let newer = writes.values().find(|write| {
        shown.is_there_before(write.commit.began) && write.is_there_before(fetched.began)
    });
    if let Some(newer) = newer {
        let (old, new) = (shown.commit, newer.commit);
        findings.add(|| format!("{fetched:?} shows {old:?}, though later there was {new:?}"));
    }
}

/// D4: an offset does not go while a member lives, all of whom subscribe to every topic here.
pub(in crate::history) fn check_kept(history: &History, _: &Log, findings: &mut Findings) {
    let groups = &history.groups;
    let all = writes(groups);
    for fetched in groups.fetched.iter().filter(|fetched| fetched.found.is_none()) {
        let Some(writes) = all.get(&(fetched.group, fetched.key)) else { continue };
        let gone = writes.values().find(|write| {
            write.is_there_before(fetched.began)
                && groups.is_lived_through(fetched.group, write.commit.began, fetched.ended)
        });
        if let Some(Write { commit, .. }) = gone {
            findings.add(|| format!("{fetched:?}, though a member lived since {commit:?}"));
        }
    }
}
