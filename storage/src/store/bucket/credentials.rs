//! Failures to get credentials, told apart from those of a request that was sent.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use object_store::CredentialProvider;

use super::answer::innermost;

/// No credentials came about, so a request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("no credentials: {ways} ({reason})")]
pub(in crate::store) struct NoCredentials {
    ways: &'static str,
    reason: String,
}

/// Marks a provider's failures as [`NoCredentials`].
#[derive(Debug)]
pub(in crate::store) struct Marked<C> {
    /// Whose failures.
    pub inner: Arc<dyn CredentialProvider<Credential = C>>,
    /// The store, as errors name it.
    pub store: &'static str,
    /// What to do where there are none.
    pub ways: &'static str,
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> CredentialProvider for Marked<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        self.inner.get_credential().await.map_err(|error| {
            let (ways, reason) = (self.ways, innermost(&error));
            let source = Box::new(NoCredentials { ways, reason });
            object_store::Error::Generic { store: self.store, source }
        })
    }
}
