//! Laws of asking: in which version, how often, and what is said when no answer comes.

use std::time::Duration;

use bytes::Bytes;

use super::{
    testing::{Broker, Reply},
    *,
};
use crate::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, CreateTopicsResponseTopics,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn created(code: ErrorCode) -> CreateTopicsResponse {
    let topic = CreateTopicsResponseTopics {
        name: Str::from_static("t"),
        error_code: code.code(),
        error_message: None,
        ..CreateTopicsResponseTopics::default()
    };
    CreateTopicsResponse { topics: vec![topic], ..CreateTopicsResponse::default() }
}

async fn create(client: &mut Client) -> Result<(), ClientError> {
    let asking = async |client: &mut Client| {
        let answer: CreateTopicsResponse =
            client.call_controller(&CreateTopicsRequest::default()).await?;
        ClientError::check(|| "topic t".to_owned(), answer.topics[0].error_code)
    };
    client.changing(asking).await
}

#[tokio::test]
async fn the_highest_version_that_both_speak_is_asked() {
    let broker = Broker::new(&[(ApiKey::Metadata, 7)], |_| None);
    let mut client = broker.client(PATIENCE).await.unwrap();
    assert_eq!(client.topic("t").await.unwrap().partitions.len(), 1);
    assert_eq!(broker.asked(ApiKey::Metadata), (1, Some(7)));
    assert_eq!(broker.asked(ApiKey::ApiVersions), (1, Some(0)));
}

#[tokio::test]
async fn a_change_without_an_answer_is_not_asked_again_and_told_as_unknown() {
    let broker =
        Broker::new(&[], |asked| (asked.key == ApiKey::CreateTopics).then_some(Reply::Close));
    let mut client = broker.client(PATIENCE).await.unwrap();
    let error = create(&mut client).await.unwrap_err();
    assert!(error.is_indefinite(), "{error}");
    assert_eq!(broker.asked(ApiKey::CreateTopics).0, 1);
    let told = format!("{:#}", crate::cli::about_change(error, "topic describe t"));
    assert!(told.starts_with("it is not known whether this happened: look with"), "{told}");
}

#[tokio::test]
async fn a_question_without_an_answer_is_asked_again() {
    let mut asked_before = false;
    let broker = Broker::new(&[], move |asked| {
        let is_first = asked.key == ApiKey::Metadata && !asked_before;
        asked_before |= is_first;
        is_first.then_some(Reply::Close)
    });
    let mut client = broker.client(PATIENCE).await.unwrap();
    assert!(client.topic("t").await.is_ok());
    assert_eq!(broker.asked(ApiKey::Metadata).0, 2);
}

#[tokio::test]
async fn a_change_that_did_not_happen_is_asked_again_and_a_refused_one_is_not() {
    let mut left = 2;
    let broker = Broker::new(&[], move |asked| {
        (asked.key == ApiKey::CreateTopics).then(|| {
            left -= 1;
            let codes = [ErrorCode::TopicAlreadyExists, ErrorCode::NotController];
            asked.answer(&created(codes[left]))
        })
    });
    let mut client = broker.client(PATIENCE).await.unwrap();
    let error = create(&mut client).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicAlreadyExists));
    assert_eq!(broker.asked(ApiKey::CreateTopics).0, 2);
}

#[tokio::test]
async fn silence_ends_with_the_patience() {
    let patience = Duration::from_millis(200);
    let broker =
        Broker::new(&[], |asked| (asked.key == ApiKey::CreateTopics).then_some(Reply::Silence));
    let mut client = broker.client(patience).await.unwrap();
    let error = create(&mut client).await.unwrap_err();
    assert_eq!(error.to_string(), "broker:9092 did not answer CreateTopics within 200ms");
    let mute = Broker::new(&[], |_| Some(Reply::Silence));
    let error = mute.client(patience).await.err().expect("it says nothing").to_string();
    assert!(error.contains("does not answer as a Kafka broker: silent for 200ms"), "{error}");
}

#[tokio::test]
async fn what_speaks_something_else_is_told_so() {
    let http = Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let broker = Broker::new(&[], move |_| Some(Reply::Frame(vec![http.clone()])));
    let error = broker.client(PATIENCE).await.err().expect("no broker").to_string();
    assert!(error.contains("does not answer as a Kafka broker"), "{error}");
}

#[tokio::test]
async fn a_broker_without_the_api_is_told_by_its_name() {
    let broker = Broker::new(&[(ApiKey::CreateTopics, 1)], |_| None);
    let mut client = broker.client(PATIENCE).await.unwrap();
    let error = create(&mut client).await.unwrap_err();
    assert!(!error.is_indefinite());
    let told = "broker:9092 cannot do this: it speaks CreateTopics 0..=1, this client";
    assert!(error.to_string().starts_with(told), "{error}");
}

#[tokio::test]
async fn bootstrap_brokers_need_no_port_and_nonsense_is_a_usage_error() {
    let args = |bootstrap: &str| ConnectArgs::plain(bootstrap.to_owned());
    for bad in ["", " , ", ":9092", "broker:", "broker:x"] {
        let error = Client::connect(&args(bad), aquifer_storage::seam::system::seams()).await;
        let error = error.err().expect("nonsense");
        assert!(error.is::<crate::cli::Usage>(), "{bad}: {error}");
    }
}
