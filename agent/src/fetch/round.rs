//! The partitions that one fetch has looked at [pure], what each may give, and which of them must
//! be looked at again.
//!
//! # Invariants
//! - What is planned is planned again only once its partition was pushed: until then a plan would
//!   say the same. One whose rows metadata did not give is planned again with every push.
//! - The sums are those of the plans.

use super::{
    line::{Turn, Wanted},
    stage::Stage,
};

/// A partition in its turn.
struct Slot {
    turn: u64,
    wanted: Wanted,
    stage: Option<Stage>,
}

/// A planned partition in its turn.
pub(super) struct Planned {
    pub turn: u64,
    pub wanted: Wanted,
    pub stage: Stage,
}

/// The partitions of one fetch, as far as they were looked at.
pub(super) struct Round {
    /// By turn.
    slots: Vec<Slot>,
    /// Turns of those without a plan.
    due: Vec<u64>,
    /// Turns of those whose rows were not there.
    waiting: Vec<u64>,
    available: u128,
    refused: usize,
}

impl Round {
    /// Over these, none of them planned. They are in turn.
    pub(super) fn new(turns: Vec<Turn>) -> Self {
        let due = turns.iter().map(|(turn, _)| *turn).collect();
        let slot = |(turn, wanted)| Slot { turn, wanted, stage: None };
        let slots = turns.into_iter().map(slot).collect();
        Self { slots, due, waiting: Vec::new(), available: 0, refused: 0 }
    }

    /// These were pushed: what was planned of them is void.
    pub(super) fn push(&mut self, turns: Vec<Turn>) {
        for turn in std::mem::take(&mut self.waiting) {
            self.void(turn);
        }
        let known = self.slots.len();
        for (turn, wanted) in turns {
            if !self.void(turn) {
                self.due.push(turn);
                self.slots.push(Slot { turn, wanted, stage: None });
            }
        }
        if known < self.slots.len() {
            self.slots.sort_by_key(|slot| slot.turn);
        }
    }

    /// Voids the plan of a turn; whether there is such a turn.
    fn void(&mut self, turn: u64) -> bool {
        let Some(place) = self.place(turn) else { return false };
        if let Some(stage) = self.slots[place].stage.take() {
            self.available -= stage.available() as u128;
            self.refused -= usize::from(matches!(stage, Stage::Refused(_)));
            self.due.push(turn);
        }
        true
    }

    fn place(&self, turn: u64) -> Option<usize> {
        self.slots.binary_search_by_key(&turn, |slot| slot.turn).ok()
    }

    /// Takes the places of those that must be planned, in turn.
    pub(super) fn due(&mut self) -> Vec<usize> {
        let due = std::mem::take(&mut self.due);
        let mut places: Vec<_> = due.into_iter().filter_map(|turn| self.place(turn)).collect();
        places.sort_unstable();
        places
    }

    /// Who is at a place.
    pub(super) fn wanted(&self, place: usize) -> Wanted {
        self.slots[place].wanted
    }

    /// All that are looked at, in turn.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Wanted> {
        self.slots.iter().map(|slot| &slot.wanted)
    }

    /// What was planned at a place, which had no plan.
    pub(super) fn plan(&mut self, place: usize, stage: Stage) {
        let slot = &mut self.slots[place];
        debug_assert!(slot.stage.is_none(), "a plan was not void");
        self.available += stage.available() as u128;
        self.refused += usize::from(matches!(stage, Stage::Refused(_)));
        if matches!(&stage, Stage::Planned(_, plan) if plan.runs.is_empty()) {
            self.waiting.push(slot.turn);
        }
        slot.stage = Some(stage);
    }

    /// About how many bytes there are to give.
    pub(super) fn available(&self) -> usize {
        usize::try_from(self.available).unwrap_or(usize::MAX)
    }

    /// Whether a partition is refused.
    pub(super) fn is_any_refused(&self) -> bool {
        0 < self.refused
    }

    /// The plans, in turn.
    ///
    /// # Panics
    /// When one is missing.
    pub(super) fn into_plans(self) -> Vec<Planned> {
        let planned = |slot: Slot| {
            let stage = slot.stage.expect("what is due is planned before an answer is made");
            Planned { turn: slot.turn, wanted: slot.wanted, stage }
        };
        self.slots.into_iter().map(planned).collect()
    }
}

#[cfg(test)]
mod tests;
