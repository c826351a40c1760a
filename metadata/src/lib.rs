//! Who owns which offsets: the pure state machine, its codec, and what agents see of it.
//!
//! With the feature `server` also the Raft group and the gRPC service around it.
//!
//! # Architecture invariants
//! - `machine` and `codec` are pure: no I/O, no clock, no randomness.
//! - This package never sees a Kafka frame; only `raft` knows the Raft crate.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may unwrap; the library build still checks")
)]

pub mod client;
pub mod codec;
pub mod machine;
pub mod wal;
pub mod watch;

/// The protobuf messages of `proto/aquifer/metadata/v1`.
#[allow(missing_docs, clippy::all, reason = "generated: the comments are in the proto files")]
#[allow(clippy::too_many_lines, reason = "generated")]
pub mod proto {
    tonic::include_proto!("aquifer.metadata.v1");
}

#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod service;
