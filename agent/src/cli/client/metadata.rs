//! Topics, partitions and brokers, as the cluster describes them.

use std::collections::BTreeMap;

use super::{Client, ClientError};
use crate::{
    cli::suggest,
    wire::{
        ErrorCode, Str, Uuid,
        client::address_of,
        messages::{
            MetadataRequest, MetadataRequestTopics, MetadataResponse, MetadataResponseTopics,
        },
    },
};

/// From version 4 on an unknown topic can be asked for without creating it.
const VERSIONS: std::ops::RangeInclusive<i16> = 4..=13;

/// What the cluster says about itself.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its id, where it has one.
    pub id: Option<String>,
    /// The broker that takes changes.
    pub controller: Option<i32>,
    /// Its topics: those asked for, or all.
    pub topics: Vec<Topic>,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: Str,
    /// Its id, where topics have one.
    pub id: Option<Uuid>,
    /// Whether it belongs to the cluster itself.
    pub is_internal: bool,
    /// Its partitions by index.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct Partition {
    /// The broker that serves it, when there is one.
    pub leader: Option<i32>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that hold all of it.
    pub in_sync: Vec<i32>,
}

impl Topic {
    /// How many brokers hold each partition.
    pub fn replication_factor(&self) -> usize {
        self.partitions.values().map(|partition| partition.replicas.len()).max().unwrap_or(0)
    }

    fn of(answer: &MetadataResponseTopics) -> Option<Self> {
        let partition = |row: &crate::wire::messages::MetadataResponseTopicsPartitions| Partition {
            leader: Some(row.leader_id).filter(|id| 0 <= *id),
            replicas: row.replica_nodes.clone(),
            in_sync: row.isr_nodes.clone(),
        };
        let rows = answer.partitions.iter();
        Some(Self {
            name: answer.name.clone()?,
            id: Some(answer.topic_id).filter(|id| !id.is_zero()),
            is_internal: answer.is_internal,
            partitions: rows.map(|row| (row.partition_index, partition(row))).collect(),
        })
    }
}

impl Client {
    /// The cluster and the topics of `names`, or all for `None`; unknown ones are left out.
    ///
    /// # Errors
    /// The cluster does not say, or refuses one of the topics.
    pub async fn cluster(&mut self, names: Option<&[&str]>) -> Result<Cluster, ClientError> {
        let asked = |name: &&str| MetadataRequestTopics {
            name: Some(Str::from(*name)),
            topic_id: Uuid::ZERO,
        };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().map(asked).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let asking = async |client: &mut Self| client.call_any(VERSIONS, &request).await;
        let answer: MetadataResponse = self.retrying(asking).await?;
        ClientError::check(|| "Metadata".to_owned(), answer.error_code)?;
        let brokers = answer.brokers.iter();
        self.brokers =
            brokers.map(|broker| (broker.node_id, address_of(&broker.host, broker.port))).collect();
        self.controller = Some(answer.controller_id).filter(|id| 0 <= *id);
        let mut topics = Vec::new();
        for topic in &answer.topics {
            match ErrorCode::from_code(topic.error_code) {
                Some(ErrorCode::UnknownTopicOrPartition) => {}
                Some(ErrorCode::None | ErrorCode::LeaderNotAvailable) => {
                    topics.extend(Topic::of(topic));
                }
                _ => {
                    let name = topic.name.as_deref().unwrap_or_default();
                    ClientError::check(|| format!("topic {name}"), topic.error_code)?;
                }
            }
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let id = answer.cluster_id.map(|id| id.to_string());
        Ok(Cluster { id, controller: self.controller, topics })
    }

    /// The topics of `names`, all of which must be there.
    ///
    /// # Errors
    /// One is not there; the message has the name that may have been meant.
    pub async fn topics(&mut self, names: &[&str]) -> Result<Vec<Topic>, ClientError> {
        let found = self.cluster(Some(names)).await?.topics;
        let known = |name: &str| found.iter().any(|topic| topic.name == name);
        if let Some(absent) = names.iter().find(|name| !known(name)) {
            return Err(self.no_topic(absent).await);
        }
        Ok(found)
    }

    /// The topic of a name.
    ///
    /// # Errors
    /// It is not there; the message has the name that may have been meant.
    pub async fn topic(&mut self, name: &str) -> Result<Topic, ClientError> {
        match self.cluster(Some(&[name])).await?.topics.pop() {
            Some(topic) => Ok(topic),
            None => Err(self.no_topic(name).await),
        }
    }

    /// What to say of a topic that is not there.
    pub async fn no_topic(&mut self, name: &str) -> ClientError {
        let all = self.cluster(None).await.map(|cluster| cluster.topics).unwrap_or_default();
        let names = all.iter().map(|topic| topic.name.as_str());
        let hint = suggest::hint(name, names);
        ClientError::Missing(format!("there is no topic {name}{hint}"))
    }
}
