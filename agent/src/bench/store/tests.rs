//! Laws of the store over real sockets.

use std::time::{Duration, Instant};

use aquifer_storage::{
    error::{Outcome, StoreCondition},
    store::{BucketStore, S3Options, Store, conformance, s3},
};
use bytes::Bytes;
use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    store: StoreArgs,
}

/// A stub that listens, until it is dropped.
struct Running {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Running {
    async fn with(arguments: &[&str]) -> Self {
        let arguments = ["store"].iter().chain(arguments);
        let stub = Cli::try_parse_from(arguments).unwrap().store.stub().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: tokio::spawn(serve::serve(listener, Arc::new(stub))) }
    }

    async fn before(upstream: &Self) -> Self {
        Self::with(&["--upstream", &format!("http://{}", upstream.address)]).await
    }

    /// Our own client of it.
    fn client(&self) -> BucketStore {
        s3::with_options(&S3Options {
            bucket: "water".to_owned(),
            prefix: "well".to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("secret".to_owned()),
            allow_http: true,
            ..S3Options::default()
        })
        .unwrap()
    }

    /// Sends one request on a connection of its own; status, head and body of the answer, none when
    /// the connection closes without.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answered {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: stub\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The store may close while we write.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn fail(&self, rules: &str) {
        let body = format!("{{\"rules\":{rules}}}");
        let answered = self.ask("PUT", "/-/faults", "", body.as_bytes()).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.ask("GET", path, "", b"").await.body).unwrap()
    }

    async fn keys(&self) -> Vec<String> {
        let listed = self.client().list("", None, 1000).await.unwrap();
        listed.into_iter().map(|listed| listed.key).collect()
    }
}

struct Answered {
    status: u16,
    head: String,
    body: String,
}

async fn put(store: &BucketStore, key: &str) -> Result<(), aquifer_storage::error::StoreError> {
    store.put(key, vec![Bytes::from_static(b"deep "), Bytes::from_static(b"water")]).await
}

#[tokio::test]
async fn it_is_a_store_to_our_client() {
    let stub = Running::with(&[]).await;
    conformance::check_store(&stub.client()).await;
}

#[tokio::test]
async fn it_is_a_store_to_our_client_as_a_proxy_too() {
    let upstream = Running::with(&[]).await;
    let proxy = Running::before(&upstream).await;
    conformance::check_store(&proxy.client()).await;
    let (near, far) = (proxy.json("/-/counters").await, upstream.json("/-/counters").await);
    for name in ["PUT", "GET", "LIST", "POST", "bytes_in", "bytes_out"] {
        assert!(near[name].as_u64() > Some(0), "{name}");
        assert_eq!(near[name], far[name], "{name}");
    }
    assert_eq!(proxy.ask("GET", "/-/objects", "", b"").await.status, 404);
}

#[tokio::test]
async fn a_large_object_comes_back_as_it_went() {
    let upstream = Running::with(&[]).await;
    let proxy = Running::before(&upstream).await;
    let pieces: Vec<_> =
        (0..40_u8).map(|n| (0..100_003_u32).map(|i| (i % 251) as u8 ^ n).collect()).collect();
    let pieces: Vec<Bytes> = pieces.into_iter().map(|piece: Vec<u8>| piece.into()).collect();
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    let client = proxy.client();
    client.put("large", pieces).await.unwrap();
    assert!(client.get("large").await.unwrap() == whole);
    for range in [0..1, 99_999..1_000_001, 4_000_119..4_000_120] {
        let expected = &whole[range.start as usize..range.end as usize];
        assert!(client.get_range("large", range).await.unwrap() == expected);
    }
    let stock = upstream.json("/-/objects").await;
    assert_eq!(stock, serde_json::json!({"count": 1, "bytes": whole.len()}));
}

