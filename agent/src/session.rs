//! One life of this process in the metadata group: registers, stays alive by heartbeats, and
//! registers anew when fenced.
//!
//! # Invariants
//! - A registration is retried with the same request number until it is answered, so one life
//!   never holds two live sessions.
//! - A session once left is never current again.
//!
//! # Not here
//! What becomes of commits undecided when a session ends (`produce::commit_stream`).

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aquifer_metadata::{
    client::{CallError, Heartbeat, Metadata},
    machine::command::{Command, HostPort, RegisterSession, Registered, Reply},
};
use aquifer_storage::{
    error::Outcome,
    model::{LogIndex, ProducerId, SessionId, Timestamp},
    planted::{self, Bug},
    seam::{MonoTime, Seams},
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

pub(crate) mod backoff;
mod producer_ids;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;

use backoff::Backoff;
use producer_ids::{IdReply, ProducerIds, WAITING_MAX};

/// Three fit into the 750 ms after which a silent agent counts as absent.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// A heartbeat unanswered for this long is given up and sent again.
const HEARTBEAT_MAX: Duration = Duration::from_secs(2);
/// A registration unanswered for this long is sent again, with the same request number.
const REGISTER_MAX: Duration = Duration::from_secs(5);

/// Who this agent says it is.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The address clients are told.
    pub advertised: HostPort,
    /// The availability zone.
    pub zone: Option<String>,
}

/// This agent's session: a cloneable handle.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    ids: mpsc::Sender<IdReply>,
}

struct Shared {
    metadata: Arc<dyn Metadata>,
    seams: Seams,
    current: watch::Sender<Option<Registered>>,
    /// Somebody was answered `Fenced`.
    judged: Notify,
    fenced: Mutex<Option<SessionId>>,
    heard: Mutex<Heard>,
}

/// What the last heartbeat said, and when.
#[derive(Clone, Copy)]
struct Heard {
    at: MonoTime,
    wall: Option<Timestamp>,
    index: LogIndex,
}

/// Registers and keeps alive; see [`Session`].
pub struct SessionService {
    config: SessionConfig,
    session: Session,
    ids: ProducerIds,
}

impl Session {
    /// A handle, and the service that registers.
    pub fn new(
        config: SessionConfig,
        metadata: Arc<dyn Metadata>,
        seams: Seams,
    ) -> (Self, SessionService) {
        let heard = Heard { at: seams.clock.mono(), wall: None, index: LogIndex::default() };
        let shared = Arc::new(Shared {
            metadata: Arc::clone(&metadata),
            seams: seams.clone(),
            current: watch::Sender::new(None),
            judged: Notify::new(),
            fenced: Mutex::default(),
            heard: Mutex::new(heard),
        });
        let (ids, inbox) = mpsc::channel(WAITING_MAX);
        let session = Self { shared, ids };
        let ids = ProducerIds { metadata, seams, session: session.clone(), inbox };
        let service = SessionService { config, session: session.clone(), ids };
        (session, service)
    }

    /// The live session; `None` before the first and between two.
    pub fn current(&self) -> Option<Registered> {
        self.shared.current.borrow().clone()
    }

    /// The live session, once there is one.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn registered(&self) -> Registered {
        let mut current = self.changes();
        loop {
            if let Some(registered) = current.borrow_and_update().clone() {
                return registered;
            }
            // The sender lives in `self`, so waiting cannot fail.
            let _ = current.changed().await;
        }
    }

    /// Follows the live session.
    pub fn changes(&self) -> watch::Receiver<Option<Registered>> {
        self.shared.current.subscribe()
    }

    /// The leader's wall time as last heard plus what passed since; this agent's own before that.
    /// For record timestamps only.
    pub fn leader_wall(&self) -> Timestamp {
        let heard = *lock(&self.shared.heard);
        let Some(wall) = heard.wall else { return self.shared.seams.clock.wall() };
        let since = self.shared.seams.clock.mono().since(heard.at).as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        Timestamp::from_millis(wall.millis().saturating_add(since))
    }

    /// The leader's applied index as last heard.
    pub fn leader_index(&self) -> LogIndex {
        lock(&self.shared.heard).index
    }

    /// For how long no heartbeat was answered.
    pub fn silent_for(&self) -> Duration {
        let heard = *lock(&self.shared.heard);
        self.shared.seams.clock.mono().since(heard.at)
    }

    /// A producer id that nobody else has.
    ///
    /// # Cancel safety
    /// Dropping the future may waste an id, never give it twice.
    pub async fn next_producer_id(&self) -> Result<ProducerId, CallError> {
        let (reply, answer) = oneshot::channel();
        self.ids.send(reply).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Says that metadata answered `Fenced` for `session`: a new one is registered.
    pub fn fenced(&self, session: SessionId) {
        // A late verdict on an older session must not hide the one on this.
        let mut fenced = lock(&self.shared.fenced);
        *fenced = (*fenced).max(Some(session));
        drop(fenced);
        self.shared.judged.notify_one();
    }

    /// Ends the live session for good, after everything it sent is decided. Without an answer
    /// the leader fences it 15 s later.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown, which is harmless.
    pub async fn end(&self) {
        let Some(registered) = self.current() else { return };
        let command = Command::FenceSession { session: registered.session };
        let call = self.shared.metadata.propose(command);
        if let Some(Err(error)) = self.shared.seams.timeout(HEARTBEAT_MAX, call).await {
            warn!(%error, session = %registered.session, "session ends by its time-out");
        }
    }
}

