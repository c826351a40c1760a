//! The vocabulary every package shares: ids and offsets as types, so that two numbers with
//! different meanings cannot be swapped.

pub mod id;
pub mod offset;

pub use id::*;
pub use offset::*;
