//! ApiVersions (18) v0-4: what works here, and nothing else.

use super::{
    Request,
    features::{self, Feature},
};
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

/// The last version in which no range of a feature may begin at 0.
const LAST_WITHOUT_ZERO: i16 = 3;

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
        supported_features: supported(request.version),
        finalized_features_epoch: features::EPOCH,
        finalized_features: features::FEATURES.iter().map(finalized).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Clients that stop at v3 cannot read a range that begins at 0 (KAFKA-17492).
fn supported(version: i16) -> Vec<ApiVersionsResponseSupportedFeatures> {
    let is_readable =
        |feature: &&Feature| LAST_WITHOUT_ZERO < version || 0 < *feature.supported.start();
    let one = |feature: &Feature| ApiVersionsResponseSupportedFeatures {
        name: feature.name.into(),
        min_version: *feature.supported.start(),
        max_version: *feature.supported.end(),
    };
    features::FEATURES.iter().filter(is_readable).map(one).collect()
}

fn finalized(feature: &Feature) -> ApiVersionsResponseFinalizedFeatures {
    ApiVersionsResponseFinalizedFeatures {
        name: feature.name.into(),
        max_version_level: feature.finalized,
        min_version_level: feature.finalized,
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
    use super::*;

    #[test]
    fn a_range_that_begins_at_0_is_told_to_those_who_can_read_it() {
        let names = |version: i16| {
            let told = supported(version);
            told.iter().map(|one| one.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(3), ["metadata.version"]);
        assert_eq!(names(4), ["group.version", "metadata.version"]);
    }

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
