//! The roles of the binary, and what they share: the store, signals, the agent's parts.

pub mod agent;
mod backups;
mod bucket;
pub mod client;
pub mod cluster;
pub mod doctor;
pub mod health;
pub mod metadata;
mod parts;
mod signals;
pub mod up;
