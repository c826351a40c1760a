//! Looks after the node: tries for space on a full disk, and reports when it had to stop.

use std::time::Duration;

use aquifer_storage::seam::Seams;
use tokio::sync::watch;

use super::Fatal;
use crate::{
    raft::{RaftHandle, library::WatchReceiver},
    wal::{Wal, WalHealth},
};

/// How often the log is looked at: bounds how long a disk with space again goes unused.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the log can take entries.
pub fn has_space(wal: &Wal) -> bool {
    !matches!(wal.health(), WalHealth::DiskFull)
}

/// Tries for space while there is none, reports a log that stopped while nobody wrote to it, and
/// lets an idle log say what is committed.
pub async fn watch_log(wal: Wal, seams: Seams, fatal: watch::Sender<Option<Fatal>>) {
    let mut was_full = false;
    loop {
        seams.sleep(CHECK_INTERVAL).await;
        let _ = wal.flush_hint().await; // A log that stopped says so below.
        let full = match wal.retry_space().await {
            WalHealth::Running => false,
            WalHealth::DiskFull => true,
            WalHealth::Stopped { reason } => return report(&fatal, &reason),
        };
        match (was_full, full) {
            (false, true) => tracing::error!(
                "the metadata disk is full: nothing is committed until there is space"
            ),
            (true, false) => tracing::info!("the metadata disk has space again"),
            _ => {}
        }
        was_full = full;
    }
}

/// Reports when Raft stops by itself: a damaged log, a state that does not decode, a failed disk.
pub async fn watch_raft(
    raft: RaftHandle,
    mut running: watch::Receiver<bool>,
    fatal: watch::Sender<Option<Fatal>>,
) {
    let mut metrics = raft.metrics();
    loop {
        let stopped = metrics.borrow_watched().running_state.clone().err();
        if let Some(error) = stopped {
            if *running.borrow() {
                report(&fatal, &error.to_string());
            }
            return;
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            _ = running.wait_for(|running| !running) => return,
        }
    }
}

/// The node stops, for `reason`; the first one stays.
pub(super) fn report(fatal: &watch::Sender<Option<Fatal>>, reason: &str) {
    fatal.send_if_modified(|found| {
        let first = found.is_none();
        if first {
            tracing::error!(reason, "the metadata node stops");
            *found = Some(Fatal { reason: reason.to_owned() });
        }
        first
    });
}
