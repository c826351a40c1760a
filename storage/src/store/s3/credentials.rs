//! Credentials from the source that the environment names, shared by all clients of a store.

use std::sync::Arc;

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredentialProvider},
};

use super::environment::{CredentialSource, Keys, Resolved};
#[cfg(feature = "aws-sdk")]
use super::sdk::profile_credentials::ProfileCredentials;
use crate::store::bucket::credentials::Marked;

/// Metadata services drop a request now and then; beyond this, the store's own retries decide.
const RETRIES_MAX: usize = 2;

/// What to do about it.
const WAYS: &str =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run with a role";

/// The provider of what was resolved. Sends nothing yet.
pub(super) fn provider(
    resolved: &Resolved,
    client: ClientOptions,
) -> object_store::Result<AwsCredentialProvider> {
    #[cfg(feature = "aws-sdk")]
    if let CredentialSource::Profile(profile) = &resolved.credentials {
        let (region, ca_bundle) = (&resolved.region, resolved.ca_bundle.as_deref());
        let inner = Arc::new(ProfileCredentials::new(profile, region, ca_bundle)?);
        return Ok(Arc::new(Marked { inner, store: "S3", ways: WAYS }));
    }
    // Only the credentials of this client are used: requests of its own it never sends.
    let builder = AmazonS3Builder::new()
        .with_bucket_name("unused")
        .with_region(&resolved.region)
        .with_client_options(client)
        .with_retry(RetryConfig { max_retries: RETRIES_MAX, ..RetryConfig::default() });
    let built = with_source(builder, resolved.credentials.clone()).build()?;
    Ok(Arc::new(Marked { inner: Arc::clone(built.credentials()), store: "S3", ways: WAYS }))
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
        #[cfg(feature = "aws-sdk")]
        CredentialSource::Profile(_) => builder, // Not asked of this client.
    }
}
