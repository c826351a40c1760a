//! One object's way into the bucket.

use std::sync::Arc;

use aquifer_storage::{
    error::Outcome, format::object_key::object_key, model::ObjectName, seam::MonoTime, seam::Seams,
    store::Store,
};
use bytes::Bytes;
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
                    return PutEnd::Refused;
                }
                None => {}
            }
        }
    }
}
