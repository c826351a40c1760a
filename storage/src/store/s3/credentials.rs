//! Credentials from the source that the environment names, shared by all clients of a store.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::{
    ClientOptions, CredentialProvider, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider},
};

use super::environment::{CredentialSource, Keys};

/// Metadata services drop a request now and then; beyond this, the store's own retries decide.
const RETRIES_MAX: usize = 2;

/// No credentials came about, so a request was not sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run with \
     a role ({reason})"
)]
pub(super) struct NoCredentials {
    reason: String,
}

/// Marks a provider's failures as [`NoCredentials`].
#[derive(Debug)]
struct Marked {
    inner: AwsCredentialProvider,
}

#[async_trait]
impl CredentialProvider for Marked {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.inner.get_credential().await.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(NoCredentials { reason: innermost(&error) }),
        })
    }
}

/// The provider of `source`. Sends nothing yet.
pub(super) fn provider(
    source: CredentialSource,
    region: &str,
    client: ClientOptions,
) -> object_store::Result<AwsCredentialProvider> {
    // Only the credentials of this client are used: requests of its own it never sends.
    let builder = AmazonS3Builder::new()
        .with_bucket_name("unused")
        .with_region(region)
        .with_client_options(client)
        .with_retry(RetryConfig { max_retries: RETRIES_MAX, ..RetryConfig::default() });
    let built = with_source(builder, source).build()?;
    Ok(Arc::new(Marked { inner: Arc::clone(built.credentials()) }))
}

fn with_source(builder: AmazonS3Builder, source: CredentialSource) -> AmazonS3Builder {
    let set = |builder: AmazonS3Builder, key, value: Option<String>| match value {
        Some(value) => builder.with_config(key, value),
        None => builder,
    };
    match source {
        CredentialSource::Keys(Keys { access_key_id, secret_access_key, session_token }) => {
            let builder =
                builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
            set(builder, Key::Token, session_token)
        }
        CredentialSource::WebIdentity { token_file, role_arn, session_name, sts_endpoint } => {
            let builder = builder
                .with_config(Key::WebIdentityTokenFile, token_file)
                .with_config(Key::RoleArn, role_arn);
            let builder = set(builder, Key::RoleSessionName, session_name);
            set(builder, Key::StsEndpoint, sts_endpoint)
        }
        CredentialSource::Container { relative_uri } => {
            builder.with_config(Key::ContainerCredentialsRelativeUri, relative_uri)
        }
        CredentialSource::Pod { full_uri, token_file } => builder
            .with_config(Key::ContainerCredentialsFullUri, full_uri)
            .with_config(Key::ContainerAuthorizationTokenFile, token_file),
        CredentialSource::Instance { metadata_endpoint } => {
            set(builder, Key::MetadataEndpoint, metadata_endpoint)
        }
    }
}

/// The innermost cause: the outer ones repeat it.
fn innermost(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
