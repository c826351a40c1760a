//! The same bodies through `kacrab-protocol` and `kafka-protocol`.

use bytes::{Bytes, BytesMut};
use kacrab_protocol::generated as kacrab;

macro_rules! kacrab_messages {
    ($($key:literal $request:ident $response:ident,)*) => {
        /// Decodes with `kacrab-protocol` and encodes again.
        pub fn kacrab(key: i16, is_request: bool, version: i16, body: &[u8]) -> Option<Vec<u8>> {
            let mut buf = Bytes::copy_from_slice(body);
            let mut out = BytesMut::new();
            match (key, is_request) {
                $(
                    ($key, true) => {
                        kacrab::$request::read(&mut buf, version).ok()?.write(&mut out, version)
                    }
                    ($key, false) => {
                        kacrab::$response::read(&mut buf, version).ok()?.write(&mut out, version)
                    }
                )*
                _ => panic!("no message of key {key}"),
            }
            .ok()?;
            Some(out.to_vec())
        }
    };
}

kacrab_messages! {
    0 ProduceRequestData ProduceResponseData,
    1 FetchRequestData FetchResponseData,
    2 ListOffsetsRequestData ListOffsetsResponseData,
    3 MetadataRequestData MetadataResponseData,
    8 OffsetCommitRequestData OffsetCommitResponseData,
    9 OffsetFetchRequestData OffsetFetchResponseData,
    10 FindCoordinatorRequestData FindCoordinatorResponseData,
    11 JoinGroupRequestData JoinGroupResponseData,
    12 HeartbeatRequestData HeartbeatResponseData,
    13 LeaveGroupRequestData LeaveGroupResponseData,
    14 SyncGroupRequestData SyncGroupResponseData,
    15 DescribeGroupsRequestData DescribeGroupsResponseData,
    16 ListGroupsRequestData ListGroupsResponseData,
    17 SaslHandshakeRequestData SaslHandshakeResponseData,
    18 ApiVersionsRequestData ApiVersionsResponseData,
    19 CreateTopicsRequestData CreateTopicsResponseData,
    20 DeleteTopicsRequestData DeleteTopicsResponseData,
    21 DeleteRecordsRequestData DeleteRecordsResponseData,
    22 InitProducerIdRequestData InitProducerIdResponseData,
    23 OffsetForLeaderEpochRequestData OffsetForLeaderEpochResponseData,
    24 AddPartitionsToTxnRequestData AddPartitionsToTxnResponseData,
    25 AddOffsetsToTxnRequestData AddOffsetsToTxnResponseData,
    26 EndTxnRequestData EndTxnResponseData,
    27 WriteTxnMarkersRequestData WriteTxnMarkersResponseData,
    28 TxnOffsetCommitRequestData TxnOffsetCommitResponseData,
    29 DescribeAclsRequestData DescribeAclsResponseData,
    30 CreateAclsRequestData CreateAclsResponseData,
    31 DeleteAclsRequestData DeleteAclsResponseData,
    32 DescribeConfigsRequestData DescribeConfigsResponseData,
    33 AlterConfigsRequestData AlterConfigsResponseData,
    34 AlterReplicaLogDirsRequestData AlterReplicaLogDirsResponseData,
    35 DescribeLogDirsRequestData DescribeLogDirsResponseData,
    36 SaslAuthenticateRequestData SaslAuthenticateResponseData,
    37 CreatePartitionsRequestData CreatePartitionsResponseData,
    38 CreateDelegationTokenRequestData CreateDelegationTokenResponseData,
    39 RenewDelegationTokenRequestData RenewDelegationTokenResponseData,
    40 ExpireDelegationTokenRequestData ExpireDelegationTokenResponseData,
    41 DescribeDelegationTokenRequestData DescribeDelegationTokenResponseData,
    42 DeleteGroupsRequestData DeleteGroupsResponseData,
    43 ElectLeadersRequestData ElectLeadersResponseData,
    44 IncrementalAlterConfigsRequestData IncrementalAlterConfigsResponseData,
    45 AlterPartitionReassignmentsRequestData AlterPartitionReassignmentsResponseData,
    46 ListPartitionReassignmentsRequestData ListPartitionReassignmentsResponseData,
    47 OffsetDeleteRequestData OffsetDeleteResponseData,
    48 DescribeClientQuotasRequestData DescribeClientQuotasResponseData,
    49 AlterClientQuotasRequestData AlterClientQuotasResponseData,
    50 DescribeUserScramCredentialsRequestData DescribeUserScramCredentialsResponseData,
    51 AlterUserScramCredentialsRequestData AlterUserScramCredentialsResponseData,
    55 DescribeQuorumRequestData DescribeQuorumResponseData,
    57 UpdateFeaturesRequestData UpdateFeaturesResponseData,
    60 DescribeClusterRequestData DescribeClusterResponseData,
    61 DescribeProducersRequestData DescribeProducersResponseData,
    64 UnregisterBrokerRequestData UnregisterBrokerResponseData,
    65 DescribeTransactionsRequestData DescribeTransactionsResponseData,
    66 ListTransactionsRequestData ListTransactionsResponseData,
    68 ConsumerGroupHeartbeatRequestData ConsumerGroupHeartbeatResponseData,
    69 ConsumerGroupDescribeRequestData ConsumerGroupDescribeResponseData,
    71 GetTelemetrySubscriptionsRequestData GetTelemetrySubscriptionsResponseData,
    72 PushTelemetryRequestData PushTelemetryResponseData,
    74 ListConfigResourcesRequestData ListConfigResourcesResponseData,
    75 DescribeTopicPartitionsRequestData DescribeTopicPartitionsResponseData,
    76 ShareGroupHeartbeatRequestData ShareGroupHeartbeatResponseData,
    77 ShareGroupDescribeRequestData ShareGroupDescribeResponseData,
    78 ShareFetchRequestData ShareFetchResponseData,
    79 ShareAcknowledgeRequestData ShareAcknowledgeResponseData,
    80 AddRaftVoterRequestData AddRaftVoterResponseData,
    81 RemoveRaftVoterRequestData RemoveRaftVoterResponseData,
    83 InitializeShareGroupStateRequestData InitializeShareGroupStateResponseData,
    84 ReadShareGroupStateRequestData ReadShareGroupStateResponseData,
    85 WriteShareGroupStateRequestData WriteShareGroupStateResponseData,
    86 DeleteShareGroupStateRequestData DeleteShareGroupStateResponseData,
    87 ReadShareGroupStateSummaryRequestData ReadShareGroupStateSummaryResponseData,
    88 StreamsGroupHeartbeatRequestData StreamsGroupHeartbeatResponseData,
    89 StreamsGroupDescribeRequestData StreamsGroupDescribeResponseData,
    90 DescribeShareGroupOffsetsRequestData DescribeShareGroupOffsetsResponseData,
    91 AlterShareGroupOffsetsRequestData AlterShareGroupOffsetsResponseData,
    92 DeleteShareGroupOffsetsRequestData DeleteShareGroupOffsetsResponseData,
}

/// Whether `kafka-protocol`, of Kafka 4.1, does not know a version yet.
pub fn newer_than_4_1(key: i16, is_request: bool, version: i16) -> bool {
    match key {
        8 | 9 if is_request => version >= 10,
        22 if is_request => version >= 6,
        2 => version >= 11,
        27 | 78 | 79 => version >= 2,
        35 => version >= 5,
        80 | 85 | 87 | 90 => version >= 1,
        88 | 89 => true,
        _ => false,
    }
}

/// Decodes with `kafka-protocol` and encodes again.
pub fn kafka_protocol(key: i16, is_request: bool, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
    let key = ApiKey::try_from(key).unwrap();
    let mut buf = Bytes::copy_from_slice(body);
    let mut out = BytesMut::new();
    if is_request {
        RequestKind::decode(key, &mut buf, version).ok()?.encode(&mut out, version).ok()?;
    } else {
        ResponseKind::decode(key, &mut buf, version).ok()?.encode(&mut out, version).ok()?;
    }
    Some(out.to_vec())
}
