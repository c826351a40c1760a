//! Makes a bucket.

use std::time::Duration;

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{
        BucketInfo, BucketLocationConstraint, BucketType, CreateBucketConfiguration,
        DataRedundancy, LocationInfo, LocationType,
    },
};
use object_store::aws::AwsCredentialProvider;

use super::http_client;
use crate::{
    probe::bucket::NoAnswer,
    store::{
        bucket::answer,
        s3::{NotMade, S3Options, environment::Resolved},
    },
};

/// What a name of a directory bucket (S3 Express One Zone) ends with, behind its zone.
const DIRECTORY_SUFFIX: &str = "--x-s3";
/// S3 takes no name for its first region.
const FIRST_REGION: &str = "us-east-1";

/// Where and as whom a bucket is made.
pub(in crate::store::s3) struct Maker {
    bucket: String,
    region: String,
    client: Client,
}

/// The store's own credentials, for the SDK.
#[derive(Debug)]
struct Shared(AwsCredentialProvider);

impl ProvideCredentials for Shared {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

impl Shared {
    async fn get(&self) -> provider::Result {
        let given = self.0.get_credential().await.map_err(CredentialsError::provider_error)?;
        let (id, secret) = (given.key_id.clone(), given.secret_key.clone());
        Ok(Credentials::new(id, secret, given.token.clone(), None, "store"))
    }
}

impl Maker {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// The certificates to trust are none.
    pub fn new(
        options: &S3Options,
        resolved: &Resolved,
        credentials: AwsCredentialProvider,
        answer_max: Duration,
    ) -> Result<Self, String> {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(resolved.region.clone()))
            .credentials_provider(Shared(credentials))
            .http_client(http_client(resolved.ca_bundle.as_deref())?)
            .retry_config(RetryConfig::standard())
            .timeout_config(TimeoutConfig::builder().operation_timeout(answer_max).build())
            .force_path_style(!options.virtual_hosted);
        if let Some(endpoint) = &resolved.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let (bucket, region) = (options.bucket.clone(), resolved.region.clone());
        Ok(Self { bucket, region, client: Client::from_conf(config.build()) })
    }

    /// Makes the bucket, which is not there; whether this made it.
    pub async fn make(&self) -> Result<bool, NotMade> {
        let request = self.client.create_bucket().bucket(&self.bucket);
        let request = request.set_create_bucket_configuration(self.configuration());
        match request.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(refused)) => match refused.err().code().unwrap_or("") {
                "BucketAlreadyOwnedByYou" | "OperationAborted" => Ok(false),
                "BucketAlreadyExists" => Err(NotMade::Taken),
                code => Err(NotMade::Refused {
                    status: refused.raw().status().as_u16(),
                    code: code.to_owned(),
                    message: answer::shortened(refused.err().message().unwrap_or_default()),
                }),
            },
            Err(error) => Err(NotMade::NoAnswer(NoAnswer(DisplayErrorContext(&error).to_string()))),
        }
    }

    fn configuration(&self) -> Option<CreateBucketConfiguration> {
        let made = CreateBucketConfiguration::builder();
        if let Some(zone) = zone_of(&self.bucket) {
            let location =
                LocationInfo::builder().r#type(LocationType::AvailabilityZone).name(zone);
            let bucket = BucketInfo::builder()
                .r#type(BucketType::Directory)
                .data_redundancy(DataRedundancy::SingleAvailabilityZone);
            return Some(made.location(location.build()).bucket(bucket.build()).build());
        }
        let constraint = BucketLocationConstraint::from(self.region.as_str());
        (self.region != FIRST_REGION).then(|| made.location_constraint(constraint).build())
    }
}

/// The zone in the name of a directory bucket: `name--use1-az4--x-s3`.
fn zone_of(bucket: &str) -> Option<&str> {
    let (_, zone) = bucket.strip_suffix(DIRECTORY_SUFFIX)?.rsplit_once("--")?;
    Some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_bucket_names_its_zone() {
        assert_eq!(zone_of("water--use1-az4--x-s3"), Some("use1-az4"));
        assert_eq!(zone_of("a--b--euw1-az1--x-s3"), Some("euw1-az1"));
        assert_eq!(zone_of("water"), None);
        assert_eq!(zone_of("water--x-s3"), None);
    }
}
