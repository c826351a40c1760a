//! How connections are made: the same for all stores and classes but pools and time limits.

use std::time::Duration;

use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

/// A connection that takes longer than this goes to a dead address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Idle connections are closed by stores and balancers; ours go first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Each class has its own connections, so that a slow one never queues before another.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum OperationClass {
    Put,
    Get,
    Admin,
}

impl OperationClass {
    /// How long one request may take with its whole body. The decorators' deadlines are shorter;
    /// this one only frees connections that hang.
    const fn timeout(self) -> Duration {
        match self {
            Self::Put | Self::Admin => Duration::from_secs(60),
            Self::Get => Duration::from_secs(30),
        }
    }

    const fn idle_connections_max(self) -> usize {
        match self {
            Self::Put => 64,
            Self::Get => 128,
            Self::Admin => 4,
        }
    }

    /// The connections of this class.
    pub fn client(self, options: ClientOptions) -> ClientOptions {
        options
            .with_timeout(self.timeout())
            .with_pool_max_idle_per_host(self.idle_connections_max())
    }

    /// Every request goes out once: the decorators repeat.
    pub fn no_retry(self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 0,
            retry_timeout: self.timeout(),
        }
    }
}

/// What every client of the process has, also those that fetch credentials.
/// `ca_bundle` is PEM of certificates to trust besides the system's.
pub(in crate::store) fn options(ca_bundle: Option<&str>) -> object_store::Result<ClientOptions> {
    let mut client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(OperationClass::Get.timeout())
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT)
        // Throughput comes from many connections; one of HTTP/2 is a single queue.
        .with_http1_only();
    if let Some(pem) = ca_bundle {
        for certificate in Certificate::from_pem_bundle(pem.as_bytes())? {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;

    use super::*;

    #[test]
    fn connections_are_http_1_with_limits() {
        let client = options(None).unwrap();
        assert_eq!(client.get_config_value(&ClientConfigKey::Http1Only).as_deref(), Some("true"));
        for key in [ClientConfigKey::ConnectTimeout, ClientConfigKey::Timeout] {
            assert!(client.get_config_value(&key).is_some());
        }
    }

    #[test]
    fn a_bundle_that_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(options(Some(broken)).is_err());
    }
}
