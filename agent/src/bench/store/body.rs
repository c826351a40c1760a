//! Bodies on their way: counted, and slowed down to a connection's bandwidth.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{counters::Counters, objects::Slices, request::Kind};

/// Bytes per second that one connection carries, either way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth(Option<f64>);

impl Bandwidth {
    /// `mib` MiB per second; bytes cost no time at 0.
    pub fn of_mib_per_second(mib: f64) -> Self {
        Self((0.0 < mib).then_some(mib * f64::from(1 << 20)))
    }

    /// The same, `factor` times slower.
    pub fn slowed(self, factor: f64) -> Self {
        Self(self.0.map(|bytes_per_second| bytes_per_second / factor))
    }

    /// The least time that `bytes` take.
    pub fn time_of(self, bytes: u64) -> Duration {
        let seconds = self.0.map_or(0.0, |bytes_per_second| bytes as f64 / bytes_per_second);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Returns at `due`, at once when that has passed. Tokio's timer ticks at a millisecond and never
/// fires early, so even a wait for nothing would take one.
pub async fn wait_until(due: Option<Instant>) {
    if let Some(due) = due.filter(|due| Instant::now() < *due) {
        tokio::time::sleep_until(due).await;
    }
}

/// The connection is to be closed without a word.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed without an answer")]
pub struct Closed;

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    counters: Option<Arc<Counters>>,
    /// Shared with whoever wants to know while the body is read elsewhere.
    received: Arc<AtomicU64>,
}

impl RequestBody {
    /// A body of which nothing was read; what is read counts in `counters`.
    pub fn new(incoming: Incoming, counters: Option<Arc<Counters>>) -> Self {
        Self { incoming, counters, received: Arc::new(AtomicU64::new(0)) }
    }

    /// The number of bytes that were read so far, to be looked at later.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The client left.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Closed> {
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                None => return Ok(None),
                Some(Err(_)) => return Err(Closed),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// Reads and forgets the rest, so that the connection can be used again.
    ///
    /// # Errors
    /// The client left.
    pub async fn drain(&mut self) -> Result<(), Closed> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Reads and forgets half of a body whose length is known, and the first piece of another.
    ///
    /// # Errors
    /// The client left.
    pub async fn drain_half(&mut self) -> Result<(), Closed> {
        let half = self.size_hint().exact().map_or(1, |bytes| bytes.div_ceil(2));
        while self.received.load(Ordering::Relaxed) < half && self.next().await?.is_some() {}
        Ok(())
    }

    /// All of a body that has at most `bytes_max`; `None` when it has more, which is drained.
    ///
    /// # Errors
    /// The client left.
    pub async fn collect(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, Closed> {
        let mut collected = Vec::new();
        while let Some(piece) = self.next().await? {
            if bytes_max - collected.len() < piece.len() {
                self.drain().await?;
                return Ok(None);
            }
            collected.extend_from_slice(&piece);
        }
        Ok(Some(collected))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            if let Some(counters) = &self.counters {
                counters.count_in(bytes);
            }
            self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Why the body of an answer broke off.
pub type AnswerBroken = Box<dyn Error + Send + Sync>;

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    delivery: Option<Delivery>,
    /// A piece that may not leave yet.
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
    begun_at: Option<Instant>,
    sent: u64,
}

#[derive(Debug)]
enum Source {
    Text(Option<Bytes>),
    Object(Slices),
    Upstream(Incoming),
}

/// What is to be known about an answer that leaves.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// What it answers.
    pub kind: Kind,
    /// When the request's head had come.
    pub arrived: Instant,
    /// How fast it may leave.
    pub bandwidth: Bandwidth,
}

impl AnswerBody {
    /// Nothing.
    pub fn empty() -> Self {
        Self::of(Source::Text(None))
    }

    /// A short text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::of(Source::Text((!text.is_empty()).then_some(text)))
    }

    /// Bytes of an object.
    pub fn object(slices: Slices) -> Self {
        Self::of(Source::Object(slices))
    }

    /// What another store answers.
    pub fn upstream(incoming: Incoming) -> Self {
        Self::of(Source::Upstream(incoming))
    }

    fn of(source: Source) -> Self {
        Self { source, delivery: None, held: None, begun_at: None, sent: 0 }
    }

    /// Counts what leaves from now on, and keeps to the bandwidth.
    pub fn deliver(&mut self, delivery: Delivery) {
        self.delivery = Some(delivery);
        self.conclude_at_end();
    }

    /// Reads and forgets the rest.
    pub async fn discard(mut self) {
        let mut next = async || std::future::poll_fn(|cx| self.source.poll_next(cx)).await;
        while let Some(Ok(_)) = next().await {}
    }

    /// HTTP asks no body for more once its length was reached.
    fn conclude_at_end(&mut self) {
        if self.source.is_end()
            && let Some(delivery) = self.delivery.take()
            && delivery.kind == Kind::Get
        {
            delivery.counters.record(Kind::Get, delivery.arrived.elapsed());
        }
    }

    /// When a piece of `bytes` may leave.
    fn due(&mut self, bytes: usize) -> Option<Instant> {
        let bandwidth = self.delivery.as_ref()?.bandwidth;
        bandwidth.0?;
        let begun_at = *self.begun_at.get_or_insert_with(Instant::now);
        let due = begun_at.checked_add(bandwidth.time_of(self.sent + bytes as u64))?;
        (Instant::now() < due).then_some(due)
    }

    fn leave(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.sent += bytes as u64;
        if let Some(delivery) = &self.delivery {
            delivery.counters.count_out(bytes);
        }
        self.conclude_at_end();
        frame
    }
}

impl Source {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        Poll::Ready(match self {
            Self::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Self::Object(slices) => slices.next().map(|slice| Ok(Frame::data(slice))),
            Self::Upstream(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                frame.map(|frame| frame.map_err(Into::into))
            }
        })
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Object(slices) => slices.remaining() == 0,
            Self::Upstream(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Object(slices) => SizeHint::with_exact(slices.remaining()),
            Self::Upstream(incoming) => incoming.size_hint(),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        if let Some((_, sleep)) = &mut self.held {
            ready!(sleep.as_mut().poll(cx));
            let (frame, _) = self.held.take().expect("it was there");
            return Poll::Ready(Some(Ok(self.leave(frame))));
        }
        let frame = match ready!(self.source.poll_next(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
            None => {
                self.conclude_at_end();
                return Poll::Ready(None);
            }
        };
        let Some(due) = self.due(frame.data_ref().map_or(0, Bytes::len)) else {
            return Poll::Ready(Some(Ok(self.leave(frame))));
        };
        let mut sleep = Box::pin(tokio::time::sleep_until(due));
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Ok(self.leave(frame))));
        }
        self.held = Some((frame, sleep));
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, Bytes::len);
        match self.source.size_hint().exact() {
            Some(bytes) => SizeHint::with_exact(bytes + held as u64),
            None => SizeHint::default(),
        }
    }
}
