//! Opens the log: reads every segment, replays it, and tells a torn tail from damage.
//!
//! A torn tail is what a power loss may leave of the last, unsynced group commit: it is cut, and
//! zeroed before anything new is written. Everything else that does not verify was durable once,
//! and the log refuses to open.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{
    Damage, Recovered, SEGMENT_BYTES_MAX, TornTail, WalConfig, WalError,
    disk::{Disk, WalFile},
    frame::{
        FORMAT, Found, HeaderError, Record, SEGMENT_HEADER_BYTES, SegmentHeader,
        durable_by_later_frame, frame_at,
    },
    index::Place,
    state::{Segment, State},
    writer::{Current, Owner, SPARE_SUFFIX, Writer, WriterParts},
};

/// Zeros are written in steps of this size.
const ZERO_BYTES: usize = 1024 * 1024;

/// A segment before it is replayed.
struct Opened {
    name: String,
    file: Arc<dyn WalFile>,
    header: SegmentHeader,
}

/// Opens or begins the log.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    config: &WalConfig,
) -> Result<(Writer, Recovered), WalError> {
    let owner = Owner { cluster_id: config.cluster_id.clone(), node_id: config.node_id };
    let names = disk.list().map_err(|error| WalError::io("list", ".", error))?;
    remove_all(&*disk, names.iter().filter(|name| name.ends_with(SPARE_SUFFIX)))?;
    let mut opened = Vec::new();
    for name in names.into_iter().filter(|name| is_segment(name)) {
        opened.push(open_segment(&*disk, name, &owner)?);
    }
    opened.sort_by_key(|segment| segment.header.sequence);
    let leftover = opened.drain(..leftover_count(&opened)?).collect::<Vec<_>>();

    let mut state = State::new(config.sizes());
    let mut torn = None;
    let count = opened.len();
    let is_new = count == 0;
    let mut current = None;
    for (at, segment) in opened.into_iter().enumerate() {
        let is_last = at + 1 == count;
        (current, torn) = replay(&mut state, segment, is_last)?;
    }
    check_complete(&state)?;
    remove_all(&*disk, leftover.iter().map(|segment| &segment.name))?;
    let recovered = Recovered {
        is_new,
        vote: state.vote,
        purged: state.purged,
        last: state.last(),
        committed: state.committed,
        entries: state.index.first()..state.index.next(),
        torn,
    };
    let parts = WriterParts {
        disk,
        state: Arc::new(Mutex::new(state)),
        owner,
        cache_bytes_max: config.cache_bytes_max,
        current,
    };
    let writer = Writer::start(parts).map_err(|error| WalError::io("begin", ".", error))?;
    Ok((writer, recovered))
}

pub(super) fn is_segment(name: &str) -> bool {
    name.starts_with("wal-") && name.ends_with(".log")
}

fn remove_all<'a>(
    disk: &dyn Disk,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), WalError> {
    for name in names {
        disk.remove(name).map_err(|error| WalError::io("remove", name, error))?;
    }
    // Also makes the names durable that a process left unsynced when it was killed.
    disk.sync_dir().map_err(|error| WalError::io("sync", ".", error))
}

fn open_segment(disk: &dyn Disk, name: String, owner: &Owner) -> Result<Opened, WalError> {
    let damaged = |damage| WalError::corrupt(&name, 0, damage);
    let file = disk.open(&name).map_err(|error| WalError::io("open", &name, error))?;
    let size = file.size().map_err(|error| WalError::io("open", &name, error))?;
    if size < u64::from(SEGMENT_HEADER_BYTES) {
        return Err(damaged(Damage::Size));
    }
    let mut sector = [0; SEGMENT_HEADER_BYTES as usize];
    file.read_at(0, &mut sector).map_err(|error| WalError::io("read", &name, error))?;
    let header = SegmentHeader::decode(&sector).map_err(|error| match error {
        HeaderError::Damaged => damaged(Damage::Header),
        HeaderError::Newer(found) => {
            WalError::NewerFormat { file: name.as_str().into(), found, supported: FORMAT }
        }
    })?;
    if (&header.cluster_id, header.node_id) != (&owner.cluster_id, owner.node_id) {
        let name_of = |cluster: &str, node| format!("cluster {cluster} node {node}").into();
        return Err(WalError::Foreign {
            file: name.as_str().into(),
            found: name_of(&header.cluster_id, header.node_id),
            expected: name_of(&owner.cluster_id, owner.node_id),
        });
    }
    let capacity = u64::from(header.capacity);
    // Bytes behind the capacity are not ours, and are never read.
    if size < capacity || u64::from(SEGMENT_BYTES_MAX) < capacity {
        return Err(WalError::corrupt(&name, size, Damage::Size));
    }
    Ok(Opened { name, file, header })
}

/// How many of the oldest segments a removal left behind: those before a gap in the sequence. A
/// gap of another kind shows later, as entries that are missing.
fn leftover_count(opened: &[Opened]) -> Result<usize, WalError> {
    let mut leftover = 0;
    for (at, pair) in opened.windows(2).enumerate() {
        let (one, other) = (pair[0].header.sequence, pair[1].header.sequence);
        if one == other {
            return Err(WalError::corrupt(&pair[1].name, 0, Damage::Contradiction));
        }
        if one.checked_add(1) != Some(other) {
            leftover = at + 1;
        }
    }
    Ok(leftover)
}

