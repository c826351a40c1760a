//! Laws of blocks.

use proptest::prelude::*;

use super::*;

/// A body whose every byte tells its place.
fn body(lengths: &[usize]) -> Vec<Bytes> {
    let period: Vec<u8> = (0..251).collect();
    let all = period.repeat(lengths.iter().sum::<usize>() / period.len() + 1);
    let mut rest = &all[..];
    let mut piece = |length: &usize| {
        let (piece, behind) = rest.split_at(*length);
        rest = behind;
        Bytes::copy_from_slice(piece)
    };
    lengths.iter().map(&mut piece).collect()
}

fn concat(slices: &[CachedSlice]) -> Vec<u8> {
    slices.iter().map(|slice| &slice.bytes[..]).collect::<Vec<_>>().concat()
}

fn whole(block: &CachedBlock) -> Vec<CachedSlice> {
    block.slices(0..block.block_bytes()).collect()
}

/// Lengths around both thresholds, and empty pieces.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let (kept, gathered) = (KEPT_PIECE_BYTES_MIN, GATHERED_BYTES_MAX);
    let length = prop_oneof![
        0_usize..200,
        kept - 2..kept + 2,
        kept * 2 / 3..kept,
        Just(kept * 4),
        Just(gathered + 1)
    ];
    prop::collection::vec(length, 0..40)
}

proptest! {
    #[test]
    fn any_range_of_any_layout_is_what_the_concatenation_has(
        lengths in lengths(),
        cut in any::<[prop::sample::Index; 2]>(),
        ask in any::<[prop::sample::Index; 2]>(),
        fetched: bool,
    ) {
        let ordered = |of: [prop::sample::Index; 2], len: usize| {
            let (a, b) = (of[0].index(len + 1), of[1].index(len + 1));
            a.min(b)..a.max(b)
        };
        let body = body(&lengths);
        let all = body.concat();
        let cut = ordered(cut, all.len());
        let expected = &all[cut.clone()];
        let block = match fetched {
            true => CachedBlock::from(Bytes::copy_from_slice(expected)),
            false => CachedBlock::written(&body, cut),
        };
        prop_assert_eq!(block.block_bytes(), expected.len());
        prop_assert_eq!(concat(&whole(&block)), expected);
        let ask = ordered(ask, expected.len());
        let slices: Vec<CachedSlice> = block.slices(ask.clone()).collect();
        prop_assert_eq!(concat(&slices), &expected[ask]);
        let mut start = 0;
        for piece in whole(&block) {
            let end = start + piece.piece_bytes;
            let own: Vec<CachedSlice> = block.slices(start..end).collect();
            prop_assert_eq!((own.len(), own[0].bytes.as_ptr()), (1, piece.bytes.as_ptr()));
            prop_assert_eq!(own[0].bytes.len(), piece.piece_bytes);
            start = end;
        }
        prop_assert!(slices.iter().all(|slice| !slice.bytes.is_empty()));
        prop_assert!(slices.iter().all(|slice| slice.bytes.len() <= slice.piece_bytes));
    }

    #[test]
    fn a_block_has_few_pieces_and_weighs_little_more_than_its_bytes(lengths in lengths()) {
        let body = body(&lengths);
        let block = CachedBlock::written(&body, 0..body.iter().map(Bytes::len).sum());
        let pieces = whole(&block);
        let is_pinned = |piece: &CachedSlice| {
            body.iter().any(|of| !of.is_empty() && of.as_ptr() == piece.bytes.as_ptr())
        };
        for piece in pieces.iter().filter(|piece| is_pinned(piece)) {
            prop_assert!(KEPT_PIECE_BYTES_MIN <= piece.piece_bytes);
        }
        for pair in pieces.windows(2).filter(|pair| !pair.iter().any(is_pinned)) {
            let full = GATHERED_BYTES_MAX - KEPT_PIECE_BYTES_MIN;
            prop_assert!(full < pair[0].piece_bytes, "neighbours are copied together");
        }
        let bytes = block.block_bytes();
        prop_assert!(bytes <= block.held_bytes());
        let per_piece = pieces.len() * PIECE_OVERHEAD_BYTES;
        prop_assert!(block.held_bytes() <= bytes + bytes / 4 + per_piece);
    }
}

#[test]
fn a_large_piece_stays_the_same_memory_and_small_neighbours_share_a_copy() {
    let small = KEPT_PIECE_BYTES_MIN - 1;
    let body = body(&[10, small, 64 << 10, KEPT_PIECE_BYTES_MIN, small, 20]);
    let block = CachedBlock::written(&body, 0..body.iter().map(Bytes::len).sum());
    let pieces = whole(&block);
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.piece_bytes).collect();
    assert_eq!(lengths, [10 + small, 64 << 10, KEPT_PIECE_BYTES_MIN, small + 20]);
    assert_eq!(pieces[1].bytes.as_ptr(), body[2].as_ptr());
    assert_eq!(pieces[2].bytes.as_ptr(), body[3].as_ptr());
    let inside: Vec<CachedSlice> = block.slices(10 + small + 5..10 + small + 105).collect();
    assert_eq!(inside.len(), 1);
    assert_eq!(
        (inside[0].bytes.as_ptr(), inside[0].piece_bytes),
        (body[2][5..].as_ptr(), 64 << 10)
    );
}

#[test]
fn copies_of_small_pieces_end_at_their_limit_and_between_pieces() {
    let small = 10_000;
    let body = body(&[small; 100]);
    let block = CachedBlock::written(&body, 0..small * 100);
    for piece in &whole(&block) {
        assert!(piece.piece_bytes <= GATHERED_BYTES_MAX);
        assert_eq!(piece.piece_bytes % small, 0, "no batch lies in two");
    }
    assert_eq!(whole(&block).len(), 4);
}

#[test]
fn a_piece_that_the_blocks_border_cuts_is_copied_by_both() {
    let body = body(&[100 << 10]);
    for range in [0..60 << 10, 60 << 10..100 << 10] {
        let block = CachedBlock::written(&body, range.clone());
        let pieces = whole(&block);
        assert_eq!((pieces.len(), pieces[0].piece_bytes), (1, range.len()));
        assert_ne!(pieces[0].bytes.as_ptr(), body[0][range.start..].as_ptr());
        assert_eq!(pieces[0].bytes, body[0][range]);
    }
}
