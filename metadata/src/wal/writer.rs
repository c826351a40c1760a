//! Writes what was accepted: one group commit at a time, one fsync each, then the callbacks.
//!
//! # Invariants
//! - Bytes are written in the order they were accepted; a segment is durable before the next one
//!   gets its name.
//! - After a failed write or fsync nothing is written again: a later fsync could claim success for
//!   pages that were dropped.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use aquifer_storage::planted::{self, Bug};
use tokio::sync::{mpsc, oneshot};

use super::{
    Callback, WalError,
    disk::{Disk, WalFile},
    error::is_full,
    frame::{Record, SegmentHeader},
    index::Place,
    state::{Class, NewSegment, State, Step},
};

/// Jobs of one group commit at most: bounds the time until the first callback.
pub(super) const JOBS_PER_SYNC_MAX: usize = 1024;
/// Bytes gathered before a write, so that a large group does not double in memory.
const BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A spare is prepared in such steps between commits, to keep each of them short.
const PREPARE_BYTES: usize = 1024 * 1024;
/// Names of segments that are being prepared.
pub(super) const SPARE_SUFFIX: &str = ".spare";

/// A request to the writer.
pub(super) enum Message {
    Job(Job),
    /// Prepare spares until so many are free.
    Grow {
        spares: u32,
        reply: oneshot::Sender<Result<(), WalError>>,
    },
}

/// What one request accepted, and whom to tell.
pub(super) struct Job {
    pub(super) steps: Vec<Step>,
    /// `false` when it need not survive a power loss.
    pub(super) durable: bool,
    pub(super) done: Callback,
}

/// A callback that is due.
pub(super) type Due = (Callback, Result<(), WalError>);

/// Who wrote the segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) cluster_id: String,
    pub(super) node_id: u64,
}

struct Spare {
    name: String,
    file: Arc<dyn WalFile>,
    filled: u64,
}

/// The segment that is written to.
pub(super) struct Current {
    pub(super) file: Arc<dyn WalFile>,
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    pub(super) capacity: u32,
    /// Where the next write goes.
    pub(super) offset: u32,
}

/// The writing half of the log. Owned by one thread.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: Arc<Mutex<State>>,
    owner: Owner,
    cache_bytes_max: usize,
    current: Current,
    /// Up to here the current segment is durable.
    synced: u32,
    buffer: Vec<u8>,
    ready: VecDeque<Spare>,
    preparing: Option<Spare>,
    spares_named: u64,
    /// Preparing ahead failed: only on demand, until something is freed.
    prepare_failed: bool,
    unneeded: Vec<Arc<str>>,
}

/// What a writer is made of.
pub(super) struct WriterParts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) owner: Owner,
    pub(super) cache_bytes_max: usize,
    pub(super) current: Option<Current>,
}

/// Locks the state of the log.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder of the log's state panics")
}

impl Writer {
    /// Continues behind `current`, all of which is durable; without one begins the first segment.
    pub(super) fn start(parts: WriterParts) -> io::Result<Self> {
        let current = parts.current.unwrap_or_else(|| Current {
            file: Arc::new(NoFile),
            sequence: 0,
            nonce: 0,
            capacity: 0,
            offset: 0,
        });
        let is_first = current.sequence == 0;
        let mut writer = Self {
            disk: parts.disk,
            state: parts.state,
            owner: parts.owner,
            cache_bytes_max: parts.cache_bytes_max,
            synced: current.offset,
            current,
            buffer: Vec::new(),
            ready: VecDeque::new(),
            preparing: None,
            spares_named: 0,
            prepare_failed: false,
            unneeded: Vec::new(),
        };
        if is_first {
            writer.prepare(u64::MAX)?;
            let first = lock(&writer.state).roll();
            writer.activate(&first)?;
        }
        writer.publish(writer.synced);
        Ok(writer)
    }

    /// Serves until all handles are gone.
    pub(super) fn serve(mut self, mut inbox: mpsc::Receiver<Message>) {
        while let Some(first) = inbox.blocking_recv() {
            let mut messages = vec![first];
            while messages.len() < JOBS_PER_SYNC_MAX {
                let Ok(message) = inbox.try_recv() else { break };
                messages.push(message);
            }
            for (done, result) in self.commit(messages) {
                done(result);
            }
            self.prepare_ahead();
        }
        self.finish();
    }

