//! Record batches written and read by hand, rightly or wrongly.
//!
//! In a script: `{records: [{key, value, timestamp, headers: [[name, value]]}], ..}` with any field
//! of the header by its name, `crc`, `count` and `trailing` to break it; a list of them; or
//! `{hex: ".."}`. In an answer: each batch's header, and its records where they are not compressed.

use anyhow::{Context, ensure};
use aquifer_storage::format::checksum::Crc32c;
use serde_json::{Map, Value, json};

use super::codec::{bytes, number, shown, unhex};

/// Header fields behind the CRC, in their order, with their widths in bytes.
const FIELDS: [(&str, usize); 8] = [
    ("attributes", 2),
    ("lastOffsetDelta", 4),
    ("baseTimestamp", 8),
    ("maxTimestamp", 8),
    ("producerId", 8),
    ("producerEpoch", 2),
    ("baseSequence", 4),
    ("count", 4),
];

/// What a script's value of a records field stands for.
///
/// # Errors
/// It is not as the module says.
pub fn encode(value: &Value) -> anyhow::Result<Vec<u8>> {
    match value {
        Value::Array(batches) => {
            let batches: Result<Vec<_>, _> = batches.iter().map(encode).collect();
            Ok(batches?.concat())
        }
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        value => match value.get("hex").and_then(Value::as_str) {
            Some(hex) => unhex(hex),
            None => batch(value),
        },
    }
}

fn batch(value: &Value) -> anyhow::Result<Vec<u8>> {
    let given = value.as_object().context("a batch")?;
    let records = given.get("records").and_then(Value::as_array).context("records")?;
    let stamp = |record: &Value| record.get("timestamp").map_or(Ok(1_700_000_000_000), number);
    let stamps: Vec<i64> = records.iter().map(stamp).collect::<Result<_, _>>()?;
    let base = stamps.first().copied().unwrap_or(-1);
    let last = i64::try_from(records.len())? - 1;
    let field = |name: &str, default: i64| given.get(name).map_or(Ok(default), number);
    let base = field("baseTimestamp", base)?;
    let mut body = Vec::new();
    for (name, width) in FIELDS {
        let default = match name {
            "attributes" => 0,
            "lastOffsetDelta" => last,
            "baseTimestamp" => base,
            "maxTimestamp" => stamps.iter().copied().max().unwrap_or(-1),
            "count" => last + 1,
            _ => -1,
        };
        body.extend(&field(name, default)?.to_be_bytes()[8 - width..]);
    }
    for (place, (given, stamp)) in records.iter().zip(stamps).enumerate() {
        let record = record(given, stamp - base, place).with_context(|| format!("{given}"))?;
        varint(&mut body, record.len() as i64);
        body.extend(record);
    }
    body.extend(given.get("garbage").map_or(Ok(Vec::new()), bytes)?);
    let crc = field("crc", Crc32c::of(&body).value().into())?;
    let mut out = field("baseOffset", 0)?.to_be_bytes().to_vec();
    let length = field("batchLength", body.len() as i64 + 9)?;
    out.extend(&length.to_be_bytes()[4..]);
    out.extend(&field("partitionLeaderEpoch", -1)?.to_be_bytes()[4..]);
    out.extend(&field("magic", 2)?.to_be_bytes()[7..]);
    out.extend(&crc.to_be_bytes()[4..]);
    out.extend(body);
    out.extend(given.get("trailing").map_or(Ok(Vec::new()), bytes)?);
    Ok(out)
}

fn record(given: &Value, timestamp_delta: i64, place: usize) -> anyhow::Result<Vec<u8>> {
    let mut out = vec![0];
    varint(&mut out, timestamp_delta);
    varint(&mut out, given.get("offsetDelta").map_or(Ok(place as i64), number)?);
    for name in ["key", "value"] {
        nullable(&mut out, given.get(name).unwrap_or(&Value::Null))?;
    }
    let none = Vec::new();
    let headers = given.get("headers").and_then(Value::as_array).unwrap_or(&none);
    varint(&mut out, headers.len() as i64);
    for header in headers {
        nullable(&mut out, header.get(0).context("a header's name")?)?;
        nullable(&mut out, header.get(1).unwrap_or(&Value::Null))?;
    }
    Ok(out)
}

