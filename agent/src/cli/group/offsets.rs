//! What a group committed, and where partitions end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    cli::client::{Client, ClientError, Isolation, OffsetSpec},
    wire::{
        Str,
        messages::{OffsetFetchRequest, OffsetFetchRequestGroups, OffsetFetchResponse},
    },
};

/// From version 10 on topics are named by id only, which says nothing to a reader.
const OFFSET_FETCH: std::ops::RangeInclusive<i16> = 2..=9;

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// All committed offsets of a group.
///
/// # Errors
/// Its coordinator does not say.
pub async fn committed(
    client: &mut Client,
    broker: &str,
    group: &str,
) -> Result<Offsets, ClientError> {
    // Up to version 7 a request is about one group and says so elsewhere.
    let of_group = OffsetFetchRequestGroups {
        group_id: Str::from(group),
        member_id: None,
        member_epoch: -1,
        topics: None,
    };
    let request = OffsetFetchRequest {
        group_id: Str::from(group),
        topics: None,
        groups: vec![of_group],
        require_stable: false,
    };
    let answer: OffsetFetchResponse =
        client.call_at(broker, OFFSET_FETCH, &request, Duration::ZERO).await?;
    let subject = || format!("offsets of group {group}");
    ClientError::check(subject, answer.error_code)?;
    let mut committed = Offsets::new();
    let mut insert = |topic: &Str, partition: i32, offset: i64| {
        if 0 <= offset {
            committed.insert((topic.to_string(), partition), offset);
        }
    };
    for topic in &answer.topics {
        for row in &topic.partitions {
            ClientError::check(subject, row.error_code)?;
            insert(&topic.name, row.partition_index, row.committed_offset);
        }
    }
    for of_group in &answer.groups {
        ClientError::check(subject, of_group.error_code)?;
        for topic in &of_group.topics {
            for row in &topic.partitions {
                ClientError::check(subject, row.error_code)?;
                insert(&topic.name, row.partition_index, row.committed_offset);
            }
        }
    }
    Ok(committed)
}

/// Where the partitions end; those of topics that are gone have no end.
///
/// # Errors
/// A leader does not say.
pub async fn latest(
    client: &mut Client,
    partitions: &BTreeSet<(String, i32)>,
) -> Result<Offsets, ClientError> {
    let names: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(Offsets::new());
    }
    let mut latest = Offsets::new();
    for topic in client.cluster(Some(&names)).await?.topics {
        let wanted = |index: &i32| partitions.contains(&(topic.name.to_string(), *index));
        let led = topic
            .partitions
            .iter()
            .filter(|(index, partition)| wanted(index) && partition.leader.is_some());
        let led: Vec<i32> = led.map(|(index, _)| *index).collect();
        let found =
            client.offsets(&topic, &led, OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
        for (index, listed) in found {
            if let Some(offset) = listed.offset {
                latest.insert((topic.name.to_string(), index), offset);
            }
        }
    }
    Ok(latest)
}
