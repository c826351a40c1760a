//! What only S3's own API tells of a bucket: clocks, checksums, `If-Match`, versions, lifecycle.
//!
//! Requests that the SDK's client has no words for, signed by its authorizer. Asks nothing twice.

#[cfg(feature = "aws-sdk")]
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use object_store::{
    aws::{AwsAuthorizer, AwsCredentialProvider},
    client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector},
};

use super::{S3Options, S3Refused, S3RefusedReason, World, credentials, environment, setup};
use crate::{
    probe::bucket::{Answer, BucketFacts, NoAnswer, rules},
    seam::{Clock, Seams},
    store::bucket::{answer, clients},
};

/// Answers about a bucket are short.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long one answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Of an 8-byte checksum that fits nothing that is written here.
const WRONG_CRC64: &str = "AAAAAAAAAAA=";
const CRC64: &str = "x-amz-checksum-crc64nvme";
const WRONG_ETAG: &str = "\"00000000000000000000000000000000\"";

/// Speaks S3's API of buckets.
pub struct BucketApi {
    http: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    /// The bucket's address, without a slash at its end.
    address: String,
    prefix: String,
    seams: Seams,
    #[cfg(feature = "aws-sdk")]
    maker: super::sdk::bucket::Maker,
}

/// A bucket, or its rules, are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// The store refused.
    #[error("the store refused with {status} {code}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The store's code.
        code: String,
        /// The store's words.
        message: String,
    },
    /// A build without the AWS SDK makes no buckets.
    #[error("the bucket is not there, and this build makes none: it lacks the feature aws-sdk")]
    NoSdk,
    /// Names are one space for all users of S3.
    #[error("the bucket's name is somebody else's: choose another one")]
    Taken,
    /// Rules that are there cannot be kept beside ours.
    #[error("the bucket's lifecycle rules are left alone: {0}")]
    Foreign(String),
    /// It may or may not have happened: asking again is harmless.
    #[error("no answer: {0}")]
    NoAnswer(#[from] NoAnswer),
}

impl Answer {
    fn expect(self, status: u16) -> Result<Self, NotMade> {
        if self.status == status {
            return Ok(self);
        }
        let message = answer::element(&self.body, "Message").unwrap_or_default();
        let message = answer::shortened(message);
        Err(NotMade::Refused { status: self.status, code: self.code, message })
    }
}

impl BucketApi {
    /// Sets up a client as [`super::open`] does. Sends nothing.
    ///
    /// # Errors
    /// Settings that make no client.
    pub fn from_environment(
        options: &S3Options,
        variable: &dyn Fn(&str) -> Option<String>,
        seams: Seams,
    ) -> Result<Self, S3Refused> {
        let world = World { variable, read_file: &|path| std::fs::read_to_string(path) };
        Self::in_world(options, &world, seams)
            .map_err(|source| S3Refused { bucket: options.bucket.clone(), source })
    }

    fn in_world(
        options: &S3Options,
        world: &World<'_>,
        seams: Seams,
    ) -> Result<Self, S3RefusedReason> {
        let resolved = environment::resolve(options, world)?;
        let client = clients::options(resolved.ca_bundle.as_deref())?;
        let credentials = credentials::provider(&resolved, client.clone())?;
        let http = ReqwestConnector::default().connect(&client.with_allow_http(true))?;
        let address = setup::bucket_address(options, &resolved);
        #[cfg(feature = "aws-sdk")]
        let maker = {
            let credentials = Arc::clone(&credentials);
            super::sdk::bucket::Maker::new(options, &resolved, credentials, ANSWER_MAX).map_err(
                |error| object_store::Error::Generic { store: "S3", source: error.into() },
            )?
        };
        let (region, prefix) = (resolved.region, options.prefix.clone());
        Ok(Self {
            http,
            credentials,
            region,
            address,
            prefix,
            seams,
            #[cfg(feature = "aws-sdk")]
            maker,
        })
    }

    /// Asks for the bucket and nothing of it: the status, of whatever kind.
    ///
    /// # Errors
    /// Nobody answers, and why.
    pub async fn reach(&self) -> Result<u16, NoAnswer> {
        Ok(self.ask("HEAD", "", &[], Bytes::new()).await?.status)
    }

