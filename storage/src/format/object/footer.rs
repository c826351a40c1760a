//! The footer: where each extent is, and what merged objects add.

use std::ops::Range;

use super::{FOOTER_BYTES_MAX, ObjectDamaged, Trailer};
use crate::{
    format::checksum::Crc32c,
    model::{Offset, PartitionIndex, ProducerId, Timestamp, TopicId, TopicPartition},
};

const EXTENT_ENTRY_BYTES: usize = 60;
const SECTION_HEADER_BYTES: usize = 8;
const INDEX_POINT_BYTES: usize = 28;
const ABORTED_BYTES: usize = 28;

const SECTION_INDEX: u16 = 1;
const SECTION_ABORTED: u16 = 2;
/// A reader that does not know a section of this kind must refuse the object.
const SECTION_MUST_KNOW: u16 = 0x8000;
const SECTION_VERSION: u16 = 1;

/// Bytes `[start, end)` of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// The first byte covered.
    pub start: u64,
    /// The first byte not covered.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes covered.
    pub const fn byte_count(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// As a standard range, for a store.
    pub const fn as_range(self) -> Range<u64> {
        self.start..self.end
    }

    /// As a range of memory; `None` where memory cannot be that large.
    pub fn as_usize_range(self) -> Option<Range<usize>> {
        Some(usize::try_from(self.start).ok()?..usize::try_from(self.end).ok()?)
    }
}

/// One topic partition's contiguous bytes inside an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentEntry {
    /// Whose records.
    pub partition: TopicPartition,
    /// Where in the object.
    pub range: ByteRange,
    /// Number of batches.
    pub batch_count: u32,
    /// Number of records.
    pub record_count: u64,
    /// The largest timestamp of its batches.
    pub max_timestamp: Timestamp,
    /// CRC-32C of its bytes.
    pub checksum: Crc32c,
}

/// A point of the sparse index of a merged extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPoint {
    /// Index of the extent among the footer's extents.
    pub extent: u32,
    /// Base offset of the batch that starts at `position`.
    pub offset: Offset,
    /// The largest timestamp in the extent *before* this batch.
    pub max_timestamp_before: Timestamp,
    /// Where in the object the batch starts.
    pub position: u64,
}

/// An aborted transaction that lies wholly inside a merged extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Index of the extent among the footer's extents.
    pub extent: u32,
    /// The producer whose transaction it was.
    pub producer: ProducerId,
    /// Its first offset in the partition.
    pub first: Offset,
    /// The offset of its marker (inclusive).
    pub last: Offset,
}

/// A decoded footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// In ascending order of topic partition, contiguous from byte 0.
    pub extents: Vec<ExtentEntry>,
    /// In order of (extent, position). Empty in objects that a flush wrote.
    pub index: Vec<IndexPoint>,
    /// In order of (extent, last offset). Empty in objects that a flush wrote.
    pub aborted: Vec<AbortedTransaction>,
}

impl Footer {
    /// The extent of `partition`.
    pub fn extent(&self, partition: TopicPartition) -> Option<&ExtentEntry> {
        let at = self.extents.binary_search_by_key(&partition, |extent| extent.partition);
        at.ok().map(|at| &self.extents[at])
    }

