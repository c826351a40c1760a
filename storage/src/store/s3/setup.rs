//! Builds the clients of S3.

use object_store::aws::{
    AmazonS3, AmazonS3Builder, AwsCredentialProvider, Checksum, S3ConditionalPut,
};

use super::{S3Options, environment::Resolved};
use crate::store::bucket::{
    answer::TypedAnswers,
    clients::{self, OperationClass},
};

/// The client of one class.
pub(super) fn client(
    options: &S3Options,
    resolved: &Resolved,
    credentials: AwsCredentialProvider,
    class: OperationClass,
) -> object_store::Result<AmazonS3> {
    let client = clients::options(resolved.ca_bundle.as_deref())?;
    let client = class.client(client).with_allow_http(options.allow_http || uses_http(resolved));
    builder(options, resolved)
        .with_retry(class.no_retry())
        .with_client_options(client)
        .with_credentials(credentials)
        .with_http_connector(TypedAnswers::default())
        .build()
}

/// Everything but connections and credentials. Reads no environment.
pub(super) fn builder(options: &S3Options, resolved: &Resolved) -> AmazonS3Builder {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(&resolved.region)
        .with_virtual_hosted_style_request(options.virtual_hosted)
        // The checksum header guards the payload; a second hash in the signature would only cost.
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    match &resolved.endpoint {
        None => builder,
        Some(endpoint) if options.virtual_hosted => {
            builder.with_endpoint(with_bucket(endpoint, &options.bucket))
        }
        Some(endpoint) => builder.with_endpoint(endpoint),
    }
}

fn uses_http(resolved: &Resolved) -> bool {
    resolved.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
}

/// Where the bucket is, as the SDK builds it: without a slash at its end.
pub(super) fn bucket_address(options: &S3Options, resolved: &Resolved) -> String {
    let (bucket, region) = (&options.bucket, &resolved.region);
    let address = match (&resolved.endpoint, options.virtual_hosted) {
        (Some(endpoint), true) => with_bucket(endpoint, bucket),
        (Some(endpoint), false) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    };
    address.trim_end_matches('/').to_owned()
}

/// `scheme://host` as `scheme://bucket.host`: the SDK leaves that to its caller.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((_, host)) if host.starts_with(&format!("{bucket}.")) => endpoint.to_owned(),
        Some((scheme, host)) => format!("{scheme}://{bucket}.{}", host.trim_end_matches('/')),
        None => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey as Key;

    use super::{
        super::environment::{CredentialSource, Keys},
        *,
    };

    fn resolved(endpoint: Option<&str>) -> Resolved {
        Resolved {
            region: "eu-north-1".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            credentials: CredentialSource::Keys(Keys {
                access_key_id: "id".to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: None,
            }),
            ca_bundle: None,
        }
    }

    fn options(virtual_hosted: bool) -> S3Options {
        S3Options { bucket: "water".to_owned(), virtual_hosted, ..S3Options::default() }
    }

    #[test]
    fn payloads_are_unsigned_and_carry_a_checksum() {
        let builder = builder(&options(false), &resolved(None));
        let value = |key| builder.get_config_value(&key);
        assert_eq!(value(Key::UnsignedPayload).as_deref(), Some("true"));
        assert_eq!(value(Key::Checksum).unwrap().to_ascii_lowercase(), "crc64nvme");
        assert_eq!(value(Key::ConditionalPut).as_deref(), Some("etag"));
        assert_eq!(value(Key::SkipSignature).as_deref(), Some("false"));
        assert_eq!(value(Key::Region).as_deref(), Some("eu-north-1"));
        assert_eq!(value(Key::Bucket).as_deref(), Some("water"));
    }

    #[test]
    fn the_bucket_stands_in_the_path_unless_asked_otherwise() {
        let endpoint = |virtual_hosted, endpoint| {
            let builder = builder(&options(virtual_hosted), &resolved(Some(endpoint)));
            builder.get_config_value(&Key::Endpoint).unwrap()
        };
        assert_eq!(endpoint(false, "http://s3:1"), "http://s3:1");
        assert_eq!(endpoint(true, "http://s3:1/"), "http://water.s3:1");
        assert_eq!(endpoint(true, "https://water.s3"), "https://water.s3");
    }

    #[test]
    fn a_bucket_has_the_address_that_the_sdk_gives_it() {
        let address = |hosted, endpoint| bucket_address(&options(hosted), &resolved(endpoint));
        assert_eq!(address(false, Some("http://s3:1/")), "http://s3:1/water");
        assert_eq!(address(true, Some("http://s3:1")), "http://water.s3:1");
        assert_eq!(address(false, None), "https://s3.eu-north-1.amazonaws.com/water");
        assert_eq!(address(true, None), "https://water.s3.eu-north-1.amazonaws.com");
    }
}
