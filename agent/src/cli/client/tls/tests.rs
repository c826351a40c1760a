//! Laws of TLS towards a broker.

use rustls::{
    RootCertStore, ServerConfig, pki_types::pem::PemObject, server::WebPkiClientVerifier,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::{TlsFiles, certificates, tests::Authority};

/// The end of a broker with these files; with `wants_certificate` it asks for one.
fn acceptor(files: &TlsFiles, wants_certificate: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates("--tls-cert", &files.cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = if wants_certificate {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("--tls-ca", &files.ca).unwrap());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}

/// What a broker that echoes four bytes gives back over `args`' connection.
async fn echoed(
    args: &ClientTlsArgs,
    acceptor: TlsAcceptor,
    broker: &str,
) -> std::io::Result<[u8; 4]> {
    let (near, far) = tokio::io::duplex(4096);
    let serving = async move {
        let mut stream = acceptor.accept(far).await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    let connector = args.connector().unwrap().expect("TLS is asked for");
    let asking = async {
        let mut stream = secured(&connector, broker, Stream::Boxed(Box::new(near))).await?;
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    tokio::join!(serving, asking).1
}

fn trusting(files: &TlsFiles) -> ClientTlsArgs {
    ClientTlsArgs { tls_ca: Some(files.ca.clone()), ..ClientTlsArgs::default() }
}

#[tokio::test]
async fn a_broker_of_a_trusted_authority_is_spoken_to_and_others_are_refused() {
    let (ours, theirs) = (Authority::new("one"), Authority::new("another"));
    let broker = ours.files("broker.test");
    let args = trusting(&broker);
    let echo = echoed(&args, acceptor(&broker, false), "broker.test:9093").await;
    assert_eq!(echo.unwrap(), *b"ping");
    let wrong_name = echoed(&args, acceptor(&broker, false), "other.test:9093").await;
    assert!(wrong_name.unwrap_err().to_string().contains("not valid for name"));
    let stranger = acceptor(&theirs.files("broker.test"), false);
    let refused = echoed(&args, stranger, "broker.test:9093").await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_shown_to_a_broker_that_asks() {
    let authority = Authority::new("one");
    let (broker, client) = (authority.files("broker.test"), authority.files("client"));
    let bare = echoed(&trusting(&broker), acceptor(&broker, true), "broker.test:9093").await;
    assert!(bare.is_err(), "it wants a certificate");
    let args = ClientTlsArgs {
        tls_cert: Some(client.cert),
        tls_key: Some(client.key),
        ..trusting(&broker)
    };
    let echo = echoed(&args, acceptor(&broker, true), "broker.test:9093").await;
    assert_eq!(echo.unwrap(), *b"ping");
}

#[test]
fn without_a_flag_connections_are_plain_and_a_bad_file_is_named() {
    assert!(ClientTlsArgs::default().connector().unwrap().is_none());
    let absent = Some(PathBuf::from("/nowhere/ca.pem"));
    let args = ClientTlsArgs { tls_ca: absent, ..ClientTlsArgs::default() };
    let error = args.connector().err().expect("there is no such file").to_string();
    assert!(error.starts_with("--tls-ca /nowhere/ca.pem: "), "{error}");
}
