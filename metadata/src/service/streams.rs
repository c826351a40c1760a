//! The two streams: each is one task that carries messages between the connection and the node.
//!
//! Either end closes the stream, and so does the service when it stops. The task reads and writes
//! side by side: a caller that does not read its replies never blocks what ends its stream.

use std::{future::Future, time::Duration};

use aquifer_storage::model::{CommitSeq, LogIndex, SessionId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    Service,
    admission::{Named, admit, malformed},
    stopped,
};
use crate::{
    client::{CommitStream, Metadata as _, WatchStream},
    codec::{
        CodecError, commit_reply_to_proto, part::part_from_proto, watch_event_to_proto,
        watch_request_from_proto,
    },
    machine::command::{CommitPart, CommitReply},
    node::{MetadataNode, followers::Follower},
    proto::{
        self, Refusal, commit_stream_reply::Reply as CommitKind,
        commit_stream_request::Request as CommitAsk, watch_stream_reply::Reply as WatchKind,
        watch_stream_request::Request as WatchAsk,
    },
    watch::WatchRequest,
};

/// Messages between the task and the connection: the queue proper is the node's.
const REPLIES_MAX: usize = 64;
/// A stream that does not say what it is by then is ended.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// The replies of a stream, as tonic takes them.
pub(super) type Replies<T> = ReceiverStream<Result<T, Status>>;
pub(super) type Outgoing<T> = mpsc::Sender<Result<T, Status>>;

/// The two ends of a stream's replies.
pub(super) fn replies<T>() -> (Outgoing<T>, Replies<T>) {
    let (outgoing, replies) = mpsc::channel(REPLIES_MAX);
    (outgoing, ReceiverStream::new(replies))
}

impl Service {
    /// Starts the task of a commit stream.
    pub(super) fn serve_commits(
        &self,
        named: Named,
        incoming: Streaming<proto::CommitStreamRequest>,
    ) -> Replies<proto::CommitStreamReply> {
        let (outgoing, replies) = replies();
        let task = commits(self.clone(), named, incoming, outgoing.clone());
        self.spawn_stream("commits-grpc", outgoing, task, |refusal| proto::CommitStreamReply {
            reply: Some(CommitKind::Refusal(refusal)),
        });
        replies
    }

    /// Starts the task of a watch stream.
    pub(super) fn serve_watch(
        &self,
        named: Named,
        incoming: Streaming<proto::WatchStreamRequest>,
    ) -> Replies<proto::WatchStreamReply> {
        let (outgoing, replies) = replies();
        let task = watches(self.clone(), named, incoming, outgoing.clone());
        self.spawn_stream("watch-grpc", outgoing, task, |refusal| proto::WatchStreamReply {
            reply: Some(WatchKind::Refusal(refusal)),
        });
        replies
    }

    /// Runs `task` until it ends, its caller is gone or the service stops; a refusal comes last.
    pub(super) fn spawn_stream<T: Send + 'static>(
        &self,
        name: &'static str,
        outgoing: Outgoing<T>,
        task: impl Future<Output = Result<(), Refusal>> + Send + 'static,
        refused: impl FnOnce(Refusal) -> T + Send + 'static,
    ) {
        let stopping = self.stopping.clone();
        self.node.seams().spawn(name, async move {
            let ended = tokio::select! {
                ended = task => ended,
                () = outgoing.closed() => return,
                () = stopped(stopping) => return,
            };
            if let Err(refusal) = ended {
                let _ = outgoing.send(Ok(refused(refusal))).await; // The caller may be gone.
            }
        });
    }
}

/// Ended because the other end is gone: there is nobody to tell.
struct Gone;

async fn send<T>(outgoing: &Outgoing<T>, message: T) -> Result<(), Gone> {
    outgoing.send(Ok(message)).await.map_err(|_| Gone)
}

/// The next message; `None` when the caller closed its side or its connection broke.
async fn next<T>(incoming: &mut Streaming<T>) -> Option<T> {
    incoming.message().await.unwrap_or_else(|status| {
        tracing::debug!(%status, "a metadata stream broke");
        None
    })
}

/// The first message of a stream.
async fn first<T>(node: &MetadataNode, incoming: &mut Streaming<T>) -> Result<T, Refusal> {
    let first = node.seams().timeout(OPEN_MAX, next(incoming)).await;
    first.flatten().ok_or_else(|| malformed("the stream was not opened"))
}

fn opened(node: &MetadataNode) -> proto::StreamOpened {
    proto::StreamOpened { cluster_id: node.identity().cluster_id.clone() }
}

