//! What an operator sees and does of a group: listing, describing, deleting it or its offsets.
//!
//! # Invariants
//! - A group with members is not deleted, nor an offset that a subscribed member goes by.

use std::collections::BTreeSet;

use aquifer_storage::model::TopicPartition;
use bytes::{Buf, Bytes};

use super::{
    command::{GroupAction, GroupReply, TopicOffsets},
    query::{GroupDescription, MemberDescription},
    state::{Group, Member, Moment, Phase},
    types::{GroupRejected, GroupState, MemberId},
};

/// The protocol type of consumers, whose members say which topics they read.
pub(super) const CONSUMER: &str = "consumer";

/// The answer to a deletion in a group that does not exist.
pub(super) fn refuse_absent(action: &GroupAction) -> GroupReply {
    match action {
        GroupAction::DeleteOffsets { .. } => {
            GroupReply::OffsetsDeleted(Err(GroupRejected::UnknownGroup))
        }
        _ => GroupReply::Deleted(Err(GroupRejected::UnknownGroup)),
    }
}

impl Group {
    /// Where it is in its round.
    pub fn state(&self) -> GroupState {
        if let Some(group) = &self.consumer {
            return group.state();
        }
        match &self.phase {
            Phase::Empty { .. } => GroupState::Empty,
            Phase::PreparingRebalance(_) => GroupState::PreparingRebalance,
            Phase::CompletingRebalance(_) => GroupState::CompletingRebalance,
            Phase::Stable { .. } => GroupState::Stable,
        }
    }

    /// The protocol type it is listed with; `None` for a simple group.
    pub fn listed_protocol_type(&self) -> Option<String> {
        let of_consumers = self.consumer.as_ref().map(|_| CONSUMER.to_owned());
        of_consumers.or_else(|| self.protocol_type.clone())
    }

    /// How it stands. What members told the assignor and got from it is of a stable group only.
    pub fn describe(&self) -> GroupDescription {
        let assignments = match &self.phase {
            Phase::Stable { assignments, .. } => Some(assignments),
            Phase::Empty { .. } | Phase::PreparingRebalance(_) | Phase::CompletingRebalance(_) => {
                None
            }
        };
        let protocol = assignments.and(self.protocol.clone());
        let mut members: Vec<(&MemberId, &Member)> = self.members.iter().collect();
        members.sort_unstable_by_key(|(_, member)| member.order);
        let one = |(id, member): (&MemberId, &Member)| MemberDescription {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.as_deref().map(|name| member.metadata(name)).unwrap_or_default(),
            assignment: assignments.and_then(|all| all.get(id)).cloned().unwrap_or_default(),
        };
        GroupDescription {
            state: self.state(),
            protocol_type: self.protocol_type.clone(),
            members: members.into_iter().map(one).collect(),
            protocol,
        }
    }

    /// Forgets everything, which makes the group blank, if nobody is in it. Ids that were given
    /// out and not used do not count, as in Kafka.
    pub fn delete(&mut self, moment: &mut Moment) -> Result<(), GroupRejected> {
        if self.state() != GroupState::Empty {
            return Err(GroupRejected::NonEmpty);
        }
        *self = Self { version: moment.count(), ..Self::default() };
        Ok(())
    }

    /// Forgets committed offsets. Those of topics that members subscribe to stay; the flags say
    /// which these are.
    pub fn delete_offsets(&mut self, topics: &[TopicOffsets]) -> Result<Vec<bool>, GroupRejected> {
        if self.consumer.is_some() {
            return Ok(topics.iter().map(|topic| self.delete_unread(topic)).collect());
        }
        let of_consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        if self.state() != GroupState::Empty && !of_consumers {
            return Err(GroupRejected::NonEmpty);
        }
        // Empty for a group without members, whatever it was for.
        let subscribed = self.subscribed_topics();
        let mut kept = Vec::with_capacity(topics.len());
        for topic in topics {
            let keep = subscribed.as_ref().map_or(of_consumers, |all| all.contains(&topic.name));
            for partition in topic.partitions.iter().filter(|_| !keep) {
                let partition = TopicPartition { topic: topic.topic, partition: *partition };
                self.offsets.remove_mut(&partition);
            }
            kept.push(keep);
        }
        Ok(kept)
    }

    /// Forgets offsets of a topic that no member of a consumer group subscribes to. True when one
    /// does.
    fn delete_unread(&mut self, topic: &TopicOffsets) -> bool {
        let group = self.consumer.as_ref();
        let keep = group.is_some_and(|group| group.is_subscribed(topic.topic, &topic.name));
        for partition in topic.partitions.iter().filter(|_| !keep) {
            let partition = TopicPartition { topic: topic.topic, partition: *partition };
            self.offsets.remove_mut(&partition);
        }
        keep
    }

    /// The topics that consumers in the group read; `None` when some member does not say.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(subscription(member.metadata(protocol))?);
        }
        Some(all)
    }
}

/// The topics of a consumer's subscription: what every version of it begins with.
fn subscription(mut metadata: Bytes) -> Option<Vec<String>> {
    metadata.try_get_i16().ok()?; // The version.
    let count = usize::try_from(metadata.try_get_i32().ok()?).ok()?;
    if metadata.len() / size_of::<i16>() < count {
        return None; // Each has a length: more than there can be.
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if metadata.len() < length {
            return None;
        }
        topics.push(String::from_utf8(metadata.split_to(length).to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(topics: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 3];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for topic in topics {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
        }
        bytes.extend([0xff; 4]); // User data, and what later versions have behind it.
        bytes
    }

    #[test]
    fn a_subscription_names_its_topics_whatever_follows_them() {
        let topics = subscription(encoded(&["a", "orders"]).into());
        assert_eq!(topics, Some(vec!["a".to_owned(), "orders".to_owned()]));
        assert_eq!(subscription(encoded(&[]).into()), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_subscription_is_told_apart_and_never_panics() {
        let whole = encoded(&["a", "orders"]);
        for length in 0..whole.len() - 4 {
            assert_eq!(subscription(whole[..length].to_vec().into()), None, "{length} bytes");
        }
        let huge = [&[0, 0][..], &i32::MAX.to_be_bytes()].concat();
        assert_eq!(subscription(huge.into()), None);
        let negative = [&[0, 0][..], &(-1_i32).to_be_bytes()].concat();
        assert_eq!(subscription(negative.into()), None);
    }
}
