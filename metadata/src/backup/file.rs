//! What a backup's objects hold: a head, a checksum over all of it, and a state or entries [pure].
//!
//! `AQBACK\0`, the version of this layout, length of the head (4 bytes, little-endian), length of
//! the body (8), CRC-32C of both lengths, head and body (4); the head, protobuf; the body: the
//! snapshot as `codec` writes it, or the entries. A snapshot's bytes may lie in several objects.

use aquifer_storage::{
    format::checksum::Crc32c,
    model::{Lineage, LogIndex},
};
use bytes::{Buf, Bytes};
use prost::Message;

use super::key::{BackupName, Covers};

/// The last byte is the version of the layout.
const MAGIC: &[u8; 8] = b"AQBACK\0\x01";
/// Magic, length of the head, length of the body, checksum.
const FIXED_BYTES: usize = 8 + 4 + 8 + 4;
/// A snapshot is cut into objects of this size: each is one request, with the store's time-out.
const PART_BYTES: usize = 16 << 20;
/// A few numbers and a cluster's id; more is damage.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The bytes of a backup cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileRefused {
    /// A newer version wrote them.
    #[error("it has format {found}, this version reads up to {}: use the newer aquifer", MAGIC[7])]
    Newer {
        /// As written.
        found: u8,
    },
    /// They are not what was written.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

fn damaged(reason: impl ToString) -> FileRefused {
    FileRefused::Damaged { reason: reason.to_string() }
}

/// Whose state it is, and as of which entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster.
    pub cluster_id: String,
    /// The life of it.
    pub lineage: Lineage,
    /// The last entry that is in it.
    pub index: LogIndex,
    /// That entry's term.
    pub term: u64,
}

/// A committed entry with commands. Raft's own entries are left out: they do not touch the state.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Logged {
    /// Its index.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Its term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// The entry as `codec` writes it.
    #[prost(bytes = "bytes", tag = "3")]
    pub entry: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(uint32, tag = "2")]
    lineage_number: u32,
    #[prost(fixed64, tag = "3")]
    lineage_nonce: u64,
    #[prost(uint64, tag = "4")]
    index: u64,
    #[prost(uint64, tag = "5")]
    term: u64,
    /// Of a chunk; absent in a snapshot.
    #[prost(uint64, optional, tag = "6")]
    first: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Entries {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Logged>,
}

/// Entries `first` to `place.index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first index covered.
    pub first: LogIndex,
    /// Whose they are, and where they end.
    pub place: Place,
    /// Ascending.
    pub entries: Vec<Logged>,
}

/// The bytes of a snapshot: a head, and `state` as it is.
pub fn encode_snapshot(place: &Place, state: Bytes) -> Vec<Bytes> {
    let head = head_of(place, None);
    vec![framed(&head, &state), state]
}

/// The objects of a snapshot that `run` writes, the first part first.
pub fn snapshot_objects(place: &Place, state: Bytes, run: u64) -> Vec<(BackupName, Vec<Bytes>)> {
    let objects = cut(encode_snapshot(place, state), PART_BYTES);
    let parts = u32::try_from(objects.len()).expect("a snapshot has few parts");
    let name = |part| {
        let covers = Covers::Snapshot { index: place.index, part, parts };
        BackupName { lineage: place.lineage, covers, run }
    };
    (0..).zip(objects).map(|(part, object)| (name(part), object)).collect()
}

/// Cuts a list of buffers into objects of `bytes_max` at most, without copying.
fn cut(buffers: Vec<Bytes>, bytes_max: usize) -> Vec<Vec<Bytes>> {
    let mut objects = vec![Vec::new()];
    let mut room = bytes_max;
    for mut buffer in buffers {
        while !buffer.is_empty() {
            if room == 0 {
                objects.push(Vec::new());
                room = bytes_max;
            }
            let piece = buffer.split_to(buffer.len().min(room));
            room -= piece.len();
            objects.last_mut().expect("there is one").push(piece);
        }
    }
    objects
}

/// The place of a snapshot and its state, still encoded.
pub fn decode_snapshot(bytes: &Bytes) -> Result<(Place, Bytes), FileRefused> {
    let (head, body) = unframed(bytes)?;
    match head.first {
        None => Ok((place_of(head), body)),
        Some(_) => Err(damaged("it is a chunk of the log, not a snapshot")),
    }
}

/// The bytes of a chunk.
pub fn encode_chunk(chunk: &Chunk) -> Vec<Bytes> {
    let head = head_of(&chunk.place, Some(chunk.first));
    let body = Bytes::from(Entries { entries: chunk.entries.clone() }.encode_to_vec());
    vec![framed(&head, &body), body]
}

/// A chunk. Its entries ascend and lie within what it says it covers.
pub fn decode_chunk(bytes: &Bytes) -> Result<Chunk, FileRefused> {
    let (head, body) = unframed(bytes)?;
    let first = head.first.ok_or_else(|| damaged("it is a snapshot, not a chunk of the log"))?;
    let last = head.index;
    let Entries { entries } = Entries::decode(body).map_err(damaged)?;
    let inside = entries.iter().all(|entry| (first..=last).contains(&entry.index));
    if !inside || !entries.is_sorted_by(|one, next| one.index < next.index) {
        return Err(damaged("its entries are not the ones it covers"));
    }
    Ok(Chunk { first: LogIndex::new(first), place: place_of(head), entries })
}

