//! The commits of one agent: the same every time, with sequences that follow one another. [pure]

use aquifer_metadata::machine::command::{CommitPart, PartBatch, PartExtent, PartProducer};
use aquifer_storage::model::{
    CommitSeq, ObjectSeq, PartitionIndex, ProducerEpoch, ProducerId, Sequence, SessionId,
    Timestamp, TopicId, TopicPartition,
};

/// Milliseconds since 1970 of the first batch: the size of a timestamp is part of the figure.
const FIRST_MILLIS: i64 = 1_790_000_000_000;

/// What commits look like.
#[derive(Clone, Copy, Debug)]
pub struct LoadShape {
    /// Topics.
    pub topics: u32,
    /// Partitions of each.
    pub partitions: u32,
    /// Partitions that one commit appends to.
    pub runs: u32,
    /// Batches of each of them; contiguous in the object, so they are one row.
    pub batches: u32,
    /// Whether batches are numbered: one idempotent producer per agent.
    pub idempotent: bool,
}

impl LoadShape {
    /// The id of topic `number`.
    pub fn topic(number: u32) -> TopicId {
        let mut bytes = [0xa5; 16];
        let scattered = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes[..8].copy_from_slice(&scattered.to_be_bytes());
        TopicId::from_bytes(bytes)
    }

    /// Partition `number` of all.
    fn partition(&self, number: u32) -> TopicPartition {
        let index = i32::try_from(number % self.partitions).expect("partitions are few");
        let topic = Self::topic(number / self.partitions);
        TopicPartition { topic, partition: PartitionIndex::new(index) }
    }

    /// Partitions of all topics together.
    pub fn partitions_total(&self) -> u32 {
        self.topics.saturating_mul(self.partitions)
    }
}

/// Numbers that look random and are the same for every seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Sequenced(u64);

impl Sequenced {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = (mixed ^ (mixed >> 31)) >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).expect("below a number of 32 bits")
    }
}

/// Writes the commits of one session.
#[derive(Clone, Debug)]
pub struct AgentLoad {
    shape: LoadShape,
    session: SessionId,
    numbers: Sequenced,
    next_commit: CommitSeq,
    /// The next sequence of each partition.
    sequences: Vec<Sequence>,
}

impl AgentLoad {
    /// The commits of `session`, which is one that has not committed.
    pub fn new(shape: LoadShape, session: SessionId) -> Self {
        let numbers = Sequenced::new(session.value());
        let sequences = vec![Sequence::ZERO; shape.partitions_total() as usize];
        Self { shape, session, numbers, next_commit: CommitSeq::default(), sequences }
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The next part: a whole object of its own. `read` is the first whose result is not read.
    pub fn next_part(&mut self, read: CommitSeq) -> CommitPart {
        let seq = self.next_commit;
        self.next_commit = seq.next();
        let shape = self.shape;
        let total = shape.partitions_total();
        let (from, step) = (self.numbers.below(total), total / shape.runs.max(1));
        let mut places: Vec<u32> =
            (0..shape.runs).map(|run| (from + run * step.max(1)) % total).collect();
        places.sort_unstable();
        let millis = FIRST_MILLIS + i64::try_from(seq.value()).expect("fewer than for ever");
        let mut position = 0;
        let extents = places.into_iter().map(|place| {
            let partition = shape.partition(place);
            let batches =
                (0..shape.batches).map(|_| self.next_batch(place, &mut position, millis)).collect();
            PartExtent { partition, batches }
        });
        let extents = extents.collect();
        let epoch = ProducerEpoch::new(0).expect("zero is an epoch");
        let id = ProducerId::new(i64::try_from(self.session.value()).expect("sessions are few"));
        CommitPart {
            session: self.session,
            commit_seq: seq,
            acked_seq: read,
            // One object per part: they have the same numbers.
            low_seq: ObjectSeq::new(read.value()),
            object_seq: ObjectSeq::new(seq.value()),
            object_bytes: u64::from(position),
            producers: shape.idempotent.then_some(PartProducer { id, epoch }).into_iter().collect(),
            extents,
        }
    }

    fn next_batch(&mut self, place: u32, position: &mut u32, millis: i64) -> PartBatch {
        let record_count = 1 + self.numbers.below(64);
        let length = 100 * record_count + self.numbers.below(16 << 10);
        let batch = PartBatch {
            position: *position,
            length,
            record_count,
            max_timestamp: Timestamp::from_millis(millis + i64::from(self.numbers.below(16))),
            producer: self.shape.idempotent.then(|| {
                let next = &mut self.sequences[place as usize];
                let first = *next;
                *next = first.advance(record_count);
                (0, first)
            }),
        };
        *position += length;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LoadShape =
        LoadShape { topics: 4, partitions: 8, runs: 8, batches: 3, idempotent: true };

    #[test]
    fn a_part_names_each_partition_once_and_fills_its_object_without_holes() {
        let mut load = AgentLoad::new(SHAPE, SessionId::new(7));
        for number in 0..100 {
            let part = load.next_part(CommitSeq::new(number));
            let mut partitions: Vec<_> = part.extents.iter().map(|one| one.partition).collect();
            partitions.dedup();
            assert_eq!(partitions.len(), 8, "{part:?}");
            let mut end = 0;
            for batch in part.extents.iter().flat_map(|extent| &extent.batches) {
                assert_eq!(batch.position, end);
                end += batch.length;
            }
            assert_eq!(u64::from(end), part.object_bytes);
        }
    }

    #[test]
    fn a_session_commits_the_same_every_time() {
        let parts = || {
            let mut load = AgentLoad::new(SHAPE, SessionId::new(7));
            (0..10).map(|read| load.next_part(CommitSeq::new(read))).collect::<Vec<_>>()
        };
        assert_eq!(parts(), parts());
    }
}
