//! Bytes in, bytes out: the vocabulary of ids and offsets, the object and record-batch formats,
//! the object store behind [`store::Store`], and the caches.
//!
//! # Architecture invariants
//! - This package knows no Kafka API and no Raft.
//! - Only `store::s3` and `store::file` know an object-store SDK.
//! - `model` and `format` are pure: no I/O, no clock, no randomness.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may unwrap; the library build still checks")
)]

pub mod budget;
pub mod cache;
pub mod claim;
pub mod error;
pub mod format;
pub mod model;
pub mod planted;
pub mod probe;
pub mod seam;
pub mod store;