    /// Encodes footer and trailer.
    ///
    /// # Panics
    /// When the footer would be above [`FOOTER_BYTES_MAX`]: the builder closes objects before.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.extents.len() * EXTENT_ENTRY_BYTES);
        put_count(&mut bytes, self.extents.len());
        for extent in &self.extents {
            encode_extent(&mut bytes, extent);
        }
        let sections = usize::from(!self.index.is_empty()) + usize::from(!self.aborted.is_empty());
        put_count(&mut bytes, sections);
        if !self.index.is_empty() {
            put_section(&mut bytes, SECTION_INDEX, self.index.len() * INDEX_POINT_BYTES);
            for point in &self.index {
                bytes.extend_from_slice(&point.extent.to_be_bytes());
                bytes.extend_from_slice(&point.offset.value().to_be_bytes());
                bytes.extend_from_slice(&point.max_timestamp_before.millis().to_be_bytes());
                bytes.extend_from_slice(&point.position.to_be_bytes());
            }
        }
        if !self.aborted.is_empty() {
            put_section(&mut bytes, SECTION_ABORTED, self.aborted.len() * ABORTED_BYTES);
            for aborted in &self.aborted {
                bytes.extend_from_slice(&aborted.extent.to_be_bytes());
                bytes.extend_from_slice(&aborted.producer.value().to_be_bytes());
                bytes.extend_from_slice(&aborted.first.value().to_be_bytes());
                bytes.extend_from_slice(&aborted.last.value().to_be_bytes());
            }
        }
        assert!(bytes.len() as u64 <= FOOTER_BYTES_MAX, "the builder closes objects in time");
        let footer_bytes = u32::try_from(bytes.len()).expect("the limit is below 4 GiB");
        let trailer = Trailer { footer_bytes, footer_checksum: Crc32c::of(&bytes) };
        bytes.extend_from_slice(&trailer.encode());
        bytes
    }

    /// Decodes and checks a footer read from an object of `object_bytes`.
    pub fn decode(
        bytes: &[u8],
        trailer: &Trailer,
        object_bytes: u64,
    ) -> Result<Self, ObjectDamaged> {
        let body_bytes = trailer.footer_range(object_bytes)?.start;
        if Crc32c::of(bytes) != trailer.footer_checksum {
            return Err(ObjectDamaged::FooterChecksum);
        }
        let mut reader = Reader { rest: bytes };
        let extents = decode_extents(&mut reader, body_bytes)?;
        let mut footer = Self { extents, ..Self::default() };
        for _ in 0..reader.u32()? {
            let kind = reader.u16()?;
            let version = reader.u16()?;
            let section_bytes = reader.u32()? as usize;
            let section = Reader { rest: reader.take(section_bytes)? };
            match (kind, version) {
                (SECTION_INDEX, SECTION_VERSION) => footer.index = footer.decode_index(section)?,
                (SECTION_ABORTED, SECTION_VERSION) => {
                    footer.aborted = footer.decode_aborted(section)?;
                }
                _ if kind & SECTION_MUST_KNOW != 0 => {
                    return Err(ObjectDamaged::UnknownSection { kind });
                }
                _ => {} // An addition that this version can do without.
            }
        }
        if !reader.rest.is_empty() {
            return Err(ObjectDamaged::Footer { what: "bytes behind the last section" });
        }
        Ok(footer)
    }

    fn decode_index(&self, mut section: Reader<'_>) -> Result<Vec<IndexPoint>, ObjectDamaged> {
        let mut points: Vec<IndexPoint> =
            Vec::with_capacity(section.rest.len() / INDEX_POINT_BYTES);
        while !section.rest.is_empty() {
            let point = IndexPoint {
                extent: section.u32()?,
                offset: section.offset()?,
                max_timestamp_before: Timestamp::from_millis(section.i64()?),
                position: section.u64()?,
            };
            let extent = self.extents.get(point.extent as usize);
            let inside = extent
                .is_some_and(|e| e.range.start <= point.position && point.position < e.range.end);
            let ascending = points.last().is_none_or(|before| {
                (before.extent, before.position) < (point.extent, point.position)
                    && (before.extent < point.extent || before.offset < point.offset)
            });
            if !inside || !ascending {
                return Err(ObjectDamaged::Footer { what: "sparse index out of order" });
            }
            points.push(point);
        }
        Ok(points)
    }

    fn decode_aborted(
        &self,
        mut section: Reader<'_>,
    ) -> Result<Vec<AbortedTransaction>, ObjectDamaged> {
        let mut all: Vec<AbortedTransaction> =
            Vec::with_capacity(section.rest.len() / ABORTED_BYTES);
        while !section.rest.is_empty() {
            let aborted = AbortedTransaction {
                extent: section.u32()?,
                producer: ProducerId::new(section.i64()?),
                first: section.offset()?,
                last: section.offset()?,
            };
            let ascending = all
                .last()
                .is_none_or(|before| (before.extent, before.last) < (aborted.extent, aborted.last));
            let sound = self.extents.len() > aborted.extent as usize
                && 0 <= aborted.producer.value()
                && aborted.first <= aborted.last;
            if !ascending || !sound {
                return Err(ObjectDamaged::Footer { what: "aborted transactions out of order" });
            }
            all.push(aborted);
        }
        Ok(all)
    }
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("the footer limit keeps counts below 2^32");
    bytes.extend_from_slice(&count.to_be_bytes());
}

