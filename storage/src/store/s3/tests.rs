//! Laws of s3.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use super::*;

/// A store that answers one request with `answer`, or with nothing when it is empty.
fn answering(answer: &'static str) -> (S3Store, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
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
    (store_at(&endpoint), server)
}

fn store_at(endpoint: &str) -> S3Store {
    S3Store::new(&S3Options {
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

async fn put(store: &S3Store) -> Result<(), StoreError> {
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
}

#[tokio::test]
async fn statuses_become_outcomes_without_a_retry() {
    for (answer, outcome, condition) in [
        ("HTTP/1.1 403 Forbidden", Outcome::Rejected, StoreCondition::Denied),
        ("HTTP/1.1 404 Not Found", Outcome::Rejected, StoreCondition::NotFound),
        ("HTTP/1.1 412 Precondition Failed", Outcome::Rejected, StoreCondition::AlreadyExists),
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

    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let error = put(&store_at(&endpoint)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
    assert_eq!(error.condition, StoreCondition::NoAnswer);
}

#[test]
fn secrets_are_not_printed() {
    let options = S3Options { secret_access_key: Some("hush".to_owned()), ..S3Options::default() };
    assert!(!format!("{options:?}").contains("hush"));
}
