//! What a fetch is for [pure]: partitions in the order in which they are answered.

use std::collections::BTreeSet;

use aquifer_storage::model::TopicPartition;

/// One partition to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset, as the client sent it: it may be negative.
    pub offset: i64,
    /// At most this many bytes.
    pub bytes_max: usize,
    /// The leader epoch the client knows.
    pub leader_epoch: Option<i32>,
}

/// A wanted partition and its turn: lower ones are answered first.
pub type Turn = (u64, Wanted);

/// The partitions of one fetch. A line may keep quiet about those that it knows to be at their end:
/// until their next push they have nothing to give, nothing to tell and nothing to refuse.
pub trait Line: Send {
    /// Whether no partition is in it, not even a quiet one.
    fn is_empty(&self) -> bool;

    /// Those that must be looked at now that `pushed` were pushed, in turn.
    fn begin(&mut self, pushed: &BTreeSet<TopicPartition>) -> Vec<Turn>;

    /// Those of `pushed` that are in it.
    fn pushed(&mut self, pushed: &BTreeSet<TopicPartition>) -> Vec<Turn>;

    /// Every one, in turn.
    fn all(&mut self) -> Vec<Turn>;
}

/// A line without memory: all of it must be looked at.
pub struct FullLine<'a> {
    turns: &'a [Turn],
    /// Partitions and their places in `turns`, sorted; made when it is first needed.
    places: Option<Vec<(TopicPartition, usize)>>,
}

impl<'a> FullLine<'a> {
    /// Over these, in turn. One partition may have several turns.
    pub fn new(turns: &'a [Turn]) -> Self {
        Self { turns, places: None }
    }
}

impl Line for FullLine<'_> {
    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn begin(&mut self, _pushed: &BTreeSet<TopicPartition>) -> Vec<Turn> {
        self.turns.to_vec()
    }

    fn pushed(&mut self, pushed: &BTreeSet<TopicPartition>) -> Vec<Turn> {
        let turns = self.turns;
        let places = self.places.get_or_insert_with(|| {
            let of = |(place, (_, wanted)): (usize, &Turn)| (wanted.partition, place);
            let mut places: Vec<_> = turns.iter().enumerate().map(of).collect();
            places.sort_unstable();
            places
        });
        let of = |partition: &TopicPartition| {
            let first = places.partition_point(|(other, _)| other < partition);
            let same = places[first..].iter().take_while(move |(other, _)| other == partition);
            same.map(|(_, place)| turns[*place]).collect::<Vec<_>>()
        };
        pushed.iter().flat_map(of).collect()
    }

    fn all(&mut self) -> Vec<Turn> {
        self.turns.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::partition;

    #[test]
    fn a_pushed_partition_has_all_its_turns_in_a_full_line_and_another_none() {
        let of = |(turn, index): (u64, u32)| {
            let partition = partition(index);
            (turn, Wanted { partition, offset: 0, bytes_max: 1, leader_epoch: None })
        };
        let turns: Vec<Turn> = [(0, 5), (1, 3), (2, 5), (3, 4)].map(of).to_vec();
        let mut line = FullLine::new(&turns);
        let pushed = |indexes: &[u32]| indexes.iter().map(|index| partition(*index)).collect();
        assert_eq!(line.begin(&pushed(&[3])), turns);
        assert_eq!(line.pushed(&pushed(&[5, 9])), [turns[0], turns[2]]);
        assert_eq!(line.pushed(&pushed(&[3, 4])), [turns[1], turns[3]]);
        assert_eq!(line.pushed(&pushed(&[])), []);
    }
}
