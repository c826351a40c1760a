//! What agents are told.

use std::sync::Arc;

use aquifer_storage::model::{LogIndex, SessionId};

use super::{
    CodecError, config, configs_from_proto, configs_to_proto, host_port_from_proto,
    host_port_to_proto, lineage_from_proto, lineage_to_proto, narrow, node_id, offset,
    partition_from_proto, partition_to_proto,
    query::{pointers_from_proto, pointers_to_proto, runs_from_proto, runs_to_proto},
    topic_from_proto, topic_to_proto,
};
use crate::{
    proto::{self, watch_event::Event as Kind, watch_request::Request as RequestKind},
    watch::{
        Catalog, CatalogNode, CatalogTopic, PartitionState, ResourceConfigs, WatchEvent,
        WatchRequest,
    },
};

/// A request as a message.
pub fn watch_request_to_proto(request: &WatchRequest) -> proto::WatchRequest {
    let kind = match request {
        WatchRequest::Watch(partition) => RequestKind::Watch(partition_to_proto(*partition)),
        WatchRequest::Unwatch(partition) => RequestKind::Unwatch(partition_to_proto(*partition)),
        WatchRequest::WatchGroup(group) => RequestKind::WatchGroup(group.clone()),
        WatchRequest::UnwatchGroup(group) => RequestKind::UnwatchGroup(group.clone()),
    };
    proto::WatchRequest { request: Some(kind) }
}

/// A request from a message.
pub fn watch_request_from_proto(request: proto::WatchRequest) -> Result<WatchRequest, CodecError> {
    Ok(match request.request.ok_or(CodecError::Missing("watch request"))? {
        RequestKind::Watch(partition) => {
            WatchRequest::Watch(partition_from_proto(Some(partition))?)
        }
        RequestKind::Unwatch(partition) => {
            WatchRequest::Unwatch(partition_from_proto(Some(partition))?)
        }
        RequestKind::WatchGroup(group) => WatchRequest::WatchGroup(group),
        RequestKind::UnwatchGroup(group) => WatchRequest::UnwatchGroup(group),
    })
}

/// An event as a message for a caller of this level; none if it does not know what it tells of, and
/// would take it for damage.
pub fn watch_event_to_proto(event: &WatchEvent, level: u32) -> Option<proto::WatchEvent> {
    let kind = match event {
        WatchEvent::Catalog(catalog) => Kind::Catalog(catalog_to_proto(catalog, level)),
        WatchEvent::Topic(topic) => Kind::Topic(catalog_topic_to_proto(topic)),
        WatchEvent::TopicGone(topic) => Kind::TopicGone(topic_to_proto(*topic)),
        WatchEvent::Configs(configs) if level < configs.key.kind.level() => return None,
        WatchEvent::Configs(configs) => {
            Kind::Configs(config::resource_to_proto(&configs.key, &configs.overrides))
        }
        WatchEvent::Nodes(nodes) => {
            Kind::Nodes(proto::CatalogNodes { nodes: nodes_to_proto(nodes) })
        }
        WatchEvent::PartitionState(state) => Kind::PartitionState(proto::PartitionState {
            partition: Some(partition_to_proto(state.partition)),
            index: state.index.value(),
            runs: runs_to_proto(&state.runs),
            pointers: Some(pointers_to_proto(&state.pointers)),
        }),
        WatchEvent::PartitionAdvanced { partition, from_index, index, from, runs, pointers } => {
            Kind::PartitionAdvanced(proto::PartitionAdvanced {
                partition: Some(partition_to_proto(*partition)),
                from_index: from_index.value(),
                index: index.value(),
                from: from.value(),
                runs: runs_to_proto(runs),
                pointers: Some(pointers_to_proto(pointers)),
            })
        }
        WatchEvent::PartitionGone(partition, index) => Kind::PartitionGone(proto::PartitionGone {
            partition: Some(partition_to_proto(*partition)),
            index: index.value(),
        }),
        WatchEvent::Group { group, version } => {
            Kind::Group(proto::GroupVersion { group: group.clone(), version: *version })
        }
        WatchEvent::Applied(index) => Kind::Applied(index.value()),
    };
    Some(proto::WatchEvent { event: Some(kind) })
}

