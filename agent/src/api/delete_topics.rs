//! DeleteTopics (20) v1-6, by name or by id.

use std::collections::BTreeMap;

use aquifer_metadata::{
    machine::command::{AppliedReply, Command, Reply, TopicRejected},
    watch::CatalogTopic,
};
use futures::{StreamExt, stream};

use super::{
    Request,
    admin::{self, Refusal},
    errors::{admin_error, topic_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::{Str, Uuid},
        error_code::ErrorCode,
        messages::{
            DeleteTopicsRequest, DeleteTopicsRequestTopics, DeleteTopicsResponse,
            DeleteTopicsResponseResponses,
        },
        walk::TopicRef,
    },
};

/// Kafka's words for an id that no topic has.
const ID_NOT_HOSTED: &str = "This server does not host this topic ID.";

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicsRequestTopics> = if request.version < 6 {
        let by_name = |name| DeleteTopicsRequestTopics { name: Some(name), topic_id: Uuid::ZERO };
        body.topic_names.into_iter().map(by_name).collect()
    } else {
        body.topics
    };
    let deleting = stream::iter(sorted_out(asked)).map(|topic| async {
        let refused = match topic {
            Asked::Topic(topic) => {
                let deleting = delete(broker, &topic);
                let late = Err((ErrorCode::RequestTimedOut, None));
                let deleted = admin::within(broker, body.timeout_ms, deleting).await;
                match deleted.unwrap_or(late) {
                    Ok(found) => return answer(Some(found.name.as_str().into()), found.id.into()),
                    Err(refusal) => (topic, refusal),
                }
            }
            Asked::Invalid { name, topic_id, words } => {
                let refusal = (ErrorCode::InvalidRequest, Some(words.to_owned()));
                return refused(answer(name, topic_id), refusal);
            }
        };
        let (topic, refusal) = refused;
        let name = match &topic {
            TopicRef::Name(name) => Some(name.clone()),
            TopicRef::Id(_) => None,
        };
        self::refused(answer(name, topics::wire_id(&topic)), refusal)
    });
    let responses = deleting.buffered(topics::CHANGES_AT_ONCE).collect().await;
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// One of the things a request asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    /// A topic, named once and in one way.
    Topic(TopicRef),
    /// What cannot be meant.
    Invalid { name: Option<Str>, topic_id: Uuid, words: &'static str },
}

/// Each topic once, at its first place; those that come again are not deleted.
fn sorted_out(asked: Vec<DeleteTopicsRequestTopics>) -> Vec<Asked> {
    let mut places: BTreeMap<(Option<Str>, Uuid), usize> = BTreeMap::new();
    let mut distinct: Vec<Asked> = Vec::with_capacity(asked.len());
    for DeleteTopicsRequestTopics { name, topic_id } in asked {
        let invalid = |words: &'static str| Asked::Invalid { name: name.clone(), topic_id, words };
        let next = match &name {
            Some(_) if topic_id != Uuid::ZERO => {
                invalid("You may not specify both topic name and topic id.")
            }
            None if topic_id == Uuid::ZERO => invalid("Neither topic name nor id were specified."),
            Some(name) => Asked::Topic(TopicRef::Name(name.clone())),
            None => Asked::Topic(TopicRef::Id(topic_id)),
        };
        match places.get(&(name.clone(), topic_id)) {
            None => {
                places.insert((name, topic_id), distinct.len());
                distinct.push(next);
            }
            Some(place) => {
                if let Asked::Topic(topic) = &distinct[*place] {
                    distinct[*place] = invalid(match topic {
                        TopicRef::Name(_) => "Duplicate topic name.",
                        TopicRef::Id(_) => "Duplicate topic id.",
                    });
                }
            }
        }
    }
    distinct
}

fn answer(name: Option<Str>, topic_id: Uuid) -> DeleteTopicsResponseResponses {
    let error_code = ErrorCode::None.code();
    DeleteTopicsResponseResponses { name, topic_id, error_code, error_message: None }
}

fn refused(
    answer: DeleteTopicsResponseResponses,
    (code, words): Refusal,
) -> DeleteTopicsResponseResponses {
    let error_message = words.map(Into::into);
    DeleteTopicsResponseResponses { error_code: code.code(), error_message, ..answer }
}

async fn delete(
    broker: &Broker,
    topic: &TopicRef,
) -> Result<std::sync::Arc<CatalogTopic>, Refusal> {
    if !broker.options.delete_topics {
        let words = "Topic deletion is disabled.".to_owned();
        return Err((ErrorCode::TopicDeletionDisabled, Some(words)));
    }
    let unknown = || match topic {
        TopicRef::Name(_) => {
            (ErrorCode::UnknownTopicOrPartition, Some(admin::NOT_HOSTED.to_owned()))
        }
        TopicRef::Id(_) => (ErrorCode::UnknownTopicId, Some(ID_NOT_HOSTED.to_owned())),
    };
    let found = match topics::resolve(broker, topic).await {
        Ok(found) => found,
        Err(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
            return Err(unknown());
        }
        Err(code) => return Err((code, None)),
    };
    match broker.metadata.propose(Command::DeleteTopic { topic: found.id }).await {
        Ok(AppliedReply { index, reply: Reply::TopicDeleted(result) }) => {
            topics::shown(broker, index).await;
            match result {
                Ok(()) => Ok(found),
                Err(TopicRejected::Unknown) => Err(unknown()),
                Err(rejected) => {
                    let (code, words) = topic_error(&rejected, &found.name);
                    Err((code, Some(words)))
                }
            }
        }
        Ok(other) => {
            let error = mismatch("propose", &other);
            Err((admin_error(&error), Some(error.to_string())))
        }
        Err(error) => Err((admin_error(&error), Some(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_named_twice_is_answered_once_and_not_deleted() {
        let id = Uuid::from_bytes([7; 16]);
        let named = |name: &'static str| DeleteTopicsRequestTopics {
            name: Some(Str::from_static(name)),
            topic_id: Uuid::ZERO,
        };
        let by_id = || DeleteTopicsRequestTopics { name: None, topic_id: id };
        let asked = vec![named("a"), by_id(), named("b"), named("a"), by_id(), named("a")];
        let words = |one: &Asked| match one {
            Asked::Topic(_) => "",
            Asked::Invalid { words, .. } => words,
        };
        let sorted = sorted_out(asked);
        let words: Vec<&str> = sorted.iter().map(words).collect();
        assert_eq!(words, ["Duplicate topic name.", "Duplicate topic id.", ""]);
        let both = DeleteTopicsRequestTopics { name: Some(Str::from_static("a")), topic_id: id };
        let neither = DeleteTopicsRequestTopics { name: None, topic_id: Uuid::ZERO };
        let invalid = |one: &Asked| matches!(one, Asked::Invalid { .. });
        assert!(sorted_out(vec![both, neither]).iter().all(invalid));
    }
}
