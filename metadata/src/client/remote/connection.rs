//! The current connection, and the search for the next one.
//!
//! One caller searches while the others wait for what it finds. A node that does not lead says who
//! does, and the next search begins there. After a round in which no node could be reached, the
//! next round waits a little longer, with jitter.

use std::{
    collections::BTreeMap,
    io,
    sync::Mutex,
    task::{Context, Poll},
    time::Duration,
};

use aquifer_storage::seam::{BoxFuture, MonoTime, Seams, net::Stream};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex as AsyncMutex;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// Connecting takes a round trip or two; a node that takes longer is not the one to ask.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A dead peer is noticed within the sum of the two, also while nothing is asked of it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A leader that somebody named is waited for less: others are asked meanwhile.
const LEADER_CONNECT_MAX: Duration = Duration::from_millis(500);
/// A leader that could not be reached is not tried again for this long, whoever names it.
const LEADER_AVOIDED: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The nodes, and the one in use.
pub(super) struct Connections {
    addresses: Vec<String>,
    seams: Seams,
    /// Held for moments only, also by a search.
    current: Mutex<Option<Connection>>,
    /// Where the next search begins.
    leader: Mutex<Option<String>>,
    /// Connections that work, by address: nodes that did not lead when they were asked.
    open: Mutex<BTreeMap<String, Connection>>,
    search: AsyncMutex<Search>,
}

#[derive(Default)]
struct Search {
    /// Connections made: tells an old one from the current.
    made: u64,
    /// Whose turn it is.
    next: usize,
    /// Rounds that failed since the last success, and when the next may begin.
    failed_rounds: u32,
    not_before: Option<MonoTime>,
    reason: String,
    /// A leader that could not be reached, and until when it is left alone.
    avoided: Option<(String, MonoTime)>,
}

/// A connection to one node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    /// Where calls go.
    pub(super) channel: Channel,
    /// Its number, from 1.
    pub(super) id: u64,
}

impl Connections {
    pub(super) fn new(addresses: Vec<String>, seams: Seams) -> Self {
        let (current, leader, open, search) = Default::default();
        Self { addresses, seams, current, leader, open, search }
    }

    pub(super) fn node_count(&self) -> usize {
        self.addresses.len()
    }

    /// Gives up connection `id`, which broke or leads nowhere: the next call goes to another node.
    pub(super) fn leave(&self, id: u64) {
        self.open.lock().expect("no panic while held").retain(|_, open| open.id != id);
        self.turn_from(id);
    }

    fn turn_from(&self, id: u64) {
        let mut current = self.current.lock().expect("no panic while held");
        if current.as_ref().is_some_and(|current| current.id == id) {
            *current = None;
        }
    }

    /// Turns from connection `id`, whose node says that it does not lead, but `leader` does.
    pub(super) fn follow(&self, id: u64, leader: Option<String>) {
        if let Some(leader) = leader {
            *self.leader.lock().expect("no panic while held") = Some(leader);
        }
        self.turn_from(id);
    }

    /// The number of the connection in use.
    pub(super) fn current_id(&self) -> Option<u64> {
        self.known().map(|known| known.id)
    }

    fn known(&self) -> Option<Connection> {
        self.current.lock().expect("no panic while held").clone()
    }

    /// The current connection, or one to the next node that can be reached; why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future gives up this search; the next caller begins at the same node.
    pub(super) async fn current(&self) -> Result<Connection, String> {
        if let Some(current) = self.known() {
            return Ok(current);
        }
        let (rounds, not_before) = {
            let search = self.search.lock().await;
            (search.failed_rounds, search.not_before)
        };
        if let Some(not_before) = not_before {
            self.seams.clock.sleep_until(not_before).await;
        }
        let mut search = self.search.lock().await;
        if let Some(current) = self.known() {
            return Ok(current);
        }
        if search.failed_rounds > rounds {
            return Err(search.reason.clone()); // Somebody else searched meanwhile, in vain.
        }
        self.round(&mut search).await
    }

