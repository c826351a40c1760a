//! One client connection: only Produce overlaps, and only with Produce; answers leave in request
//! order (DESIGN 4.1).
//!
//! Any other request starts when every earlier one of its connection is answered, and nothing
//! behind it starts before its own answer is written: Kafka's muted channel.

use std::{io, io::IoSlice, net::SocketAddr, sync::Arc, time::Duration};

use aquifer_storage::seam::{
    Seams,
    net::{ReadHalf, Stream},
};
use bytes::{Buf, Bytes};
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{
    frame_reader::{Frame, FrameReader, ReadError},
    refusal_log::RefusalLog,
};
use crate::{
    api::{self, Answer, ConnectionState, PendingAnswer},
    broker::Broker,
    wire::{api_key::ApiKey, frame::FrameLimits},
};

/// Produce requests of one connection that may wait for their commits. Clients send 5 at most by
/// default; the bytes are bounded by the produce budget, this bounds the bookkeeping.
const PRODUCES_IN_FLIGHT_MAX: usize = 256;

/// A client that takes nothing of its answer for this long is gone or stopped.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Slices handed to one vectored write; Linux takes at most 1024.
const SLICES_MAX: usize = 256;

/// Serves a connection until either side ends it.
pub async fn serve(
    stream: Stream,
    peer: SocketAddr,
    broker: Arc<Broker>,
    refusals: Arc<RefusalLog>,
    shutdown: CancellationToken,
) {
    broker.metrics.accepted.inc();
    broker.metrics.connections.inc();
    let (read, write) = stream.into_split();
    let produce_bytes = broker.options.request_bytes_max;
    let limits = FrameLimits { produce_bytes, ..FrameLimits::default() };
    let mut connection = Connection {
        reader: FrameReader::new(read, limits),
        write,
        produces: FuturesOrdered::new(),
        held: None,
        state: ConnectionState::new(peer, &broker),
        broker: Arc::clone(&broker),
    };
    match connection.run(shutdown).await {
        Ok(()) => {}
        Err(End::Client(reason)) => {
            broker.metrics.refused_frames.inc();
            refusals.note(peer, &reason);
        }
        Err(End::Network(error)) => tracing::debug!(%peer, %error, "connection broke"),
    }
    broker.producer.close(connection.state.id).await;
    broker.metrics.connections.dec();
}

/// Why a connection ended early.
enum End {
    /// The client sent what no client should.
    Client(String),
    /// The network broke.
    Network(io::Error),
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Network(error),
            ReadError::Torn => Self::Network(io::ErrorKind::UnexpectedEof.into()),
            ReadError::Refused(refused) => Self::Client(refused.to_string()),
            ReadError::NoRoom(_) | ReadError::Stalled { .. } | ReadError::Starved { .. } => {
                Self::Client(error.to_string())
            }
        }
    }
}

struct Connection<W> {
    reader: FrameReader<ReadHalf>,
    write: W,
    /// Produce requests under way, in request order.
    produces: FuturesOrdered<PendingAnswer>,
    /// A request that waits for those before it.
    held: Option<Frame>,
    state: ConnectionState,
    broker: Arc<Broker>,
}

impl<W: AsyncWrite + Unpin> Connection<W> {
    async fn run(&mut self, shutdown: CancellationToken) -> Result<(), End> {
        let idle = Duration::from_millis(self.broker.options.idle_ms_max);
        loop {
            if self.produces.is_empty()
                && let Some(frame) = self.held.take()
            {
                if !self.answer(frame, &shutdown).await? {
                    return Ok(());
                }
                continue;
            }
            let reading = self.held.is_none()
                && self.produces.len() < PRODUCES_IN_FLIGHT_MAX
                && !shutdown.is_cancelled();
            if !reading && self.produces.is_empty() {
                return Ok(()); // Draining, and everything is answered.
            }
            let alone = self.produces.is_empty();
            let next = self.reader.next(&self.broker.budgets, &self.broker.seams);
            tokio::select! {
                biased; // Answers first: they free memory.
                Some(answer) = self.produces.next(), if !alone => self.write(answer).await?,
                frame = next, if reading => match frame? {
                    None => return Ok(()),
                    Some(frame) => self.accept(frame).await?,
                },
                () = shutdown.cancelled(), if reading => {}
                () = self.broker.seams.sleep(idle), if alone => return Ok(()),
            }
        }
    }

    /// Starts a Produce; anything else waits for what came before it.
    async fn accept(&mut self, frame: Frame) -> Result<(), End> {
        if frame.prefix.key != ApiKey::Produce {
            self.held = Some(frame);
            return Ok(());
        }
        let pending = api::produce::start(&self.broker, &mut self.state, frame);
        self.produces.push_back(pending.await.map_err(End::Client)?);
        Ok(())
    }

    /// Handles one request alone; `false` when the client closed meanwhile, or this agent drains
    /// and the request only waits: its client asks another agent.
    async fn answer(&mut self, frame: Frame, shutdown: &CancellationToken) -> Result<bool, End> {
        let parks =
            matches!(frame.prefix.key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup);
        let answer = tokio::select! {
            biased; // An answer that is ready is written even to a client that half-closed.
            answer = api::handle(&self.broker, &mut self.state, frame) => answer,
            () = self.reader.closed() => return Ok(false),
            () = shutdown.cancelled(), if parks => return Ok(false),
        };
        self.write(answer.map_err(End::Client)?).await?;
        Ok(true)
    }

    async fn write(&mut self, answer: Answer) -> Result<(), End> {
        match answer {
            Answer::None => Ok(()),
            Answer::Close(reason) => Err(End::Client(reason)),
            Answer::Frame { chunks, permit } => {
                let written = write_all(&mut self.write, chunks, &self.broker.seams).await;
                drop(permit); // The bytes are on their way: others may have the memory.
                written
            }
        }
    }
}

/// Writes `chunks` without joining them, to a client that must keep reading: others wait for the
/// memory.
async fn write_all(
    write: &mut (impl AsyncWrite + Unpin),
    chunks: Vec<Bytes>,
    seams: &Seams,
) -> Result<(), End> {
    let mut chunks: std::collections::VecDeque<Bytes> =
        chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
    while !chunks.is_empty() {
        let slices: Vec<IoSlice<'_>> =
            chunks.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
        let attempt = seams.timeout(WRITE_STALL_MAX, write.write_vectored(&slices)).await;
        let Some(attempt) = attempt else {
            let left: usize = chunks.iter().map(Bytes::len).sum();
            return Err(End::Client(format!(
                "did not read for {WRITE_STALL_MAX:?}, {left} bytes left"
            )));
        };
        let mut written = attempt.map_err(End::Network)?;
        if written == 0 {
            return Err(End::Network(io::ErrorKind::WriteZero.into()));
        }
        while let Some(front) = chunks.front_mut()
            && 0 < written
        {
            let part = front.len().min(written);
            front.advance(part);
            written -= part;
            if front.is_empty() {
                chunks.pop_front();
            }
        }
    }
    write.flush().await.map_err(End::Network)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
