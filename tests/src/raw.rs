//! A blocking Kafka client that writes frames by hand, so that it can write wrong ones.
//!
//! Versions are chosen so that answers have no compact fields, except where a newer version is the
//! point of a test.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

/// How long an answer may take on a busy machine.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Numbers of the APIs that tests speak.
pub mod key {
    #![allow(missing_docs, reason = "Kafka's names")]
    pub const PRODUCE: i16 = 0;
    pub const FETCH: i16 = 1;
    pub const LIST_OFFSETS: i16 = 2;
    pub const METADATA: i16 = 3;
    pub const OFFSET_COMMIT: i16 = 8;
    pub const OFFSET_FETCH: i16 = 9;
    pub const FIND_COORDINATOR: i16 = 10;
    pub const JOIN_GROUP: i16 = 11;
    pub const HEARTBEAT: i16 = 12;
    pub const LEAVE_GROUP: i16 = 13;
    pub const SYNC_GROUP: i16 = 14;
    pub const API_VERSIONS: i16 = 18;
    pub const CREATE_TOPICS: i16 = 19;
    pub const DELETE_TOPICS: i16 = 20;
    pub const DELETE_RECORDS: i16 = 21;
    pub const INIT_PRODUCER_ID: i16 = 22;
    pub const DESCRIBE_CONFIGS: i16 = 32;
    pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
}

/// Bytes being written, in Kafka's encodings.
#[derive(Clone, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// INT8 or BOOLEAN.
    pub fn i8(self, value: i8) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// INT16.
    pub fn i16(self, value: i16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// INT32, and the count of an array.
    pub fn i32(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// INT64.
    pub fn i64(self, value: i64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// UNSIGNED_VARINT.
    pub fn uvarint(mut self, mut value: u32) -> Self {
        while 0x80 <= value {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// STRING.
    pub fn string(self, text: &str) -> Self {
        let length = i16::try_from(text.len()).expect("a test's string is short");
        self.i16(length).raw(text.as_bytes())
    }

    /// COMPACT_STRING.
    pub fn compact_string(self, text: &str) -> Self {
        self.uvarint(text.len() as u32 + 1).raw(text.as_bytes())
    }

    /// NULLABLE_BYTES or RECORDS.
    pub fn bytes(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            None => self.i32(-1),
            Some(bytes) => self.i32(bytes.len() as i32).raw(bytes),
        }
    }
}

/// An answer being read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Stands in front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the answer is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    /// INT16.
    pub fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// INT32.
    pub fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// INT64.
    pub fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// The count of an array; null counts as empty.
    pub fn count(&mut self) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.i32()?).unwrap_or(0))
    }

    /// STRING or NULLABLE_STRING; null reads as "".
    pub fn string(&mut self) -> anyhow::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// BYTES or RECORDS; null reads as empty.
    pub fn bytes(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }
}

/// A request, to be framed rightly or wrongly.
#[derive(Clone, Debug)]
pub struct Request {
    /// API key.
    pub key: i16,
    /// Version.
    pub version: i16,
    /// Whether the header ends in tagged fields.
    pub flexible: bool,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Request {
    /// Of a version without tagged fields.
    pub fn new(key: i16, version: i16, body: Bytes) -> Self {
        Self { key, version, flexible: false, body: body.0 }
    }

    /// Of a version with tagged fields.
    pub fn flexible(key: i16, version: i16, body: Bytes) -> Self {
        Self { key, version, flexible: true, body: body.0 }
    }

    /// Header and body, without the length in front.
    pub fn payload(&self, correlation: i32) -> Vec<u8> {
        let header = Bytes::new().i16(self.key).i16(self.version).i32(correlation).string("raw");
        let header = if self.flexible { header.uvarint(0) } else { header };
        header.raw(&self.body).0
    }

    /// The whole frame.
    pub fn frame(&self, correlation: i32) -> Vec<u8> {
        frame(&self.payload(correlation))
    }
}

/// `payload` behind its length.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    Bytes::new().i32(payload.len() as i32).raw(payload).0
}

