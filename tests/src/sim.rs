//! The whole system in one deterministic world.
//!
//! Agents, metadata nodes, log and write path are the real code; the clock, the network, the
//! disks, the bucket and the clients are simulated and drawn from one seed. A run breaks things
//! for a while, puts everything right, waits until it works again, reads everything and checks
//! what clients saw against the laws of [`crate::history`].
//!
//! # Why not turmoil
//! One tokio runtime with a paused clock, instead of one per host that is woken every simulated
//! millisecond: time jumps to the next event, so an idle second costs nothing. Its network resets
//! or loses what a cut link carried; ours holds it back and delivers it late, as TCP does, and
//! late requests are what breaks protocols. What one runtime cannot do is end the tasks that
//! libraries spawned: see [`process`] for why that is not needed.
//!
//! # Determinism
//! The same seed gives the same trace, byte for byte. Everything of ours goes through the seams;
//! tokio's own random choices (fairness of `select!`, wake order of `watch`) are seeded, which
//! needs `--cfg tokio_unstable`. Raft's election time-outs come from the node's seam, too
//! (`aquifer_metadata::raft::runtime`), so it holds for several voters as for one.

pub mod agent;
pub mod aim;
pub mod client;
pub mod disk;
pub mod groups;
pub mod nemesis;
pub mod net;
pub mod node;
pub mod pause;
pub mod process;
pub mod rng;
pub mod store;
pub mod temperament;
pub mod trace;
pub mod world;

pub use world::{Report, RunConfig, run};
