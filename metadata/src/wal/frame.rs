//! The bytes of a segment: its header sector and its frames. Pure.
//!
//! A frame is a 24-byte header and a body, padded to 8 bytes with zeros:
//! `marker u32, body length u32, synced u32, body crc u32, header crc u32, 0 u16, kind u8, 0xA5`.
//! All numbers are little endian, both sums are CRC-32C seeded with the segment's nonce.
//!
//! # Non-obvious
//! - `synced` says up to which byte of the segment everything was durable when the frame was
//!   written. It tells a torn write from damage: behind a bad frame, a frame of the same group
//!   commit may have survived (disks reorder), but one that was written after the bad frame's
//!   fsync proves that the bad frame was good once.
//! - Header and body end in a byte that is not zero. Segments start as zeros, so a write that was
//!   cut short leaves a zero there or in a whole sector; a flipped bit does not.

use bytes::{BufMut, Bytes};
use crc_fast::{CrcAlgorithm, Digest};

use super::{LogId, Vote, WalEntry};

/// The newest format of segments that this version reads, and the one it writes.
pub(super) const FORMAT: u16 = 1;
/// The header has a sector of its own.
pub(super) const SEGMENT_HEADER_BYTES: u32 = 512;
/// Before the body.
pub(super) const FRAME_HEADER_BYTES: u32 = 24;
/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
const ALIGN_BYTES: u32 = 8;
const MAGIC: [u8; 8] = *b"AQFRWAL\n";
const HEADER_END: u8 = 0xA5;
const BODY_END: u8 = 0x5A;
/// The cluster id's place in the header ends before the checksum.
pub(super) const CLUSTER_ID_BYTES_MAX: usize = 255;
/// Index, term and node before the payload of an entry.
pub(super) const ENTRY_PREFIX_BYTES: u32 = 24;

/// What the first sector of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) capacity: u32,
    pub(super) sequence: u64,
    pub(super) first_index: u64,
    pub(super) nonce: u64,
    pub(super) node_id: u64,
    pub(super) cluster_id: String,
}

/// Why a segment header cannot be used.
pub(super) enum HeaderError {
    Damaged,
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.put_slice(&MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(u16::try_from(self.cluster_id.len()).expect("checked at open"));
        out.put_u32_le(self.capacity);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.first_index);
        out.put_u64_le(self.nonce);
        out.put_u64_le(self.node_id);
        out.put_slice(self.cluster_id.as_bytes());
        out.resize(SEGMENT_HEADER_BYTES as usize - 4, 0);
        let crc = checksum(0, &[&out]);
        out.put_u32_le(crc);
        out
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> Result<Self, HeaderError> {
        let (covered, crc) = bytes.split_at(SEGMENT_HEADER_BYTES as usize - 4);
        if covered[..8] != MAGIC {
            return Err(HeaderError::Damaged);
        }
        let format = u16::from_le_bytes([covered[8], covered[9]]);
        if FORMAT < format {
            return Err(HeaderError::Newer(format));
        }
        let cluster_id_bytes = usize::from(u16::from_le_bytes([covered[10], covered[11]]));
        if u32_at(crc, 0) != checksum(0, &[covered]) || CLUSTER_ID_BYTES_MAX < cluster_id_bytes {
            return Err(HeaderError::Damaged);
        }
        let cluster_id = std::str::from_utf8(&covered[48..48 + cluster_id_bytes]);
        Ok(Self {
            capacity: u32_at(covered, 12),
            sequence: u64_at(covered, 16),
            first_index: u64_at(covered, 24),
            nonce: u64_at(covered, 32),
            node_id: u64_at(covered, 40),
            cluster_id: cluster_id.map_err(|_| HeaderError::Damaged)?.to_owned(),
        })
    }
}

/// What the log holds where a segment begins, so that earlier segments can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) next: u64,
    pub(super) vote: Option<Vote>,
    pub(super) last: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
}

/// One frame's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Base(Base),
    Vote(Vote),
    Append(WalEntry),
    /// Removes the entries from this index on.
    TruncateFrom(u64),
    /// Removes the entries up to and with this one.
    Purge(LogId),
    Committed(LogId),
}

/// Size on disk of a frame with so much content, padding included.
fn padded(content_bytes: u64) -> u64 {
    let bytes = u64::from(FRAME_HEADER_BYTES) + content_bytes + 1;
    bytes.next_multiple_of(u64::from(ALIGN_BYTES))
}