    /// Writes the hint that waits, and makes the hints durable, before a clean end.
    pub(super) fn finish(&mut self) {
        let steps = {
            let mut state = lock(&self.state);
            if state.stopped.is_some() {
                return;
            }
            let hint = Vec::from_iter(state.hint());
            state.accept(hint, Class::Hint).unwrap_or_default()
        };
        // Nobody waits for hints: a failure here loses nothing that was promised.
        let written = self.run(steps).and_then(|()| self.flush());
        let _ = written.and_then(|()| self.current.file.sync());
    }

    /// Writes all jobs as one group; the callbacks of all are due afterwards, in order.
    pub(super) fn commit(&mut self, messages: Vec<Message>) -> Vec<Due> {
        let mut callbacks = Vec::with_capacity(messages.len());
        let mut durable = false;
        let mut result = lock(&self.state).running();
        for message in messages {
            let job = match message {
                Message::Job(job) => job,
                Message::Grow { spares, reply } => {
                    // A requester that no longer waits needs no answer.
                    let _ = reply.send(self.grow(spares));
                    continue;
                }
            };
            durable |= job.durable;
            callbacks.push(job.done);
            if result.is_ok() {
                result = self.run(job.steps).map_err(|error| self.stop(&error));
            }
        }
        if result.is_ok() && !callbacks.is_empty() {
            result = self.end_group(durable).map_err(|error| self.stop(&error));
        }
        callbacks.into_iter().map(|done| (done, result.clone())).collect()
    }

