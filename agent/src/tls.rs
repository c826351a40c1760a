//! Mutual TLS between agents, metadata nodes and operators: a network like any other.
//!
//! # Invariants
//! - Both ends show a certificate that the same authority signed, and the one that was called has
//!   the called host's name or address in it. Which *node* speaks is checked above, by its id and
//!   its data folder.
//! - A connection whose handshake is slow or fails keeps no other one waiting.
//! - Files that change are read again; as long as they cannot be used, the old ones stay.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aquifer_storage::seam::{
    BoxFuture, Seams,
    net::{Accept, Listener, Net, Stream},
};
use clap::Args;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::server::refusal_log::RefusalLog;

/// A handshake that takes longer ends the connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at once: more than a group and its agents ever begin together.
const HANDSHAKES_MAX: usize = 256;
/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);
/// Connections that shook hands and were not taken yet.
const ACCEPTED_MAX: usize = 64;
/// What gRPC speaks.
const ALPN: &[u8] = b"h2";

/// Where a process finds what it proves itself with: all three, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct TlsFlags {
    /// This process's certificate chain, PEM: calls between agents and metadata nodes use mutual
    /// TLS then.
    #[arg(long, value_name = "FILE", env = "AQUIFER_TLS_CERT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, PEM.
    #[arg(long, value_name = "FILE", env = "AQUIFER_TLS_KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The authority that signed the certificates of all agents and metadata nodes, PEM.
    #[arg(long, value_name = "FILE", env = "AQUIFER_TLS_CA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
}

/// What is wrong with a process's certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Some of the three files are named, and not all.
    #[error("--tls-cert, --tls-key and --tls-ca go together: {0} is missing")]
    Incomplete(&'static str),
    /// A file cannot be read, or holds something else.
    #[error("{flag} {}: {reason}", path.display())]
    File {
        /// Which flag names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No authority to trust.
    #[error("this system trusts no certificate authority: name one with --tls-ca")]
    NoRoots,
    /// The files do not fit together.
    #[error("--tls-cert {}: {source}", path.display())]
    Unfit {
        /// The certificate.
        path: PathBuf,
        /// What does not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsFlags {
    /// The three files, if any is named.
    ///
    /// # Errors
    /// Some are named, and not all.
    pub fn files(&self) -> Result<Option<TlsFiles>, TlsError> {
        let Self { tls_cert, tls_key, tls_ca } = self.clone();
        match (tls_cert, tls_key, tls_ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Ok(Some(TlsFiles { cert, key, ca })),
            (None, ..) => Err(TlsError::Incomplete("--tls-cert")),
            (_, None, _) => Err(TlsError::Incomplete("--tls-key")),
            (.., None) => Err(TlsError::Incomplete("--tls-ca")),
        }
    }

    /// `seams`, whose connections are secured if the files are named.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn secure(&self, seams: Seams) -> Result<Seams, TlsError> {
        match self.files()? {
            None => Ok(seams),
            Some(files) => Ok(secured(files, &seams)?),
        }
    }
}

/// The files of [`TlsFlags`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority.
    pub ca: PathBuf,
}

fn secured(files: TlsFiles, seams: &Seams) -> Result<Seams, TlsError> {
    let ends = Arc::new(RwLock::new(files.load()?));
    seams.spawn("tls-files", reload(files, Arc::clone(&ends), seams.clone(), RELOAD_INTERVAL));
    let net = TlsNet { ends, seams: seams.clone() };
    Ok(Seams { net: Arc::new(net), ..seams.clone() })
}

/// Reads the files again now and then, for ever.
async fn reload(files: TlsFiles, ends: Arc<RwLock<Ends>>, seams: Seams, interval: Duration) {
    let mut failed = None;
    loop {
        seams.sleep(interval).await;
        match files.load() {
            Ok(new) => {
                *ends.write().unwrap_or_else(PoisonError::into_inner) = new;
                failed = None;
            }
            Err(error) => {
                let reason = error.to_string();
                if failed.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the TLS files cannot be used, the old ones stay");
                }
                failed = Some(reason);
            }
        }
    }
}

