//! The task that owns the write path's state: takes requests, starts PUTs, carries parts and
//! replies, and wakes clients. It decides nothing itself.

use std::{collections::BTreeMap, future::Future};

use aquifer_metadata::machine::command::{CommitPart, CommitReply};
use aquifer_storage::{
    model::{CommitSeq, ObjectName, ObjectSeq, SessionId},
    seam::MonoTime,
};
use tokio::sync::{mpsc, mpsc::error::TrySendError, watch};
use tracing::warn;

use super::{
    Message, ProduceBatch, ProducerConfig, ProducerDeps,
    buffer::{Buffer, ClosedObject, Incoming},
    flusher::{Flusher, Put, PutEnd, gathered},
    ledger::{Arrival, Ledger},
    link::{Link, LinkTask},
    plan::{Flush, FlushInput, TokenBucket, plan_flush},
    waiters::Waiters,
};

/// Ended PUTs and replies on their way to the writer.
const EVENTS_MAX: usize = 1024;
/// Taken in one go before clocks and connections are looked at again.
const TAKEN_MAX: usize = 256;

/// Something that a PUT or a connection tells the writer.
pub(super) enum Event {
    PutEnded { session: SessionId, seq: ObjectSeq, object_bytes: u64, end: PutEnd },
    Linked { session: SessionId, generation: u64, parts: mpsc::Sender<CommitPart> },
    Replied { session: SessionId, generation: u64, seq: CommitSeq, reply: CommitReply },
    Unlinked { session: SessionId, generation: u64 },
}

/// Writes; see [`super::Producer`].
pub struct ProducerService {
    config: ProducerConfig,
    deps: ProducerDeps,
    inbox: mpsc::Receiver<Message>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

/// The state of the write path.
struct Writer {
    config: ProducerConfig,
    deps: ProducerDeps,
    flusher: Flusher,
    ledger: Ledger,
    buffer: Buffer,
    tokens: TokenBucket,
    waiters: Waiters,
    links: BTreeMap<SessionId, Link>,
    events: mpsc::Sender<Event>,
    puts_in_flight: usize,
    bytes_in_flight: u64,
    draining: bool,
    /// When a flush becomes due by itself.
    flush_at: Option<MonoTime>,
}

impl ProducerService {
    pub(super) fn new(
        config: ProducerConfig,
        deps: ProducerDeps,
        inbox: mpsc::Receiver<Message>,
        stop: watch::Sender<bool>,
    ) -> Self {
        let stopped = stop.subscribe();
        Self { config, deps, inbox, stop, stopped }
    }

    /// Writes until `shutdown` completes or [`super::Producer::drain`] is called, then answers
    /// what it has taken and ends.
    ///
    /// # Cancel safety
    /// Dropping the future answers nobody; what was sent may still take effect.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, deps, mut inbox, stop, mut stopped } = self;
        let (events_sender, mut events) = mpsc::channel(EVENTS_MAX);
        let mut sessions = deps.session.changes();
        let seams = deps.seams.clone();
        let mut writer = Writer::new(config, deps, events_sender);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut exhausted = false;
        writer.follow_session();
        let mut armed = MonoTime::from_zero(FAR);
        let mut timer = seams.clock.sleep_until(armed);
        let mut fired = false;
        loop {
            let wake = writer.settle().unwrap_or(MonoTime::from_zero(FAR));
            if exhausted && writer.ledger.is_settled() {
                break;
            }
            // One that is early costs a turn of this loop; arming it anew costs more every time.
            if wake < armed || fired {
                (armed, fired) = (wake, false);
                timer = seams.clock.sleep_until(armed);
            }
            tokio::select! {
                message = inbox.recv(), if !exhausted => match message {
                    Some(message) => writer.take_message(message),
                    None => exhausted = true,
                },
                Some(event) = events.recv() => writer.take_event(event),
                Ok(()) = sessions.changed() => writer.follow_session(),
                () = &mut timer => fired = true,
                _ = stopped.wait_for(|stop| *stop), if !writer.draining => writer.drain(&mut inbox),
                () = &mut shutdown, if !writer.draining => writer.drain(&mut inbox),
            }
            // What has already arrived is taken along: it costs a turn of the runtime, and saves a
            // PUT and a commit of its own.
            tokio::task::yield_now().await;
            writer.take_waiting(&mut inbox, &mut events);
        }
        drop(stop);
    }
}

