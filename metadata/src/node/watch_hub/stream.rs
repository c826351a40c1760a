//! One agent's watch stream: the catalog first, then changes, `Applied(index)` behind each batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aquifer_storage::{
    model::{LogIndex, SessionId, TopicId, TopicPartition},
    seam::Seams,
};
use tokio::sync::{Notify, mpsc, watch};

use super::{Told, WatchHub};
use crate::{
    node::followers::Follower,
    raft::state_machine::MachineCell,
    watch::{Taken, WatchEvent, WatchRequest},
};

/// An idle stream says this often how far it is true.
const APPLIED_INTERVAL: Duration = Duration::from_millis(250);
/// Partitions and groups one agent may watch: bounds what a broken agent costs.
const WATCHED_MAX: usize = 200_000;

/// The agent went away.
struct Closed;

/// A watch stream at work.
pub struct WatchTask {
    hub: Arc<WatchHub>,
    machine: MachineCell,
    events: mpsc::Sender<WatchEvent>,
    id: u64,
    wake: Arc<Notify>,
    /// What the agent holds: changes at or below it are in what was sent.
    catalog: LogIndex,
    /// Watched partitions and the index the agent holds them at; `None` when told they are gone.
    partitions: BTreeMap<TopicPartition, Option<LogIndex>>,
    groups: BTreeSet<String>,
    taken: Taken,
    reporting: Option<Reporting>,
}

/// An agent in this process, whose progress is seen at the channel itself.
struct Reporting {
    follower: Follower,
    session: watch::Receiver<Option<SessionId>>,
}

impl Drop for WatchTask {
    fn drop(&mut self) {
        self.hub.unsubscribe(self.id);
    }
}

impl WatchTask {
    /// Starts to listen. Nothing applied from now on is missed.
    pub fn new(hub: Arc<WatchHub>, machine: MachineCell, events: mpsc::Sender<WatchEvent>) -> Self {
        let (id, wake) = hub.subscribe();
        let catalog = LogIndex::default();
        let (partitions, groups) = (BTreeMap::new(), BTreeSet::new());
        let (taken, reporting) = (Taken::default(), None);
        Self { hub, machine, events, id, wake, catalog, partitions, groups, taken, reporting }
    }

    /// Tells `follower` what the taker of the events took in, as `session`.
    pub fn reporting(
        mut self,
        follower: Follower,
        session: watch::Receiver<Option<SessionId>>,
    ) -> Self {
        self.reporting = Some(Reporting { follower, session });
        self
    }