/// An event from a message.
pub fn watch_event_from_proto(event: proto::WatchEvent) -> Result<WatchEvent, CodecError> {
    Ok(match event.event.ok_or(CodecError::Missing("watch event"))? {
        Kind::Catalog(catalog) => WatchEvent::Catalog(Arc::new(catalog_from_proto(catalog)?)),
        Kind::Topic(topic) => WatchEvent::Topic(Arc::new(catalog_topic_from_proto(topic)?)),
        Kind::TopicGone(topic) => WatchEvent::TopicGone(topic_from_proto(&topic)?),
        Kind::Configs(configs) => {
            let (key, overrides) = config::resource_from_proto(configs)?;
            let overrides = Arc::new(overrides);
            WatchEvent::Configs(Arc::new(ResourceConfigs { key, overrides }))
        }
        Kind::Nodes(nodes) => WatchEvent::Nodes(nodes_from_proto(nodes.nodes)?),
        Kind::PartitionState(state) => WatchEvent::PartitionState(PartitionState {
            partition: partition_from_proto(state.partition)?,
            index: LogIndex::new(state.index),
            runs: runs_from_proto(state.runs)?,
            pointers: pointers_from_proto(state.pointers)?,
        }),
        Kind::PartitionAdvanced(advanced) => WatchEvent::PartitionAdvanced {
            partition: partition_from_proto(advanced.partition)?,
            from_index: LogIndex::new(advanced.from_index),
            index: LogIndex::new(advanced.index),
            from: offset(advanced.from)?,
            runs: runs_from_proto(advanced.runs)?,
            pointers: pointers_from_proto(advanced.pointers)?,
        },
        Kind::PartitionGone(gone) => WatchEvent::PartitionGone(
            partition_from_proto(gone.partition)?,
            LogIndex::new(gone.index),
        ),
        Kind::Group(group) => WatchEvent::Group { group: group.group, version: group.version },
        Kind::Applied(index) => WatchEvent::Applied(LogIndex::new(index)),
    })
}

fn catalog_to_proto(catalog: &Catalog, level: u32) -> proto::Catalog {
    proto::Catalog {
        cluster_id: catalog.cluster_id.clone(),
        lineage: catalog.lineage.map(lineage_to_proto),
        topics: catalog.topics.values().map(|topic| catalog_topic_to_proto(topic)).collect(),
        nodes: nodes_to_proto(&catalog.nodes),
        configs: catalog
            .configs
            .iter()
            .filter(|(key, _)| key.kind.level() <= level)
            .map(|(key, overrides)| config::resource_to_proto(key, overrides))
            .collect(),
    }
}

fn catalog_from_proto(catalog: proto::Catalog) -> Result<Catalog, CodecError> {
    let topic = |topic| catalog_topic_from_proto(topic).map(|topic| (topic.id, Arc::new(topic)));
    let resource = |resource| {
        config::resource_from_proto(resource).map(|(key, overrides)| (key, Arc::new(overrides)))
    };
    let lineage = catalog.lineage.map(|lineage| lineage_from_proto(Some(lineage)));
    Ok(Catalog {
        cluster_id: catalog.cluster_id,
        lineage: lineage.transpose()?,
        topics: catalog.topics.into_iter().map(topic).collect::<Result<_, _>>()?,
        nodes: nodes_from_proto(catalog.nodes)?,
        configs: catalog.configs.into_iter().map(resource).collect::<Result<_, _>>()?,
    })
}

pub(super) fn catalog_topic_to_proto(topic: &CatalogTopic) -> proto::CatalogTopic {
    proto::CatalogTopic {
        id: topic_to_proto(topic.id),
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: u32::from(topic.replication_factor),
        configs: configs_to_proto(&topic.configs),
    }
}

pub(super) fn catalog_topic_from_proto(
    topic: proto::CatalogTopic,
) -> Result<CatalogTopic, CodecError> {
    Ok(CatalogTopic {
        id: topic_from_proto(&topic.id)?,
        name: topic.name,
        partitions: topic.partitions,
        replication_factor: narrow(topic.replication_factor, "replication factor")?,
        configs: configs_from_proto(topic.configs)?,
    })
}

fn nodes_to_proto(nodes: &[CatalogNode]) -> Vec<proto::CatalogNode> {
    let node = |node: &CatalogNode| proto::CatalogNode {
        node_id: node.node_id.value(),
        session: node.session.value(),
        advertised: Some(host_port_to_proto(&node.advertised)),
        zone: node.zone.clone(),
    };
    nodes.iter().map(node).collect()
}

fn nodes_from_proto(nodes: Vec<proto::CatalogNode>) -> Result<Vec<CatalogNode>, CodecError> {
    let node = |node: proto::CatalogNode| {
        Ok(CatalogNode {
            node_id: node_id(node.node_id)?,
            session: SessionId::new(node.session),
            advertised: host_port_from_proto(node.advertised)?,
            zone: node.zone,
        })
    };
    nodes.into_iter().map(node).collect()
}
