//! One connection to an agent: requests out, answers in, in order.

use std::{net::SocketAddr, time::Duration};

use aquifer_agent::wire::{
    Reader, Str,
    codec::Element as _,
    header::{RequestHeader, request_frame, response_header_is_flexible},
    messages::Message,
};
use aquifer_storage::seam::net::{Net, Stream};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Connecting takes no longer.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The connection is of no further use; what was asked may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl<E: std::error::Error> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Connects to an agent.
///
/// # Errors
/// Nobody answers.
pub async fn open(net: &dyn Net, address: SocketAddr) -> Result<Stream, Refused> {
    Ok(timeout(CONNECT_MAX, net.connect(&address.to_string())).await??)
}

/// An open connection.
pub struct Connection {
    stream: Stream,
    /// The agent's life at its other end.
    pub server: u32,
    correlation_id: i32,
}

impl Connection {
    /// Over `stream`, to `server`.
    pub fn new(stream: Stream, server: u32) -> Self {
        Self { stream, server, correlation_id: 0 }
    }

    /// Writes a request; returns what its answer will be told by.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send<M: Message>(&mut self, version: i16, request: &M) -> Result<i32, Refused> {
        self.correlation_id += 1;
        let client_id = Some(Str::from_static("sim"));
        let header = RequestHeader { correlation_id: self.correlation_id, client_id };
        for chunk in request_frame(&header, version, request) {
            self.stream.write_all(&chunk).await?;
        }
        Ok(self.correlation_id)
    }

    /// Reads the next answer, which must be that to `correlation_id`.
    ///
    /// # Errors
    /// The connection broke, nothing came within `patience`, or the answer makes no sense.
    pub async fn receive<M: Message>(
        &mut self,
        version: i16,
        correlation_id: i32,
        patience: Duration,
    ) -> Result<M, Refused> {
        let frame = timeout(patience, self.frame()).await??;
        let mut reader = Reader::new(frame);
        let answered = i32::read(&mut reader, 0, false)?;
        if answered != correlation_id {
            let told = format!("an answer to {answered} came for {correlation_id}");
            panic!("answers leave in request order: {told}");
        }
        if response_header_is_flexible(M::KEY, version) {
            reader.skip_tags()?;
        }
        Ok(M::decode_body(&mut reader, version).expect("an agent's answer can be decoded"))
    }

    async fn frame(&mut self) -> Result<Bytes, std::io::Error> {
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).map_err(std::io::Error::other)?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await?;
        Ok(frame.into())
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn call<Q: Message, R: Message>(
        &mut self,
        version: i16,
        request: &Q,
        patience: Duration,
    ) -> Result<R, Refused> {
        let correlation_id = self.send(version, request).await?;
        self.receive(version, correlation_id, patience).await
    }
}
