//! Who is in a group: of the classic protocol or of KIP-848's, told alike.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    cli::client::{ANY, Client, ClientError},
    wire::{
        ApiKey, DecodeError, ErrorCode, Reader, Str,
        codec::Element as _,
        messages::{
            ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
            ConsumerGroupDescribeResponseGroups, DescribeGroupsRequest, DescribeGroupsResponse,
            DescribeGroupsResponseGroups,
        },
    },
};

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// Kafka's name of its state; `Dead` of a group that is not there.
    pub state: String,
    /// Who assigns partitions, and how.
    pub assignor: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its id.
    pub member_id: String,
    /// The name it keeps over restarts, if it has one.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads.
    pub partitions: Vec<TopicPartitions>,
}

/// Partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

/// The members of a group, asked of its coordinator.
///
/// # Errors
/// The coordinator does not say.
pub async fn membership(
    client: &mut Client,
    broker: &str,
    group: &str,
) -> Result<Membership, ClientError> {
    if client.serves(broker, ApiKey::ConsumerGroupDescribe).await? {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![Str::from(group)],
            include_authorized_operations: false,
        };
        let answer: ConsumerGroupDescribeResponse =
            client.call_at(broker, ANY, &request, Duration::ZERO).await?;
        let told = answer.groups.first();
        // Classic groups are not found this way, and neither are those there are none of.
        let is_classic = told.is_none_or(|told| {
            ErrorCode::from_code(told.error_code) == Some(ErrorCode::GroupIdNotFound)
        });
        if let Some(told) = told.filter(|_| !is_classic) {
            let message = told.error_message.as_deref();
            ClientError::check_told(|| format!("group {group}"), told.error_code, message)?;
            return Ok(of_consumer_group(told));
        }
    }
    let request = DescribeGroupsRequest {
        groups: vec![Str::from(group)],
        include_authorized_operations: false,
    };
    let answer: DescribeGroupsResponse =
        client.call_at(broker, ANY, &request, Duration::ZERO).await?;
    let absent = || ClientError::Missing(format!("{broker} says nothing about group {group}"));
    let told = answer.groups.first().ok_or_else(absent)?;
    if ErrorCode::from_code(told.error_code) != Some(ErrorCode::GroupIdNotFound) {
        let message = told.error_message.as_deref();
        ClientError::check_told(|| format!("group {group}"), told.error_code, message)?;
    }
    Ok(of_classic_group(told))
}

fn of_consumer_group(told: &ConsumerGroupDescribeResponseGroups) -> Membership {
    let members = told.members.iter().map(|member| Member {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(Str::to_string),
        client_id: member.client_id.to_string(),
        host: host(&member.client_host),
        partitions: member
            .assignment
            .topic_partitions
            .iter()
            .map(|row| TopicPartitions {
                topic: row.topic_name.to_string(),
                partitions: row.partitions.clone(),
            })
            .collect(),
    });
    Membership {
        kind: "consumer",
        state: told.group_state.to_string(),
        assignor: told.assignor_name.to_string(),
        members: members.collect(),
    }
}

fn of_classic_group(told: &DescribeGroupsResponseGroups) -> Membership {
    let is_consumer = told.protocol_type == "consumer";
    let members = told.members.iter().map(|member| Member {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(Str::to_string),
        client_id: member.client_id.to_string(),
        host: host(&member.client_host),
        // What other protocols assign is their own.
        partitions: match is_consumer {
            true => assignment(&member.member_assignment).unwrap_or_default(),
            false => Vec::new(),
        },
    });
    Membership {
        kind: "classic",
        state: told.group_state.to_string(),
        assignor: told.protocol_data.to_string(),
        members: members.collect(),
    }
}

/// The Java broker writes an address as `/10.0.0.1`.
fn host(text: &str) -> String {
    text.trim_start_matches('/').to_owned()
}

/// The partitions in an assignment of the classic consumer protocol, any version.
fn assignment(bytes: &Bytes) -> Result<Vec<TopicPartitions>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new()); // Not assigned yet.
    }
    let mut reader = Reader::new(bytes.clone());
    let _version = i16::read(&mut reader, 0, false)?;
    let count = i32::read(&mut reader, 0, false)?;
    let mut assigned = Vec::new();
    for _ in 0..count {
        let topic = Str::read(&mut reader, 0, false)?.to_string();
        let mut partitions = Vec::<i32>::read(&mut reader, 0, false)?;
        partitions.sort_unstable();
        assigned.push(TopicPartitions { topic, partitions });
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classic_assignment_is_read_and_a_broken_one_is_an_error() {
        let bytes: &[u8] = b"\0\x03\0\0\0\x01\0\x06orders\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0\0";
        let assigned = assignment(&Bytes::from_static(bytes)).unwrap();
        let topic = "orders".to_owned();
        assert_eq!(assigned, [TopicPartitions { topic, partitions: vec![0, 2] }]);
        assert_eq!(assignment(&Bytes::new()), Ok(Vec::new()));
        assert!(assignment(&Bytes::from_static(&bytes[..15])).is_err());
        assert!(assignment(&Bytes::from_static(b"\0\0\x7f\xff\xff\xff")).is_err());
    }
}