/// Replays one segment onto `state`. The last one is made ready to be written to.
fn replay(
    state: &mut State,
    segment: Opened,
    is_last: bool,
) -> Result<(Option<Current>, Option<TornTail>), WalError> {
    let Opened { name, file, header } = segment;
    let mut bytes = vec![0; header.capacity as usize];
    file.read_at(0, &mut bytes).map_err(|error| WalError::io("read", &name, error))?;
    let bytes = Bytes::from(bytes);
    let is_first = state.segments.is_empty();
    state.segments.push_back(Segment {
        sequence: header.sequence,
        name: name.as_str().into(),
        nonce: header.nonce,
        file: Some(Arc::clone(&file)),
    });
    let head_end = replay_base(state, &bytes, &header, is_first)
        .map_err(|damage| WalError::corrupt(&name, u64::from(SEGMENT_HEADER_BYTES), damage))?;
    let (end, is_torn) = replay_frames(state, &bytes, &header, head_end)
        .map_err(|(offset, damage)| WalError::corrupt(&name, offset as u64, damage))?;
    if !is_last {
        let whole = !is_torn;
        let damaged = || WalError::corrupt(&name, end as u64, Damage::Durable);
        return whole.then_some((None, None)).ok_or_else(damaged);
    }
    let torn = if is_torn { Some(cut(&name, &*file, &bytes, end)?) } else { None };
    // What a killed process wrote without a sync counts from now on.
    file.sync().map_err(|error| WalError::io("sync", &name, error))?;
    let offset = u32::try_from(end).expect("within the segment");
    state.offset = offset;
    state.capacity = header.capacity;
    let current = Current {
        file,
        sequence: header.sequence,
        nonce: header.nonce,
        capacity: header.capacity,
        offset,
    };
    Ok((Some(current), torn))
}

/// Replays the frame at a segment's head; says where it ends.
fn replay_base(
    state: &mut State,
    bytes: &Bytes,
    header: &SegmentHeader,
    is_first: bool,
) -> Result<usize, Damage> {
    let start = SEGMENT_HEADER_BYTES as usize;
    let found = frame_at(bytes, start, header.nonce);
    let Found::Frame { record: Record::Base(base), bytes: size } = found else {
        return Err(Damage::Durable);
    };
    let within = |id: Option<super::LogId>| id.is_none_or(|id| id.index < base.next);
    if base.next != header.first_index || !within(base.purged) || !within(base.committed) {
        return Err(Damage::Contradiction);
    }
    if is_first {
        state.reset(&base);
        return Ok(start + size as usize);
    }
    let same_end = base.next == state.index.next() && base.vote == state.vote;
    let same_last = state.last().is_none() || state.last() == base.last;
    if !same_end || !same_last || base.purged != state.purged {
        return Err(Damage::Contradiction);
    }
    state.restore_committed(base.committed);
    Ok(start + size as usize)
}

/// Replays the frames from `offset` to where they end; says whether a torn write follows.
fn replay_frames(
    state: &mut State,
    bytes: &Bytes,
    header: &SegmentHeader,
    mut offset: usize,
) -> Result<(usize, bool), (usize, Damage)> {
    loop {
        let (record, size) = match frame_at(bytes, offset, header.nonce) {
            Found::Frame { record, bytes } => (record, bytes),
            found => {
                // A later frame proves damage whatever the bad one looks like.
                if durable_by_later_frame(bytes, offset, header.nonce) {
                    return Err((offset, Damage::Durable));
                }
                return match found {
                    Found::Flipped => Err((offset, Damage::Flipped)),
                    Found::Meaningless => Err((offset, Damage::Contradiction)),
                    _ => Ok((offset, bytes[offset..].iter().any(|byte| *byte != 0))),
                };
            }
        };
        let is_base = matches!(record, Record::Base(_));
        if is_base || state.check(&record).is_err() {
            return Err((offset, Damage::Contradiction));
        }
        let place = Place {
            segment: header.sequence,
            offset: u32::try_from(offset).expect("within the segment"),
        };
        state.apply(&record, place, false);
        offset += size as usize;
        if bytes.len() < offset {
            return Err((bytes.len(), Damage::Size));
        }
    }
}

/// Zeros everything from `offset` on, so that nothing of it can look like a frame later.
fn cut(name: &str, file: &dyn WalFile, bytes: &Bytes, offset: usize) -> Result<TornTail, WalError> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(offset, |last| last + 1);
    let zeros = vec![0; ZERO_BYTES];
    for at in (offset..used).step_by(ZERO_BYTES) {
        file.write_at(at as u64, &zeros[..ZERO_BYTES.min(used - at)])
            .map_err(|error| WalError::io("zero", name, error))?;
    }
    Ok(TornTail { file: name.into(), offset: offset as u64, bytes: (used - offset) as u64 })
}

/// Nothing between what was purged and what is there, nothing committed behind the end.
fn check_complete(state: &State) -> Result<(), WalError> {
    let (Some(oldest), Some(newest)) = (state.segments.front(), state.segments.back()) else {
        return Ok(());
    };
    let expected_first = state.purged.map_or(0, |purged| purged.index + 1);
    if state.index.first() != expected_first {
        return Err(WalError::corrupt(&oldest.name, 0, Damage::Missing));
    }
    if state.committed.is_some_and(|committed| state.index.next() <= committed.index) {
        let offset = u64::from(state.offset);
        return Err(WalError::corrupt(&newest.name, offset, Damage::BelowCommitted));
    }
    Ok(())
}
