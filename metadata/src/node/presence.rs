//! Which sessions are absent, on every node: the leader judges it, and tells the others, whose
//! watch streams then leave the same agents out of node lists.
//!
//! It is a view and not a fact: late news cost a client one try at an agent that is gone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aquifer_storage::{model::SessionId, seam::Seams};
use tokio::sync::watch;

use super::{leadership::Leadership, watch_hub::WatchHub};
use crate::{
    proto::{self, presence_reply::Reply},
    raft::{
        Member,
        network::{Grpc, Peers},
        state_machine::MachineCell,
    },
};

/// The leader says it again this often: a follower that started meanwhile knows nothing.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A follower that does not answer is told again with the next change.
const TELL_MAX: Duration = Duration::from_millis(500);

/// The absent sessions as some leader saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct News {
    term: u64,
    absent: BTreeSet<SessionId>,
}

/// Tells and learns who is absent. Cheap to clone.
#[derive(Clone)]
pub struct Presence {
    hub: Arc<WatchHub>,
    machine: MachineCell,
    news: Arc<watch::Sender<News>>,
}

impl Presence {
    /// What `hub` is told.
    pub fn new(hub: Arc<WatchHub>, machine: MachineCell) -> Self {
        Self { hub, machine, news: Arc::default() }
    }

    /// The leader of `term` found these sessions absent. `false` when a later leader was heard.
    pub fn tell(&self, term: u64, absent: BTreeSet<SessionId>) -> bool {
        let heard = News { term, absent };
        let mut in_time = true;
        self.news.send_if_modified(|known| {
            in_time = known.term <= heard.term;
            let changes = in_time && *known != heard;
            if changes {
                *known = heard.clone();
            }
            changes
        });
        if in_time {
            self.hub.set_absent(heard.absent, &self.machine);
        }
        in_time
    }

    /// Tells the others, while this node leads, for ever.
    pub async fn spread(self, leadership: Leadership, peers: Peers, seams: Seams) {
        let mut news = self.news.subscribe();
        loop {
            let known = news.borrow_and_update().clone();
            if leadership.term() == Ok(known.term) {
                let others = leadership.others();
                let telling = others.iter().map(|other| tell_one(&peers, other, &known));
                futures::future::join_all(telling).await;
            }
            tokio::select! {
                biased;
                changed = news.changed() => if changed.is_err() { return },
                () = seams.sleep(REPEAT_INTERVAL) => {}
            }
        }
    }
}

async fn tell_one(peers: &Peers, (id, member): &(u64, Member), news: &News) {
    let send = |mut grpc: Grpc, peer| {
        let absent = news.absent.iter().map(|session| session.value()).collect();
        let request = proto::PresenceRequest { peer: Some(peer), term: news.term, absent };
        async move { grpc.presence(request).await }
    };
    match peers.call((*id, member), TELL_MAX, send).await {
        Ok(proto::PresenceReply { reply: Some(Reply::Refusal(refusal)) }) => {
            peers.refused(*id, refusal);
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "a metadata node was not told who is absent"),
    }
}
