//! What whole-system tests share: processes under test, client programs, records to compare.

pub mod client;
pub mod process;
pub mod record;