/// What calls and what is called.
#[derive(Clone)]
struct Ends {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl TlsFiles {
    fn load(&self) -> Result<Ends, TlsError> {
        let unfit = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unfit {
            path: self.cert.clone(),
            source,
        };
        let chain = certificates("--tls-cert", &self.cert)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("--tls-ca", &self.ca)? {
            roots.add(authority).map_err(|error| file("--tls-ca", &self.ca, error))?;
        }
        let roots = Arc::new(roots);
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| file("--tls-key", &self.key, error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unfit(error.into()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unfit(error.into()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unfit(error.into()))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unfit(error.into()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unfit(error.into()))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        client.alpn_protocols = vec![ALPN.to_vec()];
        let (connector, acceptor) = (Arc::new(client).into(), Arc::new(server).into());
        Ok(Ends { connector, acceptor })
    }
}

pub(crate) fn file(flag: &'static str, path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::File { flag, path: path.to_owned(), reason: reason.to_string() }
}

pub(crate) fn certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| file(flag, path, error))?;
    let found: Result<Vec<_>, _> = read.collect();
    let found = found.map_err(|error| file(flag, path, error))?;
    if found.is_empty() {
        return Err(file(flag, path, "no certificate in it"));
    }
    Ok(found)
}

/// The network of `seams`, with TLS on every connection.
struct TlsNet {
    ends: Arc<RwLock<Ends>>,
    seams: Seams,
}

impl Net for TlsNet {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let connector = current(&self.ends).connector;
        let (connecting, address) = (self.seams.net.connect(address), address.to_owned());
        Box::pin(async move {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|error| invalid(error.to_string()))?;
            let secured = connector.connect(name, connecting.await?).await;
            let secured = secured.map_err(|error| invalid(format!("TLS handshake: {error}")))?;
            Ok(Stream::Boxed(Box::new(secured)))
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        let listening = self.seams.net.listen(address);
        let (ends, seams) = (Arc::clone(&self.ends), self.seams.clone());
        Box::pin(async move {
            let listener = listening.await?;
            let local = listener.local_addr()?;
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            seams.spawn("tls-accept", shake_hands(listener, ends, sender, seams.clone()));
            let accepted = Mutex::new(accepted);
            Ok(Listener::Boxed(Box::new(Secured { accepted, local })))
        })
    }
}

fn current(ends: &RwLock<Ends>) -> Ends {
    ends.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

type Accepted = io::Result<(Stream, SocketAddr)>;

/// Accepts until nobody takes what was accepted.
async fn shake_hands(
    listener: Listener,
    ends: Arc<RwLock<Ends>>,
    sender: mpsc::Sender<Accepted>,
    seams: Seams,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let refusals = Arc::new(RefusalLog::new(seams.clone()));
    loop {
        let place = places.clone().acquire_owned().await;
        let (stream, peer) = tokio::select! {
            () = sender.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if sender.send(Err(error)).await.is_err() {
                        return;
                    }
                    continue;
                }
            },
        };
        let acceptor = current(&ends).acceptor;
        let (sender, refusals, clock) = (sender.clone(), Arc::clone(&refusals), seams.clone());
        seams.spawn("tls-handshake", async move {
            let _place = place;
            match clock.timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                Some(Ok(secured)) => {
                    let secured = Stream::Boxed(Box::new(secured));
                    let _ = sender.send(Ok((secured, peer))).await; // The listener may be gone.
                }
                Some(Err(error)) => refusals.note(peer, &format!("TLS handshake: {error}")),
                None => refusals.note(peer, "no TLS handshake in time"),
            }
        });
    }
}

/// Connections that shook hands.
struct Secured {
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    local: SocketAddr,
}

impl Accept for Secured {
    fn accept(&self) -> BoxFuture<'_, Accepted> {
        Box::pin(async move {
            let next = self.accepted.lock().await.recv().await;
            next.unwrap_or_else(|| Err(io::Error::other("nothing is accepted any more")))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

#[cfg(test)]
pub(crate) mod tests;
