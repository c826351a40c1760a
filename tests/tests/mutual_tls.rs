//! A cluster whose agents and metadata nodes speak mutual TLS among themselves; its Kafka clients
//! notice nothing, and strangers get nowhere.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aquifer_tests::{
    client::Client,
    process::{Place, free_address, metadata_node_with, tool},
    record::assorted,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Certificates of one authority for processes on 127.0.0.1, as flags.
fn certificates(folder: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    let path = |kind: &str| -> PathBuf { folder.join(format!("{name}-{kind}.pem")) };
    std::fs::write(path("ca"), authority.pem())?;
    std::fs::write(path("cert"), cert.pem())?;
    std::fs::write(path("key"), key.serialize_pem())?;
    let flag = |kind: &str| [format!("--tls-{kind}"), path(kind).display().to_string()];
    Ok(["cert", "key", "ca"].map(flag).concat())
}

fn cluster_status(metadata: &str, flags: &[String]) -> anyhow::Result<Output> {
    let mut command = Command::new(tool("TEST_BIN")?);
    command.args(["cluster", "--metadata", metadata]).args(flags).arg("status");
    Ok(command.output()?)
}

#[test]
fn agents_and_nodes_of_one_authority_work_and_strangers_do_not() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = certificates(folder.path(), "ours")?;
    let theirs = certificates(folder.path(), "theirs")?;
    let mut place = Place::new(folder.path().join("first"))?;
    place.store = Some(format!("file:{}", folder.path().join("bucket").display()));
    let with = |first: &[&str]| -> Vec<String> {
        first.iter().map(|flag| (*flag).to_owned()).chain(ours.clone()).collect()
    };
    let start = |place: &Place, listen, flags: Vec<String>| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        metadata_node_with(place, listen, &flags)
    };
    // A group of two: nodes among themselves, an agent with both, an operator with either.
    let (first, second) = (free_address()?, free_address()?);
    let voters = format!("1={first},2={second}");
    let mut other = place.clone();
    other.data = folder.path().join("second");
    let _first = start(&place, first, with(&["--id", "1", "--voters", &voters]))?;
    let _second = start(&other, second, with(&["--id", "2", "--voters", &voters]))?;
    place.arguments = ours.clone();
    let _agent = place.agent(first)?;
    let records = assorted();
    let offsets = Client::Librdkafka.produce(place.kafka, "secured", "lz4", &records)?;
    assert_eq!(offsets.len(), records.len());
    let consumed = Client::Librdkafka.consume(place.kafka, "secured", "group", records.len())?;
    assert!(records.iter().zip(&consumed).all(|(sent, got)| *sent == got.record));

    let first = first.to_string();
    let status = cluster_status(&first, &ours)?;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.matches("voter").count() == 2, "{said}");
    for (flags, reason) in [(&theirs, "UnknownIssuer"), (&Vec::new(), "transport error")] {
        let status = cluster_status(&first, flags)?;
        let said = String::from_utf8_lossy(&status.stderr).into_owned();
        assert!(!status.status.success() && said.contains(reason), "{said}");
    }
    Ok(())
}
