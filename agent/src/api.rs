//! One thin handler per Kafka API: parse, one call, map.

mod add_raft_voter;
pub(crate) mod admin;
mod alter_configs;
mod alter_partition_reassignments;
mod api_versions;
mod config_resources;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod errors;
mod features;
pub mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
pub(crate) mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
pub mod produce;
mod quorum;
mod remove_raft_voter;
mod sync_group;
mod topics;
mod unregister_broker;
mod update_features;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use aquifer_storage::budget::BudgetPermit;
use bytes::Bytes;

use crate::{
    broker::Broker,
    fetch::ConnectionSessions,
    metrics::ApiLabel,
    produce::ConnectionId,
    server::frame_reader::Frame,
    wire::{
        api_key::ApiKey,
        codec::{DecodeError, Reader},
        frame::Service,
        header::{RequestHeader, response_frame},
        messages::Message,
        versions,
    },
};

/// What a connection does with a request once it is handled.
pub enum Answer {
    /// Nothing is sent: `acks=0`.
    None,
    /// The connection is closed: what Kafka does when it may not answer.
    Close(String),
    /// These bytes are sent.
    Frame {
        /// Length, header and body, for a vectored write.
        chunks: Vec<Bytes>,
        /// Memory that is free once they are written.
        permit: Option<BudgetPermit>,
    },
}

/// The answer of a Produce under way.
pub type PendingAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What one connection carries from request to request.
pub struct ConnectionState {
    /// The client's address.
    pub peer: SocketAddr,
    /// Orders the connection's batches.
    pub id: ConnectionId,
    /// Its fetch sessions.
    pub fetch_sessions: ConnectionSessions,
}

impl ConnectionState {
    /// A new connection's.
    pub fn new(peer: SocketAddr, broker: &Broker) -> Self {
        let number = broker.connections.fetch_add(1, Ordering::Relaxed);
        let id = ConnectionId::new(number);
        Self { peer, id, fetch_sessions: broker.fetcher.sessions() }
    }
}

/// What a handler knows of a request beside its body.
pub struct Request<'a> {
    /// The API's version.
    pub version: i16,
    /// Who the client says it is.
    pub client_id: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// What the frame's bytes count against.
    memory: &'a Mutex<Option<BudgetPermit>>,
}

impl Request<'_> {
    /// Gives the memory of the frame back. A request that waits for others does so when it keeps
    /// none of the frame's bytes: those it waits for may be waiting for the memory.
    pub fn release_memory(&self) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Handles a request that is not Produce.
///
/// # Errors
/// Why the connection must be closed.
pub async fn handle(
    broker: &Broker,
    state: &mut ConnectionState,
    frame: Frame,
) -> Result<Answer, String> {
    let Frame { prefix, rest, permit } = frame;
    let (key, version) = (prefix.key, prefix.version);
    broker.metrics.requests.get_or_create(&ApiLabel { api: key.name() }).inc();
    let mut reader = Reader::new(rest);
    if prefix.service == Service::UnknownApiVersions {
        let correlation = RequestHeader::decode_correlation_id(&mut reader);
        let correlation = correlation.map_err(|error| bad(key, version, &error))?;
        let chunks = response_frame(correlation, 0, &versions::unsupported_api_versions());
        return Ok(Answer::Frame { chunks, permit: None });
    }
    let header = RequestHeader::decode(&mut reader, key, version, true)
        .map_err(|error| bad(key, version, &error))?;
    // Not a part of the frame, which a request that waits must not keep.
    let client_id = header.client_id.map_or_else(String::new, |id| id.as_str().to_owned());
    let memory = Mutex::new(Some(permit));
    let request = Request { version, client_id: &client_id, peer: state.peer, memory: &memory };
    if key == ApiKey::Fetch {
        let answer = fetch::handle(broker, &mut state.fetch_sessions, &request, reader);
        let (response, budget) = answer.await.map_err(|error| bad(key, version, &error))?;
        let chunks = response_frame(header.correlation_id, version, &response);
        return Ok(Answer::Frame { chunks, permit: budget });
    }
    let chunks = dispatch(broker, &request, key, (header.correlation_id, reader))
        .await
        .map_err(|error| bad(key, version, &error))?;
    let permit = memory.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Answer::Frame { chunks, permit })
}

fn bad(key: ApiKey, version: i16, error: &DecodeError) -> String {
    format!("{} v{version} request does not parse: {error}", key.name())
}

