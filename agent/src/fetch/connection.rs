//! What one connection carries from fetch to fetch: its sessions, each with a hold on its own
//! partitions, and the positions of its last fetch.

use std::{collections::BTreeMap, time::Duration};

use aquifer_storage::{budget::BudgetPermit, model::TopicPartition};

use super::{
    FetchAnswer, FetchParams, Fetched, Fetcher, Positions,
    line::Turn,
    session::{Asked, Begun, Context, PartitionKey, SessionRequest, Sessions, Told},
};
use crate::{view::Watches, wire::error_code::ErrorCode};

/// What one connection carries from fetch to fetch.
pub struct ConnectionSessions {
    sessions: Sessions,
    /// Of each session. They outlast a request, so that what is pushed between two is not missed.
    watches: BTreeMap<i32, Watches>,
    positions: Positions,
}

/// The answer to what a request began.
pub struct BegunAnswer {
    /// Those that were looked at, in turn. Others of a session have nothing to tell.
    pub partitions: Vec<(PartitionKey, Result<Fetched, ErrorCode>)>,
    /// As in [`FetchAnswer`].
    pub permit: Option<BudgetPermit>,
    /// As in [`FetchAnswer`].
    pub throttle: Duration,
}

impl ConnectionSessions {
    /// Applies a request; see [`Sessions::begin`].
    ///
    /// # Errors
    /// The code of the whole answer.
    pub fn begin(
        &mut self,
        request: SessionRequest,
        fresh_id: impl FnOnce() -> i32,
        asked: Vec<(PartitionKey, Asked)>,
        forgotten: impl Iterator<Item = PartitionKey>,
    ) -> Result<Begun, ErrorCode> {
        // Whose topic is gone is pushed, and its name may be another topic's by now.
        if let Some(watches) = self.watches.get(&request.id) {
            self.sessions.wake(request.id, &watches.pushed());
        }
        let begun = self.sessions.begin(request, fresh_id, asked, forgotten);
        self.watches.retain(|id, _| self.sessions.is_open(*id));
        begun
    }

    fn key(&self, (context, due): &Begun, turn: u64) -> Option<PartitionKey> {
        match context {
            Context::Full => {
                let place = due.binary_search_by_key(&turn, |due| due.turn).ok()?;
                Some(due[place].key.clone())
            }
            Context::Opened(id) | Context::Incremental(id) => self.sessions.key(*id, turn).cloned(),
        }
    }

    /// Notes what the answer says of a partition and returns whether it must be listed.
    pub fn tell(&mut self, context: Context, key: &PartitionKey, told: Told) -> bool {
        self.sessions.tell(context, key, told)
    }
}

impl Fetcher {
    /// What a new connection carries from fetch to fetch.
    pub fn sessions(&self) -> ConnectionSessions {
        let sessions = Sessions::new(self.session_room.clone());
        ConnectionSessions { sessions, watches: BTreeMap::new(), positions: self.positions() }
    }

    /// Fetches what a request began; see [`Fetcher::fetch`]. `found` is what each of those due
    /// names, or why it names nothing. A partition of a session that is at its end costs nothing,
    /// and is in the answer only if it was pushed meanwhile.
    ///
    /// # Cancel safety
    /// As there; the session then looks at the same partitions again.
    pub async fn fetch_begun(
        &self,
        connection: &mut ConnectionSessions,
        begun: &Begun,
        found: &[Result<TopicPartition, ErrorCode>],
        params: FetchParams,
    ) -> BegunAnswer {
        let answer = self.fetch_found(connection, begun, found, params).await;
        let FetchAnswer { turns, partitions, permit, throttle } = answer;
        let fetched = turns.into_iter().zip(partitions.into_iter().map(Ok));
        let refused = begun.1.iter().zip(found);
        let refused = refused.filter_map(|(due, found)| Some((due.turn, Err(found.err()?))));
        let mut results: Vec<(u64, Result<Fetched, ErrorCode>)> = fetched.chain(refused).collect();
        results.sort_by_key(|(turn, _)| *turn);
        let named = |(turn, one)| Some((connection.key(begun, turn)?, one));
        let partitions = results.into_iter().filter_map(named).collect();
        BegunAnswer { partitions, permit, throttle }
    }

    async fn fetch_found(
        &self,
        connection: &mut ConnectionSessions,
        (context, due): &Begun,
        found: &[Result<TopicPartition, ErrorCode>],
        params: FetchParams,
    ) -> FetchAnswer {
        let ConnectionSessions { sessions, watches, positions } = connection;
        let found = due.iter().zip(found.iter().map(|found| found.ok()));
        let id = match context {
            Context::Full => {
                let turns = found.filter_map(|(due, one)| Some((due.turn, due.asked.of(one?))));
                let turns: Vec<Turn> = turns.collect();
                return self.fetch_full(positions, &turns, params).await;
            }
            Context::Opened(id) | Context::Incremental(id) => *id,
        };
        let watches = watches.entry(id).or_insert_with(|| self.view.watches());
        for (due, partition) in found.clone() {
            sessions.bind(id, due, partition);
        }
        watches.let_go(sessions.left(id));
        watches.also_hold(found.filter_map(|(_, partition)| partition));
        positions.watches.hold([]);
        let mut line = sessions.line(id).expect("the request began or resumed it");
        let kept = (&mut positions.readers, &mut positions.places);
        self.fetch_line(watches, kept, &mut line, params).await
    }
}
