//! Laws of s3.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

use bytes::Bytes;

use super::*;
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    store::Store,
};

/// A server that answers one request and gives its head.
struct Server {
    address: SocketAddr,
    thread: std::thread::JoinHandle<String>,
}

impl Server {
    fn join(self) -> std::thread::Result<String> {
        self.thread.join()
    }
}

/// A store that answers one request with `answer`, or with nothing when it is empty.
fn answering(answer: &'static str) -> (BucketStore, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&request).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        socket.read_exact(&mut body).unwrap();
        socket.write_all(answer.as_bytes()).unwrap();
        head
    });
    (store_at(&format!("http://{address}")), Server { address, thread })
}

fn store_at(endpoint: &str) -> BucketStore {
    with_options(&S3Options {
        bucket: "water".to_owned(),
        prefix: "well".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        allow_http: true,
        ..S3Options::default()
    })
    .unwrap()
}

async fn put(store: &BucketStore) -> Result<(), StoreError> {
    store.put("wal/a", vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]).await
}

#[tokio::test]
async fn a_put_is_one_unsigned_request_with_a_checksum() {
    let (store, server) = answering("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n");
    put(&store).await.unwrap();
    let head = server.join().unwrap();
    assert!(head.starts_with("put /water/well/wal/a http/1.1"), "{head}");
    assert!(head.contains("x-amz-content-sha256: unsigned-payload"), "{head}");
    assert!(head.contains("x-amz-checksum-crc64nvme: "), "{head}");
    assert!(!head.contains("content-md5") && !head.contains("checksum-sha256"), "{head}");
    assert!(head.contains("content-length: 6") && !head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn statuses_become_outcomes_without_a_retry() {
    for (answer, outcome, condition) in [
        ("HTTP/1.1 403 Forbidden", Outcome::Rejected, StoreCondition::Denied),
        ("HTTP/1.1 404 Not Found", Outcome::Rejected, StoreCondition::NotFound),
        ("HTTP/1.1 429 Too Many Requests", Outcome::Unavailable, StoreCondition::Busy),
        ("HTTP/1.1 503 Slow Down", Outcome::Indefinite, StoreCondition::Busy),
        ("HTTP/1.1 501 Not Implemented", Outcome::Rejected, StoreCondition::Unsupported),
    ] {
        let whole = format!("{answer}\r\nContent-Length: 0\r\n\r\n").leak();
        let (store, server) = answering(whole);
        let error = put(&store).await.unwrap_err();
        assert_eq!((error.outcome, error.condition), (outcome, condition), "{error}");
        server.join().unwrap();
    }
}

#[tokio::test]
async fn a_put_without_an_answer_is_indefinite_and_one_without_a_connection_is_not() {
    let (store, server) = answering("");
    let error = put(&store).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite, "{error}");
    server.join().unwrap();

    let error = put(&store_at(&closed())).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
    assert_eq!(error.condition, StoreCondition::NoAnswer);
}

#[tokio::test]
async fn a_create_that_finds_or_meets_another_lost_the_race() {
    for status in ["409 Conflict", "412 Precondition Failed"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
        let (store, server) = answering(answer);
        let error = store.put_if_absent("wal/a", Bytes::new()).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected, "{error}");
        assert_eq!(error.condition, StoreCondition::AlreadyExists);
        assert!(server.join().unwrap().contains("if-none-match: *"));
    }
}

/// What a bulk delete says when the store answers 200 with `body`.
async fn delete_answered(body: &str) -> Result<(), StoreError> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let (store, server) = answering((head + body).leak());
    let deleted = store.delete_many(vec!["wal/a".to_owned()]).await;
    server.join().unwrap();
    deleted
}

#[tokio::test]
async fn a_bulk_delete_fails_by_what_its_answer_says_of_each_key() {
    let failed = |code: &str| {
        let key = "<Key>never/asked</Key>";
        format!("<DeleteResult><Error>{key}<Code>{code}</Code><Message/></Error></DeleteResult>")
    };
    delete_answered("<DeleteResult></DeleteResult>").await.unwrap();
    delete_answered(&failed("NoSuchKey")).await.unwrap();
    for (body, outcome, condition) in [
        (failed("AccessDenied"), Outcome::Rejected, StoreCondition::Denied),
        (failed("SlowDown"), Outcome::Indefinite, StoreCondition::Busy),
        (failed("Surprise"), Outcome::Indefinite, StoreCondition::Busy),
        ("<html>".to_owned(), Outcome::Indefinite, StoreCondition::NoAnswer),
        (String::new(), Outcome::Indefinite, StoreCondition::NoAnswer),
    ] {
        let error = delete_answered(&body).await.unwrap_err();
        assert_eq!((error.outcome, error.condition), (outcome, condition), "{error}");
    }
}

#[tokio::test]
async fn an_endless_error_page_is_read_in_part() {
    let page = format!("<Error><Code>SlowDown</Code>{}", "x".repeat(1 << 20));
    let head = format!("HTTP/1.1 503 Busy\r\nContent-Length: {}\r\n\r\n", page.len());
    let (store, server) = answering((head + &page).leak());
    let error = put(&store).await.unwrap_err();
    assert!(error.reason.starts_with("status 503 SlowDown"), "{error}");
    assert!(error.reason.len() < 1000);
    drop(store);
    // The server may not get rid of the rest; that is its own affair.
    let _ = server.join();
}

#[tokio::test]
async fn a_store_that_ignores_ranges_is_refused_before_its_body_is_read() {
    let (store, server) = answering("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nwhole");
    let error = store.get_range("wal/a", 1..3).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Rejected, "{error}");
    assert_eq!(error.condition, StoreCondition::Unsupported);
    server.join().unwrap();
}

/// An address nobody listens at.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A store that knows its bucket only, in a world of `variables`.
fn in_world(variables: &[(&str, &str)]) -> Result<BucketStore, S3RefusedReason> {
    let world = World {
        variable: &|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        },
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    let options = S3Options { bucket: "water".to_owned(), ..S3Options::default() };
    super::in_world(&options, &world)
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_error_says_what_to_set() {
    let (store, metadata) = (closed(), closed());
    let variables =
        [("AWS_ENDPOINT_URL", &*store), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*metadata)];
    let error = put(&in_world(&variables).unwrap()).await.unwrap_err();
    assert_eq!((error.outcome, error.condition), (Outcome::Unavailable, StoreCondition::Denied));
    assert!(error.reason.contains("set AWS_ACCESS_KEY_ID"), "{error}");
}

#[tokio::test]
async fn a_session_token_goes_with_its_keys() {
    let (_, server) = answering("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n");
    let endpoint = format!("http://{}", server.address);
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let more = [("AWS_SESSION_TOKEN", "tide"), ("AWS_ENDPOINT_URL_S3", &endpoint)];
    put(&in_world(&[keys, more].concat()).unwrap()).await.unwrap();
    let head = server.join().unwrap();
    assert!(head.contains("x-amz-security-token: tide"), "{head}");
    assert!(head.contains("/us-east-1/s3/aws4_request"), "{head}");
}

#[test]
fn secrets_are_not_printed() {
    let options = S3Options { secret_access_key: Some("hush".to_owned()), ..S3Options::default() };
    assert!(!format!("{options:?}").contains("hush"));
}
