//! The current connection, and the search for the next one.
//!
//! One caller searches while the others wait for what it finds. After a round in which no node
//! could be reached, the next round waits a little longer, with jitter.

use std::{sync::Mutex, time::Duration};

use aquifer_storage::seam::{MonoTime, Seams};
use tokio::sync::Mutex as AsyncMutex;
use tonic::transport::{Channel, Endpoint};

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// Connecting takes a round trip or two; a node that takes longer is not the one to ask.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A dead peer is noticed within the sum of the two, also while nothing is asked of it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The nodes, and the one in use.
pub(super) struct Connections {
    addresses: Vec<String>,
    seams: Seams,
    /// Held for moments only, also by a search.
    current: Mutex<Option<Connection>>,
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
        Self { addresses, seams, current: Mutex::default(), search: AsyncMutex::default() }
    }

    pub(super) fn node_count(&self) -> usize {
        self.addresses.len()
    }

    /// Gives up connection `id`, unless that already happened: the next call goes to another node.
    pub(super) fn leave(&self, id: u64) {
        let mut current = self.current.lock().expect("no panic while held");
        if current.as_ref().is_some_and(|current| current.id == id) {
            *current = None;
        }
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

    async fn round(&self, search: &mut Search) -> Result<Connection, String> {
        search.reason = "no address of a metadata node is configured".into();
        for _ in 0..self.addresses.len() {
            let address = &self.addresses[search.next % self.addresses.len()];
            let connected = connect(address, &self.seams).await;
            search.next = search.next.wrapping_add(1);
            match connected {
                Ok(channel) => {
                    search.made += 1;
                    (search.failed_rounds, search.not_before) = (0, None);
                    let connection = Connection { channel, id: search.made };
                    let current = Some(connection.clone());
                    *self.current.lock().expect("no panic while held") = current;
                    return Ok(connection);
                }
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

async fn connect(address: &str, seams: &Seams) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| "not an address".to_owned())?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    match seams.timeout(CONNECT_MAX, endpoint.connect()).await {
        Some(connected) => connected.map_err(|error| with_sources(&error)),
        None => Err(format!("no connection within {CONNECT_MAX:?}")),
    }
}

/// The transport's own message says only "transport error".
fn with_sources(error: &dyn std::error::Error) -> String {
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