    fn run(&mut self, steps: Vec<Step>) -> io::Result<()> {
        for step in steps {
            match step {
                Step::Write { offset, record } => self.write(offset, &record)?,
                Step::Roll(segment) => {
                    self.flush()?;
                    self.sync()?;
                    self.remove_unneeded()?;
                    self.activate(&segment)?;
                }
                Step::Remove(names) => self.unneeded.extend(names),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, record: &Record) -> io::Result<()> {
        let at = self.current.offset as usize + self.buffer.len();
        assert_eq!(at, offset as usize, "frames are written where they were accepted to be");
        record.encode(&mut self.buffer, self.current.nonce, self.synced);
        if BUFFER_BYTES_MAX <= self.buffer.len() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.current.file.write_at(u64::from(self.current.offset), &self.buffer)?;
            self.current.offset += u32::try_from(self.buffer.len()).expect("within the segment");
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_BYTES_MAX);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.synced != self.current.offset {
            if !planted::is(Bug::LogNotSynced) {
                self.current.file.sync()?;
            }
            self.synced = self.current.offset;
        }
        Ok(())
    }

    fn end_group(&mut self, durable: bool) -> io::Result<()> {
        self.flush()?;
        if durable || !self.unneeded.is_empty() {
            self.sync()?;
        }
        self.publish(self.synced);
        self.remove_unneeded()
    }

    /// Tells readers what is durable, and lets go of payloads that are.
    fn publish(&self, synced: u32) {
        let mut state = lock(&self.state);
        state.durable = Place { segment: self.current.sequence, offset: synced };
        let durable = state.durable;
        state.index.shrink(self.cache_bytes_max, durable);
    }

    fn remove_unneeded(&mut self) -> io::Result<()> {
        if self.unneeded.is_empty() {
            return Ok(());
        }
        for name in std::mem::take(&mut self.unneeded) {
            self.disk.remove(&name)?;
        }
        self.disk.sync_dir()?;
        self.prepare_failed = false;
        if lock(&self.state).disk_full {
            self.prepare_or_full()?;
        }
        Ok(())
    }

    /// Begins the next segment: it gets its name once its head is durable.
    fn activate(&mut self, segment: &NewSegment) -> io::Result<()> {
        let spare = self.ready.pop_front().expect("a segment is accepted only with a spare");
        let capacity = u32::try_from(spare.filled).expect("segments are below 4 GiB");
        let header = SegmentHeader {
            capacity,
            sequence: segment.sequence,
            first_index: segment.base.next,
            nonce: segment.nonce,
            node_id: self.owner.node_id,
            cluster_id: self.owner.cluster_id.clone(),
        };
        let mut head = header.encode();
        Record::Base(segment.base).encode(&mut head, segment.nonce, 0);
        spare.file.write_at(0, &head)?;
        spare.file.sync()?;
        self.disk.rename(&spare.name, &segment.name)?;
        self.disk.sync_dir()?;
        self.synced = u32::try_from(head.len()).expect("a head is small");
        self.current = Current {
            file: Arc::clone(&spare.file),
            sequence: segment.sequence,
            nonce: segment.nonce,
            capacity,
            offset: self.synced,
        };
        let mut state = lock(&self.state);
        // It may be purged already, by a later request that is not written yet.
        let known = state.segments.iter_mut().find(|known| known.sequence == segment.sequence);
        if let Some(known) = known {
            known.file = Some(spare.file);
        }
        Ok(())
    }

    fn grow(&mut self, spares: u32) -> Result<(), WalError> {
        loop {
            {
                let state = lock(&self.state);
                state.running()?;
                if spares <= state.spares {
                    return Ok(());
                }
            }
            match self.prepare_or_full() {
                Ok(true) => {}
                Ok(false) => return Err(WalError::DiskFull),
                Err(error) => return Err(self.stop(&error)),
            }
        }
    }

    /// Prepares one spare; `false` when the disk is full.
    fn prepare_or_full(&mut self) -> io::Result<bool> {
        match self.prepare(u64::MAX) {
            Ok(_) => Ok(true),
            Err(error) if is_full(&error) => self.give_up_preparing().map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Frees what was taken of a full disk, for others and for the node's own other files.
    fn give_up_preparing(&mut self) -> io::Result<()> {
        self.prepare_failed = true;
        lock(&self.state).disk_full = true;
        match self.preparing.take() {
            Some(spare) => match self.disk.remove(&spare.name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Writes up to `bytes_max` zeros of the next spare; says whether one became ready.
    fn prepare(&mut self, bytes_max: u64) -> io::Result<bool> {
        let target = u64::from(lock(&self.state).sizes.segment_bytes);
        let mut spare = match self.preparing.take() {
            Some(spare) => spare,
            None => {
                self.spares_named += 1;
                let name = format!("{}{SPARE_SUFFIX}", self.spares_named);
                Spare { file: self.disk.create(&name)?, name, filled: 0 }
            }
        };
        let stop_at = target.min(spare.filled.saturating_add(bytes_max));
        let zeros = vec![0; PREPARE_BYTES];
        while spare.filled < stop_at {
            let step = (target - spare.filled).min(PREPARE_BYTES as u64);
            let zeros = &zeros[..usize::try_from(step).expect("at most a step")];
            let written = spare.file.write_at(spare.filled, zeros).and_then(|()| spare.file.sync());
            if let Err(error) = written {
                self.preparing = Some(spare);
                return Err(error);
            }
            spare.filled += step;
        }
        if spare.filled < target {
            self.preparing = Some(spare);
            return Ok(false);
        }
        self.ready.push_back(spare);
        let mut state = lock(&self.state);
        state.spares += 1;
        state.disk_full = false;
        self.prepare_failed = false;
        Ok(true)
    }

    /// Prepares a part of the next segment once the current one is half full.
    pub(super) fn prepare_ahead(&mut self) {
        let wanted = {
            let state = lock(&self.state);
            let half = self.current.capacity / 2 < self.current.offset;
            half && state.spares == 0 && state.stopped.is_none() && !self.prepare_failed
        };
        if !wanted {
            return;
        }
        match self.prepare(PREPARE_BYTES as u64) {
            Ok(_) => {}
            Err(error) if is_full(&error) => {
                if let Err(error) = self.give_up_preparing() {
                    self.stop(&error);
                }
            }
            Err(error) => {
                self.stop(&error);
            }
        }
    }

    fn stop(&self, error: &io::Error) -> WalError {
        let reason = format!("segment {}: {error}", self.current.sequence);
        tracing::error!(reason, "the log stopped; restart the node once its disk works");
        lock(&self.state).stop(reason)
    }
}

/// Stands in before the first segment exists.
struct NoFile;

impl WalFile for NoFile {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