fn put_section(bytes: &mut Vec<u8>, kind: u16, section_bytes: usize) {
    bytes.reserve(SECTION_HEADER_BYTES + section_bytes);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&SECTION_VERSION.to_be_bytes());
    put_count(bytes, section_bytes);
}

fn encode_extent(bytes: &mut Vec<u8>, extent: &ExtentEntry) {
    bytes.extend_from_slice(extent.partition.topic.as_bytes());
    bytes.extend_from_slice(&extent.partition.partition.value().to_be_bytes());
    bytes.extend_from_slice(&extent.range.start.to_be_bytes());
    bytes.extend_from_slice(&extent.range.byte_count().to_be_bytes());
    bytes.extend_from_slice(&extent.batch_count.to_be_bytes());
    bytes.extend_from_slice(&extent.record_count.to_be_bytes());
    bytes.extend_from_slice(&extent.max_timestamp.millis().to_be_bytes());
    bytes.extend_from_slice(&extent.checksum.value().to_be_bytes());
}

fn decode_extents(
    reader: &mut Reader<'_>,
    body_bytes: u64,
) -> Result<Vec<ExtentEntry>, ObjectDamaged> {
    let count = reader.u32()? as usize;
    if reader.rest.len() / EXTENT_ENTRY_BYTES < count {
        return Err(ObjectDamaged::Footer { what: "more extents than bytes" });
    }
    let mut extents: Vec<ExtentEntry> = Vec::with_capacity(count);
    let mut next_start = 0;
    for _ in 0..count {
        let topic = TopicId::from_bytes(reader.array()?);
        let partition = i32::from_be_bytes(reader.array()?);
        let start = reader.u64()?;
        let byte_count = reader.u64()?;
        let partition = TopicPartition { topic, partition: PartitionIndex::new(partition) };
        let ascending = extents.last().is_none_or(|before| before.partition < partition);
        let end = start.checked_add(byte_count).filter(|&end| end <= body_bytes);
        let (true, Some(end)) = (ascending && 0 <= partition.partition.value(), end) else {
            return Err(ObjectDamaged::Footer { what: "extents out of order" });
        };
        if start != next_start || byte_count == 0 {
            return Err(ObjectDamaged::Footer { what: "extents not contiguous" });
        }
        next_start = end;
        extents.push(ExtentEntry {
            partition,
            range: ByteRange { start, end },
            batch_count: reader.u32()?,
            record_count: reader.u64()?,
            max_timestamp: Timestamp::from_millis(reader.i64()?),
            checksum: Crc32c::new(reader.u32()?),
        });
    }
    if next_start != body_bytes {
        return Err(ObjectDamaged::Footer { what: "bytes that belong to no extent" });
    }
    Ok(extents)
}

/// Takes fields off the front of a slice.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, byte_count: usize) -> Result<&'a [u8], ObjectDamaged> {
        let cut = ObjectDamaged::Footer { what: "ends inside a field" };
        let (taken, rest) = self.rest.split_at_checked(byte_count).ok_or(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ObjectDamaged> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    fn u16(&mut self) -> Result<u16, ObjectDamaged> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, ObjectDamaged> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ObjectDamaged> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, ObjectDamaged> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn offset(&mut self) -> Result<Offset, ObjectDamaged> {
        Offset::new(self.i64()?).ok_or(ObjectDamaged::Footer { what: "negative offset" })
    }
}
