//! Laws of connections between agents and metadata nodes under mutual TLS.

use std::net::Ipv4Addr;

use aquifer_storage::seam::system;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// An authority, and the folder with what it signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Files of a process that is reached as `name`.
    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{name}.{kind}.pem"));
        std::fs::write(path("cert"), cert.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles { cert: path("cert"), key: path("key"), ca: self.folder.path().join("ca.pem") }
    }
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Echoes what the first connection sends, and says where it listens.
async fn echo(seams: &Seams) -> String {
    let listener = seams.net.listen(any()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    seams.spawn("echo", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 4];
            if stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    address
}

async fn round_trip(seams: &Seams, address: &str) -> io::Result<[u8; 4]> {
    let mut stream = seams.net.connect(address).await?;
    stream.write_all(b"ping").await?;
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[tokio::test]
async fn two_of_one_authority_speak_and_bytes_are_not_readable_between() {
    let authority = Authority::new("one");
    let seams = secured(authority.files("127.0.0.1"), &system::seams()).unwrap();
    let address = echo(&seams).await;
    assert_eq!(round_trip(&seams, &address).await.unwrap(), *b"ping");
    // What stands behind the listener is not a plain one.
    let plain = round_trip(&system::seams(), &address).await;
    assert!(!matches!(plain, Ok(echo) if echo == *b"ping"), "{plain:?}");
}

#[tokio::test]
async fn a_stranger_is_refused_by_either_end() {
    let (ours, theirs) = (Authority::new("one"), Authority::new("another"));
    let ours = secured(ours.files("127.0.0.1"), &system::seams()).unwrap();
    let stranger = secured(theirs.files("127.0.0.1"), &system::seams()).unwrap();
    let address = echo(&ours).await;
    let refused = round_trip(&stranger, &address).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    let address = echo(&stranger).await;
    let refused = round_trip(&ours, &address).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let authority = Authority::new("one");
    let files = authority.files("127.0.0.1");
    let seams = secured(files.clone(), &system::seams()).unwrap();
    let address = echo(&seams).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificates("--tls-ca", &files.ca).unwrap().remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(nobody));
    let ends = Ends { connector, ..files.load().unwrap() };
    let net = TlsNet { ends: Arc::new(RwLock::new(ends)), seams: system::seams() };
    let nobody = Seams { net: Arc::new(net), ..system::seams() };
    let refused = round_trip(&nobody, &address).await.unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let authority = Authority::new("one");
    let seams = secured(authority.files("elsewhere.example"), &system::seams()).unwrap();
    let address = echo(&seams).await;
    let refused = round_trip(&seams, &address).await.unwrap_err();
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_keeps_nobody_waiting() {
    let authority = Authority::new("one");
    let seams = secured(authority.files("127.0.0.1"), &system::seams()).unwrap();
    let address = echo(&seams).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(system::seams().net.connect(&address).await.unwrap());
    }
    assert_eq!(round_trip(&seams, &address).await.unwrap(), *b"ping");
}

#[tokio::test]
async fn files_that_change_are_taken_and_bad_ones_are_not() {
    const OFTEN: Duration = Duration::from_millis(10);
    let (old, new) = (Authority::new("one"), Authority::new("another"));
    let (files, replacement) = (old.files("127.0.0.1"), new.files("127.0.0.1"));
    let seams = system::seams();
    let known = secured(files.clone(), &seams).unwrap();
    let newcomer = secured(replacement.clone(), &seams).unwrap();
    let ends = Arc::new(RwLock::new(files.load().unwrap()));
    seams.spawn("reload", reload(files.clone(), Arc::clone(&ends), seams.clone(), OFTEN));
    let net = TlsNet { ends, seams: seams.clone() };
    let address = echo(&Seams { net: Arc::new(net), ..seams.clone() }).await;
    std::fs::write(&files.cert, "nothing").unwrap();
    seams.sleep(OFTEN * 20).await;
    assert!(round_trip(&known, &address).await.is_ok(), "the old files stay");
    let TlsFiles { cert, key, ca } = &replacement;
    for (from, to) in [(cert, &files.cert), (key, &files.key), (ca, &files.ca)] {
        std::fs::copy(from, to).unwrap();
    }
    let mut tries = 0;
    while let Err(error) = round_trip(&newcomer, &address).await {
        tries += 1;
        assert!(tries < 500, "the new files are not taken: {error}");
        seams.sleep(OFTEN).await;
    }
}

#[test]
fn files_go_together_and_say_what_is_wrong_with_them() {
    let authority = Authority::new("one");
    let TlsFiles { cert, key, ca } = authority.files("127.0.0.1");
    let flags = TlsFlags { tls_cert: Some(cert.clone()), tls_key: Some(key.clone()), tls_ca: None };
    assert!(flags.files().unwrap_err().to_string().ends_with("--tls-ca is missing"));
    assert_eq!(TlsFlags::default().files().unwrap(), None);
    let said = |files: TlsFiles| files.load().map(drop).unwrap_err().to_string();
    let other = authority.files("other").key;
    let swapped = TlsFiles { cert: cert.clone(), key: other, ca: ca.clone() };
    assert!(said(swapped).starts_with("--tls-cert"), "the key of another certificate");
    let absent = TlsFiles { ca: "/nowhere".into(), cert: cert.clone(), key: key.clone() };
    assert!(said(absent).starts_with("--tls-ca /nowhere: "));
    let wrong = TlsFiles { cert: key, key: cert, ca };
    assert!(said(wrong).contains("no certificate in it"));
}
