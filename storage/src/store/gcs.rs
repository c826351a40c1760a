//! Buckets of Google Cloud Storage.
//!
//! Writes are guarded by TLS alone: the client sends no checksum for Google to verify. What is read
//! is checked by the records' own.

use std::sync::Arc;

use object_store::{
    StaticCredentialProvider,
    gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder},
};

use super::bucket::{
    BucketStore,
    answer::{TypedAnswers, innermost},
    clients,
    credentials::Marked,
};

/// What to do where there are no credentials.
const WAYS: &str = "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, run \
                    `gcloud auth application-default login`, or run with a service account";

/// Settings that make no client.
#[derive(Debug, thiserror::Error)]
#[error("store gs://{bucket} cannot be set up: {reason}")]
pub struct GcsRefused {
    /// The bucket.
    pub bucket: String,
    /// What is wrong.
    pub reason: String,
}

/// Sets up a store in `bucket` under `prefix`. Reads the variables of Google's own clients:
/// `GOOGLE_APPLICATION_CREDENTIALS`, and `STORAGE_EMULATOR_HOST` for an emulator, of which nothing
/// is signed. Sends nothing.
///
/// # Errors
/// Settings that make no client.
pub fn open(
    bucket: &str,
    prefix: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BucketStore, GcsRefused> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
    if let Some(path) = set("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(path);
    }
    let emulator = set("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host,
        false => format!("http://{host}"),
    });
    if let Some(address) = &emulator {
        builder = builder.with_base_url(address.trim_end_matches('/')).with_skip_signature(true);
        // The client asks for credentials all the same.
        let none = GcpCredential { bearer: String::new() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    }
    let build = || -> object_store::Result<BucketStore> {
        let options = clients::options(None)?;
        let first = builder.clone().with_client_options(options.clone()).build()?;
        let inner = Arc::clone(first.credentials());
        let credentials: GcpCredentialProvider =
            Arc::new(Marked { inner, store: "GCS", ways: WAYS });
        BucketStore::over(prefix, |class| {
            let client = class.client(options.clone()).with_allow_http(emulator.is_some());
            builder
                .clone()
                .with_retry(class.no_retry())
                .with_client_options(client)
                .with_credentials(Arc::clone(&credentials))
                .with_http_connector(TypedAnswers::default())
                .build()
        })
    };
    build().map_err(|error| GcsRefused { bucket: bucket.to_owned(), reason: innermost(&error) })
}
