//! A small async Kafka client: what the command line asks of any broker, ours or another.
//!
//! Connections are opened when they are needed and kept. Questions are asked again while the
//! answer is one that passes, until the patience of `--timeout` is used up; a change is asked
//! again only where the broker said that it did not happen.

mod connection;
mod error;
mod metadata;
mod offsets;
#[cfg(test)]
pub mod testing;
mod tls;

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use aquifer_storage::seam::{MonoTime, Seams};
use clap::Args;

pub use connection::{Connection, Dialer};
pub use error::ClientError;
pub use metadata::{Cluster, Partition, Topic};
pub use offsets::{Isolation, ListedOffset, OffsetSpec, no_leader};
pub use tls::ClientTlsArgs;

use super::value::parse_duration;
use crate::{
    config::parse_host_port,
    wire::{
        ApiKey, ErrorCode, Str,
        client::address_of,
        messages::{FindCoordinatorRequest, FindCoordinatorResponse, Message},
    },
};

/// All versions of an API that the codec has.
pub const ANY: RangeInclusive<i16> = 0..=i16::MAX;

/// Between two attempts.
const BACKOFF: Duration = Duration::from_millis(100);

/// Where the cluster is, and how to talk to it.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Brokers to ask first; any one that answers will do.
    #[arg(short, long, visible_alias = "bootstrap-server", value_name = "HOST:PORT,...")]
    #[arg(env = "AQUIFER_BOOTSTRAP", default_value = "127.0.0.1:9092", global = true)]
    #[arg(help_heading = "Connection")]
    pub bootstrap: String,
    /// How long a broker may take to answer, such as 500ms, 10s or 1m.
    #[arg(long, value_name = "TIME", default_value = "10s", global = true)]
    #[arg(value_parser = parse_duration, help_heading = "Connection")]
    pub timeout: Duration,
    /// TLS.
    #[command(flatten)]
    pub tls: ClientTlsArgs,
}

impl ConnectArgs {
    /// Plain connections to `bootstrap`, with the default patience.
    pub fn plain(bootstrap: String) -> Self {
        Self { bootstrap, timeout: Duration::from_secs(10), tls: ClientTlsArgs::default() }
    }
}

/// A cluster that is talked to.
pub struct Client {
    dialer: Dialer,
    bootstrap: Vec<String>,
    open: BTreeMap<String, Connection>,
    brokers: BTreeMap<i32, String>,
    controller: Option<i32>,
}

