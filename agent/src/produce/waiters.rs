//! Who waits for which batch [pure].

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{AppendOutcome, BatchId};

/// Requests with batches that are not decided, each by the id of its first batch: the ids of a
/// request follow one another.
#[derive(Default)]
pub(super) struct Waiters {
    requests: BTreeMap<BatchId, Waiter>,
}

struct Waiter {
    /// Filled in as batches are decided; `Unknown` until then.
    outcomes: Vec<AppendOutcome>,
    undecided: usize,
    reply: oneshot::Sender<Vec<AppendOutcome>>,
}

impl Waiters {
    /// A request whose first batch is `first`: of each batch, whether its chain let it in.
    pub(super) fn add(
        &mut self,
        first: BatchId,
        admitted: &[bool],
        reply: oneshot::Sender<Vec<AppendOutcome>>,
    ) {
        let until_decided =
            |admitted| if admitted { AppendOutcome::Unknown } else { AppendOutcome::BrokenChain };
        let outcomes = admitted.iter().copied().map(until_decided).collect();
        let undecided = admitted.iter().filter(|admitted| **admitted).count();
        if undecided == 0 {
            let _ = reply.send(outcomes); // Nobody may be waiting.
            return;
        }
        self.requests.insert(first, Waiter { outcomes, undecided, reply });
    }

    /// A batch is decided; answers its request when it was the last one.
    pub(super) fn decide(&mut self, id: BatchId, outcome: AppendOutcome) {
        let Some((&first, waiter)) = self.requests.range_mut(..=id).next_back() else { return };
        let Some(slot) = waiter.outcomes.get_mut(id.distance_from(first)) else { return };
        *slot = outcome;
        waiter.undecided -= 1;
        if waiter.undecided == 0
            && let Some(waiter) = self.requests.remove(&first)
        {
            let _ = waiter.reply.send(waiter.outcomes); // Nobody may be waiting.
        }
    }
}
