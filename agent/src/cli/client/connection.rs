//! One connection to one broker: a frame out, a frame in.

use std::{io, ops::RangeInclusive, time::Duration};

use aquifer_storage::seam::{Seams, net::Stream};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{error::ClientError, tls};
use crate::wire::{
    Str,
    client::{BrokerVersions, decode_response, response_bytes},
    header::{RequestHeader, request_frame},
    messages::{ApiVersionsRequest, ApiVersionsResponse, Message},
};

/// Who we say we are.
const CLIENT_ID: &str = "aquifer-cli";

/// A host that does not even refuse is not waited for as long as an answer may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How connections are made, and how long a broker may take.
#[derive(Clone)]
pub struct Dialer {
    /// Time and network.
    pub seams: Seams,
    /// `None` for plain connections.
    pub tls: Option<TlsConnector>,
    /// The longest an answer may take.
    pub patience: Duration,
}

/// An open connection whose broker has said which versions it speaks.
pub struct Connection {
    broker: String,
    stream: Stream,
    versions: BrokerVersions,
    correlation_id: i32,
    seams: Seams,
    patience: Duration,
}

impl Dialer {
    /// Connects to `broker`, as `host:port`, and asks for its versions.
    ///
    /// # Errors
    /// It cannot be reached, or is no broker.
    pub async fn dial(&self, broker: &str) -> Result<Connection, ClientError> {
        let unreachable =
            |reason: String| ClientError::Unreachable { broker: broker.to_owned(), reason };
        let patience = self.patience.min(CONNECT_MAX);
        let connecting = async {
            let stream = self.seams.net.connect(broker).await.map_err(in_plain_words)?;
            match &self.tls {
                None => Ok(stream),
                Some(connector) => tls::secured(connector, broker, stream)
                    .await
                    .map_err(|error| format!("TLS: {error}")),
            }
        };
        let stream = match self.seams.timeout(patience, connecting).await {
            Some(stream) => stream.map_err(unreachable)?,
            None => return Err(unreachable(format!("nobody answers within {patience:?}"))),
        };
        let mut connection = Connection {
            broker: broker.to_owned(),
            stream,
            versions: BrokerVersions::default(),
            correlation_id: 0,
            seams: self.seams.clone(),
            patience,
        };
        connection.greet(self.tls.is_some()).await?;
        connection.patience = self.patience;
        Ok(connection)
    }
}

impl Connection {
    /// Its broker, as `host:port`.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The versions the broker speaks.
    pub const fn versions(&self) -> &BrokerVersions {
        &self.versions
    }

    /// Asks in version 0, which every broker answers, for what else it speaks.
    async fn greet(&mut self, is_secured: bool) -> Result<(), ClientError> {
        let asked: Result<ApiVersionsResponse, _> =
            self.exchange(0, &ApiVersionsRequest::default(), self.patience).await;
        let reason = match asked {
            Ok(answer) => {
                let what = || format!("{}, ApiVersions", self.broker);
                ClientError::check(what, answer.error_code)?;
                self.versions = BrokerVersions::of(&answer);
                return Ok(());
            }
            Err(ClientError::Silent { within, .. }) => format!("silent for {within:?}"),
            Err(ClientError::Lost { reason, .. }) => reason.to_string(),
            Err(ClientError::Malformed { reason, .. }) => reason.to_string(),
            Err(other) => return Err(other),
        };
        let hint = if is_secured { "" } else { " (does it want --tls?)" };
        Err(ClientError::NotKafka { broker: self.broker.clone(), reason: reason + hint })
    }

    /// Asks in the highest version that `ours` and the broker have, and waits for the answer.
    /// `longer` is what the request lets the broker wait on purpose.
    ///
    /// # Errors
    /// As [`ClientError`] says. After one the connection must not be used again.
    pub async fn call<Q: Message, R: Message>(
        &mut self,
        ours: RangeInclusive<i16>,
        request: &Q,
        longer: Duration,
    ) -> Result<R, ClientError> {
        let version = self.versions.choose::<Q>(ours);
        let version = version
            .map_err(|reason| ClientError::Unsupported { broker: self.broker.clone(), reason })?;
        self.exchange(version, request, self.patience + longer).await
    }

    async fn exchange<Q: Message, R: Message>(
        &mut self,
        version: i16,
        request: &Q,
        within: Duration,
    ) -> Result<R, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader {
            correlation_id: self.correlation_id,
            client_id: Some(Str::from_static(CLIENT_ID)),
        };
        let frame = request_frame(&header, version, request);
        let seams = self.seams.clone();
        let (broker, api) = (self.broker.clone(), Q::KEY);
        let answered = seams.timeout(within, self.transfer(frame)).await;
        let answer = match answered {
            None => return Err(ClientError::Silent { broker, api, within }),
            Some(Err(reason)) => return Err(ClientError::Lost { broker, api, reason }),
            Some(Ok(frame)) => decode_response(frame, version, header.correlation_id),
        };
        answer.map_err(|reason| ClientError::Malformed { broker, api, reason })
    }

    async fn transfer(&mut self, request: Vec<Bytes>) -> io::Result<Bytes> {
        for chunk in &request {
            self.stream.write_all(chunk).await?;
        }
        self.stream.flush().await?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.map_err(explained)?;
        let no_response = || io::Error::other("what it sends is no frame of Kafka's");
        let length = response_bytes(length).ok_or_else(no_response)?;
        // Memory grows with what arrives, not with what is announced.
        let mut frame = Vec::with_capacity(length.min(64 * 1024));
        let mut limited = (&mut self.stream).take(length as u64);
        if limited.read_to_end(&mut frame).await? < length {
            return Err(explained(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(frame.into())
    }
}

fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other("the connection was closed"),
        _ => error,
    }
}

/// The system's words without its numbers.
fn in_plain_words(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}
