//! Faults that strike at a moment instead of a time: between a message and what it promised.
//!
//! A power loss between an answer and the sync that should have come before it is a matter of
//! milliseconds, which a random time hardly ever hits. Here somebody waits for the moment. What
//! the moment passes through only tells that it came; the nemesis, woken before any time has
//! passed, strikes.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use super::net::Host;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A metadata node sent an agent something.
    Told(Host),
    /// A metadata node has read something that an agent sent.
    Heard(Host),
    /// A metadata node's disk has synced.
    Synced(Host),
    /// A PUT of this agent took effect.
    Stored(Host),
}

/// Which moment is waited for. Clones share it.
#[derive(Clone, Default)]
pub struct Aim(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    struck: Notify,
}

#[derive(Default)]
struct State {
    waits_for: Option<(Moment, u64)>,
    came: bool,
}

impl Aim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }

    /// Waits for `moment` to come, and lets it pass `skip` times first; what was waited for
    /// before is not waited for any more.
    pub fn at(&self, moment: Moment, skip: u64) {
        *self.lock() = State { waits_for: Some((moment, skip)), came: false };
    }

    /// Waits for nothing any more.
    pub fn lower(&self) {
        *self.lock() = State::default();
    }

    /// Tells that `moment` is now.
    pub fn pass(&self, moment: Moment) {
        let mut state = self.lock();
        match &mut state.waits_for {
            Some((expected, 0)) if *expected == moment => {
                *state = State { waits_for: None, came: true };
                drop(state);
                self.0.struck.notify_one();
            }
            Some((expected, skip)) if *expected == moment => *skip -= 1,
            _ => {}
        }
    }

    /// Returns when the moment that is waited for has come.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn came(&self) {
        loop {
            if std::mem::take(&mut self.lock().came) {
                return;
            }
            self.0.struck.notified().await;
        }
    }
}

/// Whether a host is a metadata node's.
pub fn is_node(host: Host) -> bool {
    kind(host) == 1
}

/// Whether a host is an agent's.
pub fn is_agent(host: Host) -> bool {
    kind(host) == 2
}

/// See `world::host`.
fn kind(host: Host) -> u8 {
    match host {
        IpAddr::V4(address) => address.octets()[2],
        IpAddr::V6(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_moment_that_is_waited_for_counts_and_only_once() {
        let node = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
        let aim = Aim::default();
        aim.pass(Moment::Told(node));
        aim.at(Moment::Told(node), 1);
        aim.pass(Moment::Heard(node));
        aim.pass(Moment::Told(node));
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, aim.came()).await.is_err(), "one is let pass");
        aim.pass(Moment::Told(node));
        aim.pass(Moment::Told(node));
        timeout(soon, aim.came()).await.expect("it came");
        assert!(timeout(soon, aim.came()).await.is_err(), "it came once");
    }
}
