//! The coordinator as it is asked: over gRPC as agents do, or the pure machine directly.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context as _, bail};
use aquifer_metadata::machine::{
    command::{Command, GroupAction, GroupCommand, GroupReply, Reply},
    query::{Answer, GroupAnswer, Query},
};

use super::super::{alone::Alone, drive::Client};

/// Between two looks at a group that waits for its members.
const PAUSE: Duration = Duration::from_millis(10);

/// Who is asked.
pub enum Coordinator {
    /// A node, through the client of an agent.
    Node(Client),
    /// The machine without one.
    Alone(Box<Mutex<Alone>>),
}

impl Default for Coordinator {
    fn default() -> Self {
        Self::Alone(Box::default())
    }
}

impl Coordinator {
    /// Has a command applied.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn propose(&self, command: Command) -> anyhow::Result<Reply> {
        match self {
            Self::Node(client) => Ok(client.propose(command).await?.reply),
            Self::Alone(alone) => {
                let mut replies = locked(alone).apply(vec![command]);
                replies.pop().context("a command without a reply")
            }
        }
    }

    /// Has a group do something.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn tell(&self, group: &str, action: GroupAction) -> anyhow::Result<GroupReply> {
        let command = GroupCommand { group: group.to_owned(), action };
        match self.propose(Command::Group(command)).await? {
            Reply::Group(reply) => Ok(reply),
            other => bail!("not a reply of a group: {other:?}"),
        }
    }

    /// Asks about a group.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn ask(&self, query: Query) -> anyhow::Result<GroupAnswer> {
        let answer = match self {
            Self::Node(client) => client.query(query).await?.1,
            Self::Alone(alone) => locked(alone).state.query(&query),
        };
        match answer {
            Answer::Group(answer) => Ok(answer),
            other => bail!("not an answer about a group: {other:?}"),
        }
    }

    /// Lets a little time pass, and what falls due with it.
    pub async fn pause(&self) {
        match self {
            Self::Node(_) => tokio::time::sleep(PAUSE).await,
            Self::Alone(alone) => {
                let mut alone = locked(alone);
                alone.pass(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
                alone.apply(vec![Command::Tick]);
            }
        }
    }

    /// The machine, where there is no node.
    ///
    /// # Panics
    /// There is one.
    pub fn alone(&self) -> MutexGuard<'_, Alone> {
        match self {
            Self::Node(_) => panic!("the machine of a node is its own"),
            Self::Alone(alone) => locked(alone),
        }
    }
}

fn locked(alone: &Mutex<Alone>) -> MutexGuard<'_, Alone> {
    alone.lock().expect("no panic while the machine is held")
}
