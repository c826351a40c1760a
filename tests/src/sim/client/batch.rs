//! Record batches whose records carry a value and prove that they are intact.

use anyhow::{Context, ensure};
use aquifer_storage::{
    format::{
        checksum::Crc32c,
        record_batch::{Attributes, BATCH_HEADER_BYTES, BatchHeader},
    },
    model::{LeaderEpoch, Timestamp},
};
use bytes::Bytes;

use crate::history::{Key, Record, Value};

/// What a producer puts on its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Producer id; -1 without.
    pub producer_id: i64,
    /// Its epoch; -1 without.
    pub epoch: i16,
    /// Sequence of the first record; -1 without.
    pub sequence: i32,
    /// The records' timestamp.
    pub timestamp_ms: i64,
}

/// The bytes of a record: the value, the key, and filling that both determine.
fn payload(key: Key, value: Value) -> Vec<u8> {
    let mut bytes = value.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(&key.0.to_be_bytes());
    let filling = value.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(key.0);
    let length = usize::try_from(filling >> 57).expect("7 bits");
    bytes.extend((0..length).map(|place| (filling >> (place % 8 * 7)) as u8));
    bytes
}

/// A batch of one record per value.
pub fn build(key: Key, values: &[Value], stamp: &Stamp) -> Bytes {
    let mut records = Vec::new();
    for (delta, value) in (0..).zip(values) {
        let payload = payload(key, *value);
        let mut record = vec![0, 0]; // Attributes, timestamp delta.
        put_varint(&mut record, delta);
        put_varint(&mut record, -1); // No key.
        put_varint(&mut record, i64::try_from(payload.len()).expect("short"));
        record.extend_from_slice(&payload);
        record.push(0); // No headers.
        put_varint(&mut records, i64::try_from(record.len()).expect("short"));
        records.extend_from_slice(&record);
    }
    let count = i32::try_from(values.len()).expect("a batch is small");
    let timestamp = Timestamp::from_millis(stamp.timestamp_ms);
    let header = BatchHeader {
        base_offset: 0,
        batch_length: i32::try_from(BATCH_HEADER_BYTES - 12 + records.len()).expect("small"),
        leader_epoch: LeaderEpoch::new(-1),
        magic: 2,
        crc: Crc32c::EMPTY,
        attributes: Attributes::from_bits(0),
        last_offset_delta: count - 1,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: stamp.producer_id,
        producer_epoch: stamp.epoch,
        base_sequence: stamp.sequence,
        count,
    };
    let mut bytes = [&header.encode()[..], &records].concat();
    let crc = Crc32c::of(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.value().to_be_bytes());
    bytes.into()
}

/// The records of whole batches; a batch that was cut off at the end is left out, as clients do.
///
/// # Errors
/// They are not batches. A wrong checksum is an error only where records cannot be told apart;
/// else it makes them not intact.
pub fn records(key: Key, mut bytes: &[u8]) -> anyhow::Result<Vec<Record>> {
    let mut found = Vec::new();
    while BATCH_HEADER_BYTES <= bytes.len() {
        let header = BatchHeader::parse(bytes).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let whole = header.batch_bytes().context("a batch has a length")?;
        let Some(batch) = bytes.get(..whole) else { break };
        let checked = Crc32c::of(&batch[21..]) == header.crc;
        let mut rest = &batch[BATCH_HEADER_BYTES..];
        for _ in 0..header.count {
            let length = usize::try_from(take_varint(&mut rest)?).context("a record's length")?;
            let mut record = rest.split_off(..length).context("a whole record")?;
            record.split_off(..1).context("attributes")?;
            take_varint(&mut record)?; // Timestamp delta.
            let delta = take_varint(&mut record)?;
            ensure!(take_varint(&mut record)? == -1, "our records have no key");
            let length = usize::try_from(take_varint(&mut record)?).context("a payload")?;
            let body = record.split_off(..length).context("a whole payload")?;
            let number = body.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
            let value = Value(number);
            let intact = checked && body == payload(key, value);
            found.push(Record { offset: header.base_offset + delta, value, intact });
        }
        bytes = &bytes[whole..];
    }
    Ok(found)
}

fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while 0x80 <= value {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> anyhow::Result<i64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = *bytes.split_off_first().context("a varint is cut off")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
        ensure!(shift < 64, "a varint is too long");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_a_changed_byte_shows() {
        let values = [Value(1), Value(77), Value(u64::MAX)];
        let stamp = Stamp { producer_id: 5, epoch: 0, sequence: 9, timestamp_ms: 1000 };
        let bytes = build(Key(3), &values, &stamp);
        let read = records(Key(3), &bytes).unwrap();
        assert!(read.iter().all(|record| record.intact));
        assert!(read.iter().map(|record| record.value).eq(values));
        assert!(records(Key(4), &bytes).unwrap().iter().all(|record| !record.intact));
        let mut changed = bytes.to_vec();
        let last = changed.len() - 3;
        changed[last] ^= 1;
        assert!(records(Key(3), &changed).unwrap().iter().any(|record| !record.intact));
    }
}
