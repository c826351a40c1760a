//! Who waits for which batch [pure].

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{AppendOutcome, BatchId};

/// Requests with batches that are not decided.
#[derive(Default)]
pub(super) struct Waiters {
    next_request: u64,
    requests: BTreeMap<u64, Waiter>,
    batches: BTreeMap<BatchId, (u64, usize)>,
}

struct Waiter {
    /// Filled in as batches are decided; `Unknown` until then.
    outcomes: Vec<AppendOutcome>,
    undecided: usize,
    reply: oneshot::Sender<Vec<AppendOutcome>>,
}

impl Waiters {
    /// A request whose batches got these ids; `None` stands for a batch of a broken chain.
    pub(super) fn add(
        &mut self,
        ids: Vec<Option<BatchId>>,
        reply: oneshot::Sender<Vec<AppendOutcome>>,
    ) {
        let outcomes = ids
            .iter()
            .map(|id| id.map_or(AppendOutcome::BrokenChain, |_| AppendOutcome::Unknown))
            .collect();
        let undecided = ids.iter().flatten().count();
        if undecided == 0 {
            let _ = reply.send(outcomes); // Nobody may be waiting.
            return;
        }
        let request = self.next_request;
        self.next_request += 1;
        for (index, id) in ids.into_iter().enumerate() {
            if let Some(id) = id {
                self.batches.insert(id, (request, index));
            }
        }
        self.requests.insert(request, Waiter { outcomes, undecided, reply });
    }

    /// A batch is decided; answers its request when it was the last one.
    pub(super) fn decide(&mut self, id: BatchId, outcome: AppendOutcome) {
        let Some((request, index)) = self.batches.remove(&id) else { return };
        let Some(waiter) = self.requests.get_mut(&request) else { return };
        waiter.outcomes[index] = outcome;
        waiter.undecided -= 1;
        if waiter.undecided == 0
            && let Some(waiter) = self.requests.remove(&request)
        {
            let _ = waiter.reply.send(waiter.outcomes); // Nobody may be waiting.
        }
    }
}