/// What the broker did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It sent this frame, without its length.
    Frame(Vec<u8>),
    /// It closed the connection.
    Closed,
    /// Nothing, for as long as the read time-out.
    Silence,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects; answers may take [`ANSWER_MAX`].
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, correlation: 0 })
    }

    /// How long [`Connection::hear`] waits.
    pub fn patience(&self, limit: Duration) -> anyhow::Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    /// Sends bytes; a connection that the broker closed meanwhile is no error: it will be heard.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if is_closed(error.kind()) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        // The broker may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next frame, or what came instead.
    pub fn hear(&mut self) -> anyhow::Result<Heard> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Heard::Silence);
            }
            Err(error) if is_closed(error.kind()) => return Ok(Heard::Closed),
            other => other?,
        }
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.stream.read_exact(&mut answer).context("the rest of an answer")?;
        Ok(Heard::Frame(answer))
    }

    /// Sends a request and returns its correlation id.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<i32> {
        self.correlation += 1;
        let frame = request.frame(self.correlation);
        self.send(&frame)?;
        Ok(self.correlation)
    }

    /// Sends a request and returns the body of its answer.
    pub fn call(&mut self, request: &Request) -> anyhow::Result<Vec<u8>> {
        let correlation = self.ask(request)?;
        match self.hear()? {
            Heard::Frame(mut answer) => {
                ensure!(4 <= answer.len(), "an answer of {} bytes", answer.len());
                let body = answer.split_off(4);
                ensure!(answer == correlation.to_be_bytes(), "the answer of another request");
                Ok(body)
            }
            other => bail!("api {} v{}: {other:?}", request.key, request.version),
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// One partition of a Produce request: topic, index, records.
pub type Part<'a> = (&'a str, i32, Option<&'a [u8]>);

/// Produce v8, each part as a topic of its own.
pub fn produce(acks: i16, timeout_ms: i32, parts: &[Part<'_>]) -> Request {
    let mut body = Bytes::new().i16(-1).i16(acks).i32(timeout_ms).i32(parts.len() as i32);
    for (topic, index, records) in parts {
        body = body.string(topic).i32(1).i32(*index).bytes(*records);
    }
    Request::new(key::PRODUCE, 8, body)
}

/// What Produce answered for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub index: i32,
    /// Error code.
    pub code: i16,
    /// Base offset, -1 with an error.
    pub base_offset: i64,
}

/// Reads an answer to [`produce`].
pub fn produced(answer: &[u8]) -> anyhow::Result<Vec<Produced>> {
    let mut fields = Fields::new(answer);
    let mut rows = Vec::new();
    for _ in 0..fields.count()? {
        let topic = fields.string()?;
        for _ in 0..fields.count()? {
            let (index, code, base_offset) = (fields.i32()?, fields.i16()?, fields.i64()?);
            let _times = (fields.i64()?, fields.i64()?);
            for _ in 0..fields.count()? {
                let _record_error = (fields.i32()?, fields.string()?);
            }
            let _message = fields.string()?;
            rows.push(Produced { topic: topic.clone(), index, code, base_offset });
        }
    }
    Ok(rows)
}

/// Fetch v11 of one partition, without a session.
pub fn fetch(topic: &str, index: i32, offset: i64, wait_ms: i32) -> Request {
    let body = Bytes::new().i32(-1).i32(wait_ms).i32(1).i32(1 << 20).i8(0).i32(0).i32(-1);
    let body = body.i32(1).string(topic).i32(1);
    let body = body.i32(index).i32(-1).i64(offset).i64(-1).i32(1 << 20);
    Request::new(key::FETCH, 11, body.i32(0).string(""))
}

/// What Fetch answered for its one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Error code.
    pub code: i16,
    /// High watermark.
    pub high_watermark: i64,
    /// Base offset and value of each batch, of which only the first record is read.
    pub batches: Vec<(i64, Vec<u8>)>,
}

/// Reads an answer to [`fetch`].
pub fn fetched(answer: &[u8]) -> anyhow::Result<Fetched> {
    let mut fields = Fields::new(answer);
    let (_throttle, code, _session) = (fields.i32()?, fields.i16()?, fields.i32()?);
    if code != 0 || fields.count()? == 0 {
        return Ok(Fetched { code, high_watermark: -1, batches: Vec::new() });
    }
    let _names = (fields.string()?, fields.count()?, fields.i32()?);
    let (code, high_watermark) = (fields.i16()?, fields.i64()?);
    let _offsets = (fields.i64()?, fields.i64()?);
    for _ in 0..fields.count()? {
        let _aborted = (fields.i64()?, fields.i64()?);
    }
    let _replica = fields.i32()?;
    let mut records = Fields::new(fields.bytes()?);
    let mut batches = Vec::new();
    while let Ok(base) = records.i64() {
        let batch = records.bytes()?;
        // A batch's first record stands behind 49 more bytes of its header. Its value follows six
        // one-byte fields: length, attributes, deltas, key and value lengths.
        let mut record = Fields::new(batch.get(49..).context("a batch without records")?);
        let value_bytes = usize::from(record.take(6)?[5] >> 1);
        batches.push((base, record.take(value_bytes)?.to_vec()));
    }
    Ok(Fetched { code, high_watermark, batches })
}

/// Metadata v8 of the named topics, creating them where `create`.
pub fn metadata(topics: &[&str], create: bool) -> Request {
    let mut body = Bytes::new().i32(topics.len() as i32);
    for topic in topics {
        body = body.string(topic);
    }
    Request::new(key::METADATA, 8, body.i8(create.into()).i8(0).i8(0))
}

/// Name and error code of each topic in an answer to [`metadata`].
pub fn metadata_topics(answer: &[u8]) -> anyhow::Result<Vec<(String, i16)>> {
    let mut fields = Fields::new(answer);
    let _throttle = fields.i32()?;
    for _ in 0..fields.count()? {
        let _broker = (fields.i32()?, fields.string()?, fields.i32()?, fields.string()?);
    }
    let _cluster = (fields.string()?, fields.i32()?);
    let mut topics = Vec::new();
    for _ in 0..fields.count()? {
        let (code, name, _internal) = (fields.i16()?, fields.string()?, fields.take(1)?);
        topics.push((name, code));
        for _ in 0..fields.count()? {
            let _partition = (fields.i16()?, fields.i32()?, fields.i32()?, fields.i32()?);
            for _replicas_isr_offline in 0..3 {
                let count = fields.count()?;
                fields.take(count * 4)?;
            }
        }
        let _operations = fields.i32()?;
    }
    Ok(topics)
}

/// CreateTopics v4 of topics with `partitions` each.
pub fn create_topics(topics: &[(&str, i32)]) -> Request {
    let mut body = Bytes::new().i32(topics.len() as i32);
    for (topic, partitions) in topics {
        body = body.string(topic).i32(*partitions).i16(1).i32(0).i32(0);
    }
    Request::new(key::CREATE_TOPICS, 4, body.i32(10_000).i8(0))
}

/// Name and error code of each topic in an answer to [`create_topics`].
pub fn created_topics(answer: &[u8]) -> anyhow::Result<Vec<(String, i16)>> {
    let mut fields = Fields::new(answer);
    let _throttle = fields.i32()?;
    let mut topics = Vec::new();
    for _ in 0..fields.count()? {
        let (name, code) = (fields.string()?, fields.i16()?);
        let _message = fields.string()?;
        topics.push((name, code));
    }
    Ok(topics)
}
