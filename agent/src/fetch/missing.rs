//! Objects that metadata names and the bucket does not show [pure]: when a weak store's delay
//! becomes an alarm.

use std::{collections::BTreeMap, time::Duration};

use aquifer_storage::{model::ObjectName, seam::MonoTime};

/// A store may hide a young object for a while; past this it is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(30);
/// Without a read for this long nothing is known of the time between.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Objects remembered: with more the bucket as a whole is in trouble, and one alarm is enough.
const OBJECTS_MAX: usize = 1024;

/// The objects missed, and since when.
#[derive(Debug, Default)]
pub struct MissingObjects {
    objects: BTreeMap<ObjectName, Missing>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    first: MonoTime,
    last: MonoTime,
    is_lost: bool,
}

impl MissingObjects {
    /// Notes that `object` was not there though it is named; whether it counts as lost from now on.
    pub fn missed(&mut self, object: ObjectName, now: MonoTime) -> bool {
        self.objects.retain(|_, missing| now.since(missing.last) < FORGOTTEN_AFTER);
        if OBJECTS_MAX <= self.objects.len() && !self.objects.contains_key(&object) {
            return false;
        }
        let fresh = Missing { first: now, last: now, is_lost: false };
        let missing = self.objects.entry(object).or_insert(fresh);
        missing.last = now;
        let lost = !missing.is_lost && LOST_AFTER <= now.since(missing.first);
        missing.is_lost |= lost;
        lost
    }

    /// Notes that `object` is there; whether it had counted as lost.
    pub fn found(&mut self, object: &ObjectName) -> bool {
        self.objects.remove(object).is_some_and(|missing| missing.is_lost)
    }

    /// Whether nothing is missed.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::{Lineage, ObjectSeq, SessionId};

    use super::*;

    fn object(seq: u64) -> ObjectName {
        let lineage = Lineage { number: 0, nonce: 1 };
        let (session, seq) = (SessionId::new(1), ObjectSeq::new(seq));
        ObjectName { lineage, session, seq, merged: false }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_zero(Duration::from_secs(seconds))
    }

    #[test]
    fn an_object_is_lost_once_after_it_was_missed_for_thirty_seconds() {
        let mut objects = MissingObjects::default();
        let lost: Vec<u64> = (0..100).filter(|&now| objects.missed(object(1), at(now))).collect();
        assert_eq!(lost, [30]);
        assert!(objects.found(&object(1)));
        assert!(objects.is_empty());
    }

    #[test]
    fn an_object_that_was_found_in_between_starts_anew() {
        let mut objects = MissingObjects::default();
        assert!(!objects.missed(object(1), at(0)));
        assert!(!objects.found(&object(1)));
        assert!(!objects.missed(object(1), at(29)));
        assert!(!objects.missed(object(1), at(31)));
    }

    #[test]
    fn two_misses_far_apart_say_nothing_of_the_time_between() {
        let mut objects = MissingObjects::default();
        assert!(!objects.missed(object(1), at(0)));
        assert!(!objects.missed(object(1), at(1000)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut objects = MissingObjects::default();
        for seq in 0..10_000 {
            objects.missed(object(seq), at(0));
        }
        assert_eq!(objects.objects.len(), OBJECTS_MAX);
    }
}
