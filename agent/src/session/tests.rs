//! Laws of session.

use std::sync::atomic::Ordering;

use aquifer_storage::seam::system;

use super::*;
use crate::produce::testing::ModelMetadata;

mod heal;

fn session() -> (Session, Arc<ModelMetadata>, Seams) {
    let seams = system::seams();
    let (metadata, _) = ModelMetadata::new(seams.clone());
    let advertised = HostPort { host: "agent".to_owned(), port: 9092 };
    let config = SessionConfig { advertised, zone: None };
    let (session, service) = Session::new(config, metadata.clone(), seams.clone());
    seams.spawn("session", service.run(std::future::pending()));
    (session, metadata, seams)
}

#[tokio::test]
async fn producer_ids_are_given_once_also_over_blocks() {
    let (session, _, _) = session();
    session.registered().await;
    for expected in 0..1500 {
        assert_eq!(session.next_producer_id().await.unwrap().value(), expected);
    }
}

#[tokio::test]
async fn a_fenced_session_is_followed_by_a_newer_one() {
    let (session, metadata, _) = session();
    let first = session.registered().await.session;
    metadata.fence_all();
    session.fenced(first);
    let mut changes = session.changes();
    let newer = |now: &Option<Registered>| now.as_ref().is_some_and(|now| first < now.session);
    changes.wait_for(newer).await.unwrap();
}

#[tokio::test]
async fn registration_waits_for_metadata_to_come_back() {
    let (session, metadata, seams) = session();
    metadata.away.store(true, Ordering::SeqCst);
    metadata.fence_all();
    seams.sleep(Duration::from_millis(20)).await;
    metadata.away.store(false, Ordering::SeqCst);
    session.registered().await;
}

#[tokio::test]
async fn the_leaders_wall_time_is_carried_on() {
    let (session, _, seams) = session();
    session.registered().await;
    while session.leader_index() == LogIndex::default() {
        seams.sleep(Duration::from_millis(5)).await;
    }
    let wall = session.leader_wall().millis();
    assert!((77..10_000).contains(&wall), "the model's wall clock stands at 77, not {wall}");
}