fn nullable(out: &mut Vec<u8>, value: &Value) -> anyhow::Result<()> {
    if value.is_null() {
        varint(out, -1);
        return Ok(());
    }
    let bytes = bytes(value)?;
    varint(out, bytes.len() as i64);
    out.extend(bytes);
    Ok(())
}

/// Zigzag, seven bits a byte.
fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while 0x80 <= rest {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The batches of an answer; what does not parse is shown as bytes.
pub fn decode(bytes: &[u8]) -> Value {
    let mut batches = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        match one(&mut rest) {
            Ok(batch) => batches.push(batch),
            Err(_) => {
                batches.push(json!({ "cut off": true }));
                break;
            }
        }
    }
    Value::Array(batches)
}

fn one(rest: &mut &[u8]) -> anyhow::Result<Value> {
    let base_offset = integer(rest, 8)?;
    let length = usize::try_from(integer(rest, 4)?)?;
    let (mut body, behind) = rest.split_at_checked(length).context("cut off")?;
    *rest = behind;
    let (epoch, magic) = (integer(&mut body, 4)?, integer(&mut body, 1)?);
    let crc = integer(&mut body, 4)? as u32;
    let mut batch = Map::new();
    batch.insert("baseOffset".to_owned(), base_offset.into());
    batch.insert("partitionLeaderEpoch".to_owned(), epoch.into());
    batch.insert("magic".to_owned(), magic.into());
    batch.insert("crc fits".to_owned(), (Crc32c::of(body).value() == crc).into());
    for (name, width) in FIELDS {
        batch.insert(name.to_owned(), integer(&mut body, width)?.into());
    }
    if batch["attributes"].as_i64().is_some_and(|attributes| attributes & 0x27 == 0) {
        let base = batch["baseTimestamp"].as_i64().unwrap_or(0);
        let mut records = Vec::new();
        while !body.is_empty() {
            records.push(read_record(&mut body, base)?);
        }
        batch.insert("records".to_owned(), records.into());
    }
    Ok(Value::Object(batch))
}

fn read_record(rest: &mut &[u8], base: i64) -> anyhow::Result<Value> {
    let _length = read_varint(rest)?;
    let _attributes = integer(rest, 1)?;
    let timestamp = base.saturating_add(read_varint(rest)?);
    let offset_delta = read_varint(rest)?;
    let (key, value) = (read_nullable(rest)?, read_nullable(rest)?);
    let mut headers = Vec::new();
    for _ in 0..read_varint(rest)? {
        headers.push(json!([read_nullable(rest)?, read_nullable(rest)?]));
    }
    Ok(json!({
        "timestamp": timestamp, "offsetDelta": offset_delta, "key": key, "value": value,
        "headers": headers
    }))
}

fn read_nullable(rest: &mut &[u8]) -> anyhow::Result<Value> {
    let Ok(length) = usize::try_from(read_varint(rest)?) else { return Ok(Value::Null) };
    let (taken, behind) = rest.split_at_checked(length).context("cut off")?;
    *rest = behind;
    Ok(shown(taken))
}

fn read_varint(rest: &mut &[u8]) -> anyhow::Result<i64> {
    let mut raw = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = integer(rest, 1)? as u8;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    anyhow::bail!("a varint without end")
}

/// A signed big-endian integer of `width` bytes.
fn integer(rest: &mut &[u8], width: usize) -> anyhow::Result<i64> {
    ensure!(width <= rest.len(), "cut off");
    let (taken, behind) = rest.split_at(width);
    *rest = behind;
    let sign = if taken[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 8];
    wide[8 - width..].copy_from_slice(taken);
    Ok(i64::from_be_bytes(wide))
}
