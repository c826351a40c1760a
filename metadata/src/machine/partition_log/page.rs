//! Rows that no longer grow, packed: about a third of what they take as [`Row`]s.
//!
//! A page is a sequence of blocks that can be read each by itself. A row is written as varints,
//! relative to the row before it in its block, the first one to the block's base:
//! `record_count << 2 | flags, [hole before it], object step, position, length, timestamp step`.
//!
//! # Not here
//! Bytes that leave the process: snapshots have a form of their own (`codec::row`).

use aquifer_storage::model::{Offset, Timestamp};
use prost::encoding::{decode_varint, encode_varint};

use super::{super::object::ObjectId, Row};
use crate::codec::column::{timestamp_step, unzigzag, zigzag};

/// The batches already carry their final offsets.
const FINAL: u64 = 1;
/// The row does not begin where the one before it ends.
const HOLE: u64 = 2;
const FLAG_BITS: u32 = 2;

/// What a row usually takes, from above.
const ROW_BYTES: usize = 16;

const INTACT: &str = "a page is read as it was written";

/// Rows that only move out by retention or are swapped by a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    blocks: Vec<Block>,
    bytes: Vec<u8>,
    row_count: usize,
    /// Of the batches that its rows cover.
    record_bytes: u64,
    max_timestamp: Timestamp,
}

/// Where reading can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// Offset of its first record.
    base: Offset,
    /// Its first byte.
    at: u32,
}

impl Page {
    /// A page of one block; more are pushed behind it. `rows` are at least one, ascending.
    pub fn new(rows: &[Row]) -> Self {
        let max_timestamp = Timestamp::from_millis(i64::MIN);
        let (blocks, bytes) = (Vec::new(), Vec::new());
        let mut page = Self { blocks, bytes, row_count: 0, record_bytes: 0, max_timestamp };
        page.push_block(rows);
        page
    }

    /// Adds a block behind the last one. `rows` are at least one, ascending.
    pub fn push_block(&mut self, rows: &[Row]) {
        let base = rows.first().expect("a block has rows").base;
        let at = u32::try_from(self.bytes.len()).expect("a page has few rows of few bytes");
        let mut before = Before::block(base);
        let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES);
        for row in rows {
            before.encode(row, &mut bytes);
            self.max_timestamp = self.max_timestamp.max(row.max_timestamp);
            self.record_bytes += u64::from(row.length);
        }
        self.blocks.push(Block { base, at });
        // To the byte: there are as many pages as the log is long, and each is written once.
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(&bytes);
        self.row_count += rows.len();
    }

    /// How many rows it holds.
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Bytes of the batches that its rows cover.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Largest timestamp of its rows, so that a lookup by time can skip the page.
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// Rows from the one that holds `offset`, or follows a hole there.
    pub fn rows_from(&self, offset: Offset) -> impl Iterator<Item = Row> {
        let first = self.blocks.partition_point(|block| block.base <= offset).saturating_sub(1);
        let rows = (first..self.blocks.len()).flat_map(|number| self.block(number));
        rows.skip_while(move |row| row.next() <= offset)
    }

    /// All rows in blocks, the last block first; each block's rows ascend.
    pub fn blocks_from_the_end(&self) -> impl Iterator<Item = Vec<Row>> {
        (0..self.blocks.len()).rev().map(|number| self.block(number).collect())
    }

    fn block(&self, number: usize) -> BlockRows<'_> {
        let Block { base, at } = self.blocks[number];
        let end = self.blocks.get(number + 1).map_or(self.bytes.len(), |next| next.at as usize);
        BlockRows { bytes: &self.bytes[at as usize..end], before: Before::block(base) }
    }
}

/// Reads one block.
struct BlockRows<'a> {
    bytes: &'a [u8],
    before: Before,
}

impl Iterator for BlockRows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        (!self.bytes.is_empty()).then(|| self.before.decode(&mut self.bytes))
    }
}

/// What a row is written relative to.
struct Before {
    end: Offset,
    object: ObjectId,
    timestamp: Timestamp,
}

impl Before {
    /// Before the first row of a block that starts at `base`.
    fn block(base: Offset) -> Self {
        Self { end: base, object: ObjectId(0), timestamp: Timestamp::from_millis(0) }
    }

