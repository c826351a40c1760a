//! Containers of Azure Blob Storage.
//!
//! Writes are guarded by TLS alone: the client sends no checksum for Azure to verify. What is read
//! is checked by the records' own.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey as Key, AzureCredentialProvider, MicrosoftAzureBuilder};

use super::bucket::{
    BucketStore,
    answer::{TypedAnswers, innermost},
    clients,
    credentials::Marked,
};

/// What to do where there are no credentials.
const WAYS: &str = "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with \
                    AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or run with a managed identity";

/// The emulator's address; who sets it uses the emulator. The client reads it too.
const EMULATOR: &str = "AZURITE_BLOB_STORAGE_URL";
const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT";

/// The variables of Azure's own tools, and what they say.
const VARIABLES: [(&str, Key); 11] = [
    (ACCOUNT, Key::AccountName),
    ("AZURE_STORAGE_KEY", Key::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", Key::SasKey),
    ("AZURE_STORAGE_SERVICE_ENDPOINT", Key::Endpoint),
    ("AZURE_CLIENT_ID", Key::ClientId),
    ("AZURE_CLIENT_SECRET", Key::ClientSecret),
    ("AZURE_TENANT_ID", Key::AuthorityId),
    ("AZURE_AUTHORITY_HOST", Key::AuthorityHost),
    ("AZURE_FEDERATED_TOKEN_FILE", Key::FederatedTokenFile),
    ("IDENTITY_ENDPOINT", Key::MsiEndpoint),
    ("AZURE_USE_AZURE_CLI", Key::UseAzureCli),
];

/// Settings that make no client.
#[derive(Debug, thiserror::Error)]
#[error("store az://{container} cannot be set up: {reason}")]
pub struct AzureRefused {
    /// The container.
    pub container: String,
    /// What is wrong.
    pub reason: String,
}

/// Sets up a store in `container` under `prefix`, from the variables of Azure's own tools:
/// `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, an application's
/// (`AZURE_CLIENT_ID` and its friends), or a managed identity. Sends nothing.
///
/// # Errors
/// Settings that make no client.
pub fn open(
    container: &str,
    prefix: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BucketStore, AzureRefused> {
    let refused = |reason: String| AzureRefused { container: container.to_owned(), reason };
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let is_emulator = set(EMULATOR).is_some();
    if !is_emulator && set(ACCOUNT).is_none() {
        return Err(refused(format!("set {ACCOUNT} to the storage account")));
    }
    let mut builder =
        MicrosoftAzureBuilder::new().with_container_name(container).with_use_emulator(is_emulator);
    for (name, key) in VARIABLES {
        if let Some(value) = set(name) {
            builder = builder.with_config(key, value);
        }
    }
    let plain = is_emulator
        || set("AZURE_STORAGE_SERVICE_ENDPOINT").is_some_and(|url| url.starts_with("http://"));
    let build = || -> object_store::Result<BucketStore> {
        let options = clients::options(None)?;
        let first = builder.clone().with_client_options(options.clone()).build()?;
        let inner = Arc::clone(first.credentials());
        let credentials: AzureCredentialProvider =
            Arc::new(Marked { inner, store: "Azure", ways: WAYS });
        BucketStore::over(prefix, |class| {
            let client = class.client(options.clone()).with_allow_http(plain);
            let mut builder = builder.clone();
            if !is_emulator {
                builder = builder.with_credentials(Arc::clone(&credentials));
            }
            builder
                .with_retry(class.no_retry())
                .with_client_options(client)
                .with_http_connector(TypedAnswers::default())
                .build()
        })
    };
    build().map_err(|error| refused(innermost(&error)))
}