    /// Serves the stream until either end of it is gone.
    pub async fn run(mut self, mut requests: mpsc::Receiver<WatchRequest>, seams: Seams) {
        let wake = self.wake.clone();
        if self.start_over().await.is_err() || self.advance().await.is_err() {
            return;
        }
        loop {
            let served = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                () = wake.notified() => self.advance().await,
                () = seams.sleep(APPLIED_INTERVAL) => self.advance().await,
                () = self.report() => Ok(()),
            };
            if served.is_err() {
                return;
            }
        }
    }

    async fn send(&mut self, event: WatchEvent) -> Result<(), Closed> {
        if self.reporting.is_some() {
            self.taken.sending(&event);
        }
        self.events.send(event).await.map_err(|_| Closed)
    }

    /// Completes with a report of what an agent in this process took in.
    async fn report(&mut self) {
        let Some(Reporting { follower, session }) = &mut self.reporting else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = self.taken.step(&self.events) => {}
            Ok(()) = session.changed() => {}
        }
        let session = *session.borrow_and_update();
        if let (Some(session), Some(seen)) = (session, self.taken.seen()) {
            follower.took(session, seen);
        }
    }

    async fn serve(&mut self, request: WatchRequest) -> Result<(), Closed> {
        let full = WATCHED_MAX <= self.partitions.len() + self.groups.len();
        match request {
            WatchRequest::Watch(_) | WatchRequest::WatchGroup(_) if full => {
                tracing::warn!(limit = WATCHED_MAX, "closing a watch stream above its limit");
                Err(Closed)
            }
            WatchRequest::Watch(partition) => {
                self.hub.watch_partition(self.id, partition);
                self.send_partition(partition).await
            }
            WatchRequest::Unwatch(partition) => {
                self.hub.unwatch_partition(self.id, &partition);
                self.partitions.remove(&partition);
                Ok(())
            }
            WatchRequest::WatchGroup(group) => {
                self.hub.watch_group(self.id, &group);
                self.groups.insert(group.clone());
                self.send_group(group).await
            }
            WatchRequest::UnwatchGroup(group) => {
                self.hub.unwatch_group(self.id, &group);
                self.groups.remove(&group);
                Ok(())
            }
        }
    }

    async fn send_partition(&mut self, partition: TopicPartition) -> Result<(), Closed> {
        let (index, state) = {
            let machine = self.machine.lock();
            (machine.index(), machine.state.partition_state(partition))
        };
        match state {
            Some(mut state) => {
                state.index = index;
                self.partitions.insert(partition, Some(index));
                self.send(WatchEvent::PartitionState(state)).await
            }
            None => {
                self.partitions.insert(partition, None);
                self.send(WatchEvent::PartitionGone(partition, index)).await
            }
        }
    }

    async fn send_group(&mut self, group: String) -> Result<(), Closed> {
        let version = self.machine.lock().state.group_version(&group);
        self.send(WatchEvent::Group { group, version }).await
    }

    async fn start_over(&mut self) -> Result<(), Closed> {
        let (index, state) = {
            let machine = self.machine.lock();
            (machine.index(), machine.state.clone())
        };
        self.catalog = index;
        let mut catalog = state.catalog();
        catalog.nodes = self.hub.present_nodes(&state);
        drop(state);
        self.send(WatchEvent::Catalog(Arc::new(catalog))).await?;
        for partition in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.send_partition(partition).await?;
        }
        for group in self.groups.clone() {
            self.send_group(group).await?;
        }
        Ok(())
    }

    async fn advance(&mut self) -> Result<(), Closed> {
        let (backlog, start_over, applied) = self.hub.drain(self.id);
        if start_over {
            self.start_over().await?;
        }
        for told in backlog {
            self.tell(told).await?;
        }
        self.send(WatchEvent::Applied(applied)).await
    }

    async fn tell(&mut self, told: Told) -> Result<(), Closed> {
        match told {
            Told::Topic(index, topic) => {
                let id = topic.id;
                if self.catalog < index {
                    self.send(WatchEvent::Topic(topic)).await?;
                }
                self.revisit(id, index, |known| known.is_none()).await
            }
            Told::TopicGone(index, topic) => {
                if self.catalog < index {
                    self.send(WatchEvent::TopicGone(topic)).await?;
                }
                self.revisit(topic, index, |known| known.is_some()).await
            }
            Told::Configs(index, configs) => {
                if self.catalog < index {
                    self.send(WatchEvent::Configs(configs)).await?;
                }
                Ok(())
            }
            Told::Nodes(nodes) => self.send(WatchEvent::Nodes(nodes.to_vec())).await,
            Told::Group(group, version) => {
                self.send(WatchEvent::Group { group: group.to_string(), version }).await
            }
            Told::Advanced(advance) => {
                let known = self.partitions.get_mut(&advance.partition);
                let Some(Some(known)) = known else { return Ok(()) };
                if advance.index <= *known {
                    return Ok(()); // Already in the state that was sent.
                }
                let from_index = std::mem::replace(known, advance.index);
                self.send(WatchEvent::PartitionAdvanced {
                    partition: advance.partition,
                    from_index,
                    index: advance.index,
                    from: advance.from,
                    runs: advance.runs.clone(),
                    pointers: advance.pointers,
                })
                .await
            }
        }
    }

    /// A topic came or went: tells again those of its watched partitions that may have.
    async fn revisit(
        &mut self,
        topic: TopicId,
        index: LogIndex,
        concerned: impl Fn(&Option<LogIndex>) -> bool,
    ) -> Result<(), Closed> {
        let partitions: Vec<_> = self
            .partitions
            .iter()
            .filter(|(partition, known)| partition.topic == topic && concerned(known))
            .filter(|(_, known)| known.is_none_or(|known| known < index))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in partitions {
            self.send_partition(partition).await?;
        }
        Ok(())
    }
}
