//! Buckets of S3 and of stores that speak as it does.
//!
//! Payloads are not signed; a checksum header that the store verifies guards them instead.

use std::{fmt, sync::Arc};

use self::environment::World;
pub use self::{
    bucket_api::{BucketApi, NotMade},
    environment::SettingsRefused,
};
use super::bucket::{BucketStore, clients};

mod bucket_api;
mod credentials;
mod environment;
mod profile;
#[cfg(feature = "aws-sdk")]
mod sdk;
mod setup;

/// Where the bucket is and how to sign. What is `None` comes from the
/// environment, see [`open`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// Prefix of every key, without slashes around it; empty for the whole bucket.
    pub prefix: String,
    /// The store's address when it is not AWS, such as `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where stores do not care.
    pub region: Option<String>,
    /// Access key id.
    pub access_key_id: Option<String>,
    /// Secret access key.
    pub secret_access_key: Option<String>,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
    /// Whether the bucket is part of the host name rather than of the path.
    pub virtual_hosted: bool,
    /// Whether plain HTTP is allowed; an endpoint that says `http://` allows it too.
    pub allow_http: bool,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "(secret)"))
            .field("session_token", &self.session_token.as_ref().map(|_| "(secret)"))
            .field("virtual_hosted", &self.virtual_hosted)
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

/// Settings that make no client.
#[derive(Debug, thiserror::Error)]
#[error("store s3://{bucket} cannot be set up")]
pub struct S3Refused {
    /// The bucket.
    pub bucket: String,
    /// What is wrong.
    #[source]
    pub source: S3RefusedReason,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum S3RefusedReason {
    /// Options, environment or profile.
    #[error(transparent)]
    Settings(#[from] SettingsRefused),
    /// The SDK.
    #[error(transparent)]
    Sdk(#[from] object_store::Error),
}

/// Sets up a store from `options` alone; without keys, the instance's role signs. Sends nothing.
///
/// # Errors
/// Settings that make no client.
pub fn with_options(options: &S3Options) -> Result<BucketStore, S3Refused> {
    open(options, &|_| None)
}

/// Sets up a store; what `options` leaves open comes from the environment, which `variable` reads,
/// and from the files it names (see the module `environment`). Sends nothing.
///
/// # Errors
/// Settings that make no client.
pub fn open(
    options: &S3Options,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BucketStore, S3Refused> {
    let world = World { variable, read_file: &|path| std::fs::read_to_string(path) };
    in_world(options, &world).map_err(|source| S3Refused { bucket: options.bucket.clone(), source })
}

fn in_world(options: &S3Options, world: &World<'_>) -> Result<BucketStore, S3RefusedReason> {
    let resolved = environment::resolve(options, world)?;
    let client = clients::options(resolved.ca_bundle.as_deref())?;
    let credentials = credentials::provider(&resolved, client)?;
    Ok(BucketStore::over(&options.prefix, |class| {
        setup::client(options, &resolved, Arc::clone(&credentials), class)
    })?)
}

#[cfg(test)]
mod tests;