fn head_of(place: &Place, first: Option<LogIndex>) -> Vec<u8> {
    Head {
        cluster_id: place.cluster_id.clone(),
        lineage_number: place.lineage.number,
        lineage_nonce: place.lineage.nonce,
        index: place.index.value(),
        term: place.term,
        first: first.map(LogIndex::value),
    }
    .encode_to_vec()
}

fn place_of(head: Head) -> Place {
    Place {
        cluster_id: head.cluster_id,
        lineage: Lineage { number: head.lineage_number, nonce: head.lineage_nonce },
        index: LogIndex::new(head.index),
        term: head.term,
    }
}

/// Everything before the body.
fn framed(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + head.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let checksum = checksum(&bytes[8..], head, body);
    bytes.extend_from_slice(&checksum.value().to_le_bytes());
    bytes.extend_from_slice(head);
    bytes.into()
}

fn checksum(lengths: &[u8], head: &[u8], body: &[u8]) -> Crc32c {
    let head = Crc32c::of(lengths).followed_by(Crc32c::of(head), head.len() as u64);
    head.followed_by(Crc32c::of(body), body.len() as u64)
}

fn unframed(bytes: &Bytes) -> Result<(Head, Bytes), FileRefused> {
    let mut fixed = bytes.get(..FIXED_BYTES).ok_or_else(|| damaged("it is cut short"))?;
    if fixed[..7] != MAGIC[..7] || fixed[7] == 0 {
        return Err(damaged("it is no backup"));
    }
    if MAGIC[7] < fixed[7] {
        return Err(FileRefused::Newer { found: fixed[7] });
    }
    let lengths = &fixed[8..20];
    fixed.advance(8);
    let (head_bytes, body_bytes) = (fixed.get_u32_le() as usize, fixed.get_u64_le());
    let stated = Crc32c::new(fixed.get_u32_le());
    let whole = (FIXED_BYTES + head_bytes) as u64;
    if HEAD_BYTES_MAX < head_bytes || whole.checked_add(body_bytes) != Some(bytes.len() as u64) {
        return Err(damaged("its length is not the one it states"));
    }
    let (head, body) = (bytes.slice(FIXED_BYTES..FIXED_BYTES + head_bytes), bytes);
    let body = body.slice(FIXED_BYTES + head_bytes..);
    if checksum(lengths, &head, &body) != stated {
        return Err(damaged("its checksum does not match"));
    }
    Ok((Head::decode(head).map_err(damaged)?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u64) -> Place {
        let lineage = Lineage { number: 2, nonce: u64::MAX };
        Place { cluster_id: "c".into(), lineage, index: LogIndex::new(index), term: 4 }
    }

    fn chunk() -> Chunk {
        let entry = |index| Logged { index, term: 4, entry: Bytes::from(vec![7; 9]) };
        Chunk { first: LogIndex::new(5), place: place(9), entries: vec![entry(5), entry(8)] }
    }

    fn whole(parts: Vec<Bytes>) -> Bytes {
        parts.concat().into()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let state = Bytes::from_static(b"the state");
        let bytes = whole(encode_snapshot(&place(9), state.clone()));
        assert_eq!(decode_snapshot(&bytes), Ok((place(9), state)));
        assert!(decode_chunk(&bytes).is_err());
        let bytes = whole(encode_chunk(&chunk()));
        assert_eq!(decode_chunk(&bytes), Ok(chunk()));
        assert!(decode_snapshot(&bytes).is_err());
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let good = whole(encode_chunk(&chunk())).to_vec();
        for place in 0..good.len() {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            assert!(decode_chunk(&bytes.into()).is_err(), "flip at {place}");
            assert!(
                decode_chunk(&Bytes::copy_from_slice(&good[..place])).is_err(),
                "cut at {place}"
            );
        }
    }

    #[test]
    fn a_snapshot_is_cut_into_parts_that_give_it_back() {
        let buffers = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defghij")];
        for bytes_max in 1..12 {
            let objects = cut(buffers.clone(), bytes_max);
            assert!(objects.iter().all(|object| object.concat().len() <= bytes_max));
            let whole: Vec<u8> = objects.iter().flat_map(|object| object.concat()).collect();
            assert_eq!(whole, b"abcdefghij");
            assert_eq!(objects.len(), 10_usize.div_ceil(bytes_max));
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = whole(encode_chunk(&chunk())).to_vec();
        bytes[7] = MAGIC[7] + 1;
        let refused = decode_chunk(&bytes.into()).unwrap_err();
        assert_eq!(refused, FileRefused::Newer { found: MAGIC[7] + 1 });
        assert!(refused.to_string().contains("newer aquifer"));
    }

    #[test]
    fn entries_outside_of_what_is_covered_are_refused() {
        for wrong in [4, 10, 8] {
            let mut chunk = chunk();
            chunk.entries[0].index = wrong;
            assert!(decode_chunk(&whole(encode_chunk(&chunk))).is_err(), "{wrong}");
        }
    }
}
