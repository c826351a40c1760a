//! DeleteGroups (42) v0-2.

use std::collections::BTreeSet;

use aquifer_metadata::machine::group::command::{GroupAction, GroupReply};
use futures::{StreamExt, stream};

use super::{
    Request,
    errors::{coordinator_error, group_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{DeleteGroupsRequest, DeleteGroupsResponse, DeleteGroupsResponseResults},
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut seen = BTreeSet::new();
    let distinct = body.groups_names.into_iter().filter(|group| seen.insert(group.clone()));
    let deleting = stream::iter(distinct).map(|group_id| async {
        let error_code = delete(broker, &group_id).await.code();
        DeleteGroupsResponseResults { group_id, error_code }
    });
    let results = deleting.buffered(topics::CHANGES_AT_ONCE).collect().await;
    DeleteGroupsResponse { throttle_time_ms: 0, results }
}

async fn delete(broker: &Broker, group: &str) -> ErrorCode {
    match broker.group(group, GroupAction::Delete).await {
        Ok(GroupReply::Deleted(Ok(()))) => ErrorCode::None,
        Ok(GroupReply::Deleted(Err(rejected))) => group_error(&rejected),
        Ok(other) => coordinator_error(&mismatch("propose", &other)),
        Err(error) => coordinator_error(&error),
    }
}
