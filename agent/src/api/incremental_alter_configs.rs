//! IncrementalAlterConfigs (44) v0-1: operations on the configs of topics, brokers, groups and
//! client metrics, all of a resource or nothing.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::{
    Request,
    config_resources::{self, Altered, AlteredConfig, Manner},
    topics,
};
use crate::{
    broker::Broker,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
            IncrementalAlterConfigsResponseResponses,
        },
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let manner = Manner { replaces: false, validate_only: body.validate_only };
    let altered = body.resources.into_iter().map(|resource| {
        let config =
            |config: crate::wire::messages::IncrementalAlterConfigsRequestResourcesConfigs| {
                AlteredConfig {
                    name: config.name,
                    operation: config.config_operation,
                    value: config.value,
                }
            };
        Altered {
            resource_type: resource.resource_type,
            name: resource.resource_name,
            configs: resource.configs.into_iter().map(config).collect(),
        }
    });
    let answers = alter_all(broker, altered.collect(), manner).await;
    let answer = |(altered, (code, words)): (Altered, (ErrorCode, Option<Str>))| {
        IncrementalAlterConfigsResponseResponses {
            error_code: code.code(),
            error_message: words,
            resource_type: altered.resource_type,
            resource_name: altered.name,
        }
    };
    IncrementalAlterConfigsResponse {
        responses: answers.into_iter().map(answer).collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
}

/// Changes each resource. One that is named twice is not changed: its order would be a guess.
pub(super) async fn alter_all(
    broker: &Broker,
    altered: Vec<Altered>,
    manner: Manner,
) -> Vec<(Altered, (ErrorCode, Option<Str>))> {
    let mut named: BTreeMap<(i8, Str), u32> = BTreeMap::new();
    for one in &altered {
        *named.entry((one.resource_type, one.name.clone())).or_default() += 1;
    }
    let answering = stream::iter(altered).map(|one| {
        let times = named.get(&(one.resource_type, one.name.clone())).copied().unwrap_or_default();
        async move {
            if 1 < times {
                let words = "Each resource must appear at most once.";
                return (one, (ErrorCode::InvalidRequest, Some(words.into())));
            }
            let answer = config_resources::alter(broker, &one, manner).await;
            (one, answer)
        }
    });
    answering.buffered(topics::CHANGES_AT_ONCE).collect().await
}
