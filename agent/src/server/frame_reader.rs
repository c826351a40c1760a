//! Reads request frames: eight bytes choose the memory, the rest is read once it is granted.
//!
//! # Invariants
//! - Memory is asked for by clients that send, not by lengths that they announce: a frame must fill
//!   its connection's own allowance first, and a large one is granted as much as it has already
//!   brought.
//! - Granted memory that a client does not fill is taken back by closing the connection.
//! - A small control request never waits for memory, so heartbeats and commits come through
//!   whatever else is being sent.

use std::time::Duration;

use aquifer_storage::{
    budget::{BudgetPermit, BudgetTooSmall, Budgets, ByteBudget},
    seam::Seams,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::frame::{
    FrameLimits, FramePrefix, FrameRefused, LENGTH_BYTES, PREFIX_BYTES, Pool,
};

/// What is read at once without a budget: a connection's own small allowance, so that a small
/// request takes one system call.
const READ_AHEAD_BYTES: usize = 4096;

/// What the allowance holds of a frame behind its prefix.
const OWN_BYTES: usize = READ_AHEAD_BYTES - PREFIX_BYTES;

/// A frame up to this size is granted its memory at once: clients with default settings send no
/// larger ones, and a frame that holds all it needs never waits while it holds.
const GRANT_BYTES_MIN: usize = 1024 * 1024;

/// How long a larger frame may wait for more memory while it holds some.
const GROW_MAX: Duration = Duration::from_secs(10);

/// In this time a client must bring [`PACE_BYTES`] of a frame that holds memory.
const PACE_EVERY: Duration = Duration::from_secs(5);

/// See [`PACE_EVERY`]: 3 kB/s.
const PACE_BYTES: usize = 16 * 1024;

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
    /// The client keeps memory that it does not fill.
    #[error("stalled after {read_bytes} of a frame's {frame_bytes} bytes")]
    Stalled {
        /// What came.
        read_bytes: usize,
        /// What was announced.
        frame_bytes: usize,
    },
    /// Others filled the memory that the frame would need.
    #[error("no memory came free for the rest of a frame of {frame_bytes} bytes")]
    Starved {
        /// What was announced.
        frame_bytes: usize,
    },
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
    /// Nothing read is lost; a place in a budget's queue is, and the pace is measured anew.
    pub async fn next(
        &mut self,
        budgets: &Budgets,
        seams: &Seams,
    ) -> Result<Option<Frame>, ReadError> {
        let prefix = match &self.current {
            Some((prefix, _)) => *prefix,
            None => match self.prefix().await? {
                None => return Ok(None),
                Some(prefix) => prefix,
            },
        };
        let budget = match prefix.pool {
            Pool::Produce => &budgets.produce,
            Pool::Fetch => &budgets.fetch_requests,
            Pool::Control => &budgets.control,
        };
        let rest_bytes = prefix.rest_bytes;
        if budget.capacity_bytes() < rest_bytes as u64 {
            let (name, capacity_bytes) = (budget.name(), budget.capacity_bytes());
            return Err(BudgetTooSmall { name, bytes: rest_bytes as u64, capacity_bytes }.into());
        }
        let own = rest_bytes.min(OWN_BYTES);
        self.fill(own, own).await?;
        loop {
            let granted = self.grant(&prefix, budget, seams).await?;
            self.fill_granted(granted, seams).await?;
            if granted == rest_bytes {
                break;
            }
        }
        let rest = self.buffer.split_to(rest_bytes).freeze();
        let (_, permit) = self.current.take().expect("a frame is being read");
        Ok(Some(Frame { prefix, rest, permit: permit.expect("granted above") }))
    }

    /// Reads and judges the first bytes of a frame; `None` when the client closed before them.
    async fn prefix(&mut self) -> Result<Option<FramePrefix>, ReadError> {
        match self.fill(LENGTH_BYTES, PREFIX_BYTES).await {
            Err(ReadError::Torn) if self.buffer.is_empty() => return Ok(None),
            other => other?,
        }
        FramePrefix::frame_bytes(*self.buffer.first_chunk().expect("filled above"))?;
        self.fill(PREFIX_BYTES, PREFIX_BYTES).await?;
        let mut bytes = [0; PREFIX_BYTES];
        self.buffer.copy_to_slice(&mut bytes);
        let prefix = FramePrefix::parse(bytes, &self.limits, true)?;
        self.current = Some((prefix, None));
        Ok(Some(prefix))
    }

    /// Gets the current frame more memory, and says up to where it may now be read.
    async fn grant(
        &mut self,
        prefix: &FramePrefix,
        budget: &ByteBudget,
        seams: &Seams,
    ) -> Result<usize, ReadError> {
        let rest_bytes = prefix.rest_bytes;
        let (_, permit) = self.current.as_mut().expect("a frame is being read");
        let Some(permit) = permit else {
            // A connection has one control request at a time, and this one is in its allowance.
            let is_own = prefix.pool != Pool::Produce && rest_bytes <= OWN_BYTES;
            let bytes = rest_bytes.min(GRANT_BYTES_MIN);
            *permit = Some(budget.acquire(if is_own { 0 } else { bytes as u64 }).await?);
            return Ok(bytes);
        };
        let granted = usize::try_from(permit.bytes()).expect("is below a frame's length");
        let granted = granted.max(rest_bytes.min(OWN_BYTES));
        if self.buffer.len() < granted || granted == rest_bytes {
            return Ok(granted); // The read was dropped before it had used all of it.
        }
        let more = granted.min(rest_bytes - granted);
        match seams.timeout(GROW_MAX, budget.acquire(more as u64)).await {
            None => Err(ReadError::Starved { frame_bytes: rest_bytes }),
            Some(grown) => {
                permit.merge(grown?);
                Ok(granted + more)
            }
        }
    }

    /// Reads until `wanted` bytes are buffered, from a client that must keep sending: others wait
    /// for the memory.
    async fn fill_granted(&mut self, wanted: usize, seams: &Seams) -> Result<(), ReadError> {
        while self.buffer.len() < wanted {
            let paced = wanted.min(self.buffer.len() + PACE_BYTES);
            match seams.timeout(PACE_EVERY, self.fill(paced, wanted)).await {
                Some(filled) => filled?,
                None => {
                    let (prefix, _) = self.current.as_ref().expect("a frame is being read");
                    let (read_bytes, frame_bytes) = (self.buffer.len(), prefix.rest_bytes);
                    return Err(ReadError::Stalled { read_bytes, frame_bytes });
                }
            }
        }
        Ok(())
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

    /// Reads until `wanted` bytes are buffered, making room for `allowed`.
    async fn fill(&mut self, wanted: usize, allowed: usize) -> Result<(), ReadError> {
        while self.buffer.len() < wanted {
            let missing = allowed - self.buffer.len();
            // A large frame is read exactly, so that its buffer is its own; a small one takes what
            // follows it along. The end of a large one fits: asked for more, the buffer would
            // double and move.
            let read_max = missing.max(READ_AHEAD_BYTES);
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(read_max);
            }
            let room = read_max.min(self.buffer.capacity() - self.buffer.len());
            let mut window = (&mut self.buffer).limit(room);
            if self.socket.read_buf(&mut window).await? == 0 {
                return Err(ReadError::Torn);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
