//! The S3 store against a real S3 server over real sockets.
//!
//! `TEST_S3_ENDPOINT`, with the AWS variables for it, runs the suite on one more server.

#![allow(clippy::disallowed_methods, reason = "real servers run on real clocks")]

use std::{
    io::Read,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use anyhow::Context;
use aquifer_storage::{
    claim::{Claim, claim_prefix},
    error::{Outcome, StoreCondition, StoreError},
    format::cluster_file::ClusterFile,
    model::Lineage,
    seam::system,
    store::{
        BucketStore, RetryingStore, S3Options, Store, conformance::check_store, retry::RetryPolicy,
        s3,
    },
};
use aquifer_tests::process::{Process, free_address, localstack, minio, s3_environment};
use bytes::Bytes;
use futures::{StreamExt, future::join_all};

#[path = "stores/emulators.rs"]
mod emulators;
#[path = "stores/profiles.rs"]
mod profiles;

/// MinIO's bucket, and one that does not exist.
const BUCKET: &str = "aquifer";

fn options(endpoint: SocketAddr) -> S3Options {
    S3Options {
        bucket: BUCKET.to_owned(),
        prefix: "well/one".to_owned(),
        endpoint: Some(format!("http://{endpoint}")),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("AKIATEST".to_owned()),
        secret_access_key: Some("secrettest".to_owned()),
        ..S3Options::default()
    }
}

fn store_at(endpoint: SocketAddr) -> anyhow::Result<BucketStore> {
    Ok(s3::with_options(&options(endpoint))?)
}

/// A server for one test, and a store on it.
struct Served {
    server: Process,
    address: SocketAddr,
    store: BucketStore,
    folder: tempfile::TempDir,
}

fn served() -> anyhow::Result<Served> {
    let folder = tempfile::tempdir()?;
    let (server, address) = minio(folder.path())?;
    Ok(Served { server, address, store: store_at(address)?, folder })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_full() -> bool {
    std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty())
}

/// Checks what an error says of the world, and that it quotes the store where it should.
fn assert_told<T: std::fmt::Debug>(
    result: Result<T, StoreError>,
    expected: (Outcome, StoreCondition),
    words: &str,
) {
    let error = result.expect_err(words);
    assert_eq!((error.outcome, error.condition), expected, "{words}: {error}");
    assert!(error.reason.contains(words), "{words}: {error}");
}

#[tokio::test]
async fn the_conformance_suite_passes() -> anyhow::Result<()> {
    let served = served()?;
    check_store(&served.store).await;
    let whole = S3Options { prefix: String::new(), ..options(served.address) };
    let whole = s3::with_options(&whole)?;
    let listed = whole.list("", None, 10_000).await?;
    assert!(listed.iter().all(|listed| listed.key.starts_with("well/one/")));
    for listed in listed {
        whole.delete_many(vec![listed.key]).await?;
    }
    check_store(&whole).await;
    Ok(())
}

/// It shares no code with MinIO, and answers differently where S3 leaves it open.
#[tokio::test]
async fn localstack_passes_the_suite() -> anyhow::Result<()> {
    let (_server, address) = localstack()?;
    check_store(&store_at(address)?).await;
    Ok(())
}

#[tokio::test]
async fn another_server_passes_the_suite() -> anyhow::Result<()> {
    let Ok(endpoint) = std::env::var("TEST_S3_ENDPOINT") else {
        println!("skipped: TEST_S3_ENDPOINT is not set");
        return Ok(());
    };
    let prefix = format!("suite/{}", std::process::id());
    let (bucket, endpoint) = (BUCKET.to_owned(), Some(endpoint));
    let options = S3Options { bucket, prefix, endpoint, ..S3Options::default() };
    let store = s3::open(&options, &variable)?;
    check_store(&store).await;
    Ok(())
}

#[tokio::test]
async fn lists_and_bulk_deletes_pass_a_thousand_keys() -> anyhow::Result<()> {
    let served = served()?;
    let store = &served.store;
    let keys: Vec<String> = (0..2100).map(|n| format!("wal/{n:05}")).collect();
    let puts = keys.iter().map(|key| store.put(key, vec![Bytes::from_static(b"x")]));
    let puts: Vec<_> = futures::stream::iter(puts).buffer_unordered(32).collect().await;
    for put in puts {
        put?;
    }
    let names = |listed: Vec<aquifer_storage::store::Listed>| -> Vec<String> {
        listed.into_iter().map(|listed| listed.key).collect()
    };
    assert_eq!(names(store.list("wal", None, 5000).await?), keys);
    assert_eq!(names(store.list("wal", None, 1001).await?), keys[..1001]);
    assert_eq!(names(store.list("wal", Some("wal/00999"), 1050).await?), keys[1000..2050]);
    let missing = (0..100).map(|n| format!("wal/never-{n}"));
    store.delete_many(keys[..2050].iter().cloned().chain(missing).collect()).await?;
    assert_eq!(names(store.list("wal", None, 5000).await?), keys[2050..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_many_creators_wins() -> anyhow::Result<()> {
    let served = served()?;
    let rounds = if is_full() { 300 } else { 40 };
    for round in 0..rounds {
        let key = format!("race/{round}");
        // Small ones are kept in the server's metadata file, large ones in a file of their own.
        let size_bytes = if round % 2 == 0 { 64 } else { 200_000 };
        let creators = (0..8_u8).map(|creator| {
            let body = Bytes::from(vec![creator; size_bytes]);
            served.store.put_if_absent(&key, body)
        });
        let results = join_all(creators).await;
        let winners: Vec<usize> = (0..8).filter(|&creator| results[creator].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        for error in results.into_iter().filter_map(Result::err) {
            let told = (error.outcome, error.condition);
            assert_eq!(told, (Outcome::Rejected, StoreCondition::AlreadyExists), "{error}");
        }
        assert_eq!(served.store.get(&key).await?, vec![winners[0] as u8; size_bytes]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_many_clusters_claims_a_prefix() -> anyhow::Result<()> {
    let served = served()?;
    let claims = (0..8).map(|n| {
        let file = ClusterFile {
            cluster_id: format!("cluster-{n}"),
            lineage: Lineage { number: 0, nonce: n },
        };
        let store = &served.store;
        async move { claim_prefix(store, &file).await }
    });
    let mut claimed = 0;
    for claim in join_all(claims).await {
        match claim? {
            Claim::Claimed => claimed += 1,
            Claim::Foreign { .. } => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert_eq!(claimed, 1);
    Ok(())
}

/// 64 MiB in pieces of many sizes.
fn large_body() -> Vec<Bytes> {
    let whole: Vec<u8> = (0..64_u32 << 20).map(|n| (n ^ (n >> 11)) as u8).collect();
    let mut rest = Bytes::from(whole);
    let mut pieces = Vec::new();
    for size_bytes in [1, 700, 16 << 10, 300_000].into_iter().cycle() {
        if rest.len() < size_bytes {
            pieces.push(rest);
            return pieces;
        }
        pieces.push(rest.split_to(size_bytes));
    }
    unreachable!("the sizes repeat for ever")
}

#[tokio::test]
async fn a_large_object_of_many_pieces_is_read_back_and_overwritten() -> anyhow::Result<()> {
    let served = served()?;
    let body = large_body();
    let whole = body.concat();
    served.store.put("wal/large", body).await?;
    assert!(served.store.get("wal/large").await? == whole, "the whole differs");
    let end = whole.len() as u64;
    for range in [0..1, 0..65_536, 33_333_333..44_444_444, end - 1..end, end - 70_000..end] {
        let bytes = served.store.get_range("wal/large", range.clone()).await?;
        assert!(bytes == whole[range.start as usize..range.end as usize], "{range:?}");
    }
    for beyond in [end - 1..end + 1, end..end + 1, 0..u64::MAX] {
        let error = served.store.get_range("wal/large", beyond).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Corrupt, "{error}");
    }
    served.store.put("wal/large", vec![Bytes::from_static(b"small")]).await?;
    assert_eq!(served.store.get("wal/large").await?, "small");
    Ok(())
}

#[tokio::test]
async fn every_key_of_the_alphabet_is_a_key() -> anyhow::Result<()> {
    let served = served()?;
    let long = ["segment-".repeat(25).as_str(); 4].join("/");
    let keys = ["A=b/C_d-e.f", "a..b/c.", "0/-/_/=", "-", "topic=a/part=0/00.log", &long];
    for key in keys {
        served.store.put(key, vec![Bytes::from(key.to_owned())]).await.context(key.to_owned())?;
    }
    for key in keys {
        assert_eq!(served.store.get(key).await?, key);
    }
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    let listed = served.store.list("", None, 100).await?;
    assert_eq!(listed.into_iter().map(|listed| listed.key).collect::<Vec<_>>(), sorted);
    served.store.delete_many(sorted.to_vec()).await?;
    assert!(served.store.list("", None, 100).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_nothing_happened_and_why() -> anyhow::Result<()> {
    let served = served()?;
    let body = || vec![Bytes::from_static(b"x")];
    let denied = (Outcome::Rejected, StoreCondition::Denied);
    let wrong_secret =
        S3Options { secret_access_key: Some("wrong".to_owned()), ..options(served.address) };
    let wrong_id = S3Options { access_key_id: Some("WRONG".to_owned()), ..options(served.address) };
    let code = ["SignatureDoesNotMatch", "InvalidAccessKeyId"];
    for (options, code) in [wrong_secret, wrong_id].iter().zip(code) {
        let store = s3::with_options(options)?;
        assert_told(store.put("a", body()).await, denied, code);
        assert_told(store.put_if_absent("a", Bytes::new()).await, denied, code);
        assert_told(store.get("a").await, denied, code);
        assert_told(store.get_range("a", 0..1).await, denied, code);
        assert_told(store.list("", None, 1).await, denied, code);
        assert_told(store.delete_many(vec!["a".to_owned()]).await, denied, code);
    }
    let nowhere = S3Options { bucket: "no-such-bucket".to_owned(), ..options(served.address) };
    let nowhere = s3::with_options(&nowhere)?;
    let (other, code) = ((Outcome::Rejected, StoreCondition::Other), "NoSuchBucket");
    assert_told(nowhere.put("a", body()).await, other, code);
    assert_told(nowhere.put_if_absent("a", Bytes::new()).await, other, code);
    assert_told(nowhere.get("a").await, other, code);
    assert_told(nowhere.list("", None, 1).await, other, code);
    assert_told(nowhere.delete_many(vec!["a".to_owned()]).await, other, code);
    let not_found = (Outcome::Rejected, StoreCondition::NotFound);
    assert_told(served.store.get("a").await, not_found, "NoSuchKey");
    assert_told(served.store.get_range("a", 0..1).await, not_found, "NoSuchKey");
    served.store.put_if_absent("a", Bytes::from_static(b"x")).await?;
    let exists = (Outcome::Rejected, StoreCondition::AlreadyExists);
    assert_told(served.store.put_if_absent("a", Bytes::new()).await, exists, "PreconditionFailed");
    let past_end = served.store.get_range("a", 5..6).await;
    assert_told(past_end, (Outcome::Corrupt, StoreCondition::Other), "InvalidRange");
    Ok(())
}

#[tokio::test]
async fn without_a_connection_nothing_happened() -> anyhow::Result<()> {
    let store = store_at(free_address()?)?;
    let told = (Outcome::Unavailable, StoreCondition::NoAnswer);
    assert_told(store.put("a", vec![Bytes::from_static(b"x")]).await, told, "");
    assert_told(store.put_if_absent("a", Bytes::new()).await, told, "");
    assert_told(store.get("a").await, told, "");
    assert_told(store.list("", None, 1).await, told, "");
    assert_told(store.delete_many(vec!["a".to_owned()]).await, told, "");
    Ok(())
}

/// What a proxy does to the next connections.
#[derive(Clone, Copy)]
enum Break {
    /// Closes both sides after this many bytes of the request.
    Request { after_bytes: u64 },
    /// Passes the request and drops the answer at its first byte.
    Answer,
    /// Passes this many bytes of the answer, then closes.
    AnswerBody { after_bytes: u64 },
    /// Stops reading after this many bytes of the request, until the server is gone.
    Stall { after_bytes: u64 },
}

/// A proxy in front of `server`; `reached` hears when the break comes.
fn proxy(server: SocketAddr, fault: Break, reached: SyncSender<()>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let reached = reached.clone();
            let upstream = TcpStream::connect(server).expect("the server listens");
            let pairs =
                (client.try_clone().expect("clones"), upstream.try_clone().expect("clones"));
            thread::spawn(move || pass_request(pairs.0, pairs.1, fault, &reached));
            thread::spawn(move || pass_answer(upstream, client, fault));
        }
    });
    Ok(address)
}

fn pass_request(client: TcpStream, server: TcpStream, fault: Break, reached: &SyncSender<()>) {
    let most = match fault {
        Break::Request { after_bytes } | Break::Stall { after_bytes } => after_bytes,
        Break::Answer | Break::AnswerBody { .. } => u64::MAX,
    };
    let copied = std::io::copy(&mut (&client).take(most), &mut &server).unwrap_or(0);
    if copied == most {
        // Tell once; nobody may be listening any more.
        let _ = reached.try_send(());
    }
    if !matches!(fault, Break::Stall { .. }) {
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

fn pass_answer(mut server: TcpStream, client: TcpStream, fault: Break) {
    match fault {
        Break::Answer => drop(server.read(&mut [0])),
        Break::AnswerBody { after_bytes } => {
            drop(std::io::copy(&mut server.take(after_bytes), &mut &client));
        }
        Break::Request { .. } | Break::Stall { .. } => {
            drop(std::io::copy(&mut server, &mut &client));
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

const UNKNOWN: (Outcome, StoreCondition) = (Outcome::Indefinite, StoreCondition::NoAnswer);

fn pieces(count: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![7; 64 << 10]); count]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_cut_is_unknown_and_shows_nothing() -> anyhow::Result<()> {
    let served = served()?;
    let (reached, _hears) = sync_channel(1);
    let cut = proxy(served.address, Break::Request { after_bytes: 3 << 20 }, reached)?;
    let through = store_at(cut)?;
    assert_told(through.put("wal/cut", pieces(256)).await, UNKNOWN, "");
    let error = served.store.get("wal/cut").await.unwrap_err();
    assert_eq!(error.condition, StoreCondition::NotFound, "half an object is none: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_unknown_and_may_have_happened() -> anyhow::Result<()> {
    let served = served()?;
    let (reached, _hears) = sync_channel(1);
    let through = store_at(proxy(served.address, Break::Answer, reached)?)?;
    assert_told(through.put("wal/lost", pieces(2)).await, UNKNOWN, "");
    assert_eq!(served.store.get("wal/lost").await?.len(), 128 << 10, "it did happen");
    assert_told(through.put_if_absent("once", Bytes::from_static(b"me")).await, UNKNOWN, "");
    assert_eq!(served.store.get("once").await?, "me", "it did happen");
    assert_told(through.delete_many(vec!["once".to_owned()]).await, UNKNOWN, "");
    let told = (Outcome::Unavailable, StoreCondition::NoAnswer);
    assert_told(through.get("wal/lost").await, told, "");
    assert_told(through.list("", None, 1).await, told, "");
    let (reached, _hears) = sync_channel(1);
    let halfway = proxy(served.address, Break::AnswerBody { after_bytes: 60_000 }, reached)?;
    assert_told(store_at(halfway)?.get_range("wal/lost", 0..128 << 10).await, told, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_during_a_put_leaves_it_unknown_and_a_repeat_heals() -> anyhow::Result<()> {
    let Served { mut server, address, folder, store: _ } = served()?;
    let (reached, hears) = sync_channel(1);
    let stalled = proxy(address, Break::Stall { after_bytes: 3 << 20 }, reached)?;
    let through = store_at(stalled)?;
    let put = tokio::spawn(async move { through.put("wal/killed", pieces(512)).await });
    tokio::task::spawn_blocking(move || hears.recv()).await??;
    server.kill()?;
    assert_told(put.await?, UNKNOWN, "");

    let (_server, address) = minio(folder.path())?;
    let store = RetryingStore::new(store_at(address)?, RetryPolicy::default(), system::seams());
    let error = store.get("wal/killed").await.unwrap_err();
    assert_eq!(error.condition, StoreCondition::NotFound, "half an object is none: {error}");
    store.put("wal/killed", pieces(512)).await?;
    assert_eq!(store.get("wal/killed").await?.len(), 32 << 20);
    Ok(())
}

/// Runs `test` of this file in a process of its own with `variables`.
fn child(test: &str, variables: &[(String, String)]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", test, "--nocapture"]).envs(variables.iter().cloned());
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{printed}{why}");
    anyhow::ensure!(printed.contains("1 passed"), "{test} did not run: {printed}");
    Ok(())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Names the endpoint to a child's test; unset, it has nothing to do.
const CHILD: &str = "STORES_CHILD";

#[tokio::test]
async fn in_a_child_the_environment_is_enough() -> anyhow::Result<()> {
    if std::env::var(CHILD).is_err() {
        return Ok(());
    }
    let (bucket, prefix) = (BUCKET.to_owned(), format!("child/{}", std::process::id()));
    let options = S3Options { bucket, prefix, ..S3Options::default() };
    let store = s3::open(&options, &variable)?;
    check_store(&store).await;
    Ok(())
}

#[test]
fn variables_and_profiles_of_the_aws_sdks_lead_to_the_store() -> anyhow::Result<()> {
    const TEST: &str = "in_a_child_the_environment_is_enough";
    let served = served()?;
    let mut variables = s3_environment(served.address);
    variables.push(pair(CHILD, "1"));
    child(TEST, &variables)?;
    // The SDK beneath would obey each of these.
    let stray = [
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_UNSIGNED_PAYLOAD", "false"),
        ("AWS_CHECKSUM_ALGORITHM", "sha256"),
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("AWS_ALLOW_HTTP", "false"),
        ("AWS_TIMEOUT", "1ms"),
        ("AWS_CONNECT_TIMEOUT", "1ms"),
        ("AWS_PROXY_URL", "http://127.0.0.1:1"),
        ("AWS_BUCKET", "other"),
        ("AWS_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_TOKEN", "stray"),
        ("AWS_DISABLE_BULK_DELETE", "true"),
        ("AWS_S3_EXPRESS", "true"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", "x"),
        ("AWS_SERVER_SIDE_ENCRYPTION", "sse-c"),
        ("AWS_ALLOW_INVALID_CERTIFICATES", "true"),
    ];
    let stray = stray.iter().map(|(name, value)| pair(name, value));
    child(TEST, &variables.iter().cloned().chain(stray).collect::<Vec<_>>())?;
    child(TEST, &[profile(served.folder.path(), served.address)?, vec![pair(CHILD, "1")]].concat())
}

/// A profile for `endpoint`, in files below `folder`.
fn profile(folder: &Path, endpoint: SocketAddr) -> anyhow::Result<Vec<(String, String)>> {
    let (credentials, config) = (folder.join("credentials"), folder.join("config"));
    let keys = "aws_access_key_id = AKIATEST\naws_secret_access_key = secrettest\n";
    std::fs::write(&credentials, format!("[default]\naws_access_key_id=no\n[deep]\n{keys}"))?;
    std::fs::write(&config, format!("[profile deep]\nendpoint_url = http://{endpoint}\n"))?;
    Ok(vec![
        pair("AWS_PROFILE", "deep"),
        pair("AWS_SHARED_CREDENTIALS_FILE", &credentials.to_string_lossy()),
        pair("AWS_CONFIG_FILE", &config.to_string_lossy()),
    ])
}
