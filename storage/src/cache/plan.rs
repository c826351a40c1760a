//! Which blocks of an object a range touches. Pure.

use std::ops::Range;

use crate::model::ObjectName;

/// Objects that a flush wrote are cached whole up to this; it leaves room above the 8 MiB at which
/// the writer closes one. A larger one holds a single huge batch.
pub const WHOLE_OBJECT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Larger objects are cached in blocks of this, aligned to it. Large enough that the price of a
/// GET does not matter, small enough that a consumer at one place does not read far beyond it.
pub const BLOCK_BYTES: u64 = 8 * 1024 * 1024;

/// One block of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its place within the object.
    pub index: u32,
    /// Its bytes within the object.
    pub range: Range<u64>,
    /// Whether it is the whole object, footer and trailer included.
    pub is_whole: bool,
}

impl Block {
    /// Length, B.
    pub const fn block_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The part of an object's bytes `range` that lies in this block, counted from its start. The
    /// range touches the block.
    pub fn part_of(&self, range: &Range<u64>) -> Range<u64> {
        let (from, to) = (range.start.max(self.range.start), range.end.min(self.range.end));
        from - self.range.start..to - self.range.start
    }
}

/// The blocks of an object that `range` touches, in order. The range lies inside the object.
pub fn plan_blocks(
    name: ObjectName,
    object_bytes: u64,
    range: Range<u64>,
) -> impl Iterator<Item = Block> {
    let is_whole = !name.merged && object_bytes <= WHOLE_OBJECT_BYTES_MAX;
    let block_bytes = if is_whole { object_bytes.max(1) } else { BLOCK_BYTES };
    let first = range.start / block_bytes;
    let next = range.end.div_ceil(block_bytes);
    (first..next).map(move |index| Block {
        index: u32::try_from(index).expect("objects are below 2^55 B"),
        range: index * block_bytes..((index + 1) * block_bytes).min(object_bytes),
        is_whole,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Lineage, ObjectSeq, SessionId};

    fn name(merged: bool) -> ObjectName {
        let lineage = Lineage { number: 0, nonce: 0 };
        ObjectName { lineage, session: SessionId::new(1), seq: ObjectSeq::new(1), merged }
    }

    proptest! {
        #[test]
        fn blocks_cover_the_range_and_stay_inside_the_object(
            object_bytes in 1_u64..100_000_000, a: u64, b: u64, merged: bool,
        ) {
            let (a, b) = (a % object_bytes, b % object_bytes);
            let range = a.min(b)..a.max(b) + 1;
            let blocks: Vec<Block> =
                plan_blocks(name(merged), object_bytes, range.clone()).collect();
            prop_assert!(blocks[0].range.start <= range.start);
            prop_assert!(range.end <= blocks[blocks.len() - 1].range.end);
            prop_assert!(blocks.iter().all(|block| block.range.end <= object_bytes));
            prop_assert!(blocks.iter().all(|block| !block.range.is_empty()));
            let joined = blocks.windows(2).all(|pair| pair[0].range.end == pair[1].range.start);
            prop_assert!(joined);
            let whole = !merged && object_bytes <= WHOLE_OBJECT_BYTES_MAX;
            prop_assert!(!whole || blocks.len() == 1 && blocks[0].range == (0..object_bytes));
            let parts = blocks.iter().map(|block| (block, block.part_of(&range)));
            let own: u64 = parts.clone().map(|(_, part)| part.end - part.start).sum();
            prop_assert_eq!(own, range.end - range.start);
            let inside = parts.clone().all(|(block, part)| part.end <= block.block_bytes());
            prop_assert!(inside && parts.into_iter().all(|(_, part)| !part.is_empty()));
        }
    }
}
