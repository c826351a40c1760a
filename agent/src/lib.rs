//! The Kafka protocol outside, stateless inside.
//!
//! # Architecture invariants
//! - Only [`wire`] knows API keys and error codes.
//! - This library sees only `aquifer_metadata::client`, never the Raft group.
//! - Nothing here reads the environment; the binary does.

pub mod wire;

pub mod session;
pub mod view;

pub mod fetch;
pub mod produce;

pub mod configs;
pub mod placement;
pub mod topic_config;

pub mod admin_http;
pub mod api;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod group_lag;
pub mod metrics;
pub mod server;
pub mod tls;
