//! One partition on its way to an answer [pure].

use aquifer_metadata::{
    machine::effect::Pointers,
    watch::{PartitionState, WINDOW_RUNS_MAX},
};
use aquifer_storage::model::Offset;

use super::{
    FetchRefused, Fetched,
    line::Wanted,
    plan::{Isolation, PartitionInput, PartitionPlan, plan_partition},
};

/// What is known of a wanted partition.
pub(super) enum Stage {
    /// It gives no records, and why.
    Refused(Fetched),
    /// Rows older than the pushed ones, which came with these pointers, are to be asked for.
    BelowWindow(Pointers, Offset),
    /// There is nothing to give before its next push, as these pointers say.
    AtEnd(Pointers),
    /// This is to be read. Boxed: of many partitions most are at their end.
    Planned(Pointers, Box<PartitionPlan>),
}

impl Stage {
    pub(super) fn refused(pointers: Option<Pointers>, refused: FetchRefused) -> Self {
        Self::Refused(Fetched::refused(pointers, refused))
    }

    /// What one that is known as `state` may give.
    pub(super) fn of(one: &Wanted, state: &PartitionState, isolation: Isolation) -> Self {
        let pointers = state.pointers;
        if let Some(refused) = check_epoch(one, &pointers) {
            return Self::refused(Some(pointers), refused);
        }
        let range = pointers.log_start.value()..=pointers.high_watermark.value();
        if !range.contains(&one.offset) {
            return Self::refused(None, FetchRefused::OffsetOutOfRange);
        }
        let offset = Offset::new(one.offset).expect("not below the log start");
        let bound = isolation.bound(&pointers);
        if bound <= offset {
            return Self::AtEnd(pointers);
        }
        if state.runs.first().is_some_and(|run| offset < run.offsets.base) {
            return Self::BelowWindow(pointers, offset);
        }
        let plan = plan_partition(&PartitionInput {
            offset,
            bytes_max: one.bytes_max,
            runs: &state.runs,
            rows_follow: false,
            bound,
        });
        Self::Planned(pointers, Box::new(plan))
    }

    /// Plans over rows older than those that were pushed with `pushed`. How far the log goes is
    /// told as it was pushed: what a question once gave may be older than what clients were told,
    /// or newer than what the next ones will be. The last stable offset goes with the rows.
    pub(super) fn of_older(
        one: &Wanted,
        (pushed, offset): (Pointers, Offset),
        older: &PartitionState,
        isolation: Isolation,
    ) -> Self {
        let last_stable = older.pointers.last_stable.min(pushed.high_watermark);
        let told = Pointers { last_stable, ..pushed };
        let mut plan = plan_partition(&PartitionInput {
            offset,
            bytes_max: one.bytes_max,
            runs: &older.runs,
            rows_follow: WINDOW_RUNS_MAX <= older.runs.len(),
            bound: isolation.bound(&told),
        });
        plan.is_behind = true;
        Self::Planned(told, Box::new(plan))
    }

    /// About how many bytes it may give.
    pub(super) fn available(&self) -> usize {
        match self {
            Self::Planned(_, plan) if plan.more => usize::MAX,
            Self::Planned(_, plan) => plan.bytes_available,
            Self::Refused(_) | Self::BelowWindow(..) | Self::AtEnd(_) => 0,
        }
    }

    pub(super) fn plan_mut(&mut self) -> Option<&mut PartitionPlan> {
        match self {
            Self::Planned(_, plan) => Some(plan),
            Self::Refused(_) | Self::BelowWindow(..) | Self::AtEnd(_) => None,
        }
    }

    pub(super) fn without_records(self) -> Fetched {
        let is_at_end = matches!(self, Self::AtEnd(_));
        match self {
            Self::Refused(fetched) => fetched,
            Self::BelowWindow(pointers, _) | Self::AtEnd(pointers) | Self::Planned(pointers, _) => {
                Fetched { is_at_end, ..Fetched::read(pointers, Vec::new()) }
            }
        }
    }
}

fn check_epoch(one: &Wanted, pointers: &Pointers) -> Option<FetchRefused> {
    let ours = pointers.leader_epoch.value();
    match one.leader_epoch? {
        theirs if theirs < ours => Some(FetchRefused::FencedLeaderEpoch),
        theirs if ours < theirs => Some(FetchRefused::UnknownLeaderEpoch),
        _ => None,
    }
}
