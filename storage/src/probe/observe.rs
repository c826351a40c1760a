//! Asks the store, and judges nothing.

use std::{future::Future, ops::Range, time::Duration};

use bytes::Bytes;

use super::Depth;
use crate::{
    error::StoreError,
    format::object_key::{PROBE_PREFIX, probe_begun, probe_folder},
    model::Timestamp,
    seam::Seams,
    store::{Listed, Store},
};

/// How long one answer is waited for.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);

/// More than a page of pieces that a server might round a range to, and no round number.
const BODY_BYTES: usize = 70_001;
/// Neither starts nor ends at a border of anything.
const PART: Range<u64> = 4_099..66_013;

/// Pairs of writers that want the same key.
const RACES: usize = 8;

/// Tests that began longer ago than this have died: what they left is deleted.
const LEFTOVER_AGE_MS: i64 = 24 * 60 * 60 * 1000;
const LEFTOVERS_MAX: usize = 1000;

/// What came of one request.
#[derive(Debug, Default)]
pub enum Seen<T> {
    /// It was not sent.
    #[default]
    NotAsked,
    /// No answer within the time given.
    Silent(Duration),
    /// An error.
    Refused(StoreError),
    /// An answer, and how long it took.
    Answered(T, Duration),
}

/// All that was seen of a store.
#[derive(Debug, Default)]
pub struct Observed {
    /// The bytes that were written.
    pub body: Bytes,
    /// The range of them that was read.
    pub part_range: Range<u64>,
    /// The key they were written to.
    pub key: String,
    /// The write.
    pub put: Seen<()>,
    /// Reading all of it after that.
    pub whole: Seen<Bytes>,
    /// Reading the range.
    pub part: Seen<Bytes>,
    /// Listing the folder.
    pub listed: Seen<Vec<Listed>>,
    /// Writing it if it does not exist, which it does.
    pub created_again: Seen<()>,
    /// Two writers at once, each if the key does not exist, again and again.
    pub races: Vec<[Seen<()>; 2]>,
    /// The delete.
    pub deleted: Seen<()>,
    /// Reading it after the delete.
    pub after_delete: Seen<Bytes>,
    /// Listing the folder after the delete.
    pub listed_after_delete: Seen<Vec<Listed>>,
}

impl<T> Seen<T> {
    /// Whether there was an answer that is no error.
    pub const fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(..))
    }
}

async fn ask<T>(seams: &Seams, request: impl Future<Output = Result<T, StoreError>>) -> Seen<T> {
    let begun = seams.clock.mono();
    match seams.timeout(ANSWER_MAX, request).await {
        None => Seen::Silent(ANSWER_MAX),
        Some(Err(error)) => Seen::Refused(error),
        Some(Ok(answer)) => Seen::Answered(answer, seams.clock.mono().since(begun)),
    }
}

/// Tries `store` out. Stops early where what follows would say nothing.
///
/// # Cancel safety
/// Dropping the future may leave an object of the test, which [`sweep`] removes a day later.
pub async fn observe(store: &dyn Store, depth: Depth, seams: &Seams) -> Observed {
    let folder = probe_folder(seams.clock.wall(), seams.rng.next_u64());
    let key = format!("{folder}/body");
    let mut body = vec![0; BODY_BYTES];
    seams.rng.fill(&mut body); // No cache, no folding of zeros, can make up for a store's mistake.
    let body = Bytes::from(body);
    let put = ask(seams, store.put(&key, vec![body.clone()])).await;
    let mut seen = Observed { body, part_range: PART, key, put, ..Observed::default() };
    if seen.put.is_answered() {
        // The same bytes, so that the reads mean the same whether it is refused or not.
        let create = store.put_if_absent(&seen.key, seen.body.clone());
        let length = seen.body.len() as u64;
        (seen.whole, seen.part, seen.listed, seen.created_again) = tokio::join!(
            ask(seams, store.get_range(&seen.key, 0..length)),
            ask(seams, store.get_range(&seen.key, PART)),
            ask(seams, store.list(&folder, None, 10)),
            ask(seams, create),
        );
        if depth == Depth::Whole && seen.created_again.is_refused_for_existing() {
            seen.races = races(store, &folder, seams).await;
        }
    }
    // Also after a write without an answer, which may have happened.
    seen.deleted = ask(seams, store.delete_many(vec![seen.key.clone()])).await;
    if seen.put.is_answered() && seen.deleted.is_answered() {
        seen.after_delete = ask(seams, store.get(&seen.key)).await;
        if depth == Depth::Whole {
            seen.listed_after_delete = ask(seams, store.list(&folder, None, 10)).await;
        }
    }
    seen
}

impl Seen<()> {
    /// Whether the store obeyed the condition.
    pub fn is_refused_for_existing(&self) -> bool {
        use crate::error::StoreCondition::AlreadyExists;
        matches!(self, Self::Refused(error) if error.condition == AlreadyExists)
    }
}

async fn races(store: &dyn Store, folder: &str, seams: &Seams) -> Vec<[Seen<()>; 2]> {
    let mut races = Vec::with_capacity(RACES);
    let mut keys = Vec::with_capacity(RACES);
    for race in 0..RACES {
        let key = format!("{folder}/race-{race}");
        let (one, other) = tokio::join!(
            ask(seams, store.put_if_absent(&key, Bytes::from_static(b"one"))),
            ask(seams, store.put_if_absent(&key, Bytes::from_static(b"other"))),
        );
        races.push([one, other]);
        keys.push(key);
    }
    // What cannot be deleted is told of the object itself.
    drop(ask(seams, store.delete_many(keys)).await);
    races
}

/// Deletes what tests left that died more than a day ago; how many objects that was.
///
/// # Errors
/// The store cannot list or delete.
pub async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let is_left = |key: &str| {
        let begun = probe_begun(key);
        begun.is_some_and(|begun| LEFTOVER_AGE_MS < now.millis().saturating_sub(begun.millis()))
    };
    let listed = store.list(PROBE_PREFIX, None, LEFTOVERS_MAX).await?;
    let left: Vec<String> =
        listed.into_iter().map(|listed| listed.key).filter(|key| is_left(key)).collect();
    let count = left.len();
    if 0 < count {
        store.delete_many(left).await?;
    }
    Ok(count)
}