/// Later than any deadline of a process's life.
const FAR: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 24 * 3600);

impl Writer {
    fn new(config: ProducerConfig, deps: ProducerDeps, events: mpsc::Sender<Event>) -> Self {
        let flusher = Flusher {
            store: deps.store.clone(),
            written: deps.written.clone(),
            seams: deps.seams.clone(),
        };
        Self {
            buffer: Buffer::new(config.limits.object_bytes),
            tokens: TokenBucket::new(config.limits.put_budget),
            config,
            deps,
            flusher,
            ledger: Ledger::default(),
            waiters: Waiters::default(),
            links: BTreeMap::new(),
            events,
            puts_in_flight: 0,
            bytes_in_flight: 0,
            draining: false,
            flush_at: None,
        }
    }

    fn now(&self) -> MonoTime {
        self.deps.seams.clock.mono()
    }

    /// Does everything that is due; returns when something will be next.
    fn settle(&mut self) -> Option<MonoTime> {
        let now = self.now();
        self.ledger.expire(now);
        if self.ledger.open_session().is_none() {
            // Nothing is flushed now: what nobody wants any more must not hold memory.
            self.buffer.drop_dead(|id| self.ledger.is_live(id));
        }
        self.flush_due(now);
        self.tend_links(now);
        self.transmit(now);
        for (id, outcome) in self.ledger.take_decided() {
            self.waiters.decide(id, outcome);
        }
        self.next_wake()
    }

    fn next_wake(&self) -> Option<MonoTime> {
        let links = self.links.iter().flat_map(|(session, link)| {
            let waits = link.parts.is_some() && self.ledger.awaits_replies(*session);
            [waits.then(|| link.stalls_at()), link.abandon_at()]
        });
        let own = [self.ledger.next_deadline(), self.flush_at];
        own.into_iter().chain(links).flatten().min()
    }