    /// A connection to the node that was named as the leader.
    async fn to_leader(&self, search: &mut Search) -> Option<Connection> {
        let leader = self.leader.lock().expect("no panic while held").take()?;
        let now = self.seams.clock.mono();
        let avoided = search.avoided.as_ref();
        if avoided.is_some_and(|(address, until)| *address == leader && now < *until) {
            return None;
        }
        let connecting = self.to(search, &leader);
        match self.seams.timeout(LEADER_CONNECT_MAX, connecting).await {
            Some(Ok(connection)) => Some(connection),
            failed => {
                let failed = failed.and_then(Result::err);
                tracing::debug!(leader, ?failed, "the metadata leader cannot be reached");
                search.avoided = Some((leader, self.seams.clock.mono() + LEADER_AVOIDED));
                None
            }
        }
    }

    /// The connection to `address`: one that is open, or a new one.
    async fn to(&self, search: &mut Search, address: &str) -> Result<Connection, String> {
        let open = self.open.lock().expect("no panic while held").get(address).cloned();
        let connection = match open {
            Some(open) => open,
            None => {
                let channel = connect(address, &self.seams).await?;
                search.made += 1;
                let made = Connection { channel, id: search.made };
                let mut open = self.open.lock().expect("no panic while held");
                open.insert(address.to_owned(), made.clone());
                made
            }
        };
        (search.failed_rounds, search.not_before) = (0, None);
        *self.current.lock().expect("no panic while held") = Some(connection.clone());
        Ok(connection)
    }

    async fn round(&self, search: &mut Search) -> Result<Connection, String> {
        if let Some(connection) = self.to_leader(search).await {
            return Ok(connection);
        }
        search.reason = "no address of a metadata node is configured".into();
        for _ in 0..self.addresses.len() {
            let address = &self.addresses[search.next % self.addresses.len()];
            let connected = self.to(search, address).await;
            search.next = search.next.wrapping_add(1);
            match connected {
                Ok(connection) => return Ok(connection),
                Err(reason) => {
                    tracing::debug!(address, reason, "a metadata node cannot be reached");
                    search.reason = format!("{address}: {reason}");
                }
            }
        }
        let backoff = backoff(search.failed_rounds, self.seams.rng.next_u64());
        search.failed_rounds = search.failed_rounds.saturating_add(1);
        search.not_before = Some(self.seams.clock.mono() + backoff);
        Err(search.reason.clone())
    }
}

/// Doubles per failed round; half of it is jitter, so that agents do not return all at once.
fn backoff(failed_rounds: u32, random: u64) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failed_rounds.min(16)).min(BACKOFF_MAX);
    let half = full / 2;
    half + half.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| "not an address".to_owned())?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint)
}

/// A connection that is made with the first call, and again by the call after one that broke it.
#[cfg(feature = "server")]
pub(crate) fn lazy(address: &str, seams: &Seams) -> Result<Channel, String> {
    Ok(endpoint(address)?.connect_with_connector_lazy(Connector::new(address, seams)))
}

/// A connection that is made.
pub(crate) async fn connect(address: &str, seams: &Seams) -> Result<Channel, String> {
    let endpoint = endpoint(address)?;
    let connecting = endpoint.connect_with_connector(Connector::new(address, seams));
    match seams.timeout(CONNECT_MAX, connecting).await {
        Some(connected) => connected.map_err(|error| with_sources(&error)),
        None => Err(format!("no connection within {CONNECT_MAX:?}")),
    }
}

/// Connects to one address through the seam, as often as the channel asks.
struct Connector {
    address: String,
    seams: Seams,
}

impl Connector {
    fn new(address: &str, seams: &Seams) -> Self {
        Self { address: address.to_owned(), seams: seams.clone() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (seams, connecting) = (self.seams.clone(), self.seams.net.connect(&self.address));
        Box::pin(async move {
            let connected = seams.timeout(CONNECT_MAX, connecting).await;
            connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        })
    }
}

/// The transport's own message says only "transport error".
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_never_overflows() {
        for random in [0, u64::MAX] {
            assert!(backoff(0, random) <= BACKOFF_MIN);
            assert!(backoff(3, random) <= BACKOFF_MIN * 8);
            assert!(BACKOFF_MAX / 2 <= backoff(10, random));
            assert!(backoff(u32::MAX, random) <= BACKOFF_MAX);
        }
    }
}
