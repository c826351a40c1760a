//! Settings: defaults, then the TOML file, then `AQUIFER_*` variables, then flags. An error names
//! the setting and where it came from.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use aquifer_metadata::machine::command::HostPort;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

pub use self::{
    flags::{Cli, Cluster, ClusterCommand, FOUNDER_ID_MAX, Flags, HealthFlags, RestoreFlags, Role},
    options::ServerOptions,
    value::{ByteSize, parse_host_port, parse_voters},
};
use self::{options::parse, value::host_port};
use crate::{configs::group_defaults, tls::TlsFlags};

mod flags;
mod options;
mod value;

/// All settings of a process, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// See [`Flags::data`].
    pub data: PathBuf,
    /// See [`Flags::store`]; `None` means `file:<data>/bucket`.
    #[serde(default)]
    pub store: Option<String>,
    /// See [`Flags::create_bucket`].
    #[serde(default)]
    pub create_bucket: bool,
    /// See [`Flags::kafka`].
    pub kafka: SocketAddr,
    /// See [`Flags::http`].
    pub http: SocketAddr,
    /// See [`Flags::advertise`].
    #[serde(default, deserialize_with = "host_port")]
    pub advertise: Option<HostPort>,
    /// See [`Flags::zone`].
    #[serde(default)]
    pub zone: Option<String>,
    /// See [`Flags::metadata`].
    #[serde(default)]
    pub metadata: String,
    /// See [`Flags::voters`].
    #[serde(default)]
    pub voters: Option<String>,
    /// See [`Flags::join`].
    #[serde(default)]
    pub join: Option<String>,
    /// See [`Flags::id`].
    pub id: u64,
    /// See [`Flags::listen`].
    pub listen: SocketAddr,
    /// See [`TlsFlags::tls_cert`].
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// See [`TlsFlags::tls_key`].
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// See [`TlsFlags::tls_ca`].
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// See [`Flags::memory`].
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// See [`Flags::num_partitions`].
    pub num_partitions: u32,
    /// Kafka's server settings by name, as given.
    #[serde(default)]
    pub server: BTreeMap<String, figment::value::Value>,
    /// The same, checked.
    #[serde(skip)]
    pub options: ServerOptions,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The figment error names the key and its source.
    #[error("{0}")]
    Invalid(Box<figment::Error>),
    /// A server setting with a bad value or name.
    #[error("server setting {name} (from {from}): {reason}")]
    Server {
        /// Its name.
        name: String,
        /// `-o`, or the TOML file.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigError {
    fn server(name: &str, from: &str, reason: impl fmt::Display) -> Self {
        Self::Server { name: name.to_owned(), from: from.to_owned(), reason: reason.to_string() }
    }
}

/// Defaults that do not depend on anything.
#[derive(Serialize)]
struct Defaults {
    data: &'static str,
    kafka: &'static str,
    http: &'static str,
    listen: &'static str,
    id: u64,
    num_partitions: u32,
}

/// Merges all sources for a role's `flags`.
///
/// # Errors
/// The first setting that is unknown, malformed or in conflict, with its source.
pub fn load(flags: &Flags) -> Result<Settings, ConfigError> {
    let mut settings: Settings =
        sources(flags).extract().map_err(|error| ConfigError::Invalid(Box::new(error)))?;
    for (name, value) in &settings.server {
        let text = match value {
            figment::value::Value::String(_, text) => text.clone(),
            figment::value::Value::Bool(_, flag) => flag.to_string(),
            figment::value::Value::Num(_, number) => {
                number.to_i128().map(|n| n.to_string()).unwrap_or_default()
            }
            _ => return Err(ConfigError::server(name, "the file", "must be a plain value")),
        };
        settings.options.set(name, &text, "the file")?;
    }
    for (name, value) in &flags.options {
        match name.as_str() {
            "num.partitions" => {
                settings.num_partitions = parse(name, value, "-o")?;
                settings.options.given.insert(name.clone(), value.clone());
            }
            _ => settings.options.set(name, value, "-o")?,
        }
    }
    if !(1..=10_000).contains(&settings.num_partitions) {
        return Err(ConfigError::Conflict("num.partitions must be 1 to 10000".to_owned()));
    }
    group_defaults::check(&settings.options.given).map_err(ConfigError::Conflict)?;
    settings.resolve_advertise()?;
    Ok(settings)
}

/// Where a process with these sources serves health and metrics.
///
/// # Errors
/// The address is malformed, or the file cannot be read; with its source.
pub fn http_address(flags: &HealthFlags) -> Result<SocketAddr, ConfigError> {
    let HealthFlags { http, config, .. } = flags.clone();
    let flags = Flags { http, config, ..Flags::default() };
    sources(&flags).extract_inner("http").map_err(|error| ConfigError::Invalid(Box::new(error)))
}

fn sources(flags: &Flags) -> Figment {
    let defaults = Defaults {
        data: "./aquifer-data",
        kafka: "127.0.0.1:9092",
        http: "127.0.0.1:9644",
        listen: "127.0.0.1:9340",
        id: 1,
        num_partitions: 1,
    };
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(path) = &flags.config {
        figment = figment.merge(Toml::file_exact(path));
    }
    figment
        .merge(
            Env::prefixed("AQUIFER_")
                .ignore(&["bootstrap", "config", "log", "s3_virtual_hosted"])
                .lowercase(true),
        )
        .merge(Serialized::defaults(flags))
}

impl Settings {
    /// The store's URL.
    pub fn store_url(&self) -> String {
        match &self.store {
            Some(url) => url.clone(),
            None => format!("file:{}", self.data.join("bucket").display()),
        }
    }

    /// What this process proves itself with.
    pub fn tls(&self) -> TlsFlags {
        let Self { tls_cert, tls_key, tls_ca, .. } = self.clone();
        TlsFlags { tls_cert, tls_key, tls_ca }
    }

    /// The address clients are told.
    pub fn advertised(&self) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| HostPort {
            host: self.kafka.ip().to_string(),
            port: self.kafka.port(),
        })
    }

    /// How long a draining agent keeps serving: five seconds where clients come through another
    /// address than this agent's own, which a load balancer then has to take it out of.
    pub fn drain_delay(&self) -> Duration {
        let own = HostPort { host: self.kafka.ip().to_string(), port: self.kafka.port() };
        let behind_another = self.advertise.as_ref().is_some_and(|advertise| *advertise != own);
        let default = if behind_another { 5000 } else { 0 };
        Duration::from_millis(self.options.drain_delay_ms.unwrap_or(default))
    }

    fn resolve_advertise(&self) -> Result<(), ConfigError> {
        if self.advertise.is_none() && self.kafka.ip().is_unspecified() {
            return Err(ConfigError::Conflict(format!(
                "--kafka {} listens on every address, so clients cannot be told one: \
                 add --advertise HOST:PORT",
                self.kafka
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