impl Client {
    /// Connects to the first of the bootstrap brokers that answers.
    ///
    /// # Errors
    /// A bad argument, or nobody answers.
    pub async fn connect(args: &ConnectArgs, seams: Seams) -> anyhow::Result<Self> {
        let mut bootstrap = Vec::new();
        for broker in args.bootstrap.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let with_port = |broker: &str| parse_host_port(broker).map(|_| broker.to_owned());
            let broker = with_port(broker).or_else(|error| match broker.contains(':') {
                true => Err(super::Usage::new(format!("--bootstrap: {error}"))),
                false => Ok(format!("{broker}:9092")),
            })?;
            bootstrap.push(broker);
        }
        if bootstrap.is_empty() {
            return Err(super::Usage::new("--bootstrap names no broker").into());
        }
        let tls = args.tls.connector()?;
        let dialer = Dialer { seams, tls, patience: args.timeout };
        let mut client = Self {
            dialer,
            bootstrap,
            open: BTreeMap::new(),
            brokers: BTreeMap::new(),
            controller: None,
        };
        client.any_broker().await?;
        Ok(client)
    }

    /// Time and randomness.
    pub const fn seams(&self) -> &Seams {
        &self.dialer.seams
    }

    /// The longest an answer may take.
    pub const fn patience(&self) -> Duration {
        self.dialer.patience
    }

    /// The same, as requests carry it.
    pub fn patience_ms(&self) -> i32 {
        i32::try_from(self.patience().as_millis()).unwrap_or(i32::MAX)
    }

    /// When what begins now has taken too long.
    pub fn deadline(&self) -> MonoTime {
        self.seams().clock.mono() + self.patience()
    }

    /// What opens further connections.
    pub const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The addresses of the brokers by id, as last heard.
    pub const fn brokers(&self) -> &BTreeMap<i32, String> {
        &self.brokers
    }

    /// The address of some broker that is connected, or can be.
    async fn any_broker(&mut self) -> Result<String, ClientError> {
        if let Some(broker) = self.open.keys().next() {
            return Ok(broker.clone());
        }
        let mut known = self.bootstrap.clone();
        known.extend(self.brokers.values().filter(|one| !self.bootstrap.contains(one)).cloned());
        let mut refused = Vec::new();
        for broker in known {
            match self.dialer.dial(&broker).await {
                Ok(connection) => {
                    self.open.insert(broker.clone(), connection);
                    return Ok(broker);
                }
                Err(error) => refused.push(error),
            }
        }
        let last = refused.pop();
        Err(match last {
            Some(only) if refused.is_empty() => only,
            Some(ClientError::Unreachable { reason, .. }) => ClientError::Unreachable {
                broker: format!("any of {}", self.bootstrap.join(", ")),
                reason,
            },
            Some(other) => other,
            None => ClientError::Missing("no broker is known".to_owned()),
        })
    }

    /// The address of some broker that is connected.
    ///
    /// # Errors
    /// None can be reached.
    pub async fn bootstrapped(&mut self) -> Result<String, ClientError> {
        self.any_broker().await
    }

    /// Whether `broker` has an API in any version.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn serves(&mut self, broker: &str, key: ApiKey) -> Result<bool, ClientError> {
        let connection = self.take(broker).await?;
        let serves = connection.versions().has(key);
        self.put_back(connection);
        Ok(serves)
    }

    /// A connection to `broker` of one's own, until [`Client::put_back`].
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn take(&mut self, broker: &str) -> Result<Connection, ClientError> {
        self.opened(broker).await
    }

    /// Keeps a connection on which nothing is under way.
    pub fn put_back(&mut self, connection: Connection) {
        self.open.insert(connection.broker().to_owned(), connection);
    }

    async fn opened(&mut self, broker: &str) -> Result<Connection, ClientError> {
        if let Some(connection) = self.open.remove(broker) {
            return Ok(connection);
        }
        self.dialer.dial(broker).await.map_err(|error| match error {
            // The usual trap: the cluster tells an address that only its own hosts know.
            ClientError::Unreachable { broker, reason } if !self.bootstrap.contains(&broker) => {
                let (bootstrap, hint) = (self.bootstrap.join(","), "advertised listener");
                let reason = format!(
                    "{reason}; the cluster at {bootstrap} says that this is one of its brokers: \
                     see the broker's {hint}"
                );
                ClientError::Unreachable { broker, reason }
            }
            other => other,
        })
    }

    /// Asks `broker`, as `host:port`, which may take `longer` than the patience on purpose.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn call_at<Q: Message, R: Message>(
        &mut self,
        broker: &str,
        ours: RangeInclusive<i16>,
        request: &Q,
        longer: Duration,
    ) -> Result<R, ClientError> {
        let mut connection = self.opened(broker).await?;
        let answer = connection.call(ours, request, longer).await;
        if matches!(answer, Ok(_) | Err(ClientError::Unsupported { .. })) {
            self.open.insert(broker.to_owned(), connection);
        }
        answer
    }

    /// Asks any broker.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn call_any<Q: Message, R: Message>(
        &mut self,
        ours: RangeInclusive<i16>,
        request: &Q,
    ) -> Result<R, ClientError> {
        let broker = self.any_broker().await?;
        self.call_at(&broker, ours, request, Duration::ZERO).await
    }

    /// Asks the broker that takes changes of the cluster.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn call_controller<Q: Message, R: Message>(
        &mut self,
        request: &Q,
    ) -> Result<R, ClientError> {
        if self.brokers.is_empty() {
            self.cluster(Some(&[])).await?;
        }
        let controller = self.controller.and_then(|id| self.brokers.get(&id)).cloned();
        let broker = match controller {
            Some(broker) => broker,
            None => self.any_broker().await?,
        };
        self.call_at(&broker, ANY, request, Duration::ZERO).await
    }

    /// The address of broker `id`.
    ///
    /// # Errors
    /// The cluster has none of that id.
    pub async fn broker(&mut self, id: i32) -> Result<String, ClientError> {
        if !self.brokers.contains_key(&id) {
            self.cluster(Some(&[])).await?;
        }
        let ids: Vec<String> = self.brokers.keys().map(i32::to_string).collect();
        self.brokers.get(&id).cloned().ok_or_else(|| {
            ClientError::Missing(format!("there is no broker {id}; there are: {}", ids.join(", ")))
        })
    }

    /// The broker that coordinates a group.
    ///
    /// # Errors
    /// The cluster does not say.
    pub async fn coordinator(&mut self, group: &str) -> Result<String, ClientError> {
        let request = FindCoordinatorRequest {
            key: Str::from(group),
            key_type: 0,
            coordinator_keys: vec![Str::from(group)],
        };
        let subject = || format!("coordinator of group {group}");
        self.retrying(async |client| {
            let answer: FindCoordinatorResponse = client.call_any(ANY, &request).await?;
            // Up to version 3 the answer is not a list.
            let Some(found) = answer.coordinators.first() else {
                let message = answer.error_message.as_deref();
                ClientError::check_told(subject, answer.error_code, message)?;
                return Ok(address_of(&answer.host, answer.port));
            };
            let message = found.error_message.as_deref();
            ClientError::check_told(subject, found.error_code, message)?;
            Ok(address_of(&found.host, found.port))
        })
        .await
    }

    /// Asks until the answer is not one that passes, or for as long as the patience lasts. For
    /// questions: a change would have to be asked by [`Client::changing`].
    ///
    /// # Errors
    /// The last answer's.
    pub async fn retrying<T>(
        &mut self,
        ask: impl AsyncFnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.asking(ask, ClientError::is_transient).await
    }

    /// Asks for a change, again only after answers that say it did not happen.
    ///
    /// # Errors
    /// The last answer's; [`ClientError::is_indefinite`] tells whether it may have happened.
    pub async fn changing<T>(
        &mut self,
        ask: impl AsyncFnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let unknown = |error: &ClientError| {
            // "No such topic" passes for a reader of new metadata; to a change it is the answer.
            let absent = Some(ErrorCode::UnknownTopicOrPartition);
            error.is_transient() && !error.is_indefinite() && error.code() != absent
        };
        self.asking(ask, unknown).await
    }

    async fn asking<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&mut Self) -> Result<T, ClientError>,
        again: impl Fn(&ClientError) -> bool,
    ) -> Result<T, ClientError> {
        let deadline = self.deadline();
        loop {
            let error = match ask(self).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let later = self.seams().clock.mono() + BACKOFF;
            // Nobody listens: asking again at once finds the same, and whoever waits wants to know.
            let is_gone = matches!(error, ClientError::Unreachable { .. });
            if is_gone || !again(&error) || deadline < later {
                return Err(error);
            }
            self.dialer.seams.sleep(BACKOFF).await;
            self.brokers.clear();
        }
    }
}

#[cfg(test)]
mod tests;
