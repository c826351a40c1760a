//! Drives commit streams closed-loop through the client that agents use.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use aquifer_metadata::{
    client::{CommitStream, Heartbeat, Metadata},
    machine::command::{BatchOutcome, Command, CommitReply, Reply},
};
use aquifer_storage::model::{CommitSeq, SessionId};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::{
    super::{
        clock::{BenchClock, Window},
        report,
    },
    held,
    load::{AgentLoad, LoadShape},
};

/// Between two signs of life; fifteen seconds of silence fence a session.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// The client of one agent.
pub type Client = Arc<dyn Metadata>;

/// Fails unless every batch was appended: another load was measured then.
///
/// # Errors
/// What the machine said instead.
pub fn check(reply: &CommitReply) -> anyhow::Result<()> {
    let CommitReply::Applied(outcomes) = reply else {
        bail!("a commit was not applied: {reply:?}")
    };
    let refused = outcomes.iter().find(|one| !matches!(one, BatchOutcome::Appended { .. }));
    match refused {
        Some(outcome) => bail!("a batch was not appended: {outcome:?}"),
        None => Ok(()),
    }
}

/// Creates the topics and registers one session per client.
///
/// # Errors
/// A command that is refused or not answered.
pub async fn prepare(clients: &[Client], shape: LoadShape) -> anyhow::Result<Vec<AgentLoad>> {
    let first = clients.first().context("no agents")?;
    for number in 0..shape.topics {
        let created = first.propose(Command::CreateTopic(held::topic(shape, number))).await?;
        anyhow::ensure!(
            matches!(created.reply, Reply::TopicCreated(Ok(_))),
            "topic {number}: {:?}",
            created.reply
        );
    }
    let mut loads = Vec::new();
    for (number, client) in (0..).zip(clients) {
        let applied = client.propose(Command::RegisterSession(held::session(number))).await?;
        let Reply::Registered(registered) = applied.reply else {
            bail!("session {number}: {:?}", applied.reply);
        };
        loads.push(AgentLoad::new(shape, registered.session));
    }
    Ok(loads)
}

/// When counting begins and ends, and how many commits wait at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Commits that wait, over all agents.
    pub committers: usize,
    /// Before it is the warm-up.
    pub window: Window,
    /// Whose microseconds they are.
    pub clock: BenchClock,
}

/// Drives all agents until the window ends; the latencies of commits that were sent within it, in
/// microseconds.
///
/// # Errors
/// A commit that is not applied, or a stream that ends.
pub async fn drive(
    clients: &[Client],
    loads: Vec<AgentLoad>,
    pace: Pace,
) -> anyhow::Result<Histogram<u64>> {
    let active = clients.len().min(pace.committers);
    let mut agents = JoinSet::new();
    let pairs = clients.iter().zip(loads);
    for (number, (client, load)) in pairs.enumerate() {
        let (client, session) = (client.clone(), load.session());
        // The first agents take what does not divide.
        let depth = pace.committers / active + usize::from(number < pace.committers % active);
        let depth = if number < active { depth } else { 0 };
        agents.spawn(async move {
            tokio::select! {
                committed = commit(&*client, load, depth, pace) => committed,
                silent = stay_alive(&*client, session) => Err(silent),
            }
        });
    }
    let mut latencies = report::micros_histogram();
    while let Some(ended) = agents.join_next().await {
        latencies.add(ended.context("an agent's task")??)?;
    }
    Ok(latencies)
}

async fn stay_alive(client: &dyn Metadata, session: SessionId) -> anyhow::Error {
    loop {
        match client.heartbeat(session).await {
            Ok(Heartbeat::Live { .. }) => tokio::time::sleep(HEARTBEAT_EVERY).await,
            Ok(Heartbeat::Fenced) => return anyhow::anyhow!("session {session} was fenced"),
            Err(error) => return error.into(),
        }
    }
}

async fn commit(
    client: &dyn Metadata,
    mut load: AgentLoad,
    depth: usize,
    pace: Pace,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = report::micros_histogram();
    if depth == 0 {
        let left = pace.window.end.saturating_sub(pace.clock.now_micros());
        tokio::time::sleep(Duration::from_micros(left)).await;
        return Ok(latencies);
    }
    let CommitStream { parts, mut replies } = client.open_commits(load.session()).await?;
    let mut sent: VecDeque<u64> = VecDeque::with_capacity(depth);
    let mut read = CommitSeq::default();
    loop {
        let mut now = pace.clock.now_micros();
        while sent.len() < depth && now < pace.window.end {
            let part = load.next_part(read);
            sent.push_back(now);
            parts.send(part).await.context("the commit stream ended")?;
            now = pace.clock.now_micros();
        }
        let Some(sent_at) = sent.pop_front() else { return Ok(latencies) };
        let (seq, reply) = replies.recv().await.context("the commit stream ended")?;
        check(&reply)?;
        read = seq.next();
        if pace.window.contains(sent_at) {
            latencies.saturating_record(pace.clock.now_micros().saturating_sub(sent_at));
        }
    }
}
