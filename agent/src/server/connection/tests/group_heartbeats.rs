//! What an agent does with a ConsumerGroupHeartbeat of which it never learns what became.

use aquifer_metadata::machine::group::types::MemberId;

use super::*;
use crate::wire::{
    client::decode_response,
    error_code::ErrorCode,
    header::{RequestHeader, request_frame},
    messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse},
};

/// The version in which a member has its id from the agent, and the one in which it brings it.
const WITHOUT_OWN_ID: i16 = 0;
const WITH_OWN_ID: i16 = 1;

/// A first heartbeat, which says everything.
fn joins(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A later one, with which the member reads no topic any more.
fn unsubscribes(member: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch,
        subscribed_topic_names: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

impl World {
    /// The answer to a heartbeat of which metadata answers the first proposals like this, and the
    /// members those were of.
    async fn beat(
        &mut self,
        failing: &[Outcome],
        version: i16,
        body: &ConsumerGroupHeartbeatRequest,
    ) -> (ConsumerGroupHeartbeatResponse, Vec<MemberId>) {
        *self.groups.failing.lock().unwrap() = failing.iter().copied().collect();
        let header = RequestHeader { correlation_id: 7, client_id: None };
        self.send(&[request_frame(&header, version, body).concat()]).await;
        let answer = self.whole_answer().await;
        let answer = decode_response(answer, version, 7).expect("an answer to a heartbeat");
        let asked = std::mem::take(&mut *self.groups.asked.lock().unwrap());
        let member = |action: GroupAction| match action {
            GroupAction::ConsumerHeartbeat(heartbeat) => heartbeat.member,
            other => panic!("{other:?}"),
        };
        (answer, asked.into_iter().map(member).collect())
    }
}

/// The same one again would be told what is new since the first, whose answer the client never
/// got: it would not learn what it holds.
#[tokio::test]
async fn a_heartbeat_of_unknown_outcome_is_the_clients_to_repeat() {
    let mut world = world().await;
    let unknown = [Outcome::Indefinite; 9];
    let expected = ErrorCode::CoordinatorNotAvailable.code();
    for (version, member) in [(WITHOUT_OWN_ID, "old"), (WITH_OWN_ID, "m")] {
        let (answer, proposed) = world.beat(&unknown, version, &joins(member)).await;
        assert_eq!((answer.error_code, proposed), (expected, vec![MemberId::new(member)]));
    }
    let (answer, _) = world.beat(&[], WITH_OWN_ID, &joins("m")).await;
    assert_eq!(answer.error_code, 0, "the client's own repetition is taken");
    assert!(answer.assignment.is_some(), "and is told everything");
    let leaves = unsubscribes("m", -1);
    for goes_on in [unsubscribes("m", answer.member_epoch), leaves] {
        let (answer, proposed) = world.beat(&unknown, WITH_OWN_ID, &goes_on).await;
        assert_eq!((answer.error_code, proposed), (expected, vec![MemberId::new("m")]));
    }
}

/// The client would come again as another member, and the first stay as a ghost that holds
/// partitions for as long as a session lasts.
#[tokio::test]
async fn a_member_that_has_its_id_from_here_is_proposed_again_under_that_id_and_not_for_ever() {
    let mut world = world().await;
    let (answer, proposed) =
        world.beat(&[Outcome::Indefinite; 2], WITHOUT_OWN_ID, &joins("")).await;
    assert_eq!(answer.error_code, 0);
    let id = MemberId::new(answer.member_id.expect("who joins is told its id").as_str());
    assert_eq!(proposed, vec![id; 3], "drawn once");
    let (answer, proposed) =
        world.beat(&[Outcome::Indefinite; 9], WITHOUT_OWN_ID, &joins("")).await;
    assert_eq!(answer.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(proposed.len(), 3, "then it is the client's turn");
}

#[tokio::test]
async fn a_heartbeat_that_was_refused_for_certain_is_not_proposed_again() {
    let mut world = world().await;
    for outcome in [Outcome::Unavailable, Outcome::Rejected, Outcome::Fenced] {
        let (answer, proposed) = world.beat(&[outcome; 9], WITHOUT_OWN_ID, &joins("")).await;
        assert_ne!(answer.error_code, 0);
        assert_eq!(proposed.len(), 1, "{outcome:?}");
    }
}