#[tokio::test]
async fn what_a_dropped_answer_is_about_did_happen_and_a_reset_did_not() {
    let store = Running::with(&[]).await;
    let proxy = Running::before(&store).await;
    for (stub, name) in [(&store, "store"), (&proxy, "proxy")] {
        let client = stub.client();
        let key = |what| format!("{name}-{what}");
        stub.fail(
            r#"[{"method":"PUT","action":"drop-answer","key_contains":"dropped"},
                {"method":"PUT","action":"reset","key_contains":"reset"}]"#,
        )
        .await;
        for what in ["dropped", "reset"] {
            let error = put(&client, &key(what)).await.unwrap_err();
            assert_eq!(error.outcome, Outcome::Indefinite, "{error}");
            assert_eq!(error.condition, StoreCondition::NoAnswer, "{error}");
        }
        put(&client, &key("plain")).await.unwrap();
        stub.fail("[]").await;
        assert_eq!(client.get(&key("dropped")).await.unwrap(), "deep water");
        let error = client.get(&key("reset")).await.unwrap_err();
        assert_eq!(error.condition, StoreCondition::NotFound);
        assert_eq!(stub.json("/-/counters").await["faults"], 2);
    }
    assert_eq!(
        store.keys().await,
        ["proxy-dropped", "proxy-plain", "store-dropped", "store-plain"]
    );
}

