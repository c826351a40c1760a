//! A cached block is the pieces of memory that its bytes lie in.
//!
//! A block from the store is one piece. A block that was written keeps the large pieces of the
//! body, which nobody has to copy; the small ones would pin more than they are, so neighbours are
//! copied together. Whoever reads gets slices, each with what it keeps in memory.
//!
//! # Invariants
//! - Pieces are not empty, unless the block is, and lie one behind the other.
//! - What is kept and what is copied follows from lengths alone: the same body gives the same
//!   pieces and the same weight everywhere, also in a simulation.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

/// A piece of a written body is kept as it is from this length on, B.
///
/// It is a slice of a network frame, which is pinned with it. A batch of this length that came
/// alone is 4/5 of what it pins at worst: in front of it there may be a connection's read-ahead
/// (4 KiB), and the allocator rounds up to pages. Below it the share falls, frames of a page or two
/// are shared with their neighbours, and the list's own costs begin to count.
pub const KEPT_PIECE_BYTES_MIN: usize = 16 * 1024;

/// Small pieces are copied together up to this, B. A quarter of it, which is what a reader needs to
/// keep a slice of it instead of a copy, is little; and a block has few of them.
pub const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// What a kept piece pins besides itself: see [`KEPT_PIECE_BYTES_MIN`].
const KEPT_PIECE_SLACK_BYTES: usize = 4 * 1024;

/// What a piece costs besides its bytes: its place in the list and its count of references.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// The bytes of one block. Clones share them.
#[derive(Clone, Debug)]
pub struct CachedBlock {
    pieces: Arc<[Piece]>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Piece {
    /// Where it ends within the block.
    end: usize,
    bytes: Bytes,
}

/// Bytes of a cached block that lie in one piece of memory.
#[derive(Clone, Debug)]
pub struct CachedSlice {
    /// The bytes; at least one.
    pub bytes: Bytes,
    /// Length of the piece that the slice keeps in memory, B.
    pub piece_bytes: usize,
}

impl CachedBlock {
    /// Bytes `range` of a body that was just written, as a block. A piece that the range cuts is
    /// copied, since its other part may be kept or forgotten on its own.
    pub fn written(body: &[Bytes], range: Range<usize>) -> Self {
        let mut block = Gathering::default();
        let mut start = 0;
        for piece in body {
            let end = start + piece.len();
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let is_kept = to - from == piece.len() && KEPT_PIECE_BYTES_MIN <= piece.len();
                block.add(piece.slice(from - start..to - start), is_kept);
            }
            start = end;
        }
        block.finish()
    }

    /// Length, B.
    pub fn block_bytes(&self) -> usize {
        self.pieces.last().map_or(0, |last| last.end)
    }

    /// About how much memory the block holds, B.
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes `range` of the block, as slices of its pieces.
    ///
    /// # Panics
    /// When the range does not lie inside the block.
    pub fn slices(&self, range: Range<usize>) -> impl Iterator<Item = CachedSlice> {
        assert!(range.end <= self.block_bytes(), "a range lies inside its block");
        let first = self.pieces.partition_point(|piece| piece.end <= range.start);
        let pieces = self.pieces[first..].iter();
        pieces.map_while(move |piece| {
            let piece_bytes = piece.bytes.len();
            let start = piece.end - piece_bytes;
            let (from, to) = (range.start.max(start), range.end.min(piece.end));
            let bytes = (from < to).then(|| piece.bytes.slice(from - start..to - start))?;
            Some(CachedSlice { bytes, piece_bytes })
        })
    }
}

impl From<Bytes> for CachedBlock {
    fn from(bytes: Bytes) -> Self {
        let mut block = Gathering::default();
        block.push(bytes);
        block.finish()
    }
}

/// A block under construction.
#[derive(Debug, Default)]
struct Gathering {
    pieces: Vec<Piece>,
    block_bytes: usize,
    slack_bytes: usize,
    /// To be copied together, and their length.
    small: Vec<Bytes>,
    small_bytes: usize,
}

impl Gathering {
    fn add(&mut self, part: Bytes, is_kept: bool) {
        if is_kept {
            self.copy_small();
            self.slack_bytes += KEPT_PIECE_SLACK_BYTES;
            self.push(part);
            return;
        }
        if GATHERED_BYTES_MAX < self.small_bytes + part.len() {
            self.copy_small();
        }
        self.small_bytes += part.len();
        self.small.push(part);
    }

    fn copy_small(&mut self) {
        if self.small.is_empty() {
            return;
        }
        let mut copy = Vec::with_capacity(self.small_bytes);
        self.small.drain(..).for_each(|part| copy.extend_from_slice(&part));
        self.small_bytes = 0;
        self.push(Bytes::from(copy));
    }

    fn push(&mut self, bytes: Bytes) {
        self.block_bytes += bytes.len();
        self.pieces.push(Piece { end: self.block_bytes, bytes });
    }

    fn finish(mut self) -> CachedBlock {
        self.copy_small();
        let held_bytes =
            self.block_bytes + self.slack_bytes + self.pieces.len() * PIECE_OVERHEAD_BYTES;
        CachedBlock { pieces: self.pieces.into(), held_bytes }
    }
}

#[cfg(test)]
mod tests;
