//! Looks at the partitions of a fetch: pushed rows first, metadata where they do not suffice.

use std::sync::Arc;

use aquifer_metadata::{
    machine::{
        effect::Pointers,
        query::{Answer, Query},
    },
    watch::{PartitionState, WINDOW_RUNS_MAX},
};
use aquifer_storage::model::Offset;

use super::{
    FetchParams, FetchRefused, Fetcher, QUERY_MAX,
    line::Wanted,
    plan::{Isolation, PartitionPlan},
    round::Round,
    stage::Stage,
};
use crate::view::{PartitionSnapshot, Watches};

/// Questions to metadata at the same time for one answer.
const QUERIES_MAX: usize = 16;

/// A linearizable look that serves every partition of one round.
#[derive(Default)]
pub(super) struct Look {
    pub(super) succeeded: Option<bool>,
}

impl Fetcher {
    /// Plans what is due of `round`.
    pub(super) async fn plan(&self, round: &mut Round, watches: &Watches, params: FetchParams) {
        let due = round.due();
        self.metrics.planned.inc_by(due.len() as u64);
        let mut look = Look::default();
        let mut below: Vec<(usize, Wanted, (Pointers, Offset))> = Vec::new();
        for place in due {
            let one = round.wanted(place);
            let stage = self.plan_one(&one, watches, params.isolation, &mut look).await;
            match self.with_older_rows(&one, stage, params.isolation) {
                Stage::BelowWindow(pointers, offset) => {
                    below.push((place, one, (pointers, offset)));
                }
                stage => round.plan(place, stage),
            }
        }
        for chunk in below.chunks(QUERIES_MAX) {
            let available = round.available();
            if 0 < available && params.bytes_max <= available {
                // They would get no bytes; the session or the client asks for them first later.
                for (place, _, (pointers, offset)) in chunk {
                    let plan = PartitionPlan::nothing(*offset, *offset);
                    round.plan(*place, Stage::Planned(*pointers, Box::new(plan)));
                }
                continue;
            }
            let asked = chunk.iter().map(|(place, one, below)| async move {
                (*place, self.plan_below_window(one, *below, params.isolation).await)
            });
            for (place, stage) in futures::future::join_all(asked).await {
                round.plan(place, stage);
            }
        }
    }

    pub(super) async fn plan_one(
        &self,
        one: &Wanted,
        watches: &Watches,
        isolation: Isolation,
        look: &mut Look,
    ) -> Stage {
        let mut state = match known(watches, one) {
            Ok(state) => state,
            Err(refused) => return Stage::refused(None, refused),
        };
        if state.pointers.high_watermark.value() < one.offset {
            // Only a linearizable look may say that an offset does not exist yet.
            if look.succeeded.is_none() {
                look.succeeded = Some(self.view.fresh().await.is_ok());
            }
            if look.succeeded == Some(false) {
                return Stage::refused(None, FetchRefused::Unavailable);
            }
            state = match known(watches, one) {
                Ok(state) => state,
                Err(refused) => return Stage::refused(None, refused),
            };
        }
        Stage::of(one, &state, isolation)
    }

    /// The same, planned if the rows that it needs were asked for lately.
    fn with_older_rows(&self, one: &Wanted, stage: Stage, isolation: Isolation) -> Stage {
        let Stage::BelowWindow(pushed, offset) = &stage else { return stage };
        let now = self.seams.clock.mono();
        let rows = self.catch_up.older().find(one.partition, *offset, now);
        match rows {
            Some(rows) => Stage::of_older(one, (*pushed, *offset), &rows, isolation),
            None => stage,
        }
    }

    /// History older than the rows that were pushed with `pushed` is asked for.
    pub(super) async fn plan_below_window(
        &self,
        one: &Wanted,
        (pushed, offset): (Pointers, Offset),
        isolation: Isolation,
    ) -> Stage {
        let limit = WINDOW_RUNS_MAX as u32;
        let query = Query::Runs { partition: one.partition, offset, limit };
        let asked = self.seams.timeout(QUERY_MAX, self.metadata.query(query)).await;
        match asked {
            Some(Ok((index, Answer::Runs(Some(rows))))) => {
                let (partition, runs, pointers) = (one.partition, rows.runs, rows.pointers);
                if offset < pointers.log_start {
                    // Retention or DeleteRecords moved past it meanwhile.
                    return Stage::refused(None, FetchRefused::OffsetOutOfRange);
                }
                let rows = Arc::new(PartitionState { partition, index, runs, pointers });
                let now = self.seams.clock.mono();
                self.catch_up.older().answered(offset, Arc::clone(&rows), now);
                self.keep_swept();
                Stage::of_older(one, (pushed, offset), &rows, isolation)
            }
            Some(Ok((_, Answer::Runs(None)))) => Stage::refused(None, FetchRefused::Unknown),
            Some(Ok((_, other))) => {
                tracing::error!(?other, "metadata answered a query of rows with something else");
                Stage::refused(None, FetchRefused::Unavailable)
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "rows of older offsets are not available");
                Stage::refused(None, FetchRefused::Unavailable)
            }
            None => Stage::refused(None, FetchRefused::Unavailable),
        }
    }
}

/// What was pushed of a partition. "Gone" is a fact of an applied index: ids are never reused.
fn known(watches: &Watches, one: &Wanted) -> Result<Arc<PartitionState>, FetchRefused> {
    match watches.look(one.partition) {
        PartitionSnapshot::Known(state) => Ok(state),
        PartitionSnapshot::Gone => Err(FetchRefused::Unknown),
        PartitionSnapshot::Pending => Err(FetchRefused::Unavailable),
    }
}
