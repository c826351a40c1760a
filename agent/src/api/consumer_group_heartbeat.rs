//! ConsumerGroupHeartbeat (68) v0-1: joins, goes on, leaves. The metadata leader is asked first,
//! which notes the sign of life; only what changes the group is replicated.

use aquifer_metadata::{
    client::CallError,
    machine::group::{
        command::{GroupAction, GroupReply},
        consumer::{
            AssignedTopic, MemberEpoch,
            command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
        },
        query::{GroupAnswer, GroupAsk, GroupQuery},
        types::MemberId,
    },
};
use aquifer_storage::{
    error::Outcome,
    model::{PartitionIndex, TopicId},
};

use super::{
    Request,
    errors::{coordinator_error, group_error},
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        Uuid,
        codec::Str,
        error_code::ErrorCode,
        messages::{
            ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatRequestTopicPartitions,
            ConsumerGroupHeartbeatResponse, ConsumerGroupHeartbeatResponseAssignment,
            ConsumerGroupHeartbeatResponseAssignmentTopicPartitions,
        },
    },
};

/// The first version in which a member brings its own id.
const FIRST_WITH_OWN_ID: i16 = 1;

/// How often the first heartbeat of a member that has no id yet is proposed when it is not known
/// what became of it: the client would come again as another member, and the first stay as a ghost.
///
/// All others are the client's to repeat, which then says everything and is told everything. The
/// answer to the same heartbeat a second time would leave out what the first brought about.
const PROPOSED_MAX: usize = 3;

type Refusal = (ErrorCode, String);

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group = body.group_id.as_str().to_owned();
    let answer = match check(request.version, &body) {
        Ok(()) => {
            let proposed_max = if body.member_id.is_empty() { PROPOSED_MAX } else { 1 };
            beat(broker, &group, heartbeat(broker, request, body), proposed_max).await
        }
        Err(refusal) => Err(refusal),
    };
    answer.map_or_else(refused, accepted)
}

/// Refuses what is wrong whatever the group, as Kafka does and in its order. Assignors are the
/// group's to judge, whose configs name them.
fn check(version: i16, body: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |is_invalid: bool, words: &str| match is_invalid {
        true => Err((ErrorCode::InvalidRequest, words.to_owned())),
        false => Ok(()),
    };
    // As Java trims: control characters too.
    let is_blank = |text: &str| text.chars().all(|char| char <= ' ');
    let is_given_blank = |text: &Option<Str>| text.as_ref().is_some_and(|text| is_blank(text));
    let (joins, leaves) = (MemberEpoch::JOINS.value(), MemberEpoch::LEAVES.value());
    let leaves_for_a_while = MemberEpoch::LEAVES_FOR_A_WHILE.value();
    let epoch = body.member_epoch;
    let has_id = FIRST_WITH_OWN_ID <= version || joins < epoch || epoch == leaves;
    invalid(has_id && is_blank(&body.member_id), "MemberId can't be empty.")?;
    invalid(is_blank(&body.group_id), "GroupId can't be empty.")?;
    invalid(is_given_blank(&body.instance_id), "InstanceId can't be empty.")?;
    invalid(is_given_blank(&body.rack_id), "RackId can't be empty.")?;
    if epoch == joins {
        let words = "RebalanceTimeoutMs must be provided in first request.";
        invalid(body.rebalance_timeout_ms == -1, words)?;
        let owns = body.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty());
        invalid(owns, "TopicPartitions must be empty when (re-)joining.")?;
        let subscribes =
            body.subscribed_topic_names.is_some() || body.subscribed_topic_regex.is_some();
        let words = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                     (re-)joining.";
        invalid(!subscribes, words)?;
    } else if epoch == leaves_for_a_while {
        invalid(body.instance_id.is_none(), "InstanceId can't be null.")?;
    }
    invalid(epoch < leaves_for_a_while, "MemberEpoch is invalid.")
}

