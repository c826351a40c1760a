//! TLS towards a broker's Kafka listener.
//!
//! Other than between agents and metadata nodes (`crate::tls`) a client need not show a
//! certificate, and TLS 1.2 is spoken too: the broker may be anybody's. The flags have no
//! environment variables: those of the servers' own TLS are set on machines whose Kafka listener
//! is plain.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use aquifer_storage::seam::net::Stream;

use crate::tls::{TlsError, certificates, file};

/// How a connection is secured, if it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ClientTlsArgs {
    /// Connect by TLS, and trust the authorities that this system trusts.
    #[arg(long, global = true, help_heading = "Connection")]
    pub tls: bool,
    /// Connect by TLS, and trust the authorities in this PEM file.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show to a broker that asks for one, PEM.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    #[arg(requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, PEM.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    #[arg(requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl ClientTlsArgs {
    /// What secures connections; `None` for plain ones.
    ///
    /// # Errors
    /// A file cannot be used; the message names its flag.
    pub fn connector(&self) -> Result<Option<TlsConnector>, TlsError> {
        if !self.tls && self.tls_ca.is_none() && self.tls_cert.is_none() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.tls_ca {
            for authority in certificates("--tls-ca", path)? {
                roots.add(authority).map_err(|error| file("--tls-ca", path, error))?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unfit { path: PathBuf::new(), source: source.into() })?
            .with_root_certificates(roots);
        let config = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("--tls-cert", cert)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| file("--tls-key", key, error))?;
                config.with_client_auth_cert(chain, private).map_err(|source| TlsError::Unfit {
                    path: cert.clone(),
                    source: source.into(),
                })?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(Some(Arc::new(config).into()))
    }
}

/// Shakes hands with `broker`, a `host:port`, on an open connection.
///
/// # Errors
/// The handshake's, or that of a host no certificate can name.
pub async fn secured(
    connector: &TlsConnector,
    broker: &str,
    stream: Stream,
) -> std::io::Result<Stream> {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
    let secured = connector.connect(name, stream).await?;
    Ok(Stream::Boxed(Box::new(secured)))
}

#[cfg(test)]
mod tests;
