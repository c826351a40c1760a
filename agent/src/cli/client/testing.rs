//! A broker that does what a test says, in memory.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::seam::{
    BoxFuture, Seams,
    net::{Listener, Net, Stream},
    system,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{Client, ConnectArgs};
use crate::wire::{
    ApiKey, Reader, Str,
    header::{RequestHeader, response_frame},
    messages::{
        ApiVersionsResponse, ApiVersionsResponseApiKeys, Message, MetadataResponse,
        MetadataResponseBrokers, MetadataResponseTopics, MetadataResponseTopicsPartitions,
    },
};

/// The broker's address.
pub const BROKER: &str = "broker:9092";

/// What it does with a request.
pub enum Reply {
    /// Sends these bytes.
    Frame(Vec<Bytes>),
    /// Closes the connection.
    Close,
    /// Nothing, for ever.
    Silence,
}

/// A request as it came.
pub struct Asked {
    /// The API.
    pub key: ApiKey,
    /// Its version.
    pub version: i16,
    correlation_id: i32,
    body: Reader,
}

impl Asked {
    /// The request itself.
    pub fn read<M: Message>(&self) -> M {
        M::decode_body(&mut self.body.clone(), self.version).expect("a request of ours")
    }

    /// An answer to it.
    pub fn answer(&self, body: &impl Message) -> Reply {
        Reply::Frame(response_frame(self.correlation_id, self.version, body))
    }
}

type Serve = Box<dyn FnMut(&Asked) -> Option<Reply> + Send>;

/// A broker of one topic, `t`, with one partition. What `serve` does not answer it answers itself.
pub struct Broker {
    serve: Mutex<Serve>,
    versions: BTreeMap<ApiKey, i16>,
    asked: Mutex<Vec<(ApiKey, i16)>>,
}

impl Broker {
    /// Does what `serve` says; speaks all versions up to those of `versions`, else all.
    pub fn new(
        versions: &[(ApiKey, i16)],
        serve: impl FnMut(&Asked) -> Option<Reply> + Send + 'static,
    ) -> Arc<Self> {
        let versions = versions.iter().copied().collect();
        Arc::new(Self { serve: Mutex::new(Box::new(serve)), versions, asked: Mutex::default() })
    }

    /// How often an API was asked, and in which version last.
    pub fn asked(&self, key: ApiKey) -> (usize, Option<i16>) {
        let asked = self.asked.lock().expect("no panic while held");
        let versions = asked.iter().filter(|(api, _)| *api == key).map(|(_, version)| *version);
        (versions.clone().count(), versions.clone().next_back())
    }

    /// A client whose only broker is this one, and how long it is patient.
    pub async fn client(self: &Arc<Self>, patience: Duration) -> anyhow::Result<Client> {
        let seams = system::seams();
        let net = Arc::new(BrokerNet { broker: Arc::clone(self), seams: seams.clone() });
        let args = ConnectArgs { timeout: patience, ..ConnectArgs::plain(BROKER.to_owned()) };
        Client::connect(&args, Seams { net, ..seams }).await
    }

    fn reply(&self, asked: &Asked) -> Reply {
        self.asked.lock().expect("no panic while held").push((asked.key, asked.version));
        let told = (self.serve.lock().expect("no panic while held"))(asked);
        told.unwrap_or_else(|| match asked.key {
            ApiKey::ApiVersions => asked.answer(&self.versions()),
            ApiKey::Metadata => asked.answer(&metadata()),
            other => panic!("the test has no answer to {other:?}"),
        })
    }

    fn versions(&self) -> ApiVersionsResponse {
        let api = |key: &ApiKey| ApiVersionsResponseApiKeys {
            api_key: key.code(),
            min_version: 0,
            max_version: self.versions.get(key).copied().unwrap_or(99),
        };
        ApiVersionsResponse {
            api_keys: ApiKey::ALL.iter().map(api).collect(),
            ..ApiVersionsResponse::default()
        }
    }

    async fn serve(self: Arc<Self>, mut stream: DuplexStream) {
        loop {
            let mut length = [0; 4];
            if stream.read_exact(&mut length).await.is_err() {
                return;
            }
            let mut frame = vec![0; i32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).await.expect("a whole request");
            let key = ApiKey::from_code(i16::from_be_bytes([frame[0], frame[1]])).expect("a key");
            let version = i16::from_be_bytes([frame[2], frame[3]]);
            let mut body = Reader::new(Bytes::from(frame).slice(4..));
            let header = RequestHeader::decode(&mut body, key, version, true).expect("a header");
            let correlation_id = header.correlation_id;
            match self.reply(&Asked { key, version, correlation_id, body }) {
                Reply::Close => return,
                Reply::Silence => std::future::pending().await,
                Reply::Frame(chunks) => {
                    for chunk in chunks {
                        let _ = stream.write_all(&chunk).await;
                    }
                }
            }
        }
    }
}

fn metadata() -> MetadataResponse {
    let partition = MetadataResponseTopicsPartitions {
        leader_id: 1,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        ..MetadataResponseTopicsPartitions::default()
    };
    let topic = MetadataResponseTopics {
        name: Some(Str::from_static("t")),
        partitions: vec![partition],
        ..MetadataResponseTopics::default()
    };
    let (host, port) = (Str::from_static("broker"), 9092);
    MetadataResponse {
        brokers: vec![MetadataResponseBrokers { node_id: 1, host, port, rack: None }],
        controller_id: 1,
        topics: vec![topic],
        ..MetadataResponse::default()
    }
}

struct BrokerNet {
    broker: Arc<Broker>,
    seams: Seams,
}

impl Net for BrokerNet {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        if address != BROKER {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.seams.spawn("broker", Arc::clone(&self.broker).serve(far));
        Box::pin(async move { Ok(Stream::Boxed(Box::new(near))) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
