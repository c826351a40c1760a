//! The two streams: what the caller sends is the request's body, what comes back is carried to the
//! caller by one task. Either end closes the stream.

use std::{sync::Arc, time::Duration};

use aquifer_storage::{
    model::{CommitSeq, LogIndex, SessionId},
    seam::{Clock, MonoTime, Seams},
};
use futures::{Stream, StreamExt, future, stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{CommitStream, Grpc, Heard, Leader, WatchStream, opened_up};
use crate::{
    codec::{
        CodecError, commit_reply_from_proto, part::part_to_proto, watch_event_from_proto,
        watch_request_to_proto,
    },
    machine::command::CommitReply,
    proto::{
        self, Caller, commit_stream_reply::Reply as CommitKind,
        commit_stream_request::Request as CommitAsk, watch_stream_reply::Reply as WatchKind,
        watch_stream_request::Request as WatchAsk,
    },
    watch::{Taken, WatchEvent, WatchRequest},
};

/// Messages buffered on either side, as in process: more only grows latency.
const COMMITS_MAX: usize = 256;
const WATCH_REQUESTS_MAX: usize = 1024;
const WATCH_EVENTS_MAX: usize = 256;
/// Reports not yet sent: the next one says more, so few are enough.
const REPORTS_MAX: usize = 4;

/// A node may be behind what the leader says for this long; then another one is watched. Longer
/// than an election, and as long as a busy node may take.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// A stream that was accepted.
pub(super) struct Opened<Ask, Reply> {
    outgoing: mpsc::Sender<Ask>,
    incoming: Streaming<Reply>,
    /// Dropped to end the request's body, should the transport not notice by itself.
    _body: oneshot::Sender<()>,
}

/// What is sent: `open`, then what the caller sends, until it or the reply ends.
fn body<Ask, Message>(
    open: Message,
    asks: mpsc::Receiver<Ask>,
    to_message: impl Fn(Ask) -> Message + Send + 'static,
) -> (oneshot::Sender<()>, impl Stream<Item = Message> + Send + 'static)
where
    Ask: Send + 'static,
    Message: Send + 'static,
{
    let (end, ended) = oneshot::channel();
    let asks = ReceiverStream::new(asks).map(to_message);
    (end, stream::iter([open]).chain(asks).take_until(ended))
}

/// Opens a session's commit stream at a node.
pub(super) async fn commits(
    mut grpc: Grpc,
    caller: Option<Caller>,
    session: SessionId,
) -> Result<Heard<Opened<crate::machine::command::CommitPart, proto::CommitStreamReply>>, Status> {
    let (outgoing, parts) = mpsc::channel(COMMITS_MAX);
    let open = proto::CommitStreamOpen { caller, session: session.value() };
    let open = proto::CommitStreamRequest { request: Some(CommitAsk::Open(open)) };
    let (end, body) = body(open, parts, |part| proto::CommitStreamRequest {
        request: Some(CommitAsk::Part(part_to_proto(&part))),
    });
    let (lineage, mut incoming) = opened_up(grpc.commits(body).await?);
    Ok(match first(&mut incoming).await?.reply {
        Some(CommitKind::Opened(opened)) => Heard {
            cluster_id: opened.cluster_id,
            lineage,
            reply: Some(Ok(Opened { outgoing, incoming, _body: end })),
        },
        Some(CommitKind::Refusal(refusal)) => refused(refusal),
        Some(CommitKind::Answer(_)) | None => unreadable(),
    })
}

/// A watch stream that was accepted.
pub(super) struct OpenedWatch {
    opened: Opened<WatchRequest, proto::WatchStreamReply>,
    reports: mpsc::Sender<proto::WatchStreamOpen>,
}

fn watch_ask(request: WatchAsk) -> proto::WatchStreamRequest {
    proto::WatchStreamRequest { request: Some(request) }
}

/// Opens a watch stream at a node.
pub(super) async fn watch(
    mut grpc: Grpc,
    caller: Option<Caller>,
    (seen, session): (LogIndex, Option<SessionId>),
) -> Result<Heard<OpenedWatch>, Status> {
    let (outgoing, requests) = mpsc::channel(WATCH_REQUESTS_MAX);
    let (reports, reported) = mpsc::channel(REPORTS_MAX);
    let session = session.map(SessionId::value);
    let open = proto::WatchStreamOpen { caller, seen: seen.value(), session };
    let (end, ended) = oneshot::channel();
    // The body ends with the caller's requests, whatever may still be reported.
    let requests = ReceiverStream::new(requests)
        .map(|request| Some(WatchAsk::Watch(watch_request_to_proto(&request))))
        .chain(stream::iter([None]));
    let reported = ReceiverStream::new(reported).map(|open| Some(WatchAsk::Open(open)));
    let body = stream::iter([Some(WatchAsk::Open(open))])
        .chain(stream::select(requests, reported))
        .scan((), |(), ask| future::ready(ask.map(watch_ask)))
        .take_until(ended);
    let (lineage, mut incoming) = opened_up(grpc.watch(body).await?);
    Ok(match first(&mut incoming).await?.reply {
        Some(WatchKind::Opened(opened)) => {
            let cluster_id = opened.cluster_id;
            let opened = Opened { outgoing, incoming, _body: end };
            Heard { cluster_id, lineage, reply: Some(Ok(OpenedWatch { opened, reports })) }
        }
        Some(WatchKind::Refusal(refusal)) => refused(refusal),
        Some(WatchKind::Event(_)) | None => unreadable(),
    })
}

fn refused<T>(refusal: proto::Refusal) -> Heard<T> {
    Heard { cluster_id: String::new(), lineage: None, reply: Some(Err(refusal)) }
}

fn unreadable<T>() -> Heard<T> {
    Heard { cluster_id: String::new(), lineage: None, reply: None }
}

async fn first<T>(incoming: &mut Streaming<T>) -> Result<T, Status> {
    let ended = || Status::unavailable("the stream ended before it was opened");
    incoming.message().await?.ok_or_else(ended)
}

impl Opened<crate::machine::command::CommitPart, proto::CommitStreamReply> {
    /// Starts the stream's task.
    pub(super) fn run(self, seams: &Seams) -> CommitStream {
        let (answers, replies) = mpsc::channel(COMMITS_MAX);
        let Self { outgoing, incoming, _body: end } = self;
        seams.spawn("commits", carry(incoming, answers, commit_answer, end));
        CommitStream { parts: outgoing, replies }
    }
}

impl OpenedWatch {
    /// Starts the stream's task.
    pub(super) fn run(
        self,
        session: watch::Receiver<Option<SessionId>>,
        leader: Leader,
        seams: &Seams,
    ) -> WatchStream {
        let (told, events) = mpsc::channel(WATCH_EVENTS_MAX);
        let Self { opened: Opened { outgoing, incoming, _body: end }, reports } = self;
        let reporter = Reporter { taken: Taken::default(), session, reports, leader };
        let clock = Arc::clone(&seams.clock);
        seams.spawn("watch", carry_watch(incoming, told, (reporter, clock), end));
        WatchStream { requests: outgoing, events }
    }
}

/// Says on a watch stream how far the agent took in the catalog.
struct Reporter {
    taken: Taken,
    session: watch::Receiver<Option<SessionId>>,
    reports: mpsc::Sender<proto::WatchStreamOpen>,
    leader: Leader,
}

/// Whether a node is behind the leader for too long: one that is cut off from its group, or was
/// removed from it, goes on telling what it last knew.
#[derive(Default)]
struct Lag {
    /// What the node told.
    told: LogIndex,
    /// What it must tell, and since when.
    due: Option<(LogIndex, MonoTime)>,
}

impl Lag {
    /// Takes note of an event while the leader is known to be at `leader`.
    fn is_too_long(&mut self, event: &WatchEvent, leader: LogIndex, now: MonoTime) -> bool {
        if let WatchEvent::Applied(index) = event {
            self.told = *index;
        }
        match self.due {
            Some((due, since)) if self.told < due => BEHIND_MAX <= now.since(since),
            _ => {
                self.due = (self.told < leader).then_some((leader, now));
                false
            }
        }
    }
}

impl Reporter {
    /// Completes with each report.
    async fn report(&mut self, events: &mpsc::Sender<WatchEvent>) {
        tokio::select! {
            _ = self.taken.step(events) => {}
            Ok(()) = self.session.changed() => {}
        }
        let session = *self.session.borrow_and_update();
        if let (Some(session), Some(seen)) = (session, self.taken.seen()) {
            self.leader.tell(session, seen);
            let (session, seen) = (Some(session.value()), seen.value());
            // Without room the stream is stuck, and a report would not arrive.
            let _ = self.reports.try_send(proto::WatchStreamOpen { caller: None, seen, session });
        }
    }
}

/// Why a stream ends that neither side closed in order.
enum Ended {
    Refused(proto::Refusal),
    Unreadable(CodecError),
}

impl From<CodecError> for Ended {
    fn from(error: CodecError) -> Self {
        Self::Unreadable(error)
    }
}

fn commit_answer(message: proto::CommitStreamReply) -> Result<(CommitSeq, CommitReply), Ended> {
    match message.reply {
        Some(CommitKind::Answer(answer)) => {
            let reply = answer.reply.ok_or(CodecError::Missing("commit reply"))?;
            Ok((CommitSeq::new(answer.commit_seq), commit_reply_from_proto(&reply)?))
        }
        Some(CommitKind::Refusal(refusal)) => Err(Ended::Refused(refusal)),
        Some(CommitKind::Opened(_)) | None => Err(CodecError::Missing("commit answer").into()),
    }
}

fn watch_event(message: proto::WatchStreamReply) -> Result<WatchEvent, Ended> {
    match message.reply {
        Some(WatchKind::Event(event)) => Ok(watch_event_from_proto(event)?),
        Some(WatchKind::Refusal(refusal)) => Err(Ended::Refused(refusal)),
        Some(WatchKind::Opened(_)) | None => Err(CodecError::Missing("watch event").into()),
    }
}

/// Reads the next message; `None` ends the stream, and was logged.
fn read_next<Message, T>(
    message: Result<Option<Message>, Status>,
    read: fn(Message) -> Result<T, Ended>,
) -> Option<T> {
    let message = message.unwrap_or_else(|status| {
        tracing::debug!(%status, "a metadata stream broke");
        None
    })?;
    match read(message) {
        Ok(value) => Some(value),
        Err(Ended::Refused(refusal)) => {
            tracing::warn!(reason = refusal.reason, "metadata refused a stream");
            None
        }
        Err(Ended::Unreadable(error)) => {
            tracing::error!(%error, "a metadata stream cannot be read");
            None
        }
    }
}

/// Carries answers to the caller until either is gone. Dropping `incoming` resets the stream.
async fn carry<Message, T>(
    mut incoming: Streaming<Message>,
    caller: mpsc::Sender<T>,
    read: fn(Message) -> Result<T, Ended>,
    end: oneshot::Sender<()>,
) where
    Message: Send + 'static,
    T: Send + 'static,
{
    let _end = end; // Ends the request's body with this task.
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = caller.closed() => return,
        };
        let Some(value) = read_next(message, read) else { return };
        if caller.send(value).await.is_err() {
            return;
        }
    }
}

