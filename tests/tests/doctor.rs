//! `aquifer doctor`, and the test of the store at each start: real processes, a real S3 server.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, ensure};
use aquifer_storage::{
    format::object_key::PROBE_PREFIX,
    store::{BucketStore, S3Options, Store, s3},
};
use aquifer_tests::process::{
    Place, Process, free_address, metadata_node, minio, s3_environment, tool,
};
use serde_json::Value;

/// What doctor said.
struct Told {
    code: Option<i32>,
    document: Value,
    stderr: String,
}

impl Told {
    /// The verdict and the words of the first finding about `check` that is not fine, or of the
    /// first one.
    fn of(&self, check: &str) -> anyhow::Result<(String, String)> {
        let all = self.document["findings"].as_array().context("findings")?;
        let mut about = all.iter().filter(|one| one["check"] == check);
        let first = about.clone().next().with_context(|| format!("{check}: {}", self.document))?;
        let one = about.find(|one| one["verdict"] != "ok").unwrap_or(first);
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        Ok((text("verdict"), text("what") + &text("advice")))
    }
}

fn doctor(place: &Place, more: &[&str]) -> anyhow::Result<Told> {
    let mut command = Command::new(tool("TEST_BIN")?);
    command.args(["doctor", "-o", "json", "--kafka", &place.kafka.to_string()]);
    command.args(["--http", &place.http.to_string()]).arg("--data").arg(&place.data).args(more);
    if let Some(store) = &place.store {
        command.args(["--store", store]);
    }
    let output = command.envs(place.environment.clone()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).with_context(|| stderr.clone())?;
    Ok(Told { code: output.status.code(), document, stderr })
}

fn on_minio(
    folder: &tempfile::TempDir,
    store: &str,
) -> anyhow::Result<(Process, Place, BucketStore)> {
    let (server, address): (Process, SocketAddr) = minio(&folder.path().join("minio"))?;
    let mut place = Place::new(folder.path().join("data"))?;
    place.store = Some(store.to_owned());
    place.environment = s3_environment(address);
    let store = s3::with_options(&S3Options {
        bucket: "aquifer".to_owned(),
        prefix: "well".to_owned(),
        endpoint: Some(format!("http://{address}")),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("AKIATEST".to_owned()),
        secret_access_key: Some("secrettest".to_owned()),
        ..S3Options::default()
    })?;
    Ok((server, place, store))
}

/// A start that ends by itself: its standard error.
fn refused(place: &Place) -> anyhow::Result<String> {
    let mut command = Command::new("timeout");
    command.args(["30", &tool("TEST_BIN")?, "up", "--kafka", &place.kafka.to_string()]);
    command.args(["--http", &place.http.to_string()]).arg("--data").arg(&place.data);
    command.args(place.store.iter().flat_map(|store| ["--store", store]));
    let output = command.envs(place.environment.clone()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{:?}: {stderr}", output.status);
    Ok(stderr)
}

#[tokio::test]
async fn a_sound_bucket_with_its_cluster_passes_also_for_many_at_once_and_keeps_nothing()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, place, store) = on_minio(&folder, "s3://aquifer/well")?;
    let told = doctor(&place, &[])?;
    ensure!(told.code == Some(0) && told.document["failed"] == 0, "{}", told.document);
    for check in ["write", "read after write", "read a range", "list after write", "delete"] {
        ensure!(told.of(check)?.0 == "ok", "{check}: {}", told.document);
    }
    for check in ["If-None-Match", "concurrent writers", "checksums", "If-Match", "clock"] {
        ensure!(told.of(check)?.0 == "ok", "{check}: {}", told.document);
    }
    for check in ["versioning", "lifecycle", "prefix", "port", "open files"] {
        ensure!(told.of(check)?.0 == "ok", "{check}: {}", told.document);
    }
    let _running = place.up()?;
    let many: Vec<_> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| doctor(&place, &[]));
        let all: Vec<_> = (0..4).map(|_| one()).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    for told in many {
        let told = told?;
        ensure!(told.code == Some(0), "{} {}", told.stderr, told.document);
        ensure!(told.of("port")?.1.contains("already running"), "{}", told.document);
        ensure!(told.of("prefix")?.1.contains("belongs to cluster"), "{}", told.document);
    }
    ensure!(store.list("wal", None, 10).await?.is_empty(), "nothing was produced");
    let left = store.list(PROBE_PREFIX, None, 10).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_work_refuses_the_start_in_one_line_and_one_that_is_down_does_not()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, mut place, _) = on_minio(&folder, "s3://no-such-bucket/well")?;
    let told = refused(&place)?;
    let last = told.lines().last().unwrap_or_default();
    ensure!(last.starts_with("aquifer: --store s3://no-such-bucket/well cannot be used"), "{told}");
    ensure!(last.contains("NoSuchBucket") && last.contains("make the bucket first"), "{told}");
    let failed = doctor(&place, &[])?;
    ensure!(failed.code == Some(1), "{}", failed.document);
    ensure!(failed.of("write")?.0 == "failed", "{}", failed.document);

    place.store = Some("s3://aquifer/well".to_owned());
    let right = place.environment.clone();
    let wrong = ("AWS_SECRET_ACCESS_KEY".to_owned(), "not it".to_owned());
    place.environment.push(wrong);
    ensure!(refused(&place)?.contains("SignatureDoesNotMatch"), "credentials");
    place.environment = right;

    drop(server);
    let down = doctor(&place, &[])?;
    ensure!(down.code == Some(1), "{}", down.document);
    ensure!(down.of("write")?.1.contains("refused"), "why: {}", down.document);
    let mut command = Command::new(tool("TEST_BIN")?);
    command.args(["up", "--store", "s3://aquifer/well", "--kafka", &place.kafka.to_string()]);
    command.args(["--http", &place.http.to_string(), "--data"]).arg(&place.data);
    let mut waiting = Process::start("up", command.envs(place.environment.clone()))?;
    std::thread::sleep(Duration::from_secs(7)); // Longer than an answer is waited for.
    waiting.expect_alive()
}

