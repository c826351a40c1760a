//! Reads request frames: eight bytes choose the memory, the rest is read once it is granted.

use aquifer_storage::budget::{BudgetPermit, BudgetTooSmall, Budgets};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::frame::{FrameLimits, FramePrefix, FrameRefused, PREFIX_BYTES, Pool};

/// What is read at once without a budget: a connection's own small allowance, so that a small
/// request takes one system call.
const READ_AHEAD_BYTES: usize = 4096;

/// A whole request, still encoded, and the memory it counts against.
#[derive(Debug)]
pub struct Frame {
    /// The first eight bytes, judged.
    pub prefix: FramePrefix,
    /// From the correlation id on.
    pub rest: Bytes,
    /// Released when the request no longer needs its bytes.
    pub permit: BudgetPermit,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The network broke.
    #[error("reading: {0}")]
    Io(#[from] std::io::Error),
    /// The client sent something no request may be.
    #[error(transparent)]
    Refused(#[from] FrameRefused),
    /// The frame is larger than all memory for its kind.
    #[error(transparent)]
    NoRoom(#[from] BudgetTooSmall),
    /// The connection ended inside a frame.
    #[error("closed inside a frame")]
    Torn,
}

/// Reads frames from one connection. All progress is kept here, so a read may be dropped and
/// started again.
#[derive(Debug)]
pub struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    current: Option<(FramePrefix, Option<BudgetPermit>)>,
    limits: FrameLimits,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `socket`.
    pub fn new(socket: R, limits: FrameLimits) -> Self {
        Self { socket, buffer: BytesMut::new(), current: None, limits }
    }

    /// The next frame; `None` when the client closed between two.
    ///
    /// # Errors
    /// The connection is of no further use.
    ///
    /// # Cancel safety
    /// Nothing read is lost; a place in a budget's queue is.
    pub async fn next(&mut self, budgets: &Budgets) -> Result<Option<Frame>, ReadError> {
        if self.current.is_none() {
            if !self.fill(PREFIX_BYTES).await? {
                return Ok(None);
            }
            let mut prefix = [0; PREFIX_BYTES];
            self.buffer.copy_to_slice(&mut prefix);
            self.current = Some((FramePrefix::parse(prefix, &self.limits, true)?, None));
        }
        let (prefix, permit) = self.current.as_mut().expect("set above");
        let prefix = *prefix;
        if permit.is_none() {
            let budget = match prefix.pool {
                Pool::Produce => &budgets.produce,
                Pool::Control | Pool::Fetch => &budgets.control,
            };
            *permit = Some(budget.acquire(prefix.rest_bytes as u64).await?);
        }
        if !self.fill(prefix.rest_bytes).await? {
            return Err(ReadError::Torn);
        }
        let rest = self.buffer.split_to(prefix.rest_bytes).freeze();
        let (_, permit) = self.current.take().expect("a frame is being read");
        Ok(Some(Frame { prefix, rest, permit: permit.expect("granted above") }))
    }

    /// Completes when the client closed or the network broke. Bytes that arrive meanwhile are kept,
    /// up to the read-ahead; past that the client is busy sending, so it has not gone away.
    ///
    /// # Cancel safety
    /// Nothing read is lost.
    pub async fn closed(&mut self) {
        while self.buffer.len() < READ_AHEAD_BYTES {
            self.buffer.reserve(READ_AHEAD_BYTES);
            let room = READ_AHEAD_BYTES - self.buffer.len();
            let mut window = (&mut self.buffer).limit(room);
            if !matches!(self.socket.read_buf(&mut window).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads until `wanted` bytes are buffered; `false` when the client closed with nothing
    /// buffered.
    async fn fill(&mut self, wanted: usize) -> Result<bool, ReadError> {
        while self.buffer.len() < wanted {
            let missing = wanted - self.buffer.len();
            // A large frame is read exactly, so that its buffer is its own; a small one takes what
            // follows it along.
            let room = if missing < READ_AHEAD_BYTES { READ_AHEAD_BYTES } else { missing };
            self.buffer.reserve(room);
            let mut window = (&mut self.buffer).limit(room);
            match self.socket.read_buf(&mut window).await? {
                0 if self.buffer.is_empty() => return Ok(false),
                0 => return Err(ReadError::Torn),
                _ => {}
            }
        }
        Ok(true)
    }
}
