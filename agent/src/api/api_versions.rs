//! ApiVersions (18) v0-4: what works here, and nothing else.

use super::{Request, features};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            ApiVersionsRequest, ApiVersionsResponse, ApiVersionsResponseFinalizedFeatures,
            ApiVersionsResponseSupportedFeatures,
        },
        versions,
    },
};

pub async fn handle(
    _broker: &Broker,
    request: &Request<'_>,
    body: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let software = [&body.client_software_name, &body.client_software_version];
    if 3 <= request.version && !software.iter().all(|word| is_software_word(word)) {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    ApiVersionsResponse {
        api_keys: versions::api_keys(),
        supported_features: vec![ApiVersionsResponseSupportedFeatures {
            name: features::METADATA_VERSION.into(),
            min_version: *features::SUPPORTED.start(),
            max_version: *features::SUPPORTED.end(),
        }],
        finalized_features_epoch: features::EPOCH,
        finalized_features: vec![ApiVersionsResponseFinalizedFeatures {
            name: features::METADATA_VERSION.into(),
            max_version_level: features::FINALIZED,
            min_version_level: features::FINALIZED,
        }],
        ..ApiVersionsResponse::default()
    }
}

/// Kafka's `[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?`.
fn is_software_word(word: &str) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let bytes = word.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric)) && bytes.iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::is_software_word;

    #[test]
    fn software_words_follow_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "4.3.1", "x.y-z9"] {
            assert!(is_software_word(good));
        }
        for bad in ["", "-a", "a.", "a b", "ü"] {
            assert!(!is_software_word(bad));
        }
    }
}
