//! OffsetCommit and OffsetFetch, noted in the history.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_agent::wire::{
    Str,
    messages::{
        OffsetCommitRequest, OffsetCommitRequestTopics, OffsetCommitRequestTopicsPartitions,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchRequestGroups,
        OffsetFetchRequestGroupsTopics, OffsetFetchResponse,
    },
};

use super::{
    super::{
        Client, Partition,
        connection::{Connection, Refused},
    },
    COORDINATOR_AWAY, Committer, FENCED_EPOCH, FENCED_INSTANCE, ILLEGAL_GENERATION, NO_SUCH_GROUP,
    PATIENCE, REBALANCE_IN_PROGRESS, STALE_EPOCH, Seat, UNKNOWN_MEMBER,
};
use crate::{
    history::{
        Answer, Key, Nanos,
        groups::{Commit, Fetched},
    },
    sim::groups::Group,
};

/// The versions that know member epochs and name topics.
const COMMIT_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 9;

/// Refusals of a commit that certainly took no effect.
const REFUSED: &[i16] = &[
    ILLEGAL_GENERATION,
    UNKNOWN_MEMBER,
    REBALANCE_IN_PROGRESS,
    NO_SUCH_GROUP,
    FENCED_INSTANCE,
    FENCED_EPOCH,
    STALE_EPOCH,
];

/// Commits a new number for each of `keys`; nothing for none.
pub async fn commit(
    client: &Client,
    connection: &mut Connection,
    seat: &Seat,
    committer: &Committer,
    keys: &[(Key, Nanos)],
) -> Result<(), Refused> {
    if keys.is_empty() {
        return Ok(());
    }
    let tokens: BTreeMap<Key, u64> =
        keys.iter().map(|(key, _)| (*key, client.shared.new_value())).collect();
    let mut topics = BTreeMap::<&str, Vec<_>>::new();
    for (key, token) in &tokens {
        let Partition { topic, index, .. } = client.partition(*key);
        topics.entry(topic).or_default().push(OffsetCommitRequestTopicsPartitions {
            partition_index: *index,
            committed_offset: i64::try_from(*token).expect("few"),
            committed_metadata: Some(token.to_string().into()),
            ..OffsetCommitRequestTopicsPartitions::default()
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopics {
        name: Str::from(name),
        partitions,
        ..OffsetCommitRequestTopics::default()
    });
    let request = OffsetCommitRequest {
        group_id: Str::from(seat.group.name.as_str()),
        generation_id_or_member_epoch: committer.epoch,
        member_id: Str::from(committer.id.as_str()),
        group_instance_id: committer.instance.as_deref().map(Str::from),
        topics: topics.collect(),
        ..OffsetCommitRequest::default()
    };
    let began = client.shared.now();
    let answered: Result<OffsetCommitResponse, Refused> =
        connection.call(COMMIT_VERSION, &request, PATIENCE).await;
    let ended = client.shared.now();
    for (key, since) in keys {
        let Partition { topic, index, .. } = client.partition(*key);
        let code = answered.as_ref().ok().map(|answer| {
            let topic = answer.topics.iter().find(|one| one.name == topic.as_str());
            let partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
            let partition = partitions.into_iter().find(|one| one.partition_index == *index);
            partition.expect("an agent answers what was asked").error_code
        });
        let (group, member, epoch) = (seat.group.number, committer.member, committer.epoch);
        let (token, answer) = (tokens[key], outcome(client, code));
        let (key, since) = (*key, *since);
        let commit = Commit { group, member, key, token, epoch, since, began, ended, answer };
        client.shared.note_groups(
            || format!("{code:?} to {commit:?}"),
            |groups| groups.commits.push(commit.clone()),
        );
    }
    answered.map(|_| ())
}

/// What a code says of a commit.
fn outcome(client: &Client, code: Option<i16>) -> Answer<()> {
    match code {
        Some(0) => Answer::Done(()),
        Some(code) if REFUSED.contains(&code) => Answer::Failed(code),
        Some(code) if COORDINATOR_AWAY.contains(&code) => Answer::Unknown,
        Some(code) => {
            client.unexpected(&format!("{code} to a commit"));
            Answer::Unknown
        }
        None => Answer::Unknown,
    }
}

/// Asks for what the group committed, of every partition; for a member of the consumer protocol
/// with its id and epoch. Gives the group's error code.
pub async fn fetch(
    client: &Client,
    connection: &mut Connection,
    group: &Arc<Group>,
    reader: Option<(&str, i32)>,
) -> Result<i16, Refused> {
    let mut topics = BTreeMap::<&str, Vec<i32>>::new();
    for Partition { topic, index, .. } in &client.shared.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(name, partition_indexes)| {
        let name = Str::from(name);
        OffsetFetchRequestGroupsTopics { name, partition_indexes, ..Default::default() }
    });
    let asked = OffsetFetchRequestGroups {
        group_id: Str::from(group.name.as_str()),
        member_id: reader.map(|(id, _)| Str::from(id)),
        member_epoch: reader.map_or(-1, |(_, epoch)| epoch),
        topics: Some(topics.collect()),
    };
    let request = OffsetFetchRequest { groups: vec![asked], ..OffsetFetchRequest::default() };
    let began = client.shared.now();
    let answer: OffsetFetchResponse = connection.call(FETCH_VERSION, &request, PATIENCE).await?;
    let ended = client.shared.now();
    let answer = answer.groups.into_iter().next().expect("an agent answers what was asked");
    for topic in &answer.topics {
        for partition in &topic.partitions {
            if partition.error_code != 0 {
                client.unexpected(&format!("{} to a fetch of offsets", partition.error_code));
                continue;
            }
            let known = client.shared.partitions.iter().find(|known| {
                topic.name == *known.topic && known.index == partition.partition_index
            });
            let key = known.expect("an agent answers what was asked").key;
            let text = partition.metadata.as_ref().map_or("", |text| text.as_str());
            // What is no number of ours is nobody's.
            let found = (0 <= partition.committed_offset)
                .then(|| (partition.committed_offset, text.parse().unwrap_or(u64::MAX)));
            let fetched = Fetched { group: group.number, key, began, ended, found };
            client.shared.note_groups(
                || format!("{fetched:?}"),
                |groups| groups.fetched.push(fetched.clone()),
            );
        }
    }
    Ok(answer.error_code)
}
