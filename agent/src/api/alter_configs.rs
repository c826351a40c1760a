//! AlterConfigs (33) v0-2: replaces all overrides of a resource.

use super::{
    Request,
    config_resources::{Altered, AlteredConfig, Manner},
    incremental_alter_configs::alter_all,
};
use crate::{
    broker::Broker,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            AlterConfigsRequest, AlterConfigsRequestResourcesConfigs, AlterConfigsResponse,
            AlterConfigsResponseResponses,
        },
    },
};

/// Each config named is set; see `configs::alter::Operation`.
const SET: i8 = 0;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let manner = Manner { replaces: true, validate_only: body.validate_only };
    let config = |config: AlterConfigsRequestResourcesConfigs| AlteredConfig {
        name: config.name,
        operation: SET,
        value: config.value,
    };
    let altered = body.resources.into_iter().map(|resource| Altered {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        configs: resource.configs.into_iter().map(config).collect(),
    });
    let answers = alter_all(broker, altered.collect(), manner).await;
    let answer = |(altered, (code, words)): (Altered, (ErrorCode, Option<Str>))| {
        AlterConfigsResponseResponses {
            error_code: code.code(),
            error_message: words,
            resource_type: altered.resource_type,
            resource_name: altered.name,
        }
    };
    AlterConfigsResponse {
        responses: answers.into_iter().map(answer).collect(),
        ..AlterConfigsResponse::default()
    }
}
