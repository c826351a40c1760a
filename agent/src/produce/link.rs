//! The connection that carries one session's commit stream.

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{
    client::Metadata,
    machine::command::{CommitPart, CommitReply},
};
use aquifer_storage::{
    model::{CommitSeq, SessionId},
    seam::{MonoTime, Seams},
};
use tokio::sync::mpsc;
use tracing::debug;

use super::writer::Event;

/// An attempt to connect that takes longer is given up.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A connection that answers nothing for this long, while it should, is given up.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// An ended session's undecided parts are asked for at most this long: no client waits longer.
const ABANDON_AFTER: Duration = super::DEADLINE_MAX;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The writer's end of a session's connection.
pub(super) struct Link {
    pub(super) generation: u64,
    /// `None` while connecting.
    pub(super) parts: Option<mpsc::Sender<CommitPart>>,
    /// When the connection last made progress.
    pub(super) heard: MonoTime,
    failures: u32,
    /// When the session ended.
    pub(super) ended: Option<MonoTime>,
}

impl Link {
    /// A link that is about to connect.
    pub(super) fn new(now: MonoTime) -> Self {
        Self { generation: 0, parts: None, heard: now, failures: 0, ended: None }
    }

    /// Begins the next generation; what an older one still says is ignored. Returns the pause
    /// before it connects.
    pub(super) fn reconnect(&mut self) -> Duration {
        self.generation += 1;
        self.parts = None;
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => (PAUSE_MIN * 2u32.saturating_pow(failures - 1)).min(PAUSE_MAX),
        };
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The connection answered.
    pub(super) fn progressed(&mut self, now: MonoTime) {
        self.heard = now;
        self.failures = 0;
    }

    /// When the connection counts as stalled, should it be waited for.
    pub(super) fn stalls_at(&self) -> MonoTime {
        self.heard + STALLED_AFTER
    }

    /// When an ended session is asked no more.
    pub(super) fn abandon_at(&self) -> Option<MonoTime> {
        self.ended.map(|ended| ended + ABANDON_AFTER)
    }
}

/// One generation of a link: connects, then passes replies on until the connection ends.
pub(super) struct LinkTask {
    pub(super) metadata: Arc<dyn Metadata>,
    pub(super) seams: Seams,
    pub(super) session: SessionId,
    pub(super) generation: u64,
    pub(super) events: mpsc::Sender<Event>,
}

impl LinkTask {
    pub(super) async fn run(self, pause: Duration) {
        let Self { session, generation, .. } = self;
        if !pause.is_zero() {
            self.seams.sleep(pause).await;
        }
        let attempt = self.metadata.open_commits(session);
        match self.seams.timeout(CONNECT_MAX, attempt).await {
            Some(Ok(stream)) => {
                let parts = stream.parts;
                self.tell(Event::Linked { session, generation, parts }).await;
                self.pass_replies(stream.replies).await;
            }
            Some(Err(error)) => debug!(%error, %session, "commit stream cannot be opened"),
            None => debug!(%session, "commit stream unanswered"),
        }
        self.tell(Event::Unlinked { session, generation }).await;
    }

    async fn pass_replies(&self, mut replies: mpsc::Receiver<(CommitSeq, CommitReply)>) {
        let Self { session, generation, .. } = *self;
        while let Some((seq, reply)) = replies.recv().await {
            if !self.tell(Event::Replied { session, generation, seq, reply }).await {
                return;
            }
        }
    }

    /// Whether the writer still listens.
    async fn tell(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }
}
