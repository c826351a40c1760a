//! A blocking connection to any Kafka broker: frames out, frames in.
//!
//! Threads and blocking sockets, since a load generator wants wake-ups within 0.1 ms and the
//! fewest system calls per request.

mod cluster;

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;

pub use cluster::{Cluster, NewTopic, OffsetAt, ProducerLease, Topic};

pub use crate::wire::client::{decode_response, error_name, leader_moved};
use crate::wire::{
    Str,
    client::{BrokerVersions, response_bytes},
    header::{RequestHeader, request_frame},
    messages::{ApiVersionsRequest, ApiVersionsResponse, Message},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take, and the socket to take a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who we say we are.
pub const CLIENT_ID: &str = "aquifer-bench";

/// A connection whose broker has said which versions it speaks.
#[derive(Debug)]
pub struct Connection {
    broker: String,
    stream: TcpStream,
    versions: BrokerVersions,
    correlation_id: i32,
}

impl Connection {
    /// Connects to `broker`, as `host:port`, and asks for its versions.
    ///
    /// # Errors
    /// It cannot be reached or does not speak Kafka; the message names it.
    pub fn open(broker: &str) -> anyhow::Result<Self> {
        let stream = connect(broker).with_context(|| format!("cannot connect to {broker}"))?;
        let versions = BrokerVersions::default();
        let mut connection =
            Self { broker: broker.to_owned(), stream, versions, correlation_id: 0 };
        // Version 0 is what every broker answers, whatever else it speaks.
        let answer: ApiVersionsResponse =
            connection.call_version(0, &ApiVersionsRequest::default())?;
        check(answer.error_code).with_context(|| format!("{broker}: ApiVersions"))?;
        connection.versions = BrokerVersions::of(&answer);
        Ok(connection)
    }

    /// Its broker, as `host:port`.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The highest version that the broker, `ours` and our codec have of an API.
    ///
    /// # Errors
    /// There is none.
    pub fn version_of<M: Message>(&self, ours: RangeInclusive<i16>) -> anyhow::Result<i16> {
        self.versions.choose::<M>(ours).with_context(|| self.broker.clone())
    }

    /// Asks and waits for the answer, in the highest version that both know.
    ///
    /// # Errors
    /// The connection broke or the answer makes no sense; the message names the broker.
    pub fn call<Q: Message, R: Message>(&mut self, request: &Q) -> anyhow::Result<R> {
        self.call_version(self.version_of::<Q>(Q::VERSIONS)?, request)
    }

    /// The same in a given version.
    ///
    /// # Errors
    /// The connection broke or the answer makes no sense; the message names the broker.
    pub fn call_version<Q: Message, R: Message>(
        &mut self,
        version: i16,
        request: &Q,
    ) -> anyhow::Result<R> {
        let context = |broker: &str| format!("{broker}: {:?}", Q::KEY);
        let correlation_id = self.send(version, request).with_context(|| context(&self.broker))?;
        let frame = read_frame(&mut self.stream).with_context(|| context(&self.broker))?;
        let answer = decode_response(frame, version, correlation_id);
        answer.with_context(|| context(&self.broker))
    }

    /// Writes a request and returns its correlation id.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send<Q: Message>(&mut self, version: i16, request: &Q) -> anyhow::Result<i32> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader {
            correlation_id: self.correlation_id,
            client_id: Some(Str::from_static(CLIENT_ID)),
        };
        for chunk in request_frame(&header, version, request) {
            self.stream.write_all(&chunk)?;
        }
        Ok(self.correlation_id)
    }

    /// Lets answers take as long as they do: for one whose thread has nothing else to do.
    ///
    /// # Errors
    /// The socket's.
    pub fn wait_forever(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(None)
    }

    /// The socket, to read and write frames on by oneself.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

fn connect(broker: &str) -> anyhow::Result<TcpStream> {
    let mut refused = anyhow!("the name has no address");
    for address in broker.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => refused = error.into(),
        }
    }
    Err(refused)
}

/// The length of the next frame.
///
/// # Errors
/// The connection broke, or the length is no response's.
pub fn read_length(stream: &mut impl Read) -> io::Result<usize> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(explained)?;
    response_bytes(length).ok_or_else(|| io::Error::other("the frame length is no response's"))
}

/// The next frame, without its length.
///
/// # Errors
/// The connection broke, or its length is no response's.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Bytes> {
    let length = read_length(stream)?;
    // Memory grows with what arrives, not with what is announced.
    let mut frame = Vec::with_capacity(length.min(64 * 1024));
    let read = stream.take(length as u64).read_to_end(&mut frame).map_err(explained)?;
    if read < length {
        return Err(explained(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(frame.into())
}

/// The same error in words that tell what the broker did.
pub fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other("the broker closed the connection"),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::other(format!("the broker was silent for {PATIENCE:?}"))
        }
        _ => error,
    }
}

/// An error with Kafka's name, unless `code` is 0.
///
/// # Errors
/// `code` is not 0.
pub fn check(code: i16) -> anyhow::Result<()> {
    if code == 0 { Ok(()) } else { Err(anyhow!(error_name(code))) }
}