/// Size on disk of an entry with a payload of this size.
pub(super) fn entry_frame_bytes(payload_bytes: usize) -> u64 {
    padded(u64::from(ENTRY_PREFIX_BYTES) + payload_bytes as u64)
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Self::Base(_) => 1,
            Self::Vote(_) => 2,
            Self::Append(_) => 3,
            Self::TruncateFrom(_) => 4,
            Self::Purge(_) => 5,
            Self::Committed(_) => 6,
        }
    }

    /// Body without its end byte.
    fn content_bytes(&self) -> u64 {
        match self {
            Self::Base(_) => 8 + 18 + 25 * 3,
            Self::Vote(_) => 17,
            Self::Append(entry) => u64::from(ENTRY_PREFIX_BYTES) + entry.payload.len() as u64,
            Self::TruncateFrom(_) => 8,
            Self::Purge(_) | Self::Committed(_) => 24,
        }
    }

    /// Size on disk, padding included.
    pub(super) fn frame_bytes(&self) -> u64 {
        padded(self.content_bytes())
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>, nonce: u64, synced: u32) {
        let start = out.len();
        let body_bytes = u32::try_from(self.content_bytes() + 1).expect("fits a segment");
        out.resize(start + FRAME_HEADER_BYTES as usize, 0);
        self.encode_content(out);
        out.put_u8(BODY_END);
        let (head, body) = out[start..].split_at_mut(FRAME_HEADER_BYTES as usize);
        let body_crc = checksum(nonce, &[body]);
        head[..4].copy_from_slice(&marker(nonce).to_le_bytes());
        head[4..8].copy_from_slice(&body_bytes.to_le_bytes());
        head[8..12].copy_from_slice(&synced.to_le_bytes());
        head[12..16].copy_from_slice(&body_crc.to_le_bytes());
        head[22] = self.kind();
        head[23] = HEADER_END;
        let header_crc = checksum(nonce, &[&head[..16], &head[20..]]);
        head[16..20].copy_from_slice(&header_crc.to_le_bytes());
        let padded = (out.len() - start).next_multiple_of(ALIGN_BYTES as usize);
        out.resize(start + padded, 0);
    }

    fn encode_content(&self, out: &mut Vec<u8>) {
        match self {
            Self::Base(base) => {
                out.put_u64_le(base.next);
                out.put_u8(u8::from(base.vote.is_some()));
                put_vote(out, base.vote.unwrap_or_default());
                for id in [base.last, base.purged, base.committed] {
                    out.put_u8(u8::from(id.is_some()));
                    put_log_id(out, id.unwrap_or_default());
                }
            }
            Self::Vote(vote) => put_vote(out, *vote),
            Self::Append(entry) => {
                put_log_id(out, entry.id);
                out.put_slice(&entry.payload);
            }
            Self::TruncateFrom(first) => out.put_u64_le(*first),
            Self::Purge(id) | Self::Committed(id) => put_log_id(out, *id),
        }
    }

    /// `None` when the content is not one of this kind.
    fn decode(kind: u8, content: &Bytes) -> Option<Self> {
        let fixed = |bytes: usize| (content.len() == bytes).then_some(());
        Some(match kind {
            1 => {
                fixed(8 + 18 + 25 * 3)?;
                let id = |at| (content[at] == 1).then(|| log_id_at(content, at + 1));
                Self::Base(Base {
                    next: u64_at(content, 0),
                    vote: (content[8] == 1).then(|| vote_at(content, 9)),
                    last: id(26),
                    purged: id(51),
                    committed: id(76),
                })
            }
            2 => fixed(17).map(|()| Self::Vote(vote_at(content, 0)))?,
            3 => {
                (ENTRY_PREFIX_BYTES as usize <= content.len()).then_some(())?;
                let payload = content.slice(ENTRY_PREFIX_BYTES as usize..);
                Self::Append(WalEntry { id: log_id_at(content, 0), payload })
            }
            4 => fixed(8).map(|()| Self::TruncateFrom(u64_at(content, 0)))?,
            5 => fixed(24).map(|()| Self::Purge(log_id_at(content, 0)))?,
            6 => fixed(24).map(|()| Self::Committed(log_id_at(content, 0)))?,
            _ => return None,
        })
    }
}

/// What is at an offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame that verifies, and its size on disk.
    Frame { record: Record, bytes: u32 },
    /// Zeros, or less room than a frame needs: never written, or never reached the disk.
    Blank,
    /// A frame that a power loss may have cut short.
    Torn,
    /// A frame with wrong bits that no torn write leaves.
    Flipped,
    /// A frame that verifies and means nothing.
    Meaningless,
}