    /// Takes what waits, but not for ever.
    fn take_waiting(
        &mut self,
        inbox: &mut mpsc::Receiver<Message>,
        events: &mut mpsc::Receiver<Event>,
    ) {
        for _ in 0..TAKEN_MAX {
            let (message, event) = (inbox.try_recv().ok(), events.try_recv().ok());
            if message.is_none() && event.is_none() {
                return;
            }
            message.into_iter().for_each(|message| self.take_message(message));
            event.into_iter().for_each(|event| self.take_event(event));
        }
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Append { connection, deadline, batches, permit, reply } => {
                let now = self.now();
                let first = self.ledger.next_batch();
                let mut admitted = Vec::with_capacity(batches.len());
                for ProduceBatch { partition, batch } in batches {
                    let arrival = Arrival::of(connection, partition, &batch, deadline);
                    let (id, chain) = self.ledger.admit(arrival);
                    if let Some(chain) = chain {
                        let incoming = Incoming { id, chain, partition, batch, deadline };
                        self.buffer.push(now, incoming, &permit);
                    }
                    admitted.push(chain.is_some());
                }
                self.waiters.add(first, &admitted, reply);
            }
            Message::Close(connection) => self.ledger.close(connection),
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::PutEnded { session, seq, object_bytes, end } => {
                self.puts_in_flight -= 1;
                self.bytes_in_flight -= object_bytes;
                match end {
                    PutEnd::Landed => self.ledger.put_succeeded(session, seq),
                    PutEnd::Refused | PutEnd::Unanswered => {
                        self.ledger.put_failed(session, seq, end.outcome());
                    }
                }
            }
            Event::Linked { session, generation, parts } => {
                let now = self.now();
                if let Some(link) = self.link(session, generation) {
                    link.parts = Some(parts);
                    link.heard = now;
                }
            }
            Event::Replied { session, generation, seq, reply } => {
                let now = self.now();
                let Some(link) = self.link(session, generation) else { return };
                link.progressed(now);
                if self.ledger.replied(session, seq, reply) {
                    warn!(%session, "metadata takes no more commits of this session");
                    self.deps.session.fenced(session);
                }
            }
            Event::Unlinked { session, generation } => {
                if self.link(session, generation).is_some() {
                    self.reconnect(session);
                }
            }
        }
    }

    /// The session's link, if this generation of it still counts.
    fn link(&mut self, session: SessionId, generation: u64) -> Option<&mut Link> {
        self.links.get_mut(&session).filter(|link| link.generation == generation)
    }

    /// Begins or ends sessions as the session service says.
    fn follow_session(&mut self) {
        match self.deps.session.current() {
            Some(registered) => self.ledger.begin_session(registered.session),
            None => self.ledger.end_session(),
        }
    }

    fn drain(&mut self, inbox: &mut mpsc::Receiver<Message>) {
        self.draining = true;
        inbox.close();
    }

    /// Starts the PUTs that are due.
    fn flush_due(&mut self, now: MonoTime) {
        self.flush_at = None;
        while let Some(session) = self.ledger.open_session() {
            let input = FlushInput {
                now,
                buffered: self.buffer.oldest(),
                puts_in_flight: self.puts_in_flight,
                bytes_in_flight: self.bytes_in_flight,
                draining: self.draining,
            };
            match plan_flush(input, &self.config.limits, &self.tokens) {
                Flush::Now => self.flush(now, session),
                Flush::At(at) => {
                    self.flush_at = Some(at);
                    return;
                }
                Flush::Wait => return,
            }
        }
    }

    /// Starts the PUT of the oldest object, unless nobody wants anything of it any more.
    fn flush(&mut self, now: MonoTime, session: SessionId) {
        let Some(object) = self.buffer.close_oldest(|id| self.ledger.is_live(id)) else { return };
        let ClosedObject { built, batches, permits, deadline } = object;
        let object_bytes = built.object_bytes;
        let seq = self.ledger.open_object(session, batches, object_bytes);
        self.tokens.take(now);
        self.puts_in_flight += 1;
        self.bytes_in_flight += object_bytes;
        let name = ObjectName { lineage: self.config.lineage, session, seq, merged: false };
        let flusher = self.flusher.clone();
        let events = self.events.clone();
        self.deps.seams.spawn("produce-put", async move {
            let put = Put { name, body: gathered(built.body), deadline };
            let end = flusher.put(&put).await;
            drop(put);
            drop(permits);
            // A writer that ended needs no answer.
            let _ = events.send(Event::PutEnded { session, seq, object_bytes, end }).await;
        });
    }

    /// Opens, replaces and drops links, so that every stream with something to say has one.
    fn tend_links(&mut self, now: MonoTime) {
        let sessions = self.ledger.sessions();
        self.links.retain(|session, _| sessions.iter().any(|(known, _)| known == session));
        for (session, live) in sessions {
            let Some(link) = self.links.get_mut(&session) else {
                self.links.insert(session, Link::new(now));
                self.reconnect(session);
                continue;
            };
            if !live {
                link.ended.get_or_insert(now);
            }
            if link.abandon_at().is_some_and(|at| at <= now) {
                self.ledger.abandon_session(session);
                self.links.remove(&session);
            } else if link.parts.is_some()
                && link.stalls_at() <= now
                && self.ledger.awaits_replies(session)
            {
                warn!(%session, "commit stream stalled, opening another");
                self.reconnect(session);
            }
        }
    }

    /// Drops the session's connection, if any, and opens the next.
    fn reconnect(&mut self, session: SessionId) {
        self.ledger.disconnected(session);
        let Some(link) = self.links.get_mut(&session) else { return };
        let pause = link.reconnect();
        let task = LinkTask {
            metadata: self.deps.metadata.clone(),
            seams: self.deps.seams.clone(),
            session,
            generation: link.generation,
            events: self.events.clone(),
        };
        self.deps.seams.spawn("produce-link", task.run(pause));
    }

    /// Hands parts to their connections, as many as these take now. A connection that is full has
    /// replies to give, and those wake the writer again.
    fn transmit(&mut self, now: MonoTime) {
        let mut broken = Vec::new();
        for (session, link) in &mut self.links {
            let Some(parts) = &link.parts else { continue };
            while self.ledger.has_part(*session) {
                let permit = match parts.try_reserve() {
                    Ok(permit) => permit,
                    Err(TrySendError::Full(())) => break,
                    Err(TrySendError::Closed(())) => {
                        broken.push(*session);
                        break;
                    }
                };
                if !self.ledger.awaits_replies(*session) {
                    link.heard = now;
                }
                let part = self.ledger.next_part(*session).expect("the stream has a part");
                permit.send(part);
            }
        }
        for session in broken {
            self.reconnect(session);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
