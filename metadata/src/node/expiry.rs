//! Proposes what is too old of committed offsets, by a slow timer of the leader. An idle cluster
//! with nothing to let go of writes nothing.

use std::time::Duration;

use aquifer_storage::seam::Seams;
use futures::future::join_all;

use super::{leadership::Leadership, proposer::Proposer};
use crate::{
    machine::{WallTime, command::Command},
    raft::state_machine::MachineCell,
};

/// Commands proposed at once.
const AT_ONCE: usize = 64;

/// When offsets expire, and how often that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetExpiry {
    /// `offsets.retention.minutes`.
    pub retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub check_interval: Duration,
}

impl Default for OffsetExpiry {
    fn default() -> Self {
        let retention = Duration::from_secs(7 * 24 * 60 * 60);
        Self { retention, check_interval: Duration::from_secs(600) }
    }
}

/// Looks for what is too old, for ever.
pub async fn run(
    machine: MachineCell,
    leadership: Leadership,
    proposer: Proposer,
    (expiry, seams): (OffsetExpiry, Seams),
) {
    loop {
        seams.sleep(expiry.check_interval).await;
        let mut before = Vec::new();
        while leadership.term().is_ok() {
            let wall = WallTime::from_millis(seams.clock.wall().millis());
            // A copy costs nothing, and a long look does not hold up what is applied meanwhile.
            let state = machine.lock().state.clone();
            let commands = state.expirable_offsets(wall, expiry.retention, AT_ONCE);
            if commands.is_empty() || commands == before {
                break; // Done; or apply saw it otherwise, and the next round asks again.
            }
            before.clone_from(&commands);
            let commands = commands.into_iter().map(Command::Group);
            let outcomes = join_all(commands.map(|command| proposer.propose(command))).await;
            if outcomes.iter().any(Result::is_err) {
                break;
            }
        }
    }
}