#[tokio::test]
async fn a_bucket_is_made_once_with_its_rules() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, mut place, _) = on_minio(&folder, "s3://new-bucket/well")?;
    let log = folder.path().join("log");
    place.log = Some(log.clone());
    place.arguments = vec!["--create-bucket".to_owned()];
    let running = place.up()?;
    ensure!(running.terminate()?, "ended well");
    let said = std::fs::read_to_string(&log)?;
    ensure!(said.contains("made the bucket new-bucket"), "{said}");
    ensure!(said.contains("added lifecycle rules for s3://new-bucket/well"), "{said}");
    let told = doctor(&place, &["--create-bucket"])?;
    ensure!(told.code == Some(0) && told.of("lifecycle")?.0 == "ok", "{}", told.document);
    ensure!(told.of("prefix")?.1.contains("belongs to cluster"), "{}", told.document);
    ensure!(!told.stderr.contains("lifecycle"), "nothing is missing: {}", told.stderr);
    // Names that the store does not take are not waited for.
    place.store = Some("s3://xn--bad..name/well".to_owned());
    let told = doctor(&place, &[])?;
    ensure!(told.code == Some(1), "{}", told.document);
    Ok(())
}

#[test]
fn nodes_and_folders_of_another_store_are_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    let listen = free_address()?;
    place.store = Some(format!("file:{}", folder.path().join("bucket").display()));
    let mut node = metadata_node(&place, listen)?;
    // It listens before the prefix is its own.
    while !folder.path().join("bucket/cluster.json").exists() {
        node.expect_alive()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let (at, nobody) = (listen.to_string(), format!("{listen},{}", free_address()?));
    let told = doctor(&place, &["--metadata", &at])?;
    ensure!(told.code == Some(0), "{}", told.document);
    ensure!(told.of("metadata")?.1.contains("is of cluster"), "{}", told.document);
    let told = doctor(&place, &["--metadata", &nobody])?;
    ensure!(told.code == Some(0) && told.of("metadata")?.0 == "warning", "{}", told.document);

    std::fs::create_dir(folder.path().join("other"))?;
    place.store = Some(format!("file:{}", folder.path().join("other").display()));
    let told = doctor(&place, &["--metadata", &at])?;
    ensure!(told.code == Some(1), "{}", told.document);
    ensure!(told.of("metadata")?.1.contains("the prefix is nobody's"), "{}", told.document);
    ensure!(told.of("data")?.0 == "failed", "{}", told.document);
    ensure!(told.stderr.contains("checks failed"), "{}", told.stderr);
    Ok(())
}

#[test]
fn looking_makes_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let told = doctor(&place, &[])?;
    ensure!(told.code == Some(0), "{}", told.document);
    ensure!(told.of("data")?.1.contains("will be made"), "{}", told.document);
    ensure!(!place.data.exists() && std::fs::read_dir(folder.path())?.next().is_none());
    Ok(())
}
