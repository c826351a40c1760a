//! The differential harness: the same scripted requests to Apache Kafka and to Aquifer, and every
//! field of the answers compared.
//!
//! A file of steps per area lies in `tests/differential/`, what Kafka 4.3.1 answered in
//! `tests/differential/recorded/`. [`script`] reads the steps, [`play`] sends them, [`codec`] turns
//! JSON into frames and back by the table of messages, [`normal`] takes out what differs from run
//! to run, and [`compare`] finds what is left.

pub mod batch;
pub mod codec;
pub mod compare;
pub mod judge;
pub mod kafka;
pub mod normal;
pub mod path;
pub mod play;
pub mod recorded;
pub mod schema;
pub mod script;
pub mod variables;

#[cfg(test)]
mod tests;