struct FrameHeader {
    body_bytes: u32,
    synced: u32,
    body_crc: u32,
    kind: u8,
}

/// `head` has [`FRAME_HEADER_BYTES`].
fn decode_header(head: &[u8], nonce: u64) -> Option<FrameHeader> {
    let good = u32_at(head, 0) == marker(nonce)
        && head[23] == HEADER_END
        && u32_at(head, 16) == checksum(nonce, &[&head[..16], &head[20..24]]);
    good.then(|| FrameHeader {
        body_bytes: u32_at(head, 4),
        synced: u32_at(head, 8),
        body_crc: u32_at(head, 12),
        kind: head[22],
    })
}

/// Reads the frame at `offset` of `segment`, which holds the segment from its first byte.
pub(super) fn frame_at(segment: &Bytes, offset: usize, nonce: u64) -> Found {
    let body_start = offset + FRAME_HEADER_BYTES as usize;
    let Some(head) = segment.get(offset..body_start) else { return Found::Blank };
    if head.iter().all(|byte| *byte == 0) {
        return Found::Blank;
    }
    let Some(header) = decode_header(head, nonce) else {
        let straddles = offset % SECTOR_BYTES + head.len() > SECTOR_BYTES;
        let lost_first_sector = straddles && head[..8].iter().all(|byte| *byte == 0);
        let torn = head[23] == 0 || lost_first_sector;
        return if torn { Found::Torn } else { Found::Flipped };
    };
    let body_bytes = header.body_bytes as usize;
    if body_bytes == 0 || segment.len() - body_start < body_bytes {
        return Found::Meaningless;
    }
    let body = segment.slice(body_start..body_start + body_bytes);
    if header.body_crc != checksum(nonce, &[&body]) {
        let torn = body.last() == Some(&0) || has_blank_sector(&body, body_start);
        return if torn { Found::Torn } else { Found::Flipped };
    }
    let bytes = (FRAME_HEADER_BYTES + header.body_bytes).next_multiple_of(ALIGN_BYTES);
    match Record::decode(header.kind, &body.slice(..body_bytes - 1)) {
        Some(record) => Found::Frame { record, bytes },
        None => Found::Meaningless,
    }
}

/// Reads one entry's frame as it was written; `None` when it does not verify.
pub(super) fn entry_of(frame: &Bytes, nonce: u64) -> Option<WalEntry> {
    match frame_at(frame, 0, nonce) {
        Found::Frame { record: Record::Append(entry), .. } => Some(entry),
        _ => None,
    }
}

/// Whether a frame behind `offset` proves that the bytes at `offset` were durable.
pub(super) fn durable_by_later_frame(segment: &[u8], offset: usize, nonce: u64) -> bool {
    let from = offset.next_multiple_of(ALIGN_BYTES as usize);
    let marker = marker(nonce).to_le_bytes();
    (from..segment.len()).step_by(ALIGN_BYTES as usize).any(|at| {
        segment
            .get(at..at + FRAME_HEADER_BYTES as usize)
            .filter(|head| head[..4] == marker)
            .and_then(|head| decode_header(head, nonce))
            .is_some_and(|header| offset < header.synced as usize)
    })
}

/// Whether a sector that lies wholly within `body` is zeros.
fn has_blank_sector(body: &[u8], body_start: usize) -> bool {
    let skipped = body_start.next_multiple_of(SECTOR_BYTES) - body_start;
    body.get(skipped..)
        .unwrap_or_default()
        .chunks_exact(SECTOR_BYTES)
        .any(|sector| sector.iter().all(|byte| *byte == 0))
}

fn marker(nonce: u64) -> u32 {
    // Never zero, so that zeros are never a frame.
    (nonce >> 32) as u32 ^ nonce as u32 | 1
}

fn checksum(nonce: u64, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&nonce.to_le_bytes());
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).expect("CRC-32C has 32 bits")
}

fn put_vote(out: &mut Vec<u8>, vote: Vote) {
    out.put_u64_le(vote.term);
    out.put_u64_le(vote.node_id);
    out.put_u8(u8::from(vote.committed));
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    out.put_u64_le(id.index);
    out.put_u64_le(id.term);
    out.put_u64_le(id.node_id);
}

fn vote_at(bytes: &[u8], at: usize) -> Vote {
    Vote { term: u64_at(bytes, at), node_id: u64_at(bytes, at + 8), committed: bytes[at + 16] == 1 }
}

fn log_id_at(bytes: &[u8], at: usize) -> LogId {
    LogId { index: u64_at(bytes, at), term: u64_at(bytes, at + 8), node_id: u64_at(bytes, at + 16) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
