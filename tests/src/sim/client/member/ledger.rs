//! What a member may claim, and the notes of it: see [`crate::history::groups`].

use std::{collections::BTreeMap, sync::Arc};

use super::super::Shared;
use crate::{
    history::{
        Key, Nanos,
        groups::{Hold, Life, MAY_RUN_FAST, MemberNumber, Told},
    },
    sim::groups::Group,
};

/// A partition that is held.
#[derive(Clone, Copy)]
struct Held {
    /// Since when, as far as it may be claimed.
    from: Nanos,
    /// When an answer last said so.
    told: Nanos,
}

/// What one member holds and was told.
pub struct Ledger {
    shared: Arc<Shared>,
    group: Arc<Group>,
    instance: Option<u32>,
    member: MemberNumber,
    held: BTreeMap<Key, Held>,
    /// Nothing may be claimed from then on.
    lease: Nanos,
    /// The first question since it knew that there was nothing to give up.
    unsettled: Option<Nanos>,
    life: Option<Life>,
}

fn shortened(nanos: Nanos) -> Nanos {
    nanos / 100 * MAY_RUN_FAST
}

impl Ledger {
    /// Of a new member.
    pub fn new(shared: &Arc<Shared>, group: &Arc<Group>, instance: Option<u32>) -> Self {
        Self {
            shared: shared.clone(),
            group: group.clone(),
            instance,
            member: shared.new_member(),
            held: BTreeMap::new(),
            lease: 0,
            unsettled: None,
            life: None,
        }
    }

    /// Whose it is.
    pub fn member(&self) -> MemberNumber {
        self.member
    }

    /// What is held, each with the time an answer last said so.
    pub fn held(&self) -> Vec<(Key, Nanos)> {
        self.held.iter().map(|(key, held)| (*key, held.told)).collect()
    }

    /// Whether the partition is held.
    pub fn holds(&self, key: Key) -> bool {
        self.held.contains_key(&key)
    }

    /// A question is asked, whose answer may never come.
    pub fn asked(&mut self, began: Nanos) {
        self.unsettled.get_or_insert(began);
    }

    /// The question of `began` was answered well; `settled`: with nothing to be given up.
    pub fn confirmed(&mut self, (began, ended): (Nanos, Nanos), settled: bool) {
        if self.lease < ended {
            for key in self.held.keys().copied().collect::<Vec<_>>() {
                self.close(key, self.lease);
                self.held.entry(key).and_modify(|held| held.from = ended);
            }
        }
        if settled {
            self.unsettled = None;
        }
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).expect("short");
        let session = began + shortened(nanos(self.group.session));
        let rebalance = self.unsettled.map(|since| since + shortened(nanos(self.group.rebalance)));
        self.lease = rebalance.map_or(session, |rebalance| rebalance.min(session));
        self.is_in(began);
    }

    /// Somebody who was in answered the question of `began` as only to a member.
    pub fn is_in(&mut self, began: Nanos) {
        if let Some(life) = &mut self.life {
            life.until = life.until.max(began);
        }
    }

    /// An answer told what it has: everything, in this generation or epoch.
    pub fn told(&mut self, epoch: i32, keys: &[Key], (began, ended): (Nanos, Nanos)) {
        for key in keys {
            self.held.entry(*key).and_modify(|held| held.told = ended);
        }
        let (group, member) = (self.group.number, self.member);
        let (instance, keys) = (self.instance, keys.to_vec());
        let told = Told { group, member, instance, epoch, keys, began, ended };
        self.shared.note_groups(|| format!("{told:?}"), |groups| groups.told.push(told.clone()));
    }

    /// It has a partition from now on.
    pub fn gain(&mut self, key: Key, now: Nanos) {
        self.held.entry(key).or_insert(Held { from: now, told: now });
    }

    /// It begins to give a partition up.
    pub fn lose(&mut self, key: Key, now: Nanos) {
        self.close(key, now.min(self.lease));
        self.held.remove(&key);
    }

    /// It has nothing any more.
    pub fn lose_all(&mut self, now: Nanos) {
        for (key, _) in self.held() {
            self.lose(key, now);
        }
    }

    /// Notes what may be claimed of a partition that is held, up to `until`.
    fn close(&self, key: Key, until: Nanos) {
        let Some(held) = self.held.get(&key) else { return };
        let (group, member, from) = (self.group.number, self.member, held.from);
        if from < until {
            let hold = Hold { group, member, key, from, until };
            self.shared
                .note_groups(|| format!("{hold:?}"), |groups| groups.holds.push(hold.clone()));
        }
    }

    /// It is in since the answer that came at `ended`, under this member id.
    pub fn joined(&mut self, name: &str, ended: Nanos) {
        self.end_life();
        let (group, member, name) = (self.group.number, self.member, name.to_owned());
        self.life = Some(Life { group, member, name, from: ended, until: ended });
    }

    /// It joined again under this member id, which only who is still in may do.
    pub fn rejoined(&mut self, name: &str, ended: Nanos) {
        if self.life.is_none() {
            self.joined(name, ended);
        }
    }

    /// It may not be in without a break from here on.
    pub fn end_life(&mut self) {
        if let Some(life) = self.life.take() {
            self.shared
                .note_groups(|| format!("{life:?}"), |groups| groups.lives.push(life.clone()));
        }
    }

    /// It is somebody else from now on, who has nothing.
    pub fn renew(&mut self, now: Nanos) {
        self.lose_all(now);
        self.end_life();
        self.unsettled = None;
        self.member = self.shared.new_member();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::{groups, process::Universe};

    const SECOND: Nanos = 1_000_000_000;

    fn ledger() -> Ledger {
        let shared = Arc::new(Shared::new(&Universe::for_test(), Vec::new(), Vec::new()));
        let (session, rebalance) = (Duration::from_secs(10), Duration::from_secs(20));
        let group = Arc::new(groups::Group { session, rebalance, ..groups::Group::default() });
        Ledger::new(&shared, &group, None)
    }

    fn holds(ledger: &Ledger) -> Vec<(Nanos, Nanos)> {
        let groups = ledger.shared.take_groups();
        groups.holds.iter().map(|hold| (hold.from / SECOND, hold.until / SECOND)).collect()
    }

    fn answered(ledger: &mut Ledger, began: Nanos, settled: bool) {
        ledger.asked(began * SECOND);
        ledger.confirmed((began * SECOND, (began + 1) * SECOND), settled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_ends_when_it_is_given_up_or_with_the_session_of_the_last_answered_question() {
        let mut ledger = ledger();
        answered(&mut ledger, 0, true);
        ledger.gain(Key(0), SECOND);
        ledger.gain(Key(1), SECOND);
        answered(&mut ledger, 5, true);
        ledger.lose(Key(0), 8 * SECOND);
        assert_eq!(holds(&ledger), [(1, 8)]);
        answered(&mut ledger, 30, true);
        assert_eq!(holds(&ledger), [(1, 14)], "nine tenths of ten seconds after the fifth");
        ledger.lose_all(90 * SECOND);
        assert_eq!(holds(&ledger), [(31, 39)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_have_missed_that_it_has_to_give_something_up_claims_no_longer_than_it_may() {
        let mut ledger = ledger();
        answered(&mut ledger, 0, true);
        ledger.gain(Key(0), SECOND);
        ledger.asked(3 * SECOND);
        for began in [8, 12, 16, 19] {
            answered(&mut ledger, began, false);
        }
        ledger.lose_all(90 * SECOND);
        assert_eq!(holds(&ledger), [(1, 21)], "nine tenths of twenty seconds after the third");
    }
}
