//! Reads entries back: from memory, or from their segment with their checksum.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Damage, LogId, WalEntry, WalError,
    disk::WalFile,
    frame::{ENTRY_PREFIX_BYTES, FRAME_HEADER_BYTES, entry_of},
    state::State,
};

/// An entry that is to be read, found while the state was locked and loaded afterwards.
pub(super) enum Located {
    Cached(WalEntry),
    /// Its segment stays readable while it is open here, also when it is purged meanwhile.
    OnDisk(OnDisk),
}

pub(super) struct OnDisk {
    id: LogId,
    name: Arc<str>,
    file: Arc<dyn WalFile>,
    nonce: u64,
    offset: u32,
    frame_bytes: u32,
}

impl Located {
    /// Finds an entry of the log.
    pub(super) fn find(state: &State, index: u64) -> Self {
        let id = state.index.id(index).expect("the index is within the log");
        if let Some(payload) = state.index.payload(index) {
            return Self::Cached(WalEntry { id, payload: payload.clone() });
        }
        let slot = state.index.slot(index).expect("the index is within the log");
        let at = state
            .segments
            .binary_search_by_key(&slot.place.segment, |segment| segment.sequence)
            .expect("segments with entries are kept");
        let segment = &state.segments[at];
        Self::OnDisk(OnDisk {
            id,
            name: Arc::clone(&segment.name),
            file: Arc::clone(segment.file.as_ref().expect("what is not in memory is on disk")),
            nonce: segment.nonce,
            offset: slot.place.offset,
            frame_bytes: slot.frame_bytes,
        })
    }

    /// The payload's size, or a little more.
    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Cached(entry) => entry.payload.len(),
            Self::OnDisk(found) => {
                let around = FRAME_HEADER_BYTES + ENTRY_PREFIX_BYTES;
                found.frame_bytes.saturating_sub(around) as usize
            }
        }
    }

    /// Reads it.
    pub(super) fn load(self) -> Result<WalEntry, WalError> {
        match self {
            Self::Cached(entry) => Ok(entry),
            Self::OnDisk(found) => found.load(),
        }
    }
}

impl OnDisk {
    fn load(self) -> Result<WalEntry, WalError> {
        let mut frame = vec![0; self.frame_bytes as usize];
        self.file
            .read_at(u64::from(self.offset), &mut frame)
            .map_err(|error| WalError::io("read", &self.name, error))?;
        entry_of(&Bytes::from(frame), self.nonce)
            .filter(|entry| entry.id == self.id)
            .ok_or_else(|| WalError::corrupt(&self.name, u64::from(self.offset), Damage::Durable))
    }
}