async fn commits(
    service: Service,
    named: Named,
    mut incoming: Streaming<proto::CommitStreamRequest>,
    outgoing: Outgoing<proto::CommitStreamReply>,
) -> Result<(), Refusal> {
    let node = &service.node;
    let Some(CommitAsk::Open(open)) = first(node, &mut incoming).await?.request else {
        return Err(malformed("a commit stream begins with open"));
    };
    admit(open.caller, named, node.identity())?;
    let session = SessionId::new(open.session);
    let opening = node.client().open_commits(session).await;
    let CommitStream { parts, mut replies } = opening.map_err(|error| service.refusal(error))?;
    let answering = async {
        let opened = CommitKind::Opened(opened(node));
        send(&outgoing, proto::CommitStreamReply { reply: Some(opened) }).await?;
        while let Some((seq, reply)) = replies.recv().await {
            send(&outgoing, answer(seq, &reply)).await?;
        }
        Ok::<(), Gone>(())
    };
    tokio::select! {
        _ = answering => Ok(()),
        refusal = take_parts(incoming, session, parts) => Err(refusal),
    }
}

fn answer(seq: CommitSeq, reply: &CommitReply) -> proto::CommitStreamReply {
    let reply = Some(commit_reply_to_proto(reply));
    let answer = proto::CommitAnswer { commit_seq: seq.value(), reply };
    proto::CommitStreamReply { reply: Some(CommitKind::Answer(answer)) }
}

/// Hands parts to the node. Resolves only with a refusal: otherwise the node answers what it has
/// and then ends the stream.
async fn take_parts(
    mut incoming: Streaming<proto::CommitStreamRequest>,
    session: SessionId,
    parts: mpsc::Sender<CommitPart>,
) -> Refusal {
    while let Some(message) = next(&mut incoming).await {
        let part = match message.request {
            Some(CommitAsk::Part(part)) => part_from_proto(&part),
            Some(CommitAsk::Open(_)) | None => Err(CodecError::Missing("commit part")),
        };
        match part {
            Err(error) => return error.into(),
            Ok(part) if part.session != session => {
                return malformed(format!("a part of {} in {session}'s stream", part.session));
            }
            Ok(part) => {
                if parts.send(part).await.is_err() {
                    break; // The node ends the stream.
                }
            }
        }
    }
    drop(parts);
    std::future::pending().await
}

async fn watches(
    service: Service,
    named: Named,
    mut incoming: Streaming<proto::WatchStreamRequest>,
    outgoing: Outgoing<proto::WatchStreamReply>,
) -> Result<(), Refusal> {
    let node = &service.node;
    let Some(WatchAsk::Open(open)) = first(node, &mut incoming).await?.request else {
        return Err(malformed("a watch stream begins with open"));
    };
    admit(open.caller.clone(), named, node.identity())?;
    let level = open.caller.as_ref().map_or(0, |caller| caller.level);
    let seen = LogIndex::new(open.seen);
    let opening = node.open_watch(seen, None).await;
    let WatchStream { requests, mut events } = opening.map_err(|error| service.refusal(error))?;
    let mut follower = node.follower();
    report(&mut follower, &open);
    let telling = async {
        let opened = WatchKind::Opened(opened(node));
        send(&outgoing, proto::WatchStreamReply { reply: Some(opened) }).await?;
        while let Some(event) = events.recv().await {
            let Some(event) = watch_event_to_proto(&event, level) else { continue };
            let event = WatchKind::Event(event);
            send(&outgoing, proto::WatchStreamReply { reply: Some(event) }).await?;
        }
        Ok::<(), Gone>(())
    };
    tokio::select! {
        _ = telling => Ok(()),
        refusal = take_watches(incoming, requests, follower) => Err(refusal),
    }
}

/// What the agent has seen, by the first `open` of its stream or by one further on.
fn report(follower: &mut Follower, open: &proto::WatchStreamOpen) {
    if let Some(session) = open.session {
        follower.took(SessionId::new(session), LogIndex::new(open.seen));
    }
}

/// Hands requests to the node, as [`take_parts`] does parts. An `open` further on only says what
/// the agent has seen by then.
async fn take_watches(
    mut incoming: Streaming<proto::WatchStreamRequest>,
    requests: mpsc::Sender<WatchRequest>,
    mut follower: Follower,
) -> Refusal {
    while let Some(message) = next(&mut incoming).await {
        let request = match message.request {
            Some(WatchAsk::Watch(request)) => watch_request_from_proto(request),
            Some(WatchAsk::Open(open)) => {
                report(&mut follower, &open);
                continue;
            }
            None => Err(CodecError::Missing("watch request")),
        };
        match request {
            Err(error) => return error.into(),
            Ok(request) => {
                if requests.send(request).await.is_err() {
                    break; // The node ends the stream.
                }
            }
        }
    }
    drop(requests);
    std::future::pending().await
}