#[tokio::test]
async fn a_reset_comes_before_the_whole_body_was_sent() {
    let stub = Running::with(&[]).await;
    stub.fail(r#"[{"method":"*","action":"reset"}]"#).await;
    let mut stream = TcpStream::connect(stub.address).await.unwrap();
    let head = "PUT /b/k HTTP/1.1\r\nHost: stub\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 49]).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(early.is_err(), "half of the body is still to come");
    stream.write_all(&[0; 1]).await.unwrap();
    stream.read_u8().await.expect_err("the connection closes");
    assert_eq!(stub.ask("GET", "/b/k", "", b"").await.status, 0);
}

#[tokio::test]
async fn an_injected_status_is_an_s3_error_and_its_request_is_not_carried_out() {
    let store = Running::with(&[]).await;
    let proxy = Running::before(&store).await;
    for stub in [&store, &proxy] {
        for (status, code) in [(403, "AccessDenied"), (404, "NoSuchBucket"), (503, "SlowDown")] {
            let rules = format!(r#"[{{"method":"PUT","action":"status:{status}","count":2}}]"#);
            stub.fail(&rules).await;
            let answered = stub.ask("PUT", "/water/well/k", "", b"deep").await;
            assert_eq!(answered.status, status);
            assert!(answered.body.contains(&format!("<Code>{code}</Code>")), "{}", answered.body);
            assert!(put(&stub.client(), "k").await.is_err());
            assert_eq!(stub.ask("HEAD", "/water/well/k", "", b"").await.status, 404);
            put(&stub.client(), "k").await.expect("the rule was for two requests");
            assert_eq!(stub.ask("DELETE", "/water/well/k", "", b"").await.status, 204);
        }
    }
}

#[tokio::test]
async fn a_hanging_request_ends_when_the_rules_are_replaced() {
    let stub = Running::with(&[]).await;
    stub.fail(r#"[{"method":"PUT","action":"hang"}]"#).await;
    let client = stub.client();
    let mut hanging = Box::pin(put(&client, "k"));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut hanging).await;
    assert!(early.is_err(), "no answer comes");
    assert_eq!(stub.ask("GET", "/water/well/k", "", b"").await.status, 404);
    stub.fail("[]").await;
    let ended = tokio::time::timeout(Duration::from_secs(5), hanging).await;
    let error = ended.expect("it was let go").unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite);
    assert!(stub.keys().await.is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_a_hanging_request_is_noticed() {
    let stub = Running::with(&[]).await;
    stub.fail(r#"[{"method":"PUT","action":"hang"}]"#).await;
    let mut stream = TcpStream::connect(stub.address).await.unwrap();
    let request = "PUT /b/k HTTP/1.1\r\nHost: stub\r\nContent-Length: 4\r\n\r\ndeep";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    assert!(closed.expect("the connection closes").is_err());
}

#[tokio::test]
async fn rules_that_do_not_read_are_answered_with_what_and_where_and_change_nothing() {
    let stub = Running::with(&[]).await;
    stub.fail(r#"[{"method":"GET","action":"status:500","count":7}]"#).await;
    let body = b"{\"rules\":[\n{\"method\":\"GET\",\"action\":\"vanish\"}]}";
    let answered = stub.ask("PUT", "/-/faults", "", body).await;
    assert_eq!(answered.status, 400);
    assert!(answered.body.contains("vanish") && answered.body.contains("line 2"));
    assert_eq!(stub.ask("GET", "/b/k", "", b"").await.status, 500);
    assert_eq!(stub.json("/-/faults").await["rules"][0]["count"], 6);
    for (method, path, status) in [
        ("GET", "/-/", 404),
        ("DELETE", "/-/faults", 405),
        ("POST", "/-/counters/reset", 204),
        ("GET", "/-/counters", 200),
    ] {
        assert_eq!(stub.ask(method, path, "", b"").await.status, status, "{method} {path}");
    }
    assert_eq!(stub.json("/-/counters").await["GET"], 0);
}

#[tokio::test]
async fn puts_beyond_the_memory_are_refused_until_room_is_made() {
    let stub = Running::with(&["--memory", "100"]).await;
    assert_eq!(stub.ask("PUT", "/b/one", "", &[0; 60]).await.status, 200);
    let refused = stub.ask("PUT", "/b/two", "", &[0; 60]).await;
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("<Code>InternalError</Code>"), "{}", refused.body);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut stream = TcpStream::connect(stub.address).await.unwrap();
    let request = format!(
        "PUT /b/two HTTP/1.1\r\nHost: stub\r\n{chunked}\r\n1e\r\n{0}\r\n1e\r\n{0}\r\n0\r\n\r\n",
        "x".repeat(30)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 500");
    assert_eq!(stub.json("/-/objects").await, serde_json::json!({"count": 1, "bytes": 60}));
    assert_eq!(stub.ask("DELETE", "/b/one", "", b"").await.status, 204);
    assert_eq!(stub.ask("PUT", "/b/two", "", &[0; 100]).await.status, 200);
}

#[tokio::test]
async fn bodies_in_aws_chunks_are_stored_without_their_frames() {
    let stub = Running::with(&[]).await;
    let headers = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n\
                   content-encoding: aws-chunked\r\nx-amz-decoded-content-length: 10\r\n";
    let body = b"5\r\ndeep \r\n5\r\nwater\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    assert_eq!(stub.ask("PUT", "/b/k", headers, body).await.status, 200);
    assert_eq!(stub.ask("GET", "/b/k", "", b"").await.body, "deep water");
    for cut in [&body[..9], &body[10..], b"5\r\ndeep \r\n0\r\n\r\n"] {
        let answered = stub.ask("PUT", "/b/cut", headers, cut).await;
        assert_eq!(answered.status, 400, "{}", cut.escape_ascii());
        assert!(answered.body.contains("IncompleteBody"));
    }
    assert_eq!(stub.ask("HEAD", "/b/cut", "", b"").await.status, 404);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stored() {
    let stub = Running::with(&[]).await;
    let mut stream = TcpStream::connect(stub.address).await.unwrap();
    let request = "PUT /b/k HTTP/1.1\r\nHost: stub\r\nContent-Length: 5\r\n\r\ndeep";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(stub.json("/-/objects").await["count"], 0);
}

#[tokio::test]
async fn heads_ranges_and_conditions_are_answered_as_s3_does() {
    let stub = Running::with(&[]).await;
    let put = stub.ask("PUT", "/b/k", "", b"deep water").await;
    let etag = put.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let head = stub.ask("HEAD", "/b/k", "", b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for line in ["content-length: 10", "last-modified: ", "accept-ranges: bytes", &etag] {
        assert!(head.head.contains(line), "{line}: {}", head.head);
    }
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "deep", "content-range: bytes 0-3/10"),
        ("bytes=-5", 206, "water", "content-range: bytes 5-9/10"),
        ("bytes=5-99", 206, "water", "content-range: bytes 5-9/10"),
        ("bytes=x", 200, "deep water", "content-length: 10"),
    ] {
        let got = stub.ask("GET", "/b/k", &format!("Range: {range}\r\n"), b"").await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{range}");
        assert!(got.head.contains(content_range), "{range}: {}", got.head);
    }
    for (method, path, header, status, code) in [
        ("GET", "/b/k", "Range: bytes=10-", 416, "InvalidRange"),
        ("GET", "/b/none", "A: b", 404, "NoSuchKey"),
        ("GET", "/b/k", "If-Match: \"x\"", 412, "PreconditionFailed"),
        ("PUT", "/b/k", "If-None-Match: *", 412, "PreconditionFailed"),
        ("PUT", "/b/k", "If-Match: \"x\"", 412, "PreconditionFailed"),
        ("PUT", "/b/k", "x-amz-copy-source: /b/k", 501, "NotImplemented"),
        ("POST", "/b/k?uploads", "A: b", 501, "NotImplemented"),
        ("POST", "/b?delete", "A: b", 400, "MalformedXML"),
        ("GET", "/b?list-type=2&continuation-token=x", "A: b", 400, "InvalidArgument"),
        ("PATCH", "/b/k", "A: b", 405, "MethodNotAllowed"),
        ("GET", "/b/%ff", "A: b", 400, "InvalidURI"),
    ] {
        let answered = stub.ask(method, path, &format!("{header}\r\n"), b"").await;
        assert_eq!(answered.status, status, "{method} {path} {header}");
        let code = format!("<Code>{code}</Code>");
        assert!(answered.body.contains(&code), "{method} {path} {header}: {}", answered.body);
    }
    let not_modified = stub.ask("GET", "/b/k", &format!("If-None-Match: {etag}\r\n"), b"").await;
    assert_eq!(not_modified.status, 304);
    let replaced = stub.ask("PUT", "/b/k", &format!("If-Match: {etag}\r\n"), b"x").await;
    assert_eq!(replaced.status, 200);
}

#[tokio::test]
async fn a_request_takes_its_latency_and_a_slow_one_a_multiple() {
    let stub = Running::with(&["--preset", "s3-express", "--tail", "1:10"]).await;
    let client = stub.client();
    let timed = async || {
        let begun = Instant::now();
        put(&client, "k").await.unwrap();
        begun.elapsed()
    };
    let mut model = LatencyModel::new(Preset::S3Express, "1:10".parse().unwrap(), 1);
    let (first, second) =
        (model.draw(request::Kind::Put).unwrap(), model.draw(request::Kind::Put).unwrap());
    let took = timed().await;
    let tick = Duration::from_millis(1);
    assert!(first <= took + tick, "{took:?} is less than {first:?}");
    stub.fail(r#"[{"method":"PUT","action":"slow:3"}]"#).await;
    let took = timed().await;
    assert!(second * 3 <= took + tick, "{took:?} is less than three times {second:?}");
    let counters = stub.json("/-/counters").await;
    assert_eq!((&counters["put_latency"]["count"], &counters["faults"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn bytes_take_their_time_both_ways() {
    let stub = Running::with(&["--bandwidth", "10"]).await;
    let client = stub.client();
    let least = Duration::from_millis(200);
    let begun = Instant::now();
    client.put("k", vec![Bytes::from(vec![0; 2 << 20])]).await.unwrap();
    let took = begun.elapsed();
    assert!(least <= took && took < 10 * least, "{took:?}");
    let begun = Instant::now();
    assert_eq!(client.get("k").await.unwrap().len(), 2 << 20);
    let took = begun.elapsed();
    assert!(least <= took && took < 10 * least, "{took:?}");
    let counters = stub.json("/-/counters").await;
    assert_eq!(
        (&counters["bytes_in"], &counters["bytes_out"]),
        (&(2 << 20).into(), &(2 << 20).into())
    );
    assert!(counters["get_latency"]["p50_ms"].as_f64() >= Some(199.0));
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_busy() {
    let gone = Running::with(&[]).await;
    let proxy = Running::before(&gone).await;
    put(&proxy.client(), "k").await.unwrap();
    let client = proxy.client();
    drop(gone);
    // The connection that was idle breaks first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = put(&client, "k").await.unwrap_err();
    assert_eq!(error.condition, StoreCondition::Busy, "{error}");
}

#[test]
fn arguments_out_of_their_ranges_are_refused() {
    let stub = |arguments: &[&str]| {
        let arguments = ["store"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map_err(anyhow::Error::from)?.store.stub().map(drop)
    };
    assert!(stub(&["--preset", "s3-standard", "--bandwidth", "0", "--tail", "0.01:5"]).is_ok());
    for wrong in [
        ["--bandwidth", "-1"],
        ["--bandwidth", "nan"],
        ["--tail", "2:1"],
        ["--preset", "s4"],
        ["--memory", "much"],
        ["--upstream", "minio"],
        ["--listen", "here"],
    ] {
        assert!(stub(&wrong).is_err(), "{wrong:?}");
    }
}
