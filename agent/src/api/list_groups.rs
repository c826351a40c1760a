//! ListGroups (16) v0-5: each group is told by its owner, because clients ask every agent.

use aquifer_metadata::{
    client::CallError,
    machine::{
        QUERY_LISTED_MAX,
        group::types::{GroupKind, GroupState},
        query::{Answer, GroupListed, Query},
    },
};

use super::{Request, admin::Ownership, errors::coordinator_error};
use crate::{
    broker::{Broker, mismatch},
    placement,
    wire::messages::{ListGroupsRequest, ListGroupsResponse, ListGroupsResponseGroups},
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: ListGroupsRequest,
) -> ListGroupsResponse {
    let is_asked = |filter: &[crate::wire::codec::Str], name: &str| {
        filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(name))
    };
    let kinds = [GroupKind::Classic, GroupKind::Consumer];
    if !kinds.into_iter().any(|kind| is_asked(&body.types_filter, kind_name(kind))) {
        return ListGroupsResponse::default();
    }
    let groups = match groups(broker).await {
        Ok(groups) => groups,
        Err(error) => {
            let error_code = coordinator_error(&error).code();
            return ListGroupsResponse { error_code, ..ListGroupsResponse::default() };
        }
    };
    let ownership = Ownership::now(broker).await;
    let owned = groups.into_iter().filter(|listed| {
        is_asked(&body.states_filter, state_name(listed.state))
            && is_asked(&body.types_filter, kind_name(listed.kind))
            && ownership.covers(placement::slot_of(listed.group.as_bytes()))
    });
    let told = owned.map(|listed| ListGroupsResponseGroups {
        group_id: listed.group.into(),
        protocol_type: listed.protocol_type.unwrap_or_default().into(),
        group_state: state_name(listed.state).into(),
        group_type: kind_name(listed.kind).into(),
    });
    ListGroupsResponse { groups: told.collect(), ..ListGroupsResponse::default() }
}

/// Kafka's name of a group's state.
pub fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::PreparingRebalance => "PreparingRebalance",
        GroupState::CompletingRebalance => "CompletingRebalance",
        GroupState::Stable => "Stable",
        GroupState::Assigning => "Assigning",
        GroupState::Reconciling => "Reconciling",
    }
}

/// Kafka's name of a group's protocol. One without members is what it was.
fn kind_name(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Classic => "classic",
        GroupKind::Consumer => "consumer",
    }
}

/// All groups, page by page.
pub async fn groups(broker: &Broker) -> Result<Vec<GroupListed>, CallError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query = Query::Groups { after, limit: QUERY_LISTED_MAX };
        let page = match broker.metadata.query(query).await? {
            (_, Answer::Groups(page)) => page,
            (_, other) => return Err(mismatch("query", &other)),
        };
        after = page.last().map(|last| last.group.clone());
        let is_full = page.len() == QUERY_LISTED_MAX as usize;
        all.extend(page);
        if !is_full {
            return Ok(all);
        }
    }
}
