//! What this broker advertises: only what works, whatever the messages could decode.

use super::{
    api_key::ApiKey,
    error_code::ErrorCode,
    messages::{ApiVersionsResponse, ApiVersionsResponseApiKeys},
};

/// The versions of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The API.
    pub key: ApiKey,
    /// The first advertised version.
    pub min: i16,
    /// The last advertised and served version.
    pub max: i16,
    /// The first version that is answered.
    pub served_min: i16,
}

const fn range(key: ApiKey, min: i16, max: i16) -> ApiRange {
    ApiRange { key, min, max, served_min: min }
}

/// Every API that works, rising by key.
pub const ADVERTISED: &[ApiRange] = &[
    // librdkafka reads this range to enable its codecs (KAFKA-18659), so it starts at 0 as Kafka's.
    ApiRange { key: ApiKey::Produce, min: 0, max: 13, served_min: 3 },
    range(ApiKey::Fetch, 4, 18),
    range(ApiKey::ListOffsets, 1, 11),
    range(ApiKey::Metadata, 0, 13),
    range(ApiKey::OffsetCommit, 2, 10),
    range(ApiKey::OffsetFetch, 1, 10),
    range(ApiKey::FindCoordinator, 0, 6),
    range(ApiKey::JoinGroup, 0, 9),
    range(ApiKey::Heartbeat, 0, 4),
    range(ApiKey::LeaveGroup, 0, 5),
    range(ApiKey::SyncGroup, 0, 5),
    range(ApiKey::DescribeGroups, 0, 6),
    range(ApiKey::ListGroups, 0, 5),
    range(ApiKey::ApiVersions, 0, 4),
    range(ApiKey::CreateTopics, 2, 7),
    range(ApiKey::DeleteTopics, 1, 6),
    range(ApiKey::DeleteRecords, 0, 2),
    // Version 6, two-phase commit, is unstable in Kafka.
    range(ApiKey::InitProducerId, 0, 5),
    range(ApiKey::OffsetForLeaderEpoch, 2, 4),
    range(ApiKey::DescribeConfigs, 1, 4),
    range(ApiKey::AlterConfigs, 0, 2),
    range(ApiKey::DescribeLogDirs, 1, 5),
    range(ApiKey::CreatePartitions, 0, 3),
    range(ApiKey::DeleteGroups, 0, 2),
    range(ApiKey::ElectLeaders, 0, 2),
    range(ApiKey::IncrementalAlterConfigs, 0, 1),
    range(ApiKey::AlterPartitionReassignments, 0, 1),
    range(ApiKey::ListPartitionReassignments, 0, 0),
    range(ApiKey::OffsetDelete, 0, 0),
    range(ApiKey::DescribeQuorum, 0, 2),
    range(ApiKey::UpdateFeatures, 0, 2),
    range(ApiKey::DescribeCluster, 0, 2),
    range(ApiKey::DescribeProducers, 0, 0),
    range(ApiKey::UnregisterBroker, 0, 0),
    range(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    range(ApiKey::ConsumerGroupDescribe, 0, 1),
    range(ApiKey::ListConfigResources, 0, 1),
    range(ApiKey::DescribeTopicPartitions, 0, 0),
    range(ApiKey::AddRaftVoter, 0, 1),
    range(ApiKey::RemoveRaftVoter, 0, 0),
];

/// The range of an API, unless it is not served.
pub fn advertised(key: ApiKey) -> Option<&'static ApiRange> {
    ADVERTISED.iter().find(|range| range.key == key)
}

/// Whether a request of this key and version is answered.
pub fn is_served(key: ApiKey, version: i16) -> bool {
    advertised(key).is_some_and(|range| range.served_min <= version && version <= range.max)
}

/// The list of an ApiVersions response.
pub fn api_keys() -> Vec<ApiVersionsResponseApiKeys> {
    ADVERTISED.iter().map(listed).collect()
}

/// The answer to an ApiVersions request of an unknown version, to be encoded in version 0: clients
/// try again with the range of the one key in it.
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: advertised(ApiKey::ApiVersions).map(listed).into_iter().collect(),
        ..ApiVersionsResponse::default()
    }
}

fn listed(range: &ApiRange) -> ApiVersionsResponseApiKeys {
    ApiVersionsResponseApiKeys {
        api_key: range.key.code(),
        min_version: range.min,
        max_version: range.max,
    }
}
