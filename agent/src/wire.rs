//! The Kafka wire format: the only module that knows API keys, versions and error codes.
//!
//! | module | holds |
//! |---|---|
//! | [`messages`] | every request and response, generated from `messages.txt` by `build.rs` |
//! | [`codec`] | what they are made of: [`Reader`], [`Writer`], [`Str`], [`Records`], [`Uuid`] |
//! | [`frame`] | the first 8 bytes of a request: its limit and its memory pool |
//! | [`header`] | request and response headers, and a response as a vectored frame |
//! | [`produce_walk`], [`fetch_walk`] | Produce and Fetch requests, read in place |
//! | [`versions`] | what this broker advertises and serves |
//! | [`client`] | what a client needs beside the messages |
//! | [`api_key`], [`error_code`] | Kafka's numbers |
//!
//! # Invariants
//! - No count or length from the wire sizes an allocation by itself: it is first bounded by the
//!   bytes that are there, and then charged to the reader's budget.
//! - Decoding never panics and takes time linear in the frame.
//! - Records and strings are slices of the frame; records leave as chunks, never concatenated.
//! - Produce and Fetch requests are walked: they allocate nothing per partition.
//! - What the table of messages can decode is not what is advertised: only [`versions`] says that.

pub mod api_key;
pub mod client;
pub mod codec;
pub mod error_code;
pub mod fetch_walk;
pub mod frame;
pub mod header;
pub mod messages;
pub mod produce_walk;
pub mod versions;
pub mod walk;

pub use api_key::ApiKey;
pub use codec::{DecodeError, Reader, Records, Str, Uuid, Writer};
pub use error_code::ErrorCode;
pub use walk::TopicRef;
