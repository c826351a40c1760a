//! How far each agent has taken in the catalog: who changed it is answered once the others know.
//!
//! An agent reports on its watch stream, not here by timer: behind each change of the catalog it
//! says how far it came. A report that is late or never comes delays an answer by [`TOLD_MAX`] at
//! most; nothing else depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aquifer_storage::{
    model::{LogIndex, SessionId},
    seam::Seams,
};
use tokio::sync::watch;

use super::liveness::Liveness;

/// A change of the catalog is answered after this long, whoever has not taken it in.
pub const TOLD_MAX: Duration = Duration::from_secs(1);
/// While waiting, who is present is looked at so often: an agent that died is waited for no more.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
struct Report {
    stream: u64,
    seen: LogIndex,
}

/// What the agents reported. Cheap to clone.
#[derive(Clone)]
pub struct Followers {
    reports: Arc<watch::Sender<BTreeMap<SessionId, Report>>>,
    streams: Arc<AtomicU64>,
    liveness: Liveness,
}

impl Followers {
    /// Nobody reported yet. A session whose stream ends is reset in `liveness`.
    pub fn new(liveness: Liveness) -> Self {
        Self { reports: Arc::default(), streams: Arc::default(), liveness }
    }

    /// The follower behind a new watch stream.
    pub fn begin(&self) -> Follower {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        Follower { followers: self.clone(), stream, session: None }
    }

    /// The agent of `session` said so in another way than on a stream of this node.
    pub fn heard(&self, session: SessionId, seen: LogIndex) {
        self.reports.send_if_modified(|reports| {
            let report = reports.entry(session).or_insert(Report { stream: 0, seen });
            let news = report.seen < seen || report.stream == 0;
            report.seen = seen.max(report.seen);
            news
        });
    }

    /// Forgets what sessions said that are not among `live`.
    pub fn retain(&self, live: &BTreeSet<SessionId>) {
        self.reports.send_if_modified(|reports| {
            reports.retain(|session, _| live.contains(session));
            false // Nobody waits for them.
        });
    }

    /// Waits until all of `present` have taken in `index`, for at most [`TOLD_MAX`]. Whether they
    /// have.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn told(
        &self,
        index: LogIndex,
        present: impl Fn() -> Vec<SessionId>,
        seams: &Seams,
    ) -> bool {
        let mut reports = self.reports.subscribe();
        let told = async {
            loop {
                let missing = {
                    let present = present();
                    let reports = reports.borrow_and_update();
                    let took = |session| reports.get(session).is_some_and(|one| index <= one.seen);
                    !present.iter().all(took)
                };
                if !missing {
                    return;
                }
                tokio::select! {
                    _ = reports.changed() => {}
                    () = seams.sleep(LOOK_INTERVAL) => {}
                }
            }
        };
        seams.timeout(TOLD_MAX, told).await.is_some()
    }
}

/// One watch stream's agent, as far as it said who it is. Its end makes the session absent.
pub struct Follower {
    followers: Followers,
    stream: u64,
    session: Option<SessionId>,
}

impl Follower {
    /// The agent took in everything up to `seen`. It may report under another session than
    /// before: it was fenced and registered anew.
    pub fn took(&mut self, session: SessionId, seen: LogIndex) {
        let before = self.session.replace(session).filter(|before| *before != session);
        let stream = self.stream;
        self.followers.reports.send_modify(|reports| {
            if let Some(before) = before
                && reports.get(&before).is_some_and(|report| report.stream == stream)
            {
                reports.remove(&before);
            }
            let report = reports.entry(session).or_insert(Report { stream, seen });
            *report = Report { stream: stream.max(report.stream), seen: seen.max(report.seen) };
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let Some(session) = self.session else { return };
        let current = self.followers.reports.send_if_modified(|reports| {
            let current = reports.get(&session).is_some_and(|one| one.stream == self.stream);
            if current {
                reports.remove(&session);
            }
            current
        });
        // The end of a stream that a newer one replaced says nothing about its agent.
        if current {
            self.followers.liveness.stream_reset(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::seam::system;

    use super::*;

    fn session(number: u64) -> SessionId {
        SessionId::new(number)
    }

    fn seen(number: u64) -> LogIndex {
        LogIndex::new(number)
    }

    async fn took(seams: &Seams, told: impl Future<Output = bool>) -> (bool, Duration) {
        let began = seams.clock.mono();
        (told.await, seams.clock.mono().since(began))
    }

    #[tokio::test]
    async fn the_wait_ends_with_the_last_report_and_a_silent_agent_delays_it_a_second() {
        let seams = system::seams();
        let followers = Followers::new(Liveness::default());
        let (mut one, mut two) = (followers.begin(), followers.begin());
        let present = || vec![session(1), session(2)];
        one.took(session(1), seen(7));
        two.took(session(2), seen(6));
        let (all, waited) = took(&seams, followers.told(seen(7), present, &seams)).await;
        assert!(!all && TOLD_MAX <= waited, "{waited:?}");
        let late = async {
            seams.sleep(Duration::from_millis(20)).await;
            two.took(session(2), seen(9));
        };
        let (answer, ()) =
            tokio::join!(took(&seams, followers.told(seen(7), present, &seams)), late);
        assert!(answer.0 && answer.1 < TOLD_MAX / 2, "{answer:?}");
    }

    #[tokio::test]
    async fn an_agent_that_leaves_is_waited_for_no_more() {
        let seams = system::seams();
        let followers = Followers::new(Liveness::default());
        let began = seams.clock.mono();
        let present = || {
            let gone = Duration::from_millis(200) < seams.clock.mono().since(began);
            if gone { vec![] } else { vec![session(1)] }
        };
        let (all, waited) = took(&seams, followers.told(seen(1), present, &seams)).await;
        assert!(all && waited < Duration::from_millis(600), "{waited:?}");
    }

    #[tokio::test]
    async fn the_end_of_a_replaced_stream_forgets_nothing() {
        let seams = system::seams();
        let followers = Followers::new(Liveness::default());
        let mut older = followers.begin();
        older.took(session(1), seen(3));
        let mut newer = followers.begin();
        newer.took(session(1), seen(3));
        drop(older);
        assert!(followers.told(seen(3), || vec![session(1)], &seams).await);
        newer.took(session(2), seen(3));
        assert_eq!(followers.reports.borrow().len(), 1, "a stream speaks for one session");
        drop(newer);
        assert!(followers.reports.borrow().is_empty());
    }
}