    fn encode(&mut self, row: &Row, bytes: &mut Vec<u8>) {
        let hole = row.base.value().wrapping_sub(self.end.value());
        let object_step = i64::from(row.object.0) - i64::from(self.object.0);
        let flags = u64::from(row.offsets_final) * FINAL + u64::from(hole != 0) * HOLE;
        encode_varint(u64::from(row.record_count) << FLAG_BITS | flags, bytes);
        if hole != 0 {
            encode_varint(zigzag(hole), bytes);
        }
        encode_varint(zigzag(object_step), bytes);
        encode_varint(row.position.into(), bytes);
        encode_varint(row.length.into(), bytes);
        encode_varint(timestamp_step(self.timestamp, row.max_timestamp), bytes);
        self.pass(row);
    }

    fn decode(&mut self, bytes: &mut &[u8]) -> Row {
        let mut next = || decode_varint(bytes).expect(INTACT);
        let narrow = |value: u64| u32::try_from(value).expect(INTACT);
        let head = next();
        let hole = if head & HOLE == 0 { 0 } else { unzigzag(next()) };
        let object = i64::from(self.object.0) + unzigzag(next());
        let row = Row {
            base: Offset::new(self.end.value().wrapping_add(hole)).expect(INTACT),
            record_count: narrow(head >> FLAG_BITS),
            object: ObjectId(u32::try_from(object).expect(INTACT)),
            position: narrow(next()),
            length: narrow(next()),
            max_timestamp: {
                let step = unzigzag(next());
                Timestamp::from_millis(self.timestamp.millis().wrapping_add(step))
            },
            offsets_final: head & FINAL != 0,
        };
        self.pass(&row);
        row
    }

    fn pass(&mut self, row: &Row) {
        (self.end, self.object, self.timestamp) = (row.next(), row.object, row.max_timestamp);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        let base = prop_oneof![0..5000_i64, 0..i64::MAX - i64::from(u32::MAX)];
        (base, any::<i64>(), numbers, any::<bool>()).prop_map(
            |(base, timestamp, (record_count, object, position, length), offsets_final)| Row {
                base: Offset::new(base).unwrap(),
                max_timestamp: Timestamp::from_millis(timestamp),
                record_count,
                object: ObjectId(object),
                position,
                length,
                offsets_final,
            },
        )
    }

    proptest! {
        #[test]
        fn any_rows_in_any_blocks_are_read_as_they_were_written(
            blocks in prop::collection::vec(prop::collection::vec(any_row(), 1..20), 1..5),
        ) {
            let mut page = Page::new(&blocks[0]);
            blocks[1..].iter().for_each(|rows| page.push_block(rows));
            let from_the_end: Vec<_> = page.blocks_from_the_end().collect();
            prop_assert!(from_the_end.iter().eq(blocks.iter().rev()));
            let rows = blocks.concat();
            prop_assert_eq!(page.row_count(), rows.len());
            let newest = rows.iter().map(|row| row.max_timestamp).max();
            prop_assert_eq!(Some(page.max_timestamp()), newest);
        }
    }

    /// Rows as a busy partition's are: an object in a hundred, 20 KB at a time.
    fn usual_rows(count: u32) -> Vec<Row> {
        let row = |number: u32| Row {
            base: Offset::new(i64::from(number) * 60).unwrap(),
            max_timestamp: Timestamp::from_millis(1_790_000_000_000 + i64::from(number) * 250),
            record_count: 60,
            object: ObjectId(1_000_000 + number * 100),
            position: number.wrapping_mul(0x9E37_79B9) % (8 << 20),
            length: 20_000,
            offsets_final: false,
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_row_takes_a_third_of_its_unpacked_size() {
        let mut page = Page::new(&usual_rows(16));
        (1..32).for_each(|n| page.push_block(&usual_rows((n + 1) * 16)[n as usize * 16..]));
        assert!(page.rows_from(Offset::ZERO).eq(usual_rows(512)));
        let bytes = page.bytes.len() + page.blocks.len() * size_of::<Block>();
        assert!(bytes <= 512 * size_of::<Row>() * 2 / 5, "{bytes} bytes of 512 rows");
    }

    #[test]
    fn reading_starts_at_the_row_that_holds_the_offset_or_follows_a_hole_there() {
        let mut rows = usual_rows(48);
        rows.remove(20); // Offsets 1200 to 1259 are in no row.
        let mut page = Page::new(&rows[..16]);
        rows[16..].chunks(16).for_each(|block| page.push_block(block));
        for offset in [0, 1, 59, 60, 959, 960, 961, 1199, 1200, 1259, 1260, 2879, 2880] {
            let offset = Offset::new(offset).unwrap();
            let expected = rows.iter().filter(|row| offset < row.next()).copied();
            assert!(page.rows_from(offset).eq(expected), "offset {offset}");
        }
    }
}