impl SessionService {
    /// Registers and heartbeats until `shutdown` completes. It does not end the session:
    /// [`Session::end`] does, once the producer has drained.
    ///
    /// # Cancel safety
    /// Dropping the future stops the heartbeats.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, session, ids } = self;
        tokio::select! {
            () = shutdown => {}
            () = live(config, session.shared) => {}
            () = ids.run() => {}
        }
    }
}

async fn live(config: SessionConfig, shared: Arc<Shared>) {
    loop {
        let registered = register(&config, &shared).await;
        info!(session = %registered.session, node = %registered.node_id, "session registered");
        let session = registered.session;
        shared.current.send_replace(Some(registered));
        keep_alive(&shared, session).await;
        warn!(%session, "session fenced, registering a new one");
        shared.current.send_replace(None);
    }
}

/// Registers, for ever, with one request number.
async fn register(config: &SessionConfig, shared: &Shared) -> Registered {
    let request = shared.seams.rng.next_u64();
    let mut backoff = Backoff::new(shared.seams.clone());
    loop {
        let command = Command::RegisterSession(RegisterSession {
            request,
            advertised: config.advertised.clone(),
            zone: config.zone.clone(),
        });
        let call = shared.metadata.propose(command);
        let reason = match shared.seams.timeout(REGISTER_MAX, call).await {
            Some(Ok(answer)) => match answer.reply {
                Reply::Registered(registered) => return registered,
                _ => "metadata answered another question".to_owned(),
            },
            Some(Err(error)) => error.to_string(),
            None => "no answer in time".to_owned(),
        };
        if backoff.is_line_due() {
            warn!(%reason, "waiting for metadata to register this agent");
        }
        backoff.pause().await;
    }
}

/// Heartbeats until the session is fenced.
async fn keep_alive(shared: &Shared, session: SessionId) {
    let mut backoff = Backoff::new(shared.seams.clone());
    let clock = &shared.seams.clock;
    loop {
        let next = clock.mono() + HEARTBEAT_EVERY;
        let asked = clock.mono();
        match shared.seams.timeout(HEARTBEAT_MAX, shared.metadata.heartbeat(session)).await {
            Some(Ok(Heartbeat::Live { wall, index })) => {
                backoff.reset();
                let mut heard = lock(&shared.heard);
                let index = index.max(heard.index);
                let from_answer = planted::is(Bug::LeaseFromAnswer);
                let at = if from_answer { clock.mono() } else { asked };
                *heard = Heard { at, wall: Some(wall), index };
            }
            Some(Ok(Heartbeat::Fenced)) => return,
            Some(Err(error)) if backoff.is_line_due() => {
                warn!(%error, %session, "heartbeat failed, retrying");
            }
            Some(Err(_)) => {}
            None if backoff.is_line_due() => warn!(%session, "heartbeat unanswered, retrying"),
            None => {}
        }
        tokio::select! {
            () = clock.sleep_until(next) => {}
            () = shared.judged.notified() => {}
        }
        if *lock(&shared.fenced) == Some(session) {
            return;
        }
    }
}

fn stopped() -> CallError {
    CallError {
        call: "allocate_producer_ids",
        outcome: Outcome::Unavailable,
        reason: "the agent is stopping".to_owned(),
    }
}

/// A poisoned lock means a panic while it was held; these sections only move values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