    /// Asks about the bucket of `options`. What it writes, it writes to `key`, which is there and
    /// which the caller deletes.
    pub async fn facts(&self, bucket: &str, key: &str) -> BucketFacts {
        let key = match self.prefix.as_str() {
            "" => format!("/{key}"),
            prefix => format!("/{prefix}/{key}"),
        };
        let body = || Bytes::from_static(b"a test of the store");
        let checksum = (CRC64, WRONG_CRC64);
        BucketFacts {
            bucket: bucket.to_owned(),
            prefix: self.prefix.clone(),
            wrong_checksum: self.ask("PUT", &key, &[checksum], body()).await,
            stale_if_match: self.ask("PUT", &key, &[("if-match", WRONG_ETAG)], body()).await,
            versioning: self.ask("GET", "?versioning", &[], Bytes::new()).await,
            lifecycle: self.ask("GET", "?lifecycle", &[], Bytes::new()).await,
        }
    }

    /// Makes the bucket unless it is there; whether it made it.
    ///
    /// # Errors
    /// It is not there, and was not made.
    pub async fn make(&self) -> Result<bool, NotMade> {
        if self.reach().await? != 404 {
            // Also 403, which whoever may not look at a bucket gets: its use will tell.
            return Ok(false);
        }
        #[cfg(feature = "aws-sdk")]
        return self.maker.make().await;
        #[cfg(not(feature = "aws-sdk"))]
        Err(NotMade::NoSdk)
    }

    /// Adds our rules to the bucket's, see [`rules::with_ours`]; whether any was missing.
    ///
    /// # Errors
    /// They are not all there now.
    pub async fn add_rules(&self) -> Result<bool, NotMade> {
        let there = self.ask("GET", "?lifecycle", &[], Bytes::new()).await?;
        let there = match there.code.as_str() {
            "NoSuchLifecycleConfiguration" => None,
            _ => Some(there.expect(200)?.body),
        };
        let rules = rules::with_ours(there.as_deref(), &self.prefix);
        let Some(rules) = rules.map_err(NotMade::Foreign)? else { return Ok(false) };
        // S3 wants a checksum of rules.
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, rules.as_bytes());
        let sum = base64::engine::general_purpose::STANDARD.encode(sum.to_be_bytes());
        let headers = [(CRC64, sum.as_str()), ("x-amz-sdk-checksum-algorithm", "CRC64NVME")];
        self.ask("PUT", "?lifecycle", &headers, rules.into()).await?.expect(200)?;
        Ok(true)
    }

    /// Sends one request: `target` follows the bucket's address.
    async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let asked = self.send(method, target, headers, body);
        let answer = self.seams.timeout(ANSWER_MAX, asked).await;
        answer.unwrap_or_else(|| Err(NoAnswer(format!("no answer for {ANSWER_MAX:?}"))))
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        let address = format!("{}{target}", self.address);
        *request.uri_mut() = address.parse().map_err(no_answer)?;
        *request.method_mut() = method.parse().map_err(no_answer)?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().map_err(no_answer)?);
        }
        let credential = self.credentials.get_credential().await.map_err(no_answer)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        authorizer.try_authorize(&mut request, None).map_err(no_answer)?;
        let response = self.http.execute(request).await.map_err(no_answer)?;
        let status = response.status().as_u16();
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let ahead_ms = date.and_then(|date| ahead_ms(&*self.seams.clock, date));
        let body = answer::read(response.into_body(), ANSWER_BYTES_MAX).await;
        let (Ok(body) | Err((body, _))) = body;
        let body = String::from_utf8_lossy(&body).into_owned();
        let code = answer::element(&body, "Code").unwrap_or_default().to_owned();
        Ok(Answer { status, code, body, ahead_ms })
    }
}

/// Of an HTTP date, which was made some time in the second that it names.
fn ahead_ms(clock: &dyn Clock, date: &str) -> Option<i64> {
    let date = httpdate::parse_http_date(date).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let store = i64::try_from(since.as_millis()).ok()?.checked_add(500)?;
    Some(clock.wall().millis() - store)
}

fn no_answer(error: impl std::error::Error + 'static) -> NoAnswer {
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    NoAnswer(innermost.to_string())
}
