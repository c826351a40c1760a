//! Where in its row a reader stopped [pure]: rows do not say where their batches begin, and to walk
//! one from its start for each answer costs more than the answer.

use std::collections::BTreeMap;

use aquifer_metadata::machine::effect::Run;
use aquifer_storage::model::{ObjectName, Offset, TopicPartition};

/// Places that one connection keeps; with more it begins anew.
const PLACES_MAX: usize = 1024;

/// The bound of two batches inside a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    object: ObjectName,
    position: u32,
    base: Offset,
    next: Offset,
    row_bytes: usize,
}

/// The places where a connection stopped inside a row.
#[derive(Debug, Default)]
pub struct Places {
    places: BTreeMap<TopicPartition, Place>,
}

impl Place {
    /// The bound that lies `row_bytes` behind the begin of `run`: the batches before it end below
    /// `next`, and no batch behind it begins there.
    pub fn new(run: &Run, next: Offset, row_bytes: usize) -> Self {
        let (object, position, base) = (run.object, run.position, run.offsets.base);
        Self { object, position, base, next, row_bytes }
    }

    /// Where a reader at `offset` may begin with this row, B behind its begin. Objects never
    /// change, so a row at the same position of the same object has the same batches.
    pub fn inside(&self, run: &Run, offset: Offset) -> Option<(Offset, usize)> {
        let Self { object, position, base, next, row_bytes } = *self;
        let is_same = (object, position, base) == (run.object, run.position, run.offsets.base);
        let is_there = next <= offset && row_bytes < run.length as usize;
        (is_same && is_there).then_some((next, row_bytes))
    }
}

impl Places {
    /// Where the connection stopped in this partition, if it goes on there.
    pub fn of(&self, partition: TopicPartition, offset: Offset) -> Option<Place> {
        self.places.get(&partition).filter(|place| place.next == offset).copied()
    }

    /// Notes where the connection stopped in this partition; `None` for the end of a row.
    pub fn note(&mut self, partition: TopicPartition, place: Option<Place>) {
        let Some(place) = place else {
            self.places.remove(&partition);
            return;
        };
        if PLACES_MAX <= self.places.len() && !self.places.contains_key(&partition) {
            self.places.clear();
        }
        self.places.insert(partition, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::{offset, partition, rows};

    #[test]
    fn a_place_is_of_one_row_and_for_those_who_go_on_there() {
        let rows = rows(0, 30, 10);
        let place = Place::new(&rows[1], offset(14), 300);
        assert_eq!(place.inside(&rows[1], offset(14)), Some((offset(14), 300)));
        assert_eq!(place.inside(&rows[1], offset(13)), None);
        assert_eq!(place.inside(&rows[0], offset(14)), None);
        let moved = Run { position: rows[1].position + 1, ..rows[1] };
        assert_eq!(place.inside(&moved, offset(14)), None);
        let shorter = Run { length: 300, ..rows[1] };
        assert_eq!(place.inside(&shorter, offset(14)), None);
        let mut places = Places::default();
        places.note(partition(1), Some(place));
        assert_eq!(places.of(partition(1), offset(14)), Some(place));
        assert_eq!(places.of(partition(1), offset(15)), None);
        assert_eq!(places.of(partition(2), offset(14)), None);
        places.note(partition(1), None);
        assert_eq!(places.of(partition(1), offset(14)), None);
    }

    #[test]
    fn the_places_kept_are_bounded() {
        let place = Place::new(&rows(0, 10, 10)[0], offset(4), 300);
        let mut places = Places::default();
        for index in 0..3000 {
            places.note(partition(index), Some(place));
            assert!(places.places.len() <= PLACES_MAX);
            assert_eq!(places.of(partition(index), offset(4)), Some(place));
        }
    }
}
