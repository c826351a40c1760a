//! Finds a record by its time: metadata names the row that can hold it, the row is read through the
//! cache, its records are walked where that holds up nobody.

mod search;

use std::{sync::Arc, time::Duration};

use aquifer_metadata::machine::{
    effect::Run,
    query::{Answer, PartitionRuns, Query, TimeSpec},
};
use aquifer_storage::{
    cache::block::CachedSlice,
    model::{Offset, Timestamp, TopicPartition},
};

pub(super) use self::search::Sought;
use self::search::{Found, search};
use super::{FetchRefused, Fetcher, QUERY_MAX, plan::Isolation, reader};

/// Lookups at the same time: each may hold a row, and a decoder's window.
pub(super) const LOOKUPS_MAX: usize = 4;
/// An object that is not there may have been replaced: metadata is asked again so often.
const LOOKS_MAX: usize = 4;
/// Between looks at an object that is not there.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Why a row's records were not looked at.
enum RowUnread {
    /// Its object is not there: was it replaced?
    Missing,
    /// Asking metadata does not help.
    Refused(FetchRefused),
}

impl Fetcher {
    /// The record of a partition that `time` names, with its own offset and timestamp; `None` when
    /// there is none that may be seen. As of an index at or after the call.
    ///
    /// # Errors
    /// The partition is gone, or its rows or bytes cannot be read now.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect but on the caches.
    pub async fn find_by_time(
        &self,
        partition: TopicPartition,
        time: TimeSpec,
        isolation: Isolation,
    ) -> Result<Option<(Offset, Timestamp)>, FetchRefused> {
        let (mut from, mut found) = (Offset::ZERO, None::<Found>);
        let mut looks = 0;
        loop {
            let rows = self.row_by_time(partition, from, time).await?;
            let bound = isolation.bound(&rows.pointers);
            let visible = |found: Option<Found>| {
                found.filter(|found| found.offset < bound).map(|one| (one.offset, one.timestamp))
            };
            let Some(run) = rows.runs.first().copied() else { return Ok(visible(found)) };
            let has_newer = found.is_none_or(|found| found.timestamp < run.max_timestamp);
            if bound <= run.offsets.base || !has_newer {
                return Ok(visible(found));
            }
            let sought = Sought { time, floor: rows.pointers.log_start };
            match self.search_row(run, sought).await {
                Err(RowUnread::Missing) if looks < LOOKS_MAX => {
                    looks += 1;
                    self.seams.sleep(LOOK_PAUSE).await;
                    continue;
                }
                Err(RowUnread::Missing) => return Err(FetchRefused::Unavailable),
                Err(RowUnread::Refused(refused)) => return Err(refused),
                Ok(one) => found = newer(found, one),
            }
            looks = 0;
            // What a row says of its newest record is what its batches say, who may exaggerate, and
            // it may be of a record that was deleted.
            let is_found = found.is_some_and(|found| match time {
                TimeSpec::Since(_) => true,
                TimeSpec::Newest => run.max_timestamp <= found.timestamp,
            });
            if is_found {
                return Ok(visible(found));
            }
            from = run.offsets.next;
        }
    }

    async fn row_by_time(
        &self,
        partition: TopicPartition,
        offset: Offset,
        time: TimeSpec,
    ) -> Result<PartitionRuns, FetchRefused> {
        let query = Query::RunByTime { partition, offset, time };
        match self.seams.timeout(QUERY_MAX, self.metadata.query(query)).await {
            Some(Ok((_, Answer::Runs(Some(rows))))) => Ok(rows),
            Some(Ok((_, Answer::Runs(None)))) => Err(FetchRefused::Unknown),
            Some(Ok((_, other))) => {
                tracing::error!(?other, "metadata answered a query of rows with something else");
                Err(FetchRefused::Unavailable)
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "rows by time are not available");
                Err(FetchRefused::Unavailable)
            }
            None => Err(FetchRefused::Unavailable),
        }
    }

    async fn search_row(&self, run: Run, sought: Sought) -> Result<Option<Found>, RowUnread> {
        // Held until the row is let go, also where nobody waits any more.
        let turn = Arc::clone(&self.lookups).acquire_owned().await;
        let slices = self.read_row(&run).await?;
        let searching = self.seams.compute("by-time", move || {
            let found = search(&run, &slices, sought);
            drop((slices, turn));
            found
        });
        match searching.await {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let (object, base) = (run.object, run.offsets.base);
                tracing::error!(%object, %base, %error, "a row is damaged");
                self.metrics.damaged.inc();
                let start = u64::from(run.position);
                let range = start..start + u64::from(run.length);
                self.reader.forget(run.object, run.object_bytes, range).await;
                Err(RowUnread::Refused(FetchRefused::Corrupt))
            }
            None => Err(RowUnread::Refused(FetchRefused::Unavailable)),
        }
    }

    /// The bytes of a row; they do not push the tail out of the cache.
    async fn read_row(&self, run: &Run) -> Result<Vec<CachedSlice>, RowUnread> {
        let start = u64::from(run.position);
        let range = start..start + u64::from(run.length);
        if let Some(slices) = self.reader.cached(run.object, run.object_bytes, range.clone()) {
            return Ok(slices);
        }
        let read = self.reader.read_catch_up(run.object, run.object_bytes, range).await;
        read.map_err(|error| match reader::failed(run, &error) {
            reader::ReadFailed::Missing(_) => RowUnread::Missing,
            reader::ReadFailed::Refused(refused) => RowUnread::Refused(refused),
        })
    }
}

/// The newer of the two; the first of equally new ones.
fn newer(first: Option<Found>, second: Option<Found>) -> Option<Found> {
    match (first, second) {
        (Some(first), Some(second)) if second.timestamp <= first.timestamp => Some(first),
        (first, second) => second.or(first),
    }
}
