//! Lets elapsed time pass in the machine: a `Tick` is proposed only while a deadline is pending,
//! so an idle cluster writes nothing.

use std::time::Duration;

use aquifer_storage::seam::Seams;

use super::{leadership::Leadership, proposer::Proposer};
use crate::{machine::command::Command, raft::state_machine::MachineCell};

/// At most four ticks a second: a deadline is at worst this late.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Proposes ticks while they are needed, for ever.
pub async fn run(machine: MachineCell, leadership: Leadership, proposer: Proposer, seams: Seams) {
    loop {
        seams.sleep(TICK_INTERVAL).await;
        if leadership.term().is_ok() && machine.lock().state.pending_deadline().is_some() {
            // A failed tick is made up for by the next one.
            let _ = proposer.propose(Command::Tick).await;
        }
    }
}