fn heartbeat(
    broker: &Broker,
    request: &Request<'_>,
    body: ConsumerGroupHeartbeatRequest,
) -> ConsumerHeartbeat {
    let text = |text: Option<Str>| text.map(|text| text.as_str().to_owned());
    let member = match body.member_id.as_str() {
        "" => draw_member(broker),
        known => MemberId::new(known),
    };
    let rebalance_timeout_ms = match body.rebalance_timeout_ms {
        -1 => None,
        millis => Some(u32::try_from(millis).unwrap_or(0)),
    };
    ConsumerHeartbeat {
        member,
        epoch: MemberEpoch::new(body.member_epoch),
        instance: text(body.instance_id),
        rack: text(body.rack_id),
        client_id: request.client_id.to_owned(),
        client_host: format!("/{}", request.peer.ip()),
        rebalance_timeout_ms,
        subscribed: body
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| name.as_str().to_owned()).collect()),
        regex: text(body.subscribed_topic_regex),
        assignor: text(body.server_assignor),
        owned: body.topic_partitions.map(owned),
    }
}

/// An id as Kafka draws them.
fn draw_member(broker: &Broker) -> MemberId {
    let mut id = [0; 16];
    broker.seams.rng.fill(&mut id);
    // Some tools take what begins with a dash for an option.
    id[0] &= 0x7f;
    MemberId::new(Uuid::from_bytes(id).to_string())
}

/// What a member says it holds, ascending.
fn owned(topics: Vec<ConsumerGroupHeartbeatRequestTopicPartitions>) -> Vec<AssignedTopic> {
    let one = |topic: ConsumerGroupHeartbeatRequestTopicPartitions| {
        let mut indexes = topic.partitions;
        indexes.sort_unstable();
        indexes.dedup();
        let partitions = indexes.into_iter().map(PartitionIndex::new).collect();
        AssignedTopic { topic: TopicId::from(topic.topic_id), partitions }
    };
    let mut topics: Vec<AssignedTopic> = topics.into_iter().map(one).collect();
    topics.sort_by_key(|topic| topic.topic);
    topics
}

async fn beat(
    broker: &Broker,
    group: &str,
    heartbeat: ConsumerHeartbeat,
    proposed_max: usize,
) -> Result<ConsumerHeartbeatResult, Refusal> {
    let heartbeat = Box::new(heartbeat);
    let ask = GroupAsk::ConsumerHeartbeat(heartbeat.clone());
    let answer = match broker.ask_group(GroupQuery { group: group.to_owned(), ask }).await {
        Ok(GroupAnswer::ConsumerHeartbeat(Some(answer))) => Ok(answer),
        Ok(GroupAnswer::ConsumerHeartbeat(None)) => {
            propose(broker, group, heartbeat, proposed_max).await
        }
        Ok(other) => Err(mismatch("query", &other)),
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => {
            answer.map_err(|ConsumerRejected { kind, message }| (group_error(&kind), message))
        }
        Err(error) => Err(unanswered(&error)),
    }
}

