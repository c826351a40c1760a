//! Credentials of a profile that names SSO, a role or a process, kept until they are about to end.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::{
    Region, profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig,
};
use aws_credential_types::provider::ProvideCredentials;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use object_store::{CredentialProvider, aws::AwsCredential};
use tokio::sync::Mutex;

use super::http_client;
use crate::store::s3::environment::ForeignProfile;

/// Credentials are fetched again this long before they end: clocks differ, and requests take time.
const AHEAD: Duration = Duration::from_secs(300);

/// The provider of one profile.
pub(in crate::store::s3) struct ProfileCredentials {
    inner: ProfileFileCredentialsProvider,
    /// Held while they are fetched: all requests wait for one fetch.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    credential: Arc<AwsCredential>,
    /// `None`: for ever.
    ends: Option<SystemTime>,
}

impl ProfileCredentials {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// The certificates to trust are none.
    pub fn new(
        profile: &ForeignProfile,
        region: &str,
        ca_bundle: Option<&str>,
    ) -> object_store::Result<Self> {
        let http = http_client(ca_bundle)
            .map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        let mut files = EnvConfigFiles::builder();
        for (kind, path) in [
            (EnvConfigFileKind::Config, &profile.config),
            (EnvConfigFileKind::Credentials, &profile.credentials),
        ] {
            if let Some(path) = path {
                files = files.with_file(kind, path);
            }
        }
        let config = ProviderConfig::without_region()
            .with_region(Some(Region::new(region.to_owned())))
            .with_http_client(http);
        let inner = ProfileFileCredentialsProvider::builder()
            .configure(&config)
            .profile_name(&profile.name)
            .profile_files(files.build())
            .build();
        Ok(Self { inner, kept: Mutex::new(None) })
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        #[expect(clippy::disallowed_methods, reason = "credentials end by the world's clock")]
        let now = SystemTime::now();
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_good(now)) {
            return Ok(Arc::clone(&kept.credential));
        }
        let made = self.inner.provide_credentials().await;
        let made = made.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: made.access_key_id().to_owned(),
            secret_key: made.secret_access_key().to_owned(),
            token: made.session_token().map(str::to_owned),
        });
        *kept = Some(Kept { credential: Arc::clone(&credential), ends: made.expiry() });
        Ok(credential)
    }
}

impl Kept {
    fn is_good(&self, now: SystemTime) -> bool {
        self.ends.is_none_or(|ends| now + AHEAD < ends)
    }
}

impl fmt::Debug for ProfileCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileCredentials").finish_non_exhaustive()
    }
}
