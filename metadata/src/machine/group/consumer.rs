//! Consumer groups (KIP-848): the coordinator assigns, members reconcile at their own pace.
//!
//! A member says what it subscribes to; whenever that, the members or the topics change, the group
//! is in a new epoch and a target is computed for everybody. Each member's way to its target is its
//! own: it gives up what it shall not keep, says so, and is told the new epoch with what is free.
//!
//! # Invariants
//! - A partition that a member holds, or has to give up, is nobody else's ([`state`]).
//! - What is computed depends on the state and the entry only: replicas agree.

mod assignor;
pub(crate) mod classic;
pub mod command;
mod describe;
pub(crate) mod heartbeat;
mod invariants;
mod kind;
mod migration;
mod offsets;
mod protocol;
pub mod query;
mod re2;
mod reconcile;
pub(crate) mod refusal;
pub(crate) mod settings;
pub(crate) mod state;
mod subscription;
mod target;

#[cfg(test)]
mod tests;

pub use self::command::{AssignedTopic, MemberEpoch};