/// Decodes the body, runs the handler, encodes its answer.
macro_rules! route {
    ($broker:ident, $request:ident, $parts:ident, $handler:path) => {{
        let (correlation, mut reader) = $parts;
        let body = Message::decode_body(&mut reader, $request.version)?;
        let response = $handler($broker, $request, body).await;
        Ok(response_frame(correlation, $request.version, &response))
    }};
}

async fn dispatch(
    broker: &Broker,
    request: &Request<'_>,
    key: ApiKey,
    parts: (i32, Reader),
) -> Result<Vec<Bytes>, DecodeError> {
    match key {
        ApiKey::ApiVersions => route!(broker, request, parts, api_versions::handle),
        ApiKey::Metadata => route!(broker, request, parts, metadata::handle),
        ApiKey::CreateTopics => route!(broker, request, parts, create_topics::handle),
        ApiKey::DeleteTopics => route!(broker, request, parts, delete_topics::handle),
        ApiKey::DeleteRecords => route!(broker, request, parts, delete_records::handle),
        ApiKey::DescribeConfigs => route!(broker, request, parts, describe_configs::handle),
        ApiKey::AlterConfigs => route!(broker, request, parts, alter_configs::handle),
        ApiKey::IncrementalAlterConfigs => {
            route!(broker, request, parts, incremental_alter_configs::handle)
        }
        ApiKey::ListConfigResources => {
            route!(broker, request, parts, list_config_resources::handle)
        }
        ApiKey::DescribeCluster => route!(broker, request, parts, describe_cluster::handle),
        ApiKey::DescribeQuorum => route!(broker, request, parts, describe_quorum::handle),
        ApiKey::AddRaftVoter => route!(broker, request, parts, add_raft_voter::handle),
        ApiKey::RemoveRaftVoter => route!(broker, request, parts, remove_raft_voter::handle),
        ApiKey::ListOffsets => route!(broker, request, parts, list_offsets::handle),
        ApiKey::OffsetForLeaderEpoch => {
            route!(broker, request, parts, offset_for_leader_epoch::handle)
        }
        ApiKey::InitProducerId => route!(broker, request, parts, init_producer_id::handle),
        ApiKey::FindCoordinator => route!(broker, request, parts, find_coordinator::handle),
        ApiKey::JoinGroup => route!(broker, request, parts, join_group::handle),
        ApiKey::SyncGroup => route!(broker, request, parts, sync_group::handle),
        ApiKey::Heartbeat => route!(broker, request, parts, heartbeat::handle),
        ApiKey::LeaveGroup => route!(broker, request, parts, leave_group::handle),
        ApiKey::ConsumerGroupHeartbeat => {
            route!(broker, request, parts, consumer_group_heartbeat::handle)
        }
        ApiKey::OffsetCommit => route!(broker, request, parts, offset_commit::handle),
        ApiKey::OffsetFetch => route!(broker, request, parts, offset_fetch::handle),
        _ => dispatch_admin(broker, request, key, parts).await,
    }
}

/// What operators ask.
async fn dispatch_admin(
    broker: &Broker,
    request: &Request<'_>,
    key: ApiKey,
    parts: (i32, Reader),
) -> Result<Vec<Bytes>, DecodeError> {
    match key {
        ApiKey::CreatePartitions => route!(broker, request, parts, create_partitions::handle),
        ApiKey::DescribeTopicPartitions => {
            route!(broker, request, parts, describe_topic_partitions::handle)
        }
        ApiKey::DescribeLogDirs => route!(broker, request, parts, describe_log_dirs::handle),
        ApiKey::DescribeProducers => route!(broker, request, parts, describe_producers::handle),
        ApiKey::ElectLeaders => route!(broker, request, parts, elect_leaders::handle),
        ApiKey::AlterPartitionReassignments => {
            route!(broker, request, parts, alter_partition_reassignments::handle)
        }
        ApiKey::ListPartitionReassignments => {
            route!(broker, request, parts, list_partition_reassignments::handle)
        }
        ApiKey::UpdateFeatures => route!(broker, request, parts, update_features::handle),
        ApiKey::UnregisterBroker => route!(broker, request, parts, unregister_broker::handle),
        ApiKey::ListGroups => route!(broker, request, parts, list_groups::handle),
        ApiKey::DescribeGroups => route!(broker, request, parts, describe_groups::handle),
        ApiKey::ConsumerGroupDescribe => {
            route!(broker, request, parts, consumer_group_describe::handle)
        }
        ApiKey::DeleteGroups => route!(broker, request, parts, delete_groups::handle),
        ApiKey::OffsetDelete => route!(broker, request, parts, offset_delete::handle),
        // `versions` lets nothing else through.
        _ => Err(DecodeError::UnsupportedVersion),
    }
}
