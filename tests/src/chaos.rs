//! A whole deployment in real processes, what goes wrong with it, and clients that note every
//! answer.
//!
//! Three metadata nodes, some agents and a store run the release binary, each on a host of its own
//! whose links can be cut one way or both. The clients are those of the simulator, over real
//! sockets, so that a run is judged by the same laws of [`crate::history`].
//!
//! # What is where
//! - [`network`]: hosts and links.
//! - [`lab`]: the processes, and what is done to them.
//! - [`load`]: clients, and the verdict.
//! - [`steady`]: a producer that never rests, whose longest pause is what a fault costs.
//! - [`disk`]: damage to a log or a snapshot.
//! - [`pump`]: fills the metadata log.
//! - [`mix`]: one fault after the other, drawn from a seed.

pub mod disk;
pub mod lab;
pub mod load;
pub mod mix;
pub mod network;
pub mod pump;
pub mod steady;
