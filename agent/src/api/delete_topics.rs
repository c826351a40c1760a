//! DeleteTopics (20) v1-6, by name or by id.

use aquifer_metadata::machine::command::{AppliedReply, Command, Reply};
use futures::{StreamExt, stream};

use super::{
    Request,
    errors::{admin_error, topic_error},
    topics,
};
use crate::{
    broker::Broker,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicsResponseResponses},
        walk::TopicRef,
    },
};

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<TopicRef> = if request.version < 6 {
        body.topic_names.into_iter().map(TopicRef::Name).collect()
    } else {
        let by = |topic: crate::wire::messages::DeleteTopicsRequestTopics| match topic.name {
            Some(name) => TopicRef::Name(name),
            None => TopicRef::Id(topic.topic_id),
        };
        body.topics.into_iter().map(by).collect()
    };
    let deleting = stream::iter(asked).map(|topic| delete(broker, topic));
    let responses = deleting.buffered(topics::CHANGES_AT_ONCE).collect().await;
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

async fn delete(broker: &Broker, topic: TopicRef) -> DeleteTopicsResponseResponses {
    let answer =
        |code: ErrorCode, name: Option<Str>, words: Option<String>| DeleteTopicsResponseResponses {
            name,
            topic_id: topics::wire_id(&topic),
            error_code: code.code(),
            error_message: words.map(Into::into),
        };
    let asked_name = match &topic {
        TopicRef::Name(name) => Some(name.clone()),
        TopicRef::Id(_) => None,
    };
    if !broker.options.delete_topics {
        let words = "Topic deletion is disabled.".to_owned();
        return answer(ErrorCode::TopicDeletionDisabled, asked_name, Some(words));
    }
    let found = match topics::resolve(broker, &topic).await {
        Ok(found) => found,
        Err(code) => return answer(code, asked_name, None),
    };
    let name = Some(Str::from(found.name.as_str()));
    match broker.metadata.propose(Command::DeleteTopic { topic: found.id }).await {
        Ok(AppliedReply { index, reply: Reply::TopicDeleted(result) }) => {
            topics::shown(broker, index).await;
            match result {
                Ok(()) => DeleteTopicsResponseResponses {
                    topic_id: found.id.into(),
                    ..answer(ErrorCode::None, name, None)
                },
                Err(rejected) => {
                    let (code, words) = topic_error(&rejected, &found.name);
                    answer(code, name, Some(words))
                }
            }
        }
        Ok(other) => {
            let error = crate::broker::mismatch("propose", &other);
            answer(admin_error(&error), name, Some(error.to_string()))
        }
        Err(error) => answer(admin_error(&error), name, Some(error.to_string())),
    }
}
