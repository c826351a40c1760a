//! What the AWS SDK is for: credentials that a profile's SSO, role or process makes, and making
//! buckets, general and directory ones.
//!
//! No request of the data path comes here. What the SDK reads of the environment is what those
//! profiles need: `AWS_ENDPOINT_URL_SSO`, `AWS_ENDPOINT_URL_STS`, `HOME` for the tokens of
//! `aws sso login`.

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

pub(super) mod bucket;
pub(super) mod profile_credentials;

/// An HTTP client that trusts what the store's own clients trust.
fn http_client(ca_bundle: Option<&str>) -> Result<SharedHttpClient, String> {
    let mut trusted = TrustStore::default();
    if let Some(pem) = ca_bundle {
        trusted = trusted.with_pem_certificate(pem.as_bytes());
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| error.to_string())?;
    let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    Ok(builder.tls_context(context).build_https())
}
