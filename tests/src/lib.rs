//! What whole-system tests share: processes under test, client programs, records to compare.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod differential;
pub mod history;
pub mod kafka_tools;
pub mod matrix;
pub mod process;
pub mod raw;
pub mod real;
pub mod record;
pub mod sim;
pub mod stub;
pub mod typed;
