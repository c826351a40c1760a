//! Configs of brokers, groups and client metrics [pure]: Kafka's tables of them, how a value is
//! judged, which of several layers a value comes from, and what a request to alter them proposes.
//!
//! The tables are files beside this one; see [`table`]. Topic configs have their own,
//! [`crate::topic_config`], and share the rules and the layers.

pub mod alter;
pub mod documentation;
pub mod group_defaults;
pub mod layers;
pub mod rule;
pub mod table;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
