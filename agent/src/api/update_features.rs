//! UpdateFeatures (57) v0-2: all of a request or nothing.

use super::{
    Request,
    features::{self, Direction},
};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            UpdateFeaturesRequest, UpdateFeaturesRequestFeatureUpdates, UpdateFeaturesResponse,
            UpdateFeaturesResponseResults,
        },
    },
};

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    // The id that Metadata calls the controller.
    let controller = broker.nodes().first().map_or(-1, |node| node.node_id.value());
    let check = |update: &UpdateFeaturesRequestFeatureUpdates| {
        let direction = match request.version {
            0 if update.allow_downgrade => Direction::SafeDown,
            0 => Direction::Up,
            _ => Direction::from_wire(update.upgrade_type),
        };
        features::check(&update.feature, update.max_version_level, direction, controller)
    };
    if let Err(why) = body.feature_updates.iter().try_for_each(check) {
        let words = format!(
            "The update failed for all features since the following feature had an error: {why}"
        );
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some(words.into()),
            ..UpdateFeaturesResponse::default()
        };
    }
    // What may be set is set already.
    let done = |update: UpdateFeaturesRequestFeatureUpdates| UpdateFeaturesResponseResults {
        feature: update.feature,
        error_code: ErrorCode::None.code(),
        error_message: Some("NONE".into()),
    };
    UpdateFeaturesResponse {
        error_message: None,
        results: body.feature_updates.into_iter().map(done).collect(),
        ..UpdateFeaturesResponse::default()
    }
}
