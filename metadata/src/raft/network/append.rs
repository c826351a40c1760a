//! The stream of entries to one peer: requests are sent as Raft makes them, answers come back in
//! their order, and silence while an answer is due ends it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::seam::{MonoTime, Seams};
use futures::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, Timeout},
    network::RPCTypes,
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{APPEND_MAX, Grpc, Lane, PeerError, Road, unreachable, unreadable};
use crate::{
    client::remote::connection,
    proto,
    raft::{TypeConfig, wire},
};

/// Requests made and not taken by the transport.
const REQUESTS_MAX: usize = 4;
/// How often silence is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// When the requests were sent that have no answer yet.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<MonoTime>>>);

impl Unanswered {
    fn sent(&self, now: MonoTime) {
        self.0.lock().expect("no panic while held").push_back(now);
    }

    fn answered(&self) {
        self.0.lock().expect("no panic while held").pop_front();
    }

    fn oldest(&self) -> Option<MonoTime> {
        self.0.lock().expect("no panic while held").front().copied()
    }
}

/// A stream that was opened. Whoever drops it lets go of what feeds it, too.
struct Answers {
    incoming: Streaming<proto::RaftAppendReply>,
    answering: Answering,
}

struct Answering {
    /// Carries Raft's requests to the transport.
    feeding: BoxFuture<'static, ()>,
    unanswered: Unanswered,
    seams: Seams,
    peers: super::Peers,
    id: u64,
}

/// Opens a stream to the peer at the end of `road`.
pub(super) fn open<'s, S>(
    road: &Road,
    input: S,
) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let (peers, id) = (road.peers.clone(), road.id);
    let seams = peers.shared.seams.clone();
    let unanswered = Unanswered::default();
    let (outgoing, requests) = mpsc::channel(REQUESTS_MAX);
    let feed = Feed { outgoing, peer: road.peer(), sent: unanswered.clone(), seams: seams.clone() };
    let feeding = Box::pin(feed.run(input));
    let grpc = peers.client(id, &road.member, Lane::Entries);
    let answering = Answering { feeding, unanswered, seams, peers, id };
    Box::pin(async move {
        let answers = open_in_time(grpc, ReceiverStream::new(requests), answering).await?;
        let answers: BoxStream<'s, Answer> = stream::unfold(Some(answers), next).boxed();
        Ok(answers)
    })
}

struct Feed {
    outgoing: mpsc::Sender<proto::RaftAppendRequest>,
    peer: proto::Peer,
    sent: Unanswered,
    seams: Seams,
}

impl Feed {
    async fn run<S>(self, mut input: S)
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut peer = Some(self.peer);
        while let Some(request) = input.next().await {
            self.sent.sent(self.seams.clock.mono());
            let request = wire::append_to_proto(request, peer.take());
            if self.outgoing.send(request).await.is_err() {
                return; // The answers say why.
            }
        }
    }
}

async fn open_in_time(
    grpc: Result<Grpc, PeerError>,
    requests: ReceiverStream<proto::RaftAppendRequest>,
    mut answering: Answering,
) -> Result<Answers, RPCError<TypeConfig>> {
    let (mut grpc, id) = (grpc.map_err(unreachable)?, answering.id);
    let overdue = answering.seams.sleep(APPEND_MAX);
    let opening = grpc.append(requests);
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        never = answering.feed() => match never {},
        () = overdue => {
            let reason = format!("no answer within {APPEND_MAX:?}");
            return Err(unreachable(PeerError::Unreachable { id, reason }));
        }
    };
    let incoming = opened.map_err(|status| broken(id, &status))?.into_inner();
    Ok(Answers { incoming, answering })
}

impl Answering {
    /// Feeds the stream, and never completes.
    async fn feed(&mut self) -> Infallible {
        (&mut self.feeding).await;
        self.feeding = Box::pin(std::future::pending());
        std::future::pending().await
    }
}

fn broken(id: u64, status: &tonic::Status) -> RPCError<TypeConfig> {
    unreachable(PeerError::Unreachable { id, reason: connection::with_sources(status) })
}

/// The next answer; the stream ends behind one that is not a success.
async fn next(answers: Option<Answers>) -> Option<(Answer, Option<Answers>)> {
    let mut answers = answers?;
    let answer = answers.next().await?;
    let goes_on = matches!(answer, Ok(Ok(_)));
    Some((answer, goes_on.then_some(answers)))
}

impl Answers {
    async fn next(&mut self) -> Option<Answer> {
        let message = loop {
            let look = self.answering.seams.sleep(LOOK_INTERVAL);
            tokio::select! {
                biased;
                message = self.incoming.message() => break message,
                never = self.answering.feed() => match never {},
                () = look => {
                    let now = self.answering.seams.clock.mono();
                    let oldest = self.answering.unanswered.oldest();
                    if oldest.is_some_and(|sent| APPEND_MAX < now.since(sent)) {
                        return Some(Err(self.overdue()));
                    }
                }
            }
        };
        let reply = match message {
            Ok(reply) => reply?,
            Err(status) => return Some(Err(broken(self.answering.id, &status))),
        };
        self.answering.unanswered.answered();
        Some(match wire::appended_from_proto(reply) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(refusal)) => {
                Err(unreachable(self.answering.peers.refused(self.answering.id, refusal)))
            }
            Err(_) => Err(unreachable(unreadable(self.answering.id))),
        })
    }

    fn overdue(&self) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout {
            action: RPCTypes::AppendEntries,
            id: self.answering.peers.shared.me.id,
            target: self.answering.id,
            timeout: APPEND_MAX,
        })
    }
}