/// Carries events, as [`carry`] does answers, and reports how far the caller took them in.
async fn carry_watch(
    mut incoming: Streaming<proto::WatchStreamReply>,
    caller: mpsc::Sender<WatchEvent>,
    (mut reporter, clock): (Reporter, Arc<dyn Clock>),
    end: oneshot::Sender<()>,
) {
    let _end = end; // Ends the request's body with this task.
    let mut lag = Lag::default();
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = reporter.report(&caller) => continue,
            () = caller.closed() => return,
        };
        let Some(event) = read_next(message, watch_event) else { return };
        if lag.is_too_long(&event, reporter.leader.index(), clock.mono()) {
            tracing::info!(told = %lag.told, "a metadata node is behind, leaving it");
            return;
        }
        reporter.taken.sending(&event);
        if caller.send(event).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_zero(Duration::from_millis(millis))
    }

    fn told(index: u64) -> WatchEvent {
        WatchEvent::Applied(LogIndex::new(index))
    }

    #[test]
    fn a_node_that_stays_behind_what_the_leader_said_is_left() {
        let (mut lag, leader) = (Lag::default(), LogIndex::new(10));
        assert!(!lag.is_too_long(&told(7), leader, at(0)));
        assert!(!lag.is_too_long(&told(7), leader, at(1999)));
        assert!(lag.is_too_long(&told(9), LogIndex::new(20), at(2000)));
    }

    #[test]
    fn a_node_that_follows_at_a_distance_is_kept() {
        let mut lag = Lag::default();
        for step in 0..100 {
            let (told, leader) = (told(step * 10), LogIndex::new(step * 10 + 15));
            assert!(!lag.is_too_long(&told, leader, at(step * 900)));
        }
    }
}