async fn propose(
    broker: &Broker,
    group: &str,
    heartbeat: Box<ConsumerHeartbeat>,
    proposed_max: usize,
) -> Result<Result<ConsumerHeartbeatResult, ConsumerRejected>, CallError> {
    let mut proposed = 0;
    loop {
        proposed += 1;
        let action = GroupAction::ConsumerHeartbeat(heartbeat.clone());
        match broker.group(group, action).await {
            Ok(GroupReply::ConsumerHeartbeat(answer)) => return Ok(answer),
            Ok(other) => return Err(mismatch("propose", &other)),
            Err(error) if error.outcome != Outcome::Indefinite || proposed == proposed_max => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
}

/// Kafka's words for an answer that did not come.
fn unanswered(error: &CallError) -> Refusal {
    let code = coordinator_error(error);
    let words = match code {
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        _ => "The server experienced an unexpected error when processing the request.",
    };
    (code, words.to_owned())
}

fn accepted(result: ConsumerHeartbeatResult) -> ConsumerGroupHeartbeatResponse {
    let topic = |topic: AssignedTopic| ConsumerGroupHeartbeatResponseAssignmentTopicPartitions {
        topic_id: topic.topic.into(),
        partitions: topic.partitions.into_iter().map(PartitionIndex::value).collect(),
    };
    let assignment = result.assignment.map(|topics| ConsumerGroupHeartbeatResponseAssignment {
        topic_partitions: topics.into_iter().map(topic).collect(),
    });
    let interval_ms = result.heartbeat_interval_ms;
    ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::None.code(),
        error_message: None,
        member_id: Some(result.member.as_str().into()),
        member_epoch: result.epoch.value(),
        heartbeat_interval_ms: i32::try_from(interval_ms).unwrap_or(i32::MAX),
        assignment,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn refused((code, words): Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(words.into()),
        member_id: None,
        assignment: None,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining() -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "m".into(),
            rebalance_timeout_ms: 1,
            instance_id: None,
            rack_id: None,
            subscribed_topic_names: Some(Vec::new()),
            subscribed_topic_regex: None,
            server_assignor: None,
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    /// What version 1 is told about a request that differs from a good one by `change`.
    fn told(change: impl Fn(&mut ConsumerGroupHeartbeatRequest)) -> String {
        told_in(1, change)
    }

    fn told_in(version: i16, change: impl Fn(&mut ConsumerGroupHeartbeatRequest)) -> String {
        let mut request = joining();
        change(&mut request);
        check(version, &request).err().map(|(_, words)| words).unwrap_or_default()
    }

    #[test]
    fn a_request_is_judged_in_kafkas_words_and_order() {
        assert_eq!(told(|_| {}), "");
        assert_eq!(told(|one| one.group_id = " ".into()), "GroupId can't be empty.");
        let both = |one: &mut ConsumerGroupHeartbeatRequest| {
            (one.member_id, one.rack_id) = ("\t".into(), Some(" ".into()));
        };
        assert_eq!(told(both), "MemberId can't be empty.");
        assert_eq!(told_in(0, both), "RackId can't be empty.");
        assert_eq!(told(|one| one.instance_id = Some("".into())), "InstanceId can't be empty.");
        let words = "RebalanceTimeoutMs must be provided in first request.";
        assert_eq!(told(|one| one.rebalance_timeout_ms = -1), words);
        assert_eq!(told(|one| one.rebalance_timeout_ms = -5), "");
        let words = "TopicPartitions must be empty when (re-)joining.";
        assert_eq!(told(|one| one.topic_partitions = None), words);
        let words = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                     (re-)joining.";
        assert_eq!(told(|one| one.subscribed_topic_names = None), words);
        assert_eq!(told(|one| one.member_epoch = -3), "MemberEpoch is invalid.");
        assert_eq!(told(|one| one.member_epoch = -2), "InstanceId can't be null.");
        let nobody = |one: &mut ConsumerGroupHeartbeatRequest| {
            (one.member_epoch, one.member_id) = (-1, "".into());
        };
        assert_eq!(told_in(0, nobody), "MemberId can't be empty.");
    }

    #[test]
    fn only_who_joins_by_version_0_may_come_without_an_id() {
        assert_eq!(told_in(0, |one| one.member_id = "".into()), "");
        let words = "MemberId can't be empty.";
        assert_eq!(told_in(1, |one| one.member_id = "".into()), words);
        let goes_on = |one: &mut ConsumerGroupHeartbeatRequest| {
            (one.member_epoch, one.member_id) = (4, "".into());
        };
        assert_eq!(told_in(0, goes_on), words);
    }

    #[test]
    fn what_a_member_holds_is_told_ascending() {
        let topic = |byte: u8, partitions: &[i32]| ConsumerGroupHeartbeatRequestTopicPartitions {
            topic_id: Uuid::from_bytes([byte; 16]),
            partitions: partitions.to_vec(),
        };
        let held = owned(vec![topic(2, &[3, 1, 3]), topic(1, &[])]);
        let held: Vec<(TopicId, Vec<i32>)> = held
            .into_iter()
            .map(|one| (one.topic, one.partitions.iter().map(|index| index.value()).collect()))
            .collect();
        let id = |byte: u8| TopicId::from_bytes([byte; 16]);
        assert_eq!(held, [(id(1), vec![]), (id(2), vec![1, 3])]);
    }
}
