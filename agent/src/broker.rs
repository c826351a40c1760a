//! What every request handler works with: handles to the parts of this agent, and its settings.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aquifer_metadata::{
    client::{CallError, Metadata, cluster::Quorum},
    machine::{
        command::{AppliedReply, Command, GroupCommand, GroupReply},
        group::command::{GroupAction, RequestId},
        query::{Answer, GroupAnswer, GroupQuery, Query},
    },
    watch::{CatalogNode, CatalogTopic},
};
use aquifer_storage::{budget::Budgets, error::Outcome, seam::Seams};
use tokio::sync::Semaphore;

use crate::{
    api::Request, config::ServerOptions, configs::layers::Layers, fetch::Fetcher, metrics::Metrics,
    placement::zone, produce::Producer, session::Session, topic_config, view::View,
};

/// Turns of [`Broker::reworks`].
pub const REWORKS_MAX: usize = 4;

/// One agent, as its request handlers see it.
pub struct Broker {
    /// The metadata group.
    pub metadata: Arc<dyn Metadata>,
    /// Its members.
    pub quorum: Arc<dyn Quorum>,
    /// What metadata pushed.
    pub view: View,
    /// This agent's session.
    pub session: Session,
    /// The write path.
    pub producer: Producer,
    /// The read path.
    pub fetcher: Fetcher,
    /// Byte budgets by purpose.
    pub budgets: Arc<Budgets>,
    /// Clock, randomness, tasks.
    pub seams: Seams,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Server settings.
    pub options: ServerOptions,
    /// Partitions of an automatically created topic.
    pub num_partitions: u32,
    /// This agent's zone.
    pub zone: Option<String>,
    /// Whether some default of topics was given when the agent started.
    pub has_given_defaults: bool,
    /// Turns to look at a produced batch's records: each takes a core, and a decoder's window.
    pub reworks: Arc<Semaphore>,
    /// Counts connections, for their names.
    pub connections: AtomicU64,
    /// Counts group requests, for their retry keys.
    pub group_requests: AtomicU64,
}

impl Broker {
    /// The live agents, one per node id: agents behind one address are one node.
    pub fn nodes(&self) -> Vec<CatalogNode> {
        let mut nodes = self.view.catalog().nodes.clone();
        nodes.sort_by_key(|node| (node.node_id, node.session));
        nodes.dedup_by_key(|node| node.node_id);
        nodes
    }

    /// This agent's node id; -1 before it is registered.
    pub fn node_id(&self) -> i32 {
        self.session.current().map_or(-1, |session| session.node_id.value())
    }

    /// What a topic is configured with where that is not Kafka's default: its own configs, and what
    /// brokers have as the default of topics.
    pub fn effective_configs<'a>(
        &self,
        topic: &'a CatalogTopic,
    ) -> Cow<'a, BTreeMap<String, String>> {
        let catalog = self.view.catalog();
        if catalog.configs.is_empty() && !self.has_given_defaults {
            return Cow::Borrowed(&topic.configs); // Every Produce asks.
        }
        let layers = Layers::new(&catalog, self.node_id(), &self.options.given);
        let mut configs = topic.configs.clone();
        for config in topic_config::TOPIC_CONFIGS {
            if !configs.contains_key(config.name) {
                let inherited = layers.inherited(config);
                if inherited != config.default {
                    configs.insert(config.name.to_owned(), inherited);
                }
            }
        }
        Cow::Owned(configs)
    }

    /// The zone of a client: what its id says, else what its address says, else this agent's,
    /// which is right where the network keeps clients in their zone.
    pub fn zone_of<'a>(&'a self, request: &Request<'a>) -> Option<&'a str> {
        zone::of_client_id(request.client_id)
            .or_else(|| self.options.client_zone_blocks.zone_of(request.peer.ip()))
            .or(self.zone.as_deref())
    }

    /// A retry key for a group request.
    pub async fn request_id(&self) -> RequestId {
        let number = self.group_requests.fetch_add(1, Ordering::Relaxed);
        RequestId { session: self.session.registered().await.session, number }
    }

    /// Replicates a group command.
    ///
    /// # Errors
    /// No answer from metadata; also when it answers something else, which is its bug.
    pub async fn group(&self, group: &str, action: GroupAction) -> Result<GroupReply, CallError> {
        let command = GroupCommand { group: group.to_owned(), action };
        match self.metadata.propose(Command::Group(command)).await? {
            AppliedReply {
                reply: aquifer_metadata::machine::command::Reply::Group(reply), ..
            } => Ok(reply),
            other => Err(mismatch("propose", &other)),
        }
    }

    /// Reads a group linearizably.
    ///
    /// # Errors
    /// As [`Broker::group`].
    pub async fn ask_group(&self, query: GroupQuery) -> Result<GroupAnswer, CallError> {
        match self.metadata.query(Query::Group(query)).await? {
            (_, Answer::Group(answer)) => Ok(answer),
            (_, other) => Err(mismatch("query", &other)),
        }
    }
}

/// An answer of another kind than the question: a node of a version that misunderstands us.
pub fn mismatch(call: &'static str, answer: &dyn std::fmt::Debug) -> CallError {
    let reason = format!("answered with something else: {answer:?}");
    CallError { call, outcome: Outcome::Indefinite, reason }
}
