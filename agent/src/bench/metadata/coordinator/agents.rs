//! Agents in threads of their own, so that what they use is told apart from what nodes use.

use std::{collections::BTreeMap, fs, future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinSet,
};

use super::{
    super::{super::limits::meter, group::Group},
    asked::Coordinator,
    member::Member,
    populate::{self, GroupsShape},
};

/// The name of their threads; Linux keeps 15 bytes of it.
pub const THREAD_NAME: &str = "bench-agent";
/// As many as the cores of most machines that this runs on.
const THREADS: usize = 2;

/// Agents, each with a connection and members of its own.
pub struct Agents {
    runtime: Option<Runtime>,
    handle: Handle,
    /// Each agent's client.
    pub coordinators: Vec<Arc<Coordinator>>,
}

impl Drop for Agents {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // Waiting for it is not allowed in a task.
        }
    }
}

impl Agents {
    /// Agents of a metadata group.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn of(group: &Group, count: u32) -> anyhow::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name(THREAD_NAME).enable_all().build();
        let runtime = runtime.context("threads of agents")?;
        let handle = runtime.handle().clone();
        let coordinators =
            (0..count).map(|_| Arc::new(Coordinator::Node(group.client()))).collect();
        Ok(Self { runtime: Some(runtime), handle, coordinators })
    }

    /// Runs tasks in their threads; what they return, by number.
    ///
    /// # Errors
    /// One failed.
    pub async fn run<T, F>(&self, tasks: impl IntoIterator<Item = F>) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        for (number, task) in tasks.into_iter().enumerate() {
            running.spawn_on(
                async move { Ok::<_, anyhow::Error>((number, task.await?)) },
                &self.handle,
            );
        }
        let mut ended = BTreeMap::new();
        while let Some(one) = running.join_next().await {
            let (number, result) = one.context("a task of an agent")??;
            ended.insert(number, result);
        }
        Ok(ended.into_values().collect())
    }

    /// Fills groups, which are dealt out to the agents; the members of each agent.
    ///
    /// # Errors
    /// As [`populate::fill`].
    pub async fn populate(
        &self,
        shape: GroupsShape,
        groups: u32,
    ) -> anyhow::Result<Vec<Vec<Member>>> {
        let first = self.coordinators[0].clone();
        self.run([async move { populate::create_topic(&first, shape.partitions).await }]).await?;
        let step = self.coordinators.len();
        let filling = self.coordinators.iter().enumerate().map(|(agent, coordinator)| {
            let coordinator = coordinator.clone();
            async move {
                let mut members = Vec::new();
                for number in (agent as u32..groups).step_by(step) {
                    members.extend(populate::fill(&coordinator, shape, number).await?);
                }
                Ok(members)
            }
        });
        self.run(filling).await
    }
}

/// CPU time of this process apart from its agents': of the nodes in it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn nodes_cpu() -> anyhow::Result<Duration> {
    let mut agents = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        let folder = thread?.path();
        // A thread may have ended meanwhile.
        let Ok(name) = fs::read_to_string(folder.join("comm")) else { continue };
        let Ok(times) = fs::read_to_string(folder.join("schedstat")) else { continue };
        if name.trim_end() == THREAD_NAME {
            agents += on_cpu(&times).context("schedstat has no times")?;
        }
    }
    Ok(meter::process_cpu().saturating_sub(agents))
}

/// The first number of `schedstat`: nanoseconds that the thread ran.
fn on_cpu(times: &str) -> Option<Duration> {
    Some(Duration::from_nanos(times.split_ascii_whitespace().next()?.parse().ok()?))
}
