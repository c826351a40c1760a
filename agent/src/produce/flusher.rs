//! One object's way into the bucket.

use std::sync::Arc;

use aquifer_storage::{
    cache::block::{GATHERED_BYTES_MAX, KEPT_PIECE_BYTES_MIN},
    error::Outcome,
    format::object_key::object_key,
    model::ObjectName,
    planted::{self, Bug},
    seam::MonoTime,
    seam::Seams,
    store::Store,
};
use bytes::{Bytes, BytesMut};
use tracing::{debug, warn};

use super::{AppendOutcome, WriteThrough};
use crate::session::backoff::Backoff;

/// An object on its way.
pub(super) struct Put {
    pub(super) name: ObjectName,
    pub(super) body: Vec<Bytes>,
    /// When the last of its batches is given up.
    pub(super) deadline: MonoTime,
}

/// How a PUT ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutEnd {
    /// The object is in the bucket.
    Landed,
    /// The store said that it is not.
    Refused,
    /// The store said nothing certain until the deadline.
    Unanswered,
}

impl PutEnd {
    /// What the clients of an object that is given up are told. Nothing of it will ever be
    /// committed; after a silence that is not claimed.
    pub(super) const fn outcome(self) -> AppendOutcome {
        match self {
            Self::Landed | Self::Unanswered => AppendOutcome::Unknown,
            Self::Refused => AppendOutcome::Unavailable,
        }
    }
}

/// The world of a PUT.
#[derive(Clone)]
pub(super) struct Flusher {
    pub(super) store: Arc<dyn Store>,
    pub(super) written: Arc<dyn WriteThrough>,
    pub(super) seams: Seams,
}

impl Flusher {
    /// Writes the object. While it is unknown whether it is in the bucket, the same key is written
    /// again
    /// with the same bytes; at the deadline the object is given up, which is safe whatever became
    /// of the PUT: nobody else can commit it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the object was written.
    pub(super) async fn put(&self, put: &Put) -> PutEnd {
        let key = object_key(&put.name);
        let mut backoff = Backoff::new(self.seams.clone());
        loop {
            let left = put.deadline.since(self.seams.clock.mono());
            if left.is_zero() {
                warn!(object = %put.name, "object given up at its deadline");
                return PutEnd::Unanswered;
            }
            let attempt = self.store.put(&key, put.body.clone());
            match self.seams.timeout(left, attempt).await {
                Some(Ok(())) => {
                    self.written.written(put.name, &put.body);
                    return PutEnd::Landed;
                }
                Some(Err(error)) if error.outcome == Outcome::Indefinite => {
                    debug!(%error, "outcome of a PUT unknown, writing the same bytes again");
                    let pause = put.deadline.since(self.seams.clock.mono());
                    // The deadline is looked at by the next round.
                    let _ = self.seams.timeout(pause, backoff.pause()).await;
                }
                Some(Err(error)) => {
                    warn!(%error, object = %put.name, "object given up");
                    if planted::is(Bug::RefusedPutLanded) {
                        return PutEnd::Landed;
                    }
                    return PutEnd::Refused;
                }
                None => {}
            }
        }
    }
}

/// The body with its small pieces copied together, so that neither a write to a socket nor the
/// cache, which copies them otherwise, sees one by one what clients sent in small batches.
pub(super) fn gathered(body: Vec<Bytes>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut small = Vec::new();
    let mut small_bytes = 0;
    for piece in body {
        let is_kept = KEPT_PIECE_BYTES_MIN <= piece.len();
        if is_kept || GATHERED_BYTES_MAX < small_bytes + piece.len() {
            pieces.extend(joined(&mut small));
            small_bytes = 0;
        }
        if is_kept {
            pieces.push(piece);
        } else {
            small_bytes += piece.len();
            small.push(piece);
        }
    }
    pieces.extend(joined(&mut small));
    pieces
}

/// The pieces as one, and none left of them.
fn joined(pieces: &mut Vec<Bytes>) -> Option<Bytes> {
    if pieces.len() <= 1 {
        return pieces.pop();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces.drain(..) {
        whole.extend_from_slice(&piece);
    }
    Some(whole.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gathering_changes_no_byte_and_copies_no_large_piece(
            lengths in prop::collection::vec(
                prop_oneof![0..3000usize, KEPT_PIECE_BYTES_MIN - 1..KEPT_PIECE_BYTES_MIN + 2],
                0..200,
            ),
        ) {
            let filled = |bytes: &usize| Bytes::from(vec![*bytes as u8; *bytes]);
            let body: Vec<Bytes> = lengths.iter().map(filled).collect();
            let pieces = gathered(body.clone());
            prop_assert_eq!(pieces.concat(), body.concat());
            prop_assert!(pieces.iter().all(|piece| piece.len() <= GATHERED_BYTES_MAX));
            let large = |pieces: &[Bytes]| -> Vec<*const u8> {
                let large = pieces.iter().filter(|piece| KEPT_PIECE_BYTES_MIN <= piece.len());
                large.map(|piece| piece.as_ptr()).collect()
            };
            let kept = large(&pieces);
            prop_assert!(large(&body).iter().all(|piece| kept.contains(piece)));
        }

        #[test]
        fn small_pieces_leave_in_few(count in 0..2000usize) {
            let pieces = gathered(vec![Bytes::from_static(&[7; 1000]); count]);
            let whole_ones = GATHERED_BYTES_MAX / 1000 * 1000;
            prop_assert_eq!(pieces.len(), (count * 1000).div_ceil(whole_ones));
        }
    }
}
